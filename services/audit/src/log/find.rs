//! Finding entries by facts, through indexes.

use std::{fmt, str::FromStr};

use asterism_crypto::{Digest, DigestWriter};

use super::{
    Entry, Log,
    event::{Facts, Outcome, Source, Timestamp},
    keys::{self, Term},
    missing, pack, read,
};
use crate::error::AuditError;

/// Entries that are looked at in one go, where no index helps.
const STRIDE: usize = 256;
/// Runs of the index that one page asks, at most.
const MAX_RUNS: usize = 2048;
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

    fn terms(&self) -> Vec<Term> {
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
        let terms = filter.terms();
        let mut search = Search {
            filter,
            limit,
            looked_at: 0,
            page: Page {
                entries: Vec::new(),
                next: None,
                size,
            },
        };
        let mut from = from;
        let mut runs = 0;
        while from < size && search.page.next.is_none() {
            if search.looked_at >= MAX_LOOKED_AT || runs >= MAX_RUNS {
                search.page.next = Some(from);
                break;
            }
            if terms.is_empty() {
                let entries = self.range(from, size, STRIDE)?;
                from += entries.len() as u64;
                search.look_at_all(entries);
            } else {
                let (candidates, reach) = self.index.find(&*self.records, &terms, from, size)?;
                self.look_at(&mut search, &candidates)?;
                from = reach;
                runs += 1;
            }
        }
        Ok(search.page)
    }

    /// Looks at the candidates until the page is full.
    fn look_at(&self, search: &mut Search<'_>, candidates: &[u64]) -> Result<(), AuditError> {
        let mut candidates = candidates.iter().copied().peekable();
        while let Some(candidate) = candidates.peek().copied() {
            let (first, record) = read::record(&*self.records, candidate)?;
            let packed = pack::unpack(first, &record).map_err(read::altered)?;
            let end = first + packed.len() as u64;
            if candidate >= end {
                return Err(missing(candidate));
            }
            while let Some(index) = candidates.next_if(|index| *index < end) {
                if search.looked_at >= MAX_LOOKED_AT {
                    search.page.next = Some(index);
                    return Ok(());
                }
                let (entry, _) = packed[(index - first) as usize]
                    .entry()
                    .ok_or_else(|| read::altered(index))?;
                if !search.look_at(entry) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// A page in the making.
struct Search<'a> {
    filter: &'a Filter,
    limit: usize,
    looked_at: usize,
    page: Page,
}

impl Search<'_> {
    /// Whether there is room for more.
    fn look_at(&mut self, entry: Entry) -> bool {
        self.looked_at += 1;
        if self.filter.matches(entry.event.facts()) {
            if self.page.entries.len() == self.limit {
                self.page.next = Some(entry.index);
                return false;
            }
            self.page.entries.push(entry);
        }
        true
    }

    fn look_at_all(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            if !self.look_at(entry) {
                return;
            }
        }
    }
}
