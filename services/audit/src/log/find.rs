//! Finding entries by facts, through indexes.

use std::{fmt, str::FromStr};

use asterism_crypto::{Digest, DigestWriter};

use super::{
    Entry, Log,
    event::{Facts, Outcome, Source, Timestamp},
    keys::{self, FacetPrefix},
};
use crate::error::AuditError;

/// Index records that are looked at in one go.
const STRIDE: usize = 256;
/// Entries that one page looks at, at most: what a filter by time alone, or by facts that hardly ever meet, may cost.
const MAX_LOOKED_AT: usize = 20_000;

/// Which entries; what is empty or unset matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Who asked.
    pub principal: String,
    /// Who reported.
    pub source: Option<Source>,
    /// What was asked for.
    pub operation: String,
    /// About what.
    pub resource: String,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Of the trace.
    pub trace_id: String,
    /// Occurred then or later.
    pub from: Option<Timestamp>,
    /// Occurred before.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Whether such an event is wanted.
    pub fn matches(&self, facts: &Facts) -> bool {
        let same = |wanted: &str, actual: &str| wanted.is_empty() || wanted == actual;
        same(&self.principal, &facts.principal)
            && same(&self.operation, &facts.operation)
            && same(&self.resource, &facts.resource)
            && same(&self.trace_id, &facts.trace_id)
            && self.source.is_none_or(|source| source == facts.source)
            && self.outcome.is_none_or(|outcome| outcome == facts.outcome)
            && self.from.is_none_or(|from| facts.occurred_at >= from)
            && self.until.is_none_or(|until| facts.occurred_at < until)
    }

    /// The same for equal filters, and for no others.
    fn digest(&self) -> Digest {
        let mut writer = DigestWriter::new();
        for text in [&self.principal, &self.operation, &self.resource, &self.trace_id] {
            writer.update(&(text.len() as u64).to_be_bytes());
            writer.update(text.as_bytes());
        }
        writer.update(&[self.source.map_or(0, |source| source as u8 + 1)]);
        writer.update(&[self.outcome.map_or(0, |outcome| outcome as u8 + 1)]);
        for moment in [self.from, self.until] {
            writer.update(&[u8::from(moment.is_some())]);
            writer.update(&moment.map_or(0, Timestamp::seconds).to_be_bytes());
            writer.update(&moment.map_or(0, Timestamp::nanos).to_be_bytes());
        }
        writer.finish()
    }

    fn facets(&self) -> Vec<FacetPrefix> {
        let texts = [
            &*self.trace_id,
            &*self.resource,
            &*self.principal,
            &*self.operation,
        ];
        keys::wanted(texts, self.source, self.outcome).collect()
    }
}

/// Where the next page begins, and of which filter. Opaque to callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken {
    next: u64,
    /// First 8 bytes of the filter's digest.
    filter: u64,
}

impl PageToken {
    /// The page of `filter` that begins at index `next`.
    pub fn new(next: u64, filter: &Filter) -> Self {
        Self {
            next,
            filter: mark(filter),
        }
    }

    /// Where the page begins.
    ///
    /// # Errors
    /// [`AuditError::Field`] when the token is another filter's.
    pub fn resume(&self, filter: &Filter) -> Result<u64, AuditError> {
        if self.filter == mark(filter) {
            Ok(self.next)
        } else {
            Err(bad_token())
        }
    }
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.next, self.filter)
    }
}

impl FromStr for PageToken {
    type Err = AuditError;

    fn from_str(text: &str) -> Result<Self, AuditError> {
        let hex = text.len() == 32
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let (next, filter) = text.split_at_checked(16).filter(|_| hex).ok_or_else(bad_token)?;
        let number = |digits| u64::from_str_radix(digits, 16).map_err(|_| bad_token());
        Ok(Self {
            next: number(next)?,
            filter: number(filter)?,
        })
    }
}

fn mark(filter: &Filter) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *filter.digest().as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn bad_token() -> AuditError {
    AuditError::field(
        "page_token",
        "must be one that ListEvents gave for this very filter",
    )
}

/// Some matching entries, and where to look on.
#[derive(Debug)]
pub struct Page {
    /// In order.
    pub entries: Vec<Entry>,
    /// Where the next page begins; `None` when everything below `size` was looked at. There may be one although this page is
    /// short, when much was looked at in vain.
    pub next: Option<u64>,
    /// Durable entries when this page was made.
    pub size: u64,
}

impl Log {
    /// Durable entries that match, from index `from` on, at most `limit`.
    ///
    /// # Errors
    /// [`AuditError::Damaged`], and the store's own.
    pub fn find(&self, filter: &Filter, from: u64, limit: usize) -> Result<Page, AuditError> {
        let size = self.open_size()?;
        let facets = filter.facets();
        let mut page = Page {
            entries: Vec::new(),
            next: None,
            size,
        };
        let mut from = from;
        let mut looked_at = 0;
        while from < size {
            let (candidates, reach) = self.candidates(&facets, from, size)?;
            looked_at += candidates.len();
            for entry in candidates {
                if filter.matches(entry.event.facts()) {
                    if page.entries.len() == limit {
                        page.next = Some(entry.index);
                        return Ok(page);
                    }
                    page.entries.push(entry);
                }
            }
            from = reach;
            if looked_at >= MAX_LOOKED_AT && from < size {
                page.next = Some(from);
                break;
            }
        }
        Ok(page)
    }

    /// Entries from `from` on among which are all that have these facets, up to the index that is given besides.
    fn candidates(
        &self,
        facets: &[FacetPrefix],
        from: u64,
        size: u64,
    ) -> Result<(Vec<Entry>, u64), AuditError> {
        // Of all facets, the rarest: so many records of it reach furthest.
        let mut best: Option<(Vec<u64>, u64)> = None;
        for prefix in facets {
            let (indexes, reach) = self.indexed(prefix, from, size)?;
            if best.as_ref().is_none_or(|(fewest, furthest)| {
                reach > *furthest || reach == *furthest && indexes.len() < fewest.len()
            }) {
                best = Some((indexes, reach));
            }
        }
        match best {
            Some((indexes, reach)) => {
                let entries: Result<_, _> = indexes.into_iter().map(|index| self.entry(index)).collect();
                Ok((entries?, reach))
            }
            None => {
                let entries = self.range(from, size, STRIDE)?;
                let reach = from + entries.len() as u64;
                Ok((entries, reach))
            }
        }
    }

    /// Indexes below `size` with this facet, and the index up to which these are all.
    fn indexed(&self, prefix: &FacetPrefix, from: u64, size: u64) -> Result<(Vec<u64>, u64), AuditError> {
        let keys = self.records.scan(&keys::facet(prefix, from), prefix, STRIDE)?;
        let complete = keys.len() < STRIDE;
        let indexes: Option<Vec<u64>> = keys.iter().map(|(key, _)| keys::number(key.get(18..)?)).collect();
        let mut indexes = indexes.ok_or_else(|| AuditError::damaged("an index record cannot be read"))?;
        indexes.retain(|index| *index < size);
        let reach = match indexes.last() {
            Some(last) if !complete && indexes.len() == STRIDE => last + 1,
            _ => size,
        };
        Ok((indexes, reach))
    }
}
