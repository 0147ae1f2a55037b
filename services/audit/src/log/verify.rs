//! Recomputes everything.

use super::{
    Log,
    append::{Sequences, stored_sequences},
    entry,
    event::{Facts, Source},
    head::Head,
    keys,
};
use crate::error::AuditError;

/// Records that are looked at in one go.
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
    /// Holes and repeats in the numbers of a source. Not the log's fault, and so no reason to call it bad.
    pub sequence_problems: Vec<String>,
}

/// How far a verification got.
struct Walk {
    head: Head,
    /// What must be there because of the entries so far: records of event ids equal the entries.
    facets: u64,
    sequences: Sequences,
    problems: Vec<String>,
}

/// Why a verification ended early.
enum Stop {
    Bad(u64, String),
    Error(AuditError),
}

impl<E: Into<AuditError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl Log {
    /// Recomputes the chain over all entries that are durable now, and holds the records of event ids and facets, the head
    /// and the numbers of each source against them. Bounded memory; appends go on meanwhile.
    ///
    /// # Errors
    /// The store's own; what does not fit is in the report.
    pub fn verify(&self) -> Result<Report, AuditError> {
        self.open_size()?;
        let known = self.head();
        let mut walk = Walk {
            head: Head::empty(),
            facets: 0,
            sequences: Sequences::default(),
            problems: vec![],
        };
        let bad = match self.verify_all(&known, &mut walk) {
            Ok(()) => None,
            Err(Stop::Bad(index, problem)) => Some((index, problem)),
            Err(Stop::Error(error)) => return Err(error),
        };
        Ok(Report {
            head: walk.head,
            bad,
            sequence_problems: walk.problems,
        })
    }

    fn verify_all(&self, known: &Head, walk: &mut Walk) -> Result<(), Stop> {
        while walk.head.size < known.size {
            let stored = self
                .records
                .scan(&keys::entry(walk.head.size), &[keys::ENTRY], STRIDE)?;
            if stored.is_empty() {
                return Err(bad(walk.head.size, "the entry is missing"));
            }
            for (key, value) in stored {
                if walk.head.size == known.size {
                    break;
                }
                if key != keys::entry(walk.head.size) {
                    return Err(bad(walk.head.size, "the entry is missing"));
                }
                self.verify_entry(walk, &value)?;
            }
        }
        self.verify_head(known, walk)?;
        self.verify_ids(known)?;
        self.verify_facets(known, walk)?;
        self.verify_sequences(known, walk)
    }

    fn verify_entry(&self, walk: &mut Walk, value: &[u8]) -> Result<(), Stop> {
        let index = walk.head.size;
        let Ok((stored, bytes)) = entry::split(index, value) else {
            return Err(bad(index, "the entry is cut short"));
        };
        let chain = entry::chain(&walk.head.chain, bytes);
        if chain != stored {
            return Err(bad(
                index,
                "the chain value does not fit the entry and the one before it",
            ));
        }
        let Ok(entry) = entry::decode(index, value) else {
            return Err(bad(index, "the entry cannot be read"));
        };
        let facts = entry.event.facts();
        if self.records.get(&keys::id(&facts.id))?.as_deref() != Some(&index.to_be_bytes()) {
            return Err(bad(index, "the event id does not lead to this entry"));
        }
        for prefix in keys::facets(facts) {
            if self.records.get(&keys::facet(&prefix, index))?.is_none() {
                return Err(bad(index, "the entry is missing from an index"));
            }
            walk.facets += 1;
        }
        walk.count(facts);
        walk.head = Head {
            size: index + 1,
            chain,
        };
        if self
            .note
            .last()
            .is_some_and(|noted| noted.size == index + 1 && noted.chain != chain)
        {
            return Err(bad(index, "the chain value is not the one that head.json notes"));
        }
        Ok(())
    }

