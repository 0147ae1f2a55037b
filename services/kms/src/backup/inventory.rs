//! Whether records and wrapping keys make a whole.

use std::collections::{BTreeMap, HashSet};

use super::BackupError;
use crate::{
    error::KmsError,
    keys::{
        KeyId, State,
        record::{KEY, KeyRecord, STATE, StateRecord, VERSION, VersionRecord, decode, version_at},
    },
};

/// What the records name. They are shown in ascending order: keys, states, versions.
#[derive(Default)]
pub(crate) struct Inventory {
    keys: HashSet<KeyId>,
    /// Versions whose destruction is scheduled.
    ending: HashSet<(KeyId, u32)>,
    /// Names of wrapping keys that are yet to come, and whose they are.
    expected: BTreeMap<String, (KeyId, u32)>,
}

impl Inventory {
    /// Takes note of a record; those of keys must be such as this program reads.
    ///
    /// # Errors
    /// [`KmsError::Damaged`]
    pub(crate) fn record(&mut self, at: &[u8], stored: &[u8]) -> Result<(), KmsError> {
        match at.first() {
            Some(&KEY) => {
                KeyRecord::read(stored)?;
                self.keys.insert(crate::keys::key_at(at)?);
            }
            Some(&STATE) => {
                let (version, record) = (version_at(at)?, decode::<StateRecord>(stored)?);
                if record.state == State::DestroyScheduled {
                    self.ending.insert(version);
                }
            }
            Some(&VERSION) => {
                let (version, record) = (version_at(at)?, decode::<VersionRecord>(stored)?);
                if !self.keys.contains(&version.0) {
                    return Err(KmsError::Damaged("a version without its key"));
                }
                if let Some(name) = record.wrapping_key
                    && self.expected.insert(name, version).is_some()
                {
                    return Err(KmsError::Damaged("two versions with one wrapping key"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Names of the wrapping keys that are yet to come, ascending.
    pub(crate) fn expected(&self) -> impl Iterator<Item = &str> {
        self.expected.keys().map(String::as_str)
    }

    /// Takes note of a wrapping key; `false` when no version has it.
    pub(crate) fn wrapping_key(&mut self, name: &str) -> bool {
        self.expected.remove(name).is_some()
    }

    /// Whether every version has its wrapping key, but those that end: theirs may be gone already.
    ///
    /// # Errors
    /// [`BackupError::Incomplete`] naming a version.
    pub(crate) fn check(&self) -> Result<(), BackupError> {
        let lost = self
            .expected
            .values()
            .find(|version| !self.ending.contains(*version));
        match lost {
            None => Ok(()),
            Some((key, version)) => Err(BackupError::Incomplete(format!(
                "version {version} of the key `{key}` has no wrapping key"
            ))),
        }
    }
}
