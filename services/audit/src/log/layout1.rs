//! Stores of layout 1, which had a hash chain instead of a tree, and how they become stores of layout 2.
//!
//! ```text
//! 'e' index                              -> chain value 32, entry     (the bytes of `entry.rs`)
//! 'i' event id                           -> index
//! 'h'                                    -> size, chain value
//! 's' source                             -> last sequence number
//! 'x' facet, SHA-256(value)[..16], index -> nothing
//! ```
//! `chain(i) = SHA-256(0x01 | chain(i-1) | entry i)`, `chain(-1)` being 32 zero bytes.
//!
//! A store is converted by a copy (`asterism_store::exchange`), which every entry reaches by way of its chain: what was altered
//! before is found, and not sealed under the new root. `head.json` says both heads before the copy takes the store's place, so that
//! at every moment whichever store is there can be told from an older one.

use std::{path::Path, sync::Arc};

use asterism_crypto::{Digest, DigestWriter};
use asterism_store::{Batch, Records};

use super::{
    Event, Head, Log, MAX_APPEND, Timestamp, entry,
    event::Source,
    head::{Note, Noted},
};
use crate::error::AuditError;

const ENTRY: u8 = b'e';
const HEAD: u8 = b'h';
const SOURCE: u8 = b's';
/// What is not copied as it is.
const KINDS: [u8; 5] = [ENTRY, b'i', HEAD, SOURCE, b'x'];
const CHAIN_DOMAIN: u8 = 1;
/// Records that are read in one go.
const STRIDE: usize = 1000;

/// Whether `records` are of layout 1.
///
/// # Errors
/// The store's own.
pub(crate) fn is_layout_1(records: &dyn Records) -> Result<bool, AuditError> {
    Ok(records.get(&[HEAD])?.is_some())
}

/// Fills `copy`, which is empty, with the log of `old`, and notes its new head beside the old one.
///
/// # Errors
/// [`AuditError::Damaged`] naming the first entry that does not fit the chain, [`AuditError::RolledBack`], the store's own.
pub(crate) fn convert(
    old: &dyn Records,
    copy: &Arc<dyn Records>,
    head_file: &Path,
) -> Result<(), AuditError> {
    let note = Note::open(head_file)?;
    let stored = Chained::stored(old)?;
    let noted = note.last().and_then(|noted| Some((noted.size, noted.chain?)));
    if let Some((size, _)) = noted
        && stored.size < size
    {
        let text = format!("it has {} entries, and had {size}", stored.size);
        return Err(AuditError::RolledBack(text));
    }
    let log = Log::over(copy.clone(), Note::nowhere())?;
    let mut reached = Chained::empty();
    let mut waiting: Vec<(Timestamp, Event)> = Vec::new();
    while reached.size < stored.size {
        let records = old.scan(&key(reached.size), &[ENTRY], STRIDE)?;
        if records.is_empty() {
            return Err(super::missing(reached.size));
        }
        for (at, value) in records {
            if at != key(reached.size) || reached.size == stored.size {
                return Err(super::missing(reached.size));
            }
            let entry = reached.follow(&value)?;
            if noted.is_some_and(|(size, chain)| size == reached.size && chain != reached.chain) {
                let text = format!("entry {} is another than before", reached.size - 1);
                return Err(AuditError::RolledBack(text));
            }
            // Entries of one moment were appended together, or might have been.
            if waiting.len() == MAX_APPEND || waiting.last().is_some_and(|(at, _)| *at != entry.0) {
                append(&log, &mut waiting)?;
            }
            waiting.push(entry);
        }
    }
    append(&log, &mut waiting)?;
    if reached != stored {
        return Err(AuditError::damaged(
            "its head is not what its last entry amounts to",
        ));
    }
    check_sequences(old, &log)?;
    copy_others(old, &**copy)?;
    note.replace(both(log.head(), stored))
}

/// Both heads of a store that is being converted.
fn both(head: Head, old: Chained) -> Noted {
    Noted {
        size: head.size,
        root: Some(head.root),
        chain: Some(old.chain),
    }
}

