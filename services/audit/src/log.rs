//! The log: entries in order, a hash chain over them, and indexes to find them by.
//!
//! The rules: an index is given out once, and only with its entry durable; `chain(i) = SHA-256(0x01 | chain(i-1) | entry
//! bytes)` over the bytes as they are stored, `chain(-1)` being 32 zero bytes; entry, deduplication, indexes and head of an
//! append are written in one batch that expects the head before it.

mod entry;
mod find;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use asterism_crypto::{Digest, DigestWriter};
use asterism_store::{Batch, Records, files};
use serde::{Deserialize, Serialize};

pub use entry::{Entry, Facts, MAX_BODY_BYTES, NewEvent};
pub use find::{Filter, Page};
pub use verify::Report;

use crate::error::AuditError;

/// Records: this byte and the index, big-endian -> chain value, then entry bytes.
const ENTRY: u8 = b'e';
/// Records: this byte and the event id -> the index.
const ID: u8 = b'i';
/// Record: this byte -> [`Head`] in bytes.
const HEAD: u8 = b'h';
/// Records: this byte, the kind of fact, a digest of its value, and the index -> nothing.
const FACT: u8 = b'x';

/// Most events of one append.
pub const MAX_APPEND: usize = 1000;

/// Where the log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Number of entries.
    pub size: u64,
    /// Chain value of the last entry.
    pub chain: Digest,
}

impl Head {
    const EMPTY: [u8; 32] = [0; 32];

    fn empty() -> Self {
        Self {
            size: 0,
            chain: Digest::from_bytes(Self::EMPTY),
        }
    }

