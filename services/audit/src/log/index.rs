//! What entries are found by: their terms (`keys.rs`), inverted.
//!
//! The index is made from the entries, in runs of 65 536 of them that are written when they are full; what came since the last
//! run is kept in memory, and read again from the entries at a start. So an append writes nothing for it, and a query asks each
//! run once.
//!
//! ```text
//! 'X' first index of the run, term 5, offset 4 -> postings from this one on, ordered by term and offset
//! posting: 0x01, term 5, offset     the first of its term in the record
//!          offset << 1              more of the same term; the difference to the one before
//! ```
//! Offsets are from the first index of the run, and varints in the value.

use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use asterism_store::{Batch, Records, records::Record};

use super::{
    event::Facts,
    keys::{self, Term},
    varint::{self, Reader},
};
use crate::error::AuditError;

/// Entries of a run; few in tests, so that they see many runs.
pub(super) const RUN: u64 = if cfg!(test) { 64 } else { 1 << 16 };
/// Most bytes of a record. sled reads some ten records to give one, and a query asks every run for one: short ones are read
/// sooner, when they are not in memory.
const RECORD_BYTES: usize = 1024;
const NEW_TERM: u8 = 1;
const TERM_BYTES: usize = 5;

/// A term, and an entry by its offset in the run.
pub(super) type Posting = (Term, u32);

/// The index of a log.
pub(super) struct Index {
    tail: RwLock<Tail>,
    /// A run is being written.
    writing: Mutex<()>,
}

/// What is in no run yet.
struct Tail {
    /// Where it begins; what is before is in runs.
    start: u64,
    /// In the order of the entries.
    postings: Vec<(u32, Term)>,
}

impl Index {
    /// Where the stored runs end, and the tail begins, still empty.
    ///
    /// # Errors
    /// [`AuditError::Damaged`] when a run goes beyond `size`.
    pub(super) fn open(records: &dyn Records, size: u64) -> Result<Self, AuditError> {
        let last = records.scan_back(None, &[keys::INDEX], 1)?.pop();
        let start = match last {
            Some((key, _)) => keys::number(&key)
                .and_then(|start| start.checked_add(RUN))
                .filter(|start| *start <= size && start % RUN == 0)
                .ok_or_else(unreadable)?,
            None => 0,
        };
        let tail = Tail {
            start,
            postings: vec![],
        };
        Ok(Self {
            tail: RwLock::new(tail),
            writing: Mutex::new(()),
        })
    }

    /// Where the runs end.
    pub(super) fn start(&self) -> u64 {
        self.tail().start
    }

