//! Where the log stands, in the store and noted beside it.
//!
//! A store that was replaced by an older copy of itself is whole in every way. What gives it away is `head.json`, a file
//! outside of the store that says how far the log was known to reach: it is never ahead of what is durable.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use asterism_crypto::Digest;
use asterism_store::{Records, files};
use serde::{Deserialize, Serialize};

use super::{entry, keys};
use crate::error::AuditError;

/// Where the log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Number of entries.
    pub size: u64,
    /// Chain value after the last entry.
    pub chain: Digest,
}

impl Head {
    /// That of an empty log.
    pub(super) fn empty() -> Self {
        Self {
            size: 0,
            chain: entry::chain_start(),
        }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        [self.size.to_be_bytes().as_slice(), self.chain.as_bytes()].concat()
    }

    /// What the store holds.
    pub(super) fn stored(records: &dyn Records) -> Result<Self, AuditError> {
        let Some(bytes) = records.get(&[keys::HEAD])? else {
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
}

/// The head as it is noted beside the store.
pub(super) struct Note {
    path: PathBuf,
    last: Mutex<Option<Head>>,
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
            path: path.to_owned(),
            last: Mutex::new(last),
        })
    }

    /// What was noted last.
    pub(super) fn last(&self) -> Option<Head> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a head that is durable, unless it is noted already.
    pub(super) fn write(&self, head: Head) -> Result<(), AuditError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.size >= head.size) || head.size == 0 {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&head).expect("a head is plain data and serialises");
        files::write_atomic(&self.path, &bytes, 0o600)?;
        *last = Some(head);
        Ok(())
    }
}
