//! Recomputes everything.

use std::collections::BTreeMap;

use super::{ENTRY, Head, Log, chain, entry, id_key, index_of_key};
use crate::{
    error::AuditError,
    log::{Entry, Facts},
};

const STRIDE: usize = 1000;
/// Problems of sequence numbers that are told one by one.
const MAX_PROBLEMS: usize = 100;

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Entries that were recomputed, and the chain value after the last.
    pub head: Head,
    /// First entry that does not fit, and why.
    pub bad: Option<(u64, String)>,
    /// Holes and repeats in the numbers of a source.
    pub sequence_problems: Vec<String>,
}

impl Log {
    /// Recomputes the chain over all entries that are durable now, and checks the deduplication index, the head, and the
    /// numbers of each source. Bounded memory; appends go on meanwhile.
    ///
    /// # Errors
    /// The store's own; what does not fit is in the report.
    pub fn verify(
        &self,
        identify: impl Fn(&Entry) -> Result<([u8; 16], Facts), AuditError>,
    ) -> Result<Report, AuditError> {
        let known = self.head();
        let mut report = Report {
            head: Head::empty(),
            bad: None,
            sequence_problems: Vec::new(),
        };
        let mut sequences: BTreeMap<String, u64> = BTreeMap::new();
        let bad = |mut report: Report, index: u64, problem: &str| {
            report.bad = Some((index, problem.to_owned()));
            Ok(report)
        };
        while report.head.size < known.size {
            let stored = self
                .records
                .scan(&super::entry_key(report.head.size), &[ENTRY], STRIDE)?;
            if stored.is_empty() {
                let index = report.head.size;
                return bad(report, index, "the entry is missing");
            }
            for (key, value) in &stored {
                let index = report.head.size;
                if index == known.size {
                    break;
                }
                if index_of_key(key)? != index {
                    return bad(report, index, "the entry is missing");
                }
                let Ok(entry) = entry::decode(index, value) else {
                    return bad(report, index, "the entry cannot be read");
                };
                let computed = chain(&report.head.chain, &value[32..]);
                if computed != entry.chain {
                    return bad(
                        report,
                        index,
                        "the chain value does not fit the entry and the one before it",
                    );
                }
                let Ok((id, facts)) = identify(&entry) else {
                    return bad(report, index, "the event cannot be read");
                };
                if self.records.get(&id_key(&id))? != Some(index.to_be_bytes().to_vec()) {
                    return bad(report, index, "the event id is not indexed to this entry");
                }
                check_sequence(&mut sequences, &facts, &mut report.sequence_problems);
                report.head = Head {
                    size: index + 1,
                    chain: computed,
                };
            }
        }
        if report.head != known {
            let index = known.size.saturating_sub(1);
            return bad(
                report,
                index,
                "the head of the log is not what its entries amount to",
            );
        }
        Ok(report)
    }
}

/// Each source counts without holes, and its events come in order.
fn check_sequence(sequences: &mut BTreeMap<String, u64>, facts: &Facts, problems: &mut Vec<String>) {
    let last = sequences.entry(facts.source.clone()).or_insert(0);
    let (source, sequence) = (&facts.source, facts.source_sequence);
    let problem = if sequence <= *last {
        Some(format!("{source}: {sequence} comes after {last}"))
    } else if sequence > *last + 1 {
        Some(format!("{source}: {} missing after {last}", *last + 1))
    } else {
        None
    };
    *last = sequence.max(*last);
    problems.extend(problem.filter(|_| problems.len() < MAX_PROBLEMS));
}