    /// Entries that follow those that came before.
    pub(super) fn push<'a>(&self, entries: impl Iterator<Item = (u64, &'a Facts)>) {
        let mut tail = self.tail_mut();
        for (index, facts) in entries {
            let offset = (index - tail.start) as u32;
            tail.postings
                .extend(keys::terms(facts).map(|term| (offset, term)));
        }
    }

    /// Forgets the entries from `size` on, which never arrived.
    pub(super) fn truncate(&self, size: u64) {
        let mut tail = self.tail_mut();
        let (start, kept) = (tail.start, size);
        let keep = tail
            .postings
            .partition_point(|(offset, _)| start + u64::from(*offset) < kept);
        tail.postings.truncate(keep);
    }

    /// Writes the runs that `durable` entries fill.
    ///
    /// # Errors
    /// The store's own; the tail then stays what it is.
    pub(super) fn write_runs(&self, records: &dyn Records, durable: u64) -> Result<(), AuditError> {
        loop {
            if durable < self.start() + RUN {
                return Ok(());
            }
            // Somebody else sees to it.
            let Ok(_writing) = self.writing.try_lock() else {
                return Ok(());
            };
            let (start, postings) = {
                let tail = self.tail();
                (tail.start, tail.first_run())
            };
            if durable < start + RUN {
                return Ok(());
            }
            let mut batch = Batch::new();
            for (key, value) in encode(start, postings) {
                batch = batch.put(key, value);
            }
            records.commit(batch)?;
            self.tail_mut().drop_first_run();
        }
    }

    /// Indexes from `from` on that have all of these terms, in order, and the index up to which these are all. At least one
    /// term; `from < size`.
    pub(super) fn find(
        &self,
        records: &dyn Records,
        terms: &[Term],
        from: u64,
        size: u64,
    ) -> Result<(Vec<u64>, u64), AuditError> {
        let (start, end, lists) = {
            let tail = self.tail();
            if from >= tail.start {
                let lists: Vec<_> = terms.iter().map(|term| tail.list(*term, from)).collect();
                (tail.start, size, lists)
            } else {
                drop(tail);
                let start = from / RUN * RUN;
                let offset = (from - start) as u32;
                let mut lists = Vec::with_capacity(terms.len());
                for term in terms {
                    let list = list(records, start, *term, offset)?;
                    let none = list.is_empty();
                    lists.push(list);
                    if none {
                        break;
                    }
                }
                (start, size.min(start + RUN), lists)
            }
        };
        let found = intersect(lists)
            .into_iter()
            .map(|offset| start + u64::from(offset));
        Ok((found.take_while(|index| *index < end).collect(), end))
    }

    fn tail(&self) -> RwLockReadGuard<'_, Tail> {
        self.tail.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tail_mut(&self) -> RwLockWriteGuard<'_, Tail> {
        self.tail.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    fn end_of_first_run(&self) -> usize {
        self.postings
            .partition_point(|(offset, _)| u64::from(*offset) < RUN)
    }

    fn first_run(&self) -> Vec<Posting> {
        let run = &self.postings[..self.end_of_first_run()];
        run.iter().map(|(offset, term)| (*term, *offset)).collect()
    }

    fn drop_first_run(&mut self) {
        self.postings.drain(..self.end_of_first_run());
        for (offset, _) in &mut self.postings {
            *offset -= RUN as u32;
        }
        self.start += RUN;
    }

    /// Offsets of a term, of entries from `from` on.
    fn list(&self, term: Term, from: u64) -> Vec<u32> {
        let first = self
            .postings
            .partition_point(|(offset, _)| self.start + u64::from(*offset) < from);
        let postings = self.postings[first..].iter();
        postings
            .filter(|(_, other)| *other == term)
            .map(|(offset, _)| *offset)
            .collect()
    }
}

/// Offsets from `from` on of a term in a stored run.
fn list(records: &dyn Records, run: u64, term: Term, from: u32) -> Result<Vec<u32>, AuditError> {
    let prefix = keys::run(run);
    let before = keys::after(&keys::postings(run, term, from));
    let mut list = Vec::new();
    let mut waiting = records.scan_back(Some(&before), &prefix, 1)?;
    if waiting.is_empty() {
        waiting = records.scan(&prefix, &prefix, 1)?;
    }
    while let Some((key, value)) = waiting.pop() {
        let postings = decode(&value).ok_or_else(unreadable)?;
        let first = postings.partition_point(|posting| *posting < (term, from));
        let mine = postings[first..].iter().take_while(|(other, _)| *other == term);
        list.extend(mine.map(|(_, offset)| *offset));
        if postings.last().is_some_and(|(last, _)| *last > term) {
            break;
        }
        waiting = records.scan(&keys::after(&key), &prefix, 1)?;
    }
    Ok(list)
}

/// What is in all lists.
fn intersect(mut lists: Vec<Vec<u32>>) -> Vec<u32> {
    lists.sort_by_key(Vec::len);
    let mut lists = lists.into_iter();
    let mut common = lists.next().unwrap_or_default();
    for list in lists {
        let mut others = list.into_iter().peekable();
        common.retain(|offset| {
            while others.next_if(|other| other < offset).is_some() {}
            others.peek() == Some(offset)
        });
    }
    common
}

