//! Finding entries by facts, through indexes.

use asterism_crypto::Digest;

use super::{FACT, Log, be_u64, entry::Facts};
use crate::{error::AuditError, log::Entry};

/// Index records looked at in one go.
const STRIDE: usize = 1000;

/// Which entries; empty fields match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Who asked.
    pub principal: String,
    /// Service that reported.
    pub source: String,
    /// What was asked for.
    pub operation: String,
    /// About what.
    pub resource: String,
    /// How it ended, as the number on the wire; 0 matches everything.
    pub outcome: i32,
    /// Of the trace.
    pub trace_id: String,
    /// Milliseconds since 1970, inclusive.
    pub from_ms: Option<u64>,
    /// Milliseconds since 1970, exclusive.
    pub until_ms: Option<u64>,
}

impl Filter {
    /// Whether an event with these facts is wanted.
    pub fn matches(&self, facts: &Facts) -> bool {
        let same = |wanted: &str, actual: &str| wanted.is_empty() || wanted == actual;
        same(&self.principal, &facts.principal)
            && same(&self.source, &facts.source)
            && same(&self.operation, &facts.operation)
            && same(&self.resource, &facts.resource)
            && same(&self.trace_id, &facts.trace_id)
            && (self.outcome == 0 || self.outcome == facts.outcome)
            && self.from_ms.is_none_or(|from| facts.occurred_at_ms >= from)
            && self.until_ms.is_none_or(|until| facts.occurred_at_ms < until)
    }

    /// Identifies the filter, so that a page token is not used with another.
    pub fn digest(&self) -> Digest {
        Digest::of(format!("{self:?}").as_bytes())
    }

    /// The index that leaves fewest entries to look at, as a rule.
    fn index(&self) -> Option<Vec<u8>> {
        let by = [
            (b't', self.trace_id.as_str()),
            (b'r', self.resource.as_str()),
            (b'p', self.principal.as_str()),
            (b'o', self.operation.as_str()),
            (b's', self.source.as_str()),
        ];
        let text = by.into_iter().find(|(_, value)| !value.is_empty());
        match text {
            Some((kind, value)) => Some(fact_prefix(kind, value)),
            None if self.outcome != 0 => Some(fact_prefix(b'u', &self.outcome.to_string())),
            None => None,
        }
    }
}

/// Some matching entries, and where to look on.
#[derive(Debug)]
pub struct Page {
    /// In order.
    pub entries: Vec<Entry>,
    /// First index that was not looked at; `None` at the end of the log.
    pub next: Option<u64>,
}

impl Log {
    /// Entries that match, from index `from` on, at most `limit`; `facts_of` reads an event's facts.
    ///
    /// # Errors
    /// [`AuditError::Damaged`]
    pub fn find(
        &self,
        filter: &Filter,
        from: u64,
        limit: usize,
        facts_of: impl Fn(&Entry) -> Result<Facts, AuditError>,
    ) -> Result<Page, AuditError> {
        let mut entries = Vec::new();
        let mut from = from;
        loop {
            let candidates = match filter.index() {
                Some(prefix) => self.indexed(&prefix, from)?,
                None => self.entries(from, STRIDE)?,
            };
            let Some(last) = candidates.last().map(|entry| entry.index) else {
                return Ok(Page { entries, next: None });
            };
            for entry in candidates {
                if filter.matches(&facts_of(&entry)?) {
                    if entries.len() == limit {
                        return Ok(Page {
                            entries,
                            next: Some(entry.index),
                        });
                    }
                    entries.push(entry);
                }
            }
            from = last + 1;
        }
    }

    fn indexed(&self, prefix: &[u8], from: u64) -> Result<Vec<Entry>, AuditError> {
        let start = [prefix, from.to_be_bytes().as_slice()].concat();
        let keys = self.records.scan(&start, prefix, STRIDE)?;
        keys.iter()
            .map(|(key, _)| {
                let index = key
                    .get(prefix.len()..)
                    .and_then(be_u64)
                    .ok_or(AuditError::Damaged("fact key"))?;
                self.entry(index)
            })
            .collect()
    }
}

/// The index records of an entry.
pub(super) fn fact_keys(facts: &Facts, index: u64) -> Vec<Vec<u8>> {
    let outcome = facts.outcome.to_string();
    let by = [
        (b't', facts.trace_id.as_str()),
        (b'r', facts.resource.as_str()),
        (b'p', facts.principal.as_str()),
        (b'o', facts.operation.as_str()),
        (b's', facts.source.as_str()),
        (b'u', outcome.as_str()),
    ];
    by.iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(kind, value)| [fact_prefix(*kind, value).as_slice(), &index.to_be_bytes()].concat())
        .collect()
}

fn fact_prefix(kind: u8, value: &str) -> Vec<u8> {
    let digest = Digest::of(value.as_bytes());
    [&[FACT, kind], &digest.as_bytes()[..16]].concat()
}
