//! The log: entries in order, a hash chain over them, and indexes to find them by.
//!
//! The rules, and where they are upheld: an index is given out once, and told only when its entry is durable (`append.rs`); an
//! entry, its event id, its facets and the head after it are written in one batch that expects the head before it
//! (`append.rs`); nobody reads an entry that is not durable ([`Log::entries`], `find.rs`); entries have one encoding, and
//! the bytes that are chained are the bytes that are stored (`entry.rs`).

mod append;
mod entry;
mod event;
mod find;
mod head;
mod keys;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use asterism_store::Records;

pub use append::MAX_APPEND;
pub use entry::Entry;
pub use event::{Event, EventId, Facts, MAX_EVENT_BYTES, MAX_TEXT_BYTES, Outcome, Source, Timestamp};
pub use find::{Filter, Page, PageToken};
pub use head::Head;
pub use verify::Report;

use crate::error::AuditError;
use append::State;
use head::Note;

/// Entries at the end that are checked at every start.
const TAIL: u64 = 16;

/// The log. Synchronous: what appends blocks until it is durable.
pub struct Log {
    records: Arc<dyn Records>,
    state: Mutex<State>,
    /// An append has ended.
    ended: Condvar,
    note: Note,
}

impl Log {
    /// Opens the log. `head_file`, outside of the store, says how far it was known to reach. Looks at the head and the last
    /// few entries only: [`Log::verify`] looks at everything.
    ///
    /// # Errors
    /// [`AuditError::RolledBack`] when the store is behind `head_file`, or differs from it; [`AuditError::Damaged`].
    pub fn open(records: Arc<dyn Records>, head_file: &Path) -> Result<Self, AuditError> {
        let head = Head::stored(&*records)?;
        let note = Note::open(head_file)?;
        if let Some(noted) = note.last()
            && head.size < noted.size
        {
            let text = format!("it has {} entries, and had {}", head.size, noted.size);
            return Err(AuditError::RolledBack(text));
        }
        let state = State::load(&*records, head)?;
        let log = Self {
            records,
            state: Mutex::new(state),
            ended: Condvar::new(),
            note,
        };
        log.check_tail(&head)?;
        match log.note.last() {
            Some(noted) if noted.size > 0 && log.entry(noted.size - 1)?.chain != noted.chain => {
                let text = format!("entry {} is another than before", noted.size - 1);
                return Err(AuditError::RolledBack(text));
            }
            None if head.size > 0 => {
                tracing::warn!(
                    size = head.size,
                    "no head.json: whether the log was rolled back cannot be told"
                );
            }
            _ => {}
        }
        log.note_head()?;
        Ok(log)
    }

    /// Number of durable entries.
    pub fn size(&self) -> u64 {
        self.head().size
    }

    /// Where the durable part of the log ends.
    pub fn head(&self) -> Head {
        self.state().durable
    }

    /// An entry that is known to be durable.
    fn entry(&self, index: u64) -> Result<Entry, AuditError> {
        let stored = self
            .records
            .get(&keys::entry(index))?
            .ok_or_else(|| missing(index))?;
        entry::decode(index, &stored)
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
        let limit = usize::try_from(until.saturating_sub(from))
            .unwrap_or(usize::MAX)
            .min(limit);
        let stored = self.records.scan(&keys::entry(from), &[keys::ENTRY], limit)?;
        let mut expected = from;
        let mut entries = Vec::with_capacity(stored.len());
        for (key, value) in stored {
            if key != keys::entry(expected) {
                return Err(missing(expected));
            }
            entries.push(entry::decode(expected, &value)?);
            expected += 1;
        }
        if entries.len() < limit {
            Err(missing(expected))
        } else {
            Ok(entries)
        }
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
        Ok(state.durable.size)
    }

    /// Whether the head fits the last entries, and they each other.
    fn check_tail(&self, head: &Head) -> Result<(), AuditError> {
        let first = head.size.saturating_sub(TAIL);
        let mut chain = match first {
            0 => entry::chain_start(),
            _ => self.entry(first - 1)?.chain,
        };
        for index in first..head.size {
            let stored = self
                .records
                .get(&keys::entry(index))?
                .ok_or_else(|| missing(index))?;
            let (stored_chain, bytes) = entry::split(index, &stored)?;
            chain = entry::chain(&chain, bytes);
            if chain != stored_chain {
                let text =
                    format!("the chain value of entry {index} does not fit the entry and the one before it");
                return Err(AuditError::Damaged(text));
            }
        }
        if chain != head.chain {
            return Err(AuditError::damaged(
                "its head is not what its last entry amounts to",
            ));
        }
        if !self
            .records
            .scan(&keys::entry(head.size), &[keys::ENTRY], 1)?
            .is_empty()
        {
            return Err(AuditError::Damaged(format!(
                "there are entries beyond its head of {}",
                head.size
            )));
        }
        Ok(())
    }
}

fn missing(index: u64) -> AuditError {
    AuditError::Damaged(format!("entry {index} is missing"))
}