/// The records of a run.
pub(super) fn encode(run: u64, mut postings: Vec<Posting>) -> Vec<Record> {
    postings.sort_unstable();
    // Two facets of an entry may have one term.
    postings.dedup();
    let mut records: Vec<Record> = Vec::new();
    let mut last: Option<Posting> = None;
    for (term, offset) in postings {
        let room = records
            .last()
            .is_some_and(|(_, value)| value.len() + 1 + TERM_BYTES + 5 <= RECORD_BYTES);
        if !room {
            let key = keys::postings(run, term, offset).to_vec();
            records.push((key, Vec::with_capacity(RECORD_BYTES)));
            last = None;
        }
        let Some((_, value)) = records.last_mut() else {
            continue;
        };
        match last {
            Some((same, before)) if same == term => {
                varint::put(value, u64::from(offset - before) << 1);
            }
            _ => {
                value.push(NEW_TERM);
                value.extend_from_slice(&term.to_be_bytes()[8 - TERM_BYTES..]);
                varint::put(value, offset.into());
            }
        }
        last = Some((term, offset));
    }
    records
}

/// The postings of a record, in order; `None` when it is none.
pub(super) fn decode(value: &[u8]) -> Option<Vec<Posting>> {
    let mut reader = Reader(value);
    let mut postings: Vec<Posting> = Vec::with_capacity(value.len() / 4);
    while !reader.is_empty() {
        let last = postings.last().copied();
        let posting = if reader.0[0] == NEW_TERM {
            reader.byte()?;
            let [a, b, c, d, e] = *reader.array::<TERM_BYTES>()?;
            let term = u64::from_be_bytes([0, 0, 0, a, b, c, d, e]);
            (term, u32::try_from(reader.number()?).ok()?)
        } else {
            let step = reader.number()?;
            let (term, before) = last?;
            if step & 1 == 1 {
                return None;
            }
            (term, before.checked_add(u32::try_from(step >> 1).ok()?)?)
        };
        if last.is_some_and(|last| last >= posting) {
            return None;
        }
        postings.push(posting);
    }
    Some(postings)
}

fn unreadable() -> AuditError {
    AuditError::damaged("a record of the index cannot be read")
}

#[cfg(test)]
mod tests {
    use asterism_store::MemoryRecords;
    use proptest::prelude::*;

    use super::*;

    fn postings() -> impl Strategy<Value = Vec<Posting>> {
        // Few terms, so that lists cross records; and many.
        let term = prop_oneof![0..3_u64, 0..(1_u64 << 40)];
        prop::collection::vec((term, 0..1_u32 << 16), 0..6000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_run_reads_back_as_it_was_written_and_every_list_is_found(postings in postings(), from in 0..1_u32 << 16) {
            let mut sorted = postings.clone();
            sorted.sort_unstable();
            sorted.dedup();
            let stored = encode(RUN, postings);
            let read: Vec<_> = stored.iter().flat_map(|(_, value)| decode(value).unwrap()).collect();
            prop_assert_eq!(&read, &sorted);
            let records = MemoryRecords::new();
            for (key, value) in stored {
                prop_assert!(value.len() <= RECORD_BYTES);
                records.commit(Batch::new().put(key, value)).unwrap();
            }
            for term in [0, 1, 2, 3, sorted.last().map_or(9, |(term, _)| *term)] {
                let expected: Vec<u32> = sorted.iter().filter(|(t, offset)| *t == term && *offset >= from).map(|(_, o)| *o).collect();
                prop_assert_eq!(list(&records, RUN, term, from).unwrap(), expected);
            }
            prop_assert!(list(&records, 0, 1, 0).unwrap().is_empty());
        }

        #[test]
        fn lists_meet_where_all_have_the_same(
            lists in prop::collection::vec(prop::collection::btree_set(0..60_u32, 0..50), 1..4),
        ) {
            let expected: Vec<u32> = (0..60).filter(|n| lists.iter().all(|list| list.contains(n))).collect();
            let lists = lists.into_iter().map(|list| list.into_iter().collect()).collect();
            prop_assert_eq!(intersect(lists), expected);
        }
    }
}
