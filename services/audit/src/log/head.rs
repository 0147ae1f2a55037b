//! Where the log stands, in the store and noted beside it.
//!
//! ```text
//! 'H' -> layout 2 (1) | size 8 | root 32 | appended at: seconds 8, nanoseconds 4 | last sequence number of each source, 8 each
//! ```
//! A store that was replaced by an older copy of itself is whole in every way. What gives it away is `head.json`, a file
//! outside of the store that says how far the log was known to reach: it is never ahead of what is durable.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use asterism_crypto::Digest;
use asterism_store::{Records, files};
use asterism_tlog::{MAX_SIZE, empty_root};
use serde::{Deserialize, Serialize};

use super::{
    event::{Source, Timestamp},
    keys,
    varint::Reader,
};
use crate::error::AuditError;

const LAYOUT: u8 = 2;

/// Last sequence number of each source, as in [`Source::ALL`]; 0 before the first.
pub(super) type Sequences = [u64; Source::ALL.len()];

/// Where the log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Number of entries.
    pub size: u64,
    /// Root of the Merkle tree over them (RFC 6962).
    pub root: Digest,
}

/// What the next append builds on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) head: Head,
    /// When the last append was.
    pub(super) appended_at: Timestamp,
    pub(super) sequences: Sequences,
}

impl Standing {
    /// That of an empty log.
    pub(super) fn empty() -> Self {
        Self {
            head: Head {
                size: 0,
                root: empty_root(),
            },
            appended_at: Timestamp::from(std::time::UNIX_EPOCH),
            sequences: Sequences::default(),
        }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![LAYOUT];
        bytes.extend_from_slice(&self.head.size.to_be_bytes());
        bytes.extend_from_slice(self.head.root.as_bytes());
        bytes.extend_from_slice(&self.appended_at.seconds().to_be_bytes());
        bytes.extend_from_slice(&self.appended_at.nanos().to_be_bytes());
        for last in self.sequences {
            bytes.extend_from_slice(&last.to_be_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        if reader.byte()? != LAYOUT {
            return None;
        }
        let head = Head {
            size: Some(u64::from_be_bytes(*reader.array()?)).filter(|size| *size <= MAX_SIZE)?,
            root: Digest::from_bytes(*reader.array()?),
        };
        let seconds = i64::from_be_bytes(*reader.array()?);
        let appended_at = Timestamp::new(seconds, u32::from_be_bytes(*reader.array()?))?;
        let mut sequences = Sequences::default();
        for last in &mut sequences {
            *last = u64::from_be_bytes(*reader.array()?);
        }
        reader.is_empty().then_some(Self {
            head,
            appended_at,
            sequences,
        })
    }

    /// What the store holds.
    pub(super) fn stored(records: &dyn Records) -> Result<Self, AuditError> {
        let Some(bytes) = records.get(&[keys::HEAD])? else {
            return Ok(Self::empty());
        };
        Self::from_bytes(&bytes).ok_or_else(|| AuditError::damaged("the record of its head cannot be read"))
    }
}

/// A head as it is noted: layout 1 had a chain instead of a tree. While a store is converted it says both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Noted {
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) chain: Option<Digest>,
}

impl From<Head> for Noted {
    fn from(head: Head) -> Self {
        Self {
            size: head.size,
            root: Some(head.root),
            chain: None,
        }
    }
}

/// The head as it is noted beside the store.
pub(super) struct Note {
    /// `None` while a copy is made, which nobody relies on yet.
    path: Option<PathBuf>,
    last: Mutex<Option<Noted>>,
}

impl Note {
    /// Reads the file, if there is one.
    pub(super) fn open(path: &Path) -> Result<Self, AuditError> {
        let last = match std::fs::read(path) {
            Ok(bytes) => Some(
                serde_json::from_slice(&bytes)
                    .map_err(|_| AuditError::damaged(format!("{} cannot be read", path.display())))?,
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(AuditError::Store(error.into())),
        };
        Ok(Self {
            path: Some(path.to_owned()),
            last: Mutex::new(last),
        })
    }

    /// Notes nothing.
    pub(super) fn nowhere() -> Self {
        Self {
            path: None,
            last: Mutex::new(None),
        }
    }

    /// What was noted last.
    pub(super) fn last(&self) -> Option<Noted> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a head that is durable, unless it is noted already.
    pub(super) fn write(&self, head: Head) -> Result<(), AuditError> {
        let noted = Noted::from(head);
        let known = self.last();
        if head.size == 0 || known.is_some_and(|known| known.size > head.size || known == noted) {
            return Ok(());
        }
        self.replace(noted)
    }

    pub(super) fn replace(&self, noted: Noted) -> Result<(), AuditError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.size > noted.size) {
            return Ok(());
        }
        let Some(path) = &self.path else { return Ok(()) };
        let bytes = serde_json::to_vec(&noted).expect("a head is plain data and serialises");
        files::write_atomic(path, &bytes, 0o600)?;
        *last = Some(noted);
        Ok(())
    }
}