    fn verify_head(&self, known: &Head, walk: &Walk) -> Result<(), Stop> {
        let last = known.size.saturating_sub(1);
        if walk.head != *known {
            return Err(bad(last, "the entries do not amount to the head of the log"));
        }
        let furthest = self.records.scan_back(None, &[keys::ENTRY], 1)?;
        let stored = Head::stored(&*self.records);
        // Looked at after what it bounds.
        let (durable, submitted) = {
            let state = self.state();
            (state.durable, state.submitted())
        };
        let furthest = furthest.first().and_then(|(key, _)| keys::trailing_index(key));
        if furthest.is_some_and(|index| index >= submitted) {
            return Err(bad(submitted, "there are entries beyond the head of the log"));
        }
        match stored {
            Ok(stored) if stored == *known || stored == durable => Ok(()),
            // Appends went on meanwhile.
            Ok(stored) if known.size < stored.size && stored.size <= submitted => Ok(()),
            _ => Err(bad(last, "the record of the head is not the head of the log")),
        }
    }

    /// Every entry's event id leads to it: so with as many records as entries, none leads astray.
    fn verify_ids(&self, known: &Head) -> Result<(), Stop> {
        let mut count = 0;
        let mut beyond = None;
        self.each(keys::ID, |_, value| {
            match keys::number(value) {
                Some(index) if index < known.size => count += 1,
                index => beyond = beyond.max(Some(index.unwrap_or(u64::MAX))),
            }
            Ok(())
        })?;
        if beyond.is_some_and(|index| index >= self.state().submitted()) {
            return Err(bad(known.size, "an event id leads beyond the log"));
        }
        if count == known.size {
            return Ok(());
        }
        let mut first = known.size;
        self.each(keys::ID, |key, value| {
            let index = keys::number(value).unwrap_or(u64::MAX);
            if index < first && key.get(1..) != Some(self.entry(index)?.event.facts().id.as_bytes()) {
                first = index;
            }
            Ok(())
        })?;
        Err(bad(first, "another event id leads to this entry"))
    }

    /// As for event ids: every entry's facets are there, so with as many records none leads astray.
    fn verify_facets(&self, known: &Head, walk: &Walk) -> Result<(), Stop> {
        let mut count = 0;
        self.each(keys::FACET, |key, _| {
            count += u64::from(keys::trailing_index(key).is_some_and(|index| index < known.size));
            Ok(())
        })?;
        if count == walk.facets {
            return Ok(());
        }
        let mut first = known.size;
        self.each(keys::FACET, |key, _| {
            let index = keys::trailing_index(key).unwrap_or(u64::MAX);
            if index < first {
                let entry = self.entry(index)?;
                if !keys::facets(entry.event.facts()).any(|prefix| key == keys::facet(&prefix, index)) {
                    first = index;
                }
            }
            Ok(())
        })?;
        Err(bad(first, "an index leads to this entry that does not fit it"))
    }

    fn verify_sequences(&self, known: &Head, walk: &mut Walk) -> Result<(), Stop> {
        let stored = stored_sequences(&*self.records).unwrap_or_default();
        let moved_on = self.state().submitted() > known.size;
        for source in Source::ALL {
            let (told, seen) = (stored[source as usize], walk.sequences[source as usize]);
            if told < seen || told > seen && !moved_on {
                walk.problem(format!(
                    "{source}: {told} is recorded as the last number, and the log has {seen}"
                ));
            }
        }
        Ok(())
    }

    /// Every record of a kind.
    fn each(
        &self,
        kind: u8,
        mut look: impl FnMut(&[u8], &[u8]) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        let mut from = vec![kind];
        loop {
            let records = self.records.scan(&from, &[kind], STRIDE)?;
            for (key, value) in &records {
                look(key, value)?;
            }
            match records.into_iter().next_back() {
                Some((last, _)) => {
                    from = last;
                    from.push(0);
                }
                None => return Ok(()),
            }
        }
    }
}

impl Walk {
    /// Each source counts without holes, and its events come in order.
    fn count(&mut self, facts: &Facts) {
        let (source, sequence) = (facts.source, facts.source_sequence);
        let last = self.sequences[source as usize];
        if sequence <= last {
            self.problem(format!("{source}: {sequence} comes after {last}"));
        } else if sequence > last + 1 {
            let missing = match sequence - last - 1 {
                1 => (last + 1).to_string(),
                _ => format!("{} to {}", last + 1, sequence - 1),
            };
            self.problem(format!("{source}: {missing} missing after {last}"));
        }
        self.sequences[source as usize] = sequence.max(last);
    }

    fn problem(&mut self, problem: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }
}

fn bad(index: u64, problem: &str) -> Stop {
    Stop::Bad(index, problem.to_owned())
}
