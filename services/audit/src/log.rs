//! The log: entries in order, a Merkle tree over them, and an index to find them by.
//!
//! The rules, and where they are upheld: an index is given out once, and told only when its entry is durable (`append.rs`); an
//! entry, its event id and the head after it are written in one batch that expects the head before it (`append.rs`); nobody
//! reads an entry that is not durable ([`Log::entries`], `find.rs`); entries have one encoding (`entry.rs`), the store keeps
//! what it follows from (`pack.rs`), and never writes a record of entries again. What finds entries (`index.rs`) is made from
//! them, and can be made again.

mod append;
mod entry;
mod event;
mod find;
mod head;
mod ids;
mod index;
mod keys;
pub(crate) mod layout1;
mod pack;
mod prove;
mod read;
#[cfg(test)]
mod tests;
mod tree;
mod varint;
mod verify;

use std::{
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use asterism_store::Records;
use asterism_tlog::node::root_at;

pub use append::MAX_APPEND;
pub use entry::Entry;
pub use event::{Event, EventId, Facts, MAX_EVENT_BYTES, MAX_TEXT_BYTES, Outcome, Source, Timestamp};
pub use find::{Filter, Page, PageToken};
pub use head::Head;
pub use prove::{Consistency, Inclusion};
pub use verify::Report;

use crate::error::AuditError;
use append::{End, State, stored_end};
use head::Note;
use index::Index;

/// The log. Synchronous: what appends blocks until it is durable.
pub struct Log {
    records: Arc<dyn Records>,
    state: Mutex<State>,
    /// An append has ended.
    ended: Condvar,
    note: Note,
    index: Index,
}

impl Log {
    /// Opens the log. `head_file`, outside of the store, says how far it was known to reach. Looks at the last entries (up to
    /// 81 920 of them) and at the upper part of the tree: [`Log::verify`] looks at everything.
    ///
    /// # Errors
    /// [`AuditError::RolledBack`] when the store is behind `head_file`, or differs from it; [`AuditError::Damaged`].
    pub fn open(records: Arc<dyn Records>, head_file: &Path) -> Result<Self, AuditError> {
        let log = Self::over(records, Note::open(head_file)?)?;
        if log.note.last().is_none() && log.size() > 0 {
            tracing::warn!(
                size = log.size(),
                "no head.json: whether the log was rolled back cannot be told"
            );
        }
        log.note_head()?;
        Ok(log)
    }

    fn over(records: Arc<dyn Records>, note: Note) -> Result<Self, AuditError> {
        let stored = head::Standing::stored(&*records)?.head.size;
        if let Some(noted) = note.last()
            && stored < noted.size
        {
            let text = format!("it has {stored} entries, and had {}", noted.size);
            return Err(AuditError::RolledBack(text));
        }
        let end = stored_end(&*records)?;
        if let Some(noted) = note.last() {
            check_note(&*records, &end, &noted)?;
        }
        let index = Index::open(&*records, end.size())?;
        fill(&index, &*records, end.size())?;
        Ok(Self {
            records,
            state: Mutex::new(State::new(end)),
            ended: Condvar::new(),
            note,
            index,
        })
    }

    /// Number of durable entries.
    pub fn size(&self) -> u64 {
        self.head().size
    }

    /// Where the durable part of the log ends.
    pub fn head(&self) -> Head {
        self.state().durable.standing.head
    }

    fn end(&self) -> End {
        self.state().durable.clone()
    }

    /// An entry that is known to be durable.
    fn entry(&self, index: u64) -> Result<Entry, AuditError> {
        let (first, record) = read::record(&*self.records, index)?;
        read::one(first, &record, index)
    }

    /// Durable entries from `from` on, at most `limit`.
    ///
    /// # Errors
    /// [`AuditError::Damaged`], also for one that is missing.
    pub fn entries(&self, from: u64, limit: usize) -> Result<Vec<Entry>, AuditError> {
        // What lies beyond may be on its way to the disk, and never arrive.
        let size = self.open_size()?;
        self.range(from, size, limit)
    }

    /// Entries from `from` on and below `until`, which are durable, at most `limit`.
    fn range(&self, from: u64, until: u64, limit: usize) -> Result<Vec<Entry>, AuditError> {
        read::entries(&*self.records, from, until, limit)
    }

    /// Notes the head outside of the store, so that a store that was rolled back is noticed at the next start.
    ///
    /// # Errors
    /// The file system's own.
    pub fn note_head(&self) -> Result<(), AuditError> {
        self.note.write(self.head())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of durable entries, unless the store is given up.
    fn open_size(&self) -> Result<u64, AuditError> {
        let state = self.state();
        state.check_reads()?;
        Ok(state.durable.size())
    }
}

/// Whether what was noted is the beginning of the log.
fn check_note(records: &dyn Records, end: &End, noted: &head::Noted) -> Result<(), AuditError> {
    let root = root_at(&end.tree.nodes(records), noted.size)?;
    if noted.root == Some(root) {
        return Ok(());
    }
    let text = format!("its first {} entries are not those that it had", noted.size);
    Err(AuditError::RolledBack(text))
}

/// Reads what is in no run of the index yet.
fn fill(index: &Index, records: &dyn Records, size: u64) -> Result<(), AuditError> {
    let start = index.start();
    let count = usize::try_from(size - start).unwrap_or(usize::MAX);
    let mut next = start;
    read::each(
        records,
        start,
        |entry| {
            index.push(std::iter::once((entry.index, entry.event.facts())));
            next = entry.index + 1;
            if next.is_multiple_of(index::RUN) {
                index.write_runs(records, next)?;
            }
            Ok(next < size)
        },
        count,
    )
}

/// Whether these bytes are those of an entry, as they are hashed.
///
/// # Errors
/// [`AuditError::Damaged`] naming the entry.
pub fn check_entry(index: u64, bytes: &[u8]) -> Result<(), AuditError> {
    entry::decode(index, bytes).map(drop)
}

fn missing(index: u64) -> AuditError {
    AuditError::Damaged(format!("entry {index} is missing"))
}