fn append(log: &Log, waiting: &mut Vec<(Timestamp, Event)>) -> Result<(), AuditError> {
    let Some((appended_at, _)) = waiting.first() else {
        return Ok(());
    };
    let (appended_at, size) = (*appended_at, log.size());
    let events: Vec<Event> = waiting.drain(..).map(|(_, event)| event).collect();
    let indexes = log.append(&events, appended_at)?;
    if indexes.into_iter().eq(size..size + events.len() as u64) {
        Ok(())
    } else {
        Err(AuditError::Damaged(format!(
            "an event is twice among the entries from {size} on"
        )))
    }
}

/// The last number of each source follows from the entries; a store that says another was damaged.
fn check_sequences(old: &dyn Records, log: &Log) -> Result<(), AuditError> {
    for source in Source::ALL {
        let stored = old.get(&[&[SOURCE], source.as_str().as_bytes()].concat())?;
        let stored = match stored {
            Some(bytes) => bytes.try_into().map(u64::from_be_bytes).ok(),
            None => Some(0),
        };
        let last = log.end().standing.sequences[source as usize];
        if stored != Some(last) {
            let text = format!("the last number of {source} is recorded as another than {last}");
            return Err(AuditError::Damaged(text));
        }
    }
    Ok(())
}

fn copy_others(old: &dyn Records, copy: &dyn Records) -> Result<(), AuditError> {
    let mut from = vec![];
    loop {
        let records = old.scan(&from, &[], STRIDE)?;
        let Some((last, _)) = records.last() else {
            return Ok(());
        };
        from = match last.first() {
            // Nothing of these kinds is copied: on to the next.
            Some(kind) if KINDS.contains(kind) => vec![kind + 1],
            _ => super::keys::after(last),
        };
        let others = records
            .into_iter()
            .filter(|(key, _)| !key.first().is_some_and(|kind| KINDS.contains(kind)));
        let batch = others.fold(Batch::new(), |batch, (key, value)| batch.put(key, value));
        if !batch.is_empty() {
            copy.commit(batch)?;
        }
    }
}

/// Where a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chained {
    pub(super) size: u64,
    pub(super) chain: Digest,
}

impl Chained {
    pub(super) fn empty() -> Self {
        Self {
            size: 0,
            chain: Digest::from_bytes([0; 32]),
        }
    }

    fn stored(records: &dyn Records) -> Result<Self, AuditError> {
        let Some(bytes) = records.get(&[HEAD])? else {
            return Ok(Self::empty());
        };
        let read = || {
            let (size, chain) = bytes.split_first_chunk::<8>()?;
            let chain = Digest::from_bytes(chain.try_into().ok()?);
            Some(Self {
                size: u64::from_be_bytes(*size),
                chain,
            })
        };
        read().ok_or_else(|| AuditError::damaged("the record of its head cannot be read"))
    }

    /// Goes on by the entry that a record has, if it fits.
    fn follow(&mut self, value: &[u8]) -> Result<(Timestamp, Event), AuditError> {
        let index = self.size;
        let (stored, bytes) = value
            .split_first_chunk::<32>()
            .ok_or_else(|| AuditError::Damaged(format!("entry {index} is cut short")))?;
        let next = self.after(bytes);
        if next.chain.as_bytes() != stored {
            let text =
                format!("the chain value of entry {index} does not fit the entry and the one before it");
            return Err(AuditError::Damaged(text));
        }
        *self = next;
        let entry = entry::decode(index, bytes)?;
        Ok((entry.appended_at, entry.event))
    }

    /// The chain after an entry.
    pub(super) fn after(&self, entry: &[u8]) -> Self {
        let mut writer = DigestWriter::new();
        writer.update(&[CHAIN_DOMAIN]);
        writer.update(self.chain.as_bytes());
        writer.update(entry);
        Self {
            size: self.size + 1,
            chain: writer.finish(),
        }
    }
}

fn key(index: u64) -> Vec<u8> {
    [&[ENTRY][..], &index.to_be_bytes()].concat()
}