    fn to_bytes(self) -> Vec<u8> {
        [self.size.to_be_bytes().as_slice(), self.chain.as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, AuditError> {
        let (size, chain) = bytes
            .split_first_chunk::<8>()
            .ok_or(AuditError::Damaged("head"))?;
        let chain = chain.try_into().map_err(|_| AuditError::Damaged("head"))?;
        Ok(Self {
            size: u64::from_be_bytes(*size),
            chain: Digest::from_bytes(chain),
        })
    }
}

/// The log.
pub struct Log {
    records: Arc<dyn Records>,
    head: Mutex<Head>,
    head_file: PathBuf,
    noted: Mutex<Option<Head>>,
}

impl Log {
    /// Opens the log. `head_file`, outside the store, says how far it was known to reach.
    ///
    /// # Errors
    /// [`AuditError::RolledBack`] when the store is behind that, or differs from it.
    pub fn open(records: Arc<dyn Records>, head_file: &Path) -> Result<Self, AuditError> {
        let head = match records.get(&[HEAD])? {
            Some(bytes) => Head::from_bytes(&bytes)?,
            None => Head::empty(),
        };
        let noted = read_note(head_file)?;
        let log = Self {
            records,
            head: Mutex::new(head),
            head_file: head_file.to_owned(),
            noted: Mutex::new(noted),
        };
        if let Some(noted) = noted {
            log.reaches(&noted, &head)?;
        }
        Ok(log)
    }

    /// Number of durable entries.
    pub fn size(&self) -> u64 {
        self.head().size
    }

    /// Where the log stands.
    pub fn head(&self) -> Head {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends events, durable when this returns; gives their indexes. An event that is there already keeps its index.
    ///
    /// # Errors
    /// [`AuditError::EventIdReused`], and the store's own; nothing is appended then.
    pub fn append(&self, events: &[NewEvent], now_ms: u64) -> Result<Vec<u64>, AuditError> {
        // Held until the entries are durable: the order of the log is the order of its writes, and a repeated event
        // that comes meanwhile finds the first.
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = *head;
        let mut batch = Batch::new();
        let mut new: HashMap<[u8; 16], (u64, &NewEvent)> = HashMap::new();
        let mut indexes = Vec::with_capacity(events.len());
        for event in events {
            if let Some((index, first)) = new.get(&event.id) {
                if first.body != event.body {
                    return Err(AuditError::EventIdReused);
                }
                indexes.push(*index);
                continue;
            }
            if let Some(index) = self.index_of(&event.id)? {
                if self.entry(index)?.body != event.body {
                    return Err(AuditError::EventIdReused);
                }
                indexes.push(index);
                continue;
            }
            let index = next.size;
            let bytes = entry::encode(now_ms, &event.body);
            next = Head {
                size: index + 1,
                chain: chain(&next.chain, &bytes),
            };
            let stored = [next.chain.as_bytes().as_slice(), &bytes].concat();
            batch = batch
                .put(entry_key(index), stored)
                .put(id_key(&event.id), index.to_be_bytes());
            for key in find::fact_keys(&event.facts, index) {
                batch = batch.put(key, []);
            }
            new.insert(event.id, (index, event));
            indexes.push(index);
        }
        if next.size > head.size {
            batch = if head.size == 0 {
                batch.expect_absent([HEAD])
            } else {
                batch.expect_value([HEAD], head.to_bytes())
            };
            self.records.commit(batch.put([HEAD], next.to_bytes()))?;
            *head = next;
        }
        Ok(indexes)
    }

    /// Entry `index`.
    ///
    /// # Errors
    /// [`AuditError::Damaged`] when it is not there.
    pub fn entry(&self, index: u64) -> Result<Entry, AuditError> {
        let stored = self
            .records
            .get(&entry_key(index))?
            .ok_or(AuditError::Damaged("an entry is missing"))?;
        entry::decode(index, &stored)
    }

    /// Entries from `from` on, at most `limit`.
    ///
    /// # Errors
    /// [`AuditError::Damaged`]
    pub fn entries(&self, from: u64, limit: usize) -> Result<Vec<Entry>, AuditError> {
        let stored = self.records.scan(&entry_key(from), &[ENTRY], limit)?;
        stored
            .iter()
            .map(|(key, value)| entry::decode(index_of_key(key)?, value))
            .collect()
    }

    /// Notes the head outside the store, so that a store that was rolled back is noticed at the next start.
    ///
    /// # Errors
    /// The file system's own.
    pub fn note_head(&self) -> Result<(), AuditError> {
        let head = self.head();
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if *noted == Some(head) || head.size == 0 {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&head).expect("a head is plain data and serialises");
        files::write_atomic(&self.head_file, &bytes, 0o600)?;
        *noted = Some(head);
        Ok(())
    }

    fn index_of(&self, id: &[u8; 16]) -> Result<Option<u64>, AuditError> {
        let stored = self.records.get(&id_key(id))?;
        stored
            .map(|bytes| be_u64(&bytes).ok_or(AuditError::Damaged("event id index")))
            .transpose()
    }

    /// Whether the log still holds what was noted.
    fn reaches(&self, noted: &Head, head: &Head) -> Result<(), AuditError> {
        if head.size < noted.size {
            let text = format!("it has {} entries, and had {}", head.size, noted.size);
            return Err(AuditError::RolledBack(text));
        }
        if noted.size > 0 && self.entry(noted.size - 1)?.chain != noted.chain {
            return Err(AuditError::RolledBack(format!(
                "entry {} is another than before",
                noted.size - 1
            )));
        }
        Ok(())
    }
}

fn read_note(path: &Path) -> Result<Option<Head>, AuditError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|_| AuditError::Damaged("head.json")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(AuditError::Store(error.into())),
    }
}

fn chain(before: &Digest, entry: &[u8]) -> Digest {
    let mut writer = DigestWriter::new();
    writer.update(&[1]);
    writer.update(before.as_bytes());
    writer.update(entry);
    writer.finish()
}

fn entry_key(index: u64) -> Vec<u8> {
    [&[ENTRY], index.to_be_bytes().as_slice()].concat()
}

fn id_key(id: &[u8; 16]) -> Vec<u8> {
    [&[ID], id.as_slice()].concat()
}

fn index_of_key(key: &[u8]) -> Result<u64, AuditError> {
    key.get(1..)
        .and_then(be_u64)
        .ok_or(AuditError::Damaged("entry key"))
}

fn be_u64(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}
