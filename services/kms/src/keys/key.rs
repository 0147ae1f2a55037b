//! A key as callers see it: a snapshot that later changes leave alone.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use crate::{
    error::KmsError,
    keys::{
        KeyId, KeyType, State,
        lifecycle::Operation,
        material::Material,
        record::{KeyRecord, StateRecord},
    },
};

/// A version of a key.
#[derive(Clone, Debug)]
pub struct Version {
    /// From 1.
    pub number: u32,
    /// Milliseconds since 1970, as all times here.
    pub created_at_ms: u64,
    /// Whether its material came from outside.
    pub imported: bool,
    record: StateRecord,
}

impl Version {
    pub(crate) fn new(number: u32, created_at_ms: u64, imported: bool, record: Option<StateRecord>) -> Self {
        let record = record.unwrap_or(StateRecord {
            state: State::Active,
            since_ms: created_at_ms,
            active_from_ms: Some(created_at_ms),
            before: None,
            destroy_at_ms: None,
        });
        Self {
            number,
            created_at_ms,
            imported,
            record,
        }
    }

    /// Where in its life it is at `now_ms`: a pre-active version becomes active by itself.
    pub fn state(&self, now_ms: u64) -> State {
        match self.record.state {
            State::PreActive if self.was_active(now_ms) => State::Active,
            state => state,
        }
    }

    /// Since when it is there.
    pub fn since_ms(&self, now_ms: u64) -> u64 {
        match (self.record.state, self.record.active_from_ms) {
            (State::PreActive, Some(from)) if from <= now_ms => from,
            _ => self.record.since_ms,
        }
    }

    /// When it became active, or will by itself.
    pub fn active_from_ms(&self) -> Option<u64> {
        self.record.active_from_ms
    }

    /// When it is destroyed, or was.
    pub fn destroy_at_ms(&self) -> Option<u64> {
        self.record.destroy_at_ms
    }

    pub(crate) fn record(&self) -> &StateRecord {
        &self.record
    }

    fn was_active(&self, now_ms: u64) -> bool {
        self.record.active_from_ms.is_some_and(|from| from <= now_ms)
    }
}

/// A key as callers see it.
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// What it is for.
    pub key_type: KeyType,
    /// Principal that made it.
    pub owner: String,
    /// For people.
    pub labels: BTreeMap<String, String>,
    /// From version 1.
    pub versions: Vec<Version>,
    /// Names this state of the key.
    pub etag: String,
    /// How often a version is added.
    pub rotation_period_ms: Option<u64>,
    /// When the next is.
    pub next_rotation_ms: Option<u64>,
    /// Versions below neither decrypt nor verify.
    pub min_version: u32,
    /// Whether its material may be exported.
    pub exportable: bool,
    /// How many others have to approve a destruction or an export.
    pub required_approvals: u8,
    /// Unwrapped material by version, as it is needed.
    pub(crate) materials: Mutex<HashMap<u32, Arc<Material>>>,
}

impl Key {
    pub(crate) fn new(
        id: KeyId,
        record: KeyRecord,
        etag: String,
        mut states: HashMap<u32, StateRecord>,
    ) -> Self {
        let versions = record
            .created_at_ms
            .iter()
            .zip(1..)
            .map(|(created_at_ms, number)| {
                let imported = record.is_imported(number);
                Version::new(number, *created_at_ms, imported, states.remove(&number))
            })
            .collect();
        Self {
            id,
            key_type: record.key_type,
            owner: record.owner,
            labels: record.labels,
            versions,
            etag,
            rotation_period_ms: record.rotation_period_ms,
            next_rotation_ms: record.next_rotation_ms,
            min_version: record.min_version,
            exportable: record.exportable,
            required_approvals: record.required_approvals,
            materials: Mutex::default(),
        }
    }

    /// The version that encrypts, signs and computes MACs: the newest that was ever active; 0 when none was. When it may not any
    /// more, no older one takes its place: whoever took it away has to rotate.
    pub fn primary(&self, now_ms: u64) -> u32 {
        let newest = self.versions.iter().rev();
        newest
            .filter(|version| version.was_active(now_ms))
            .map(|version| version.number)
            .next()
            .unwrap_or(0)
    }

    /// A version.
    ///
    /// # Errors
    /// [`KmsError::VersionNotFound`]
    pub fn version(&self, number: u32) -> Result<&Version, KmsError> {
        (number as usize)
            .checked_sub(1)
            .and_then(|index| self.versions.get(index))
            .ok_or_else(|| KmsError::VersionNotFound {
                key: self.id.name(),
                version: number,
            })
    }

    /// Whether the version is known to be in wrong hands: events of its use say so.
    pub fn is_compromised(&self, number: u32, now_ms: u64) -> bool {
        self.version(number)
            .is_ok_and(|version| version.state(now_ms) == State::Compromised)
    }

    /// The primary version, if it may encrypt now.
    pub(crate) fn protecting(&self, now_ms: u64) -> Result<u32, KmsError> {
        let number = self.primary(now_ms);
        if number == 0 {
            return Err(KmsError::NoActiveVersion(self.id.name()));
        }
        self.permit(number, Operation::Protect, now_ms)?;
        Ok(number)
    }

    /// Whether the version may do that now.
    ///
    /// # Errors
    /// [`KmsError::VersionNotFound`], [`KmsError::VersionState`], [`KmsError::VersionTooOld`].
    pub(crate) fn permit(&self, number: u32, operation: Operation, now_ms: u64) -> Result<(), KmsError> {
        let state = self.version(number)?.state(now_ms);
        if !state.permits(operation) {
            return Err(self.refused(number, state));
        }
        if operation == Operation::Process && number < self.min_version {
            return Err(KmsError::VersionTooOld {
                key: self.id.name(),
                version: number,
                minimum: self.min_version,
            });
        }
        Ok(())
    }

    /// The version's state forbids what was asked.
    pub(crate) fn refused(&self, number: u32, state: State) -> KmsError {
        KmsError::VersionState {
            key: self.id.name(),
            version: number,
            state,
        }
    }
}
