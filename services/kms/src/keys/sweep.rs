//! What is due by itself: destructions whose window is over, and scheduled rotations.
//!
//! Both may be interrupted anywhere, and are then done by the next sweep. A destruction is: wrapping key shredded, event, record of the
//! material deleted and version marked destroyed. A rotation is: version added together with a note that its event is missing, event,
//! note deleted. So an event may come twice after a crash, but never not at all.

use std::collections::HashSet;

use asterism_store::Batch;

use crate::{
    error::KmsError,
    keys::{
        KeyId, Keyring, RequestId, State,
        lifecycle::Act,
        material::Material,
        record::{
            KeyRecord, STATE, StateRecord, VERSION, VersionRecord, decode, encode, key_record, state_record,
            version_at, version_record, versions_of,
        },
    },
};

/// Something whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// The window of a destruction is over.
    Destroy {
        /// Of which key.
        key: KeyId,
        /// Which version.
        version: u32,
    },
    /// A rotation, or the event of one.
    Rotate {
        /// Of which key.
        key: KeyId,
    },
}

/// A sweep's own changes have no request.
const NO_REQUEST: RequestId<'static> = RequestId {
    principal: "",
    id: "",
    etag: "",
};

impl Keyring {
    /// Shreds wrapping keys that no version has, which crashes of earlier releases left. Reads every version's record; only before
    /// anything else is done.
    ///
    /// # Errors
    /// The store's own.
    pub fn sweep_orphans(&self) -> Result<usize, KmsError> {
        let mut kept = HashSet::new();
        self.each(&[VERSION], |_, stored| {
            kept.extend(decode::<VersionRecord>(stored)?.wrapping_key);
            Ok(())
        })?;
        self.version_keys.sweep(&kept)
    }

    /// Ends what a crash interrupted between the file of a wrapping key and the record that names it; gives how many files no record
    /// names, which are shredded. Only before anything else is done.
    ///
    /// # Errors
    /// The store's own, and [`KmsError::Damaged`].
    pub fn settle_pending(&self) -> Result<usize, KmsError> {
        self.version_keys.settle(&|name, id, version| {
            let stored = self.records.get(&version_record(id, version))?;
            let named = match stored {
                Some(stored) => decode::<VersionRecord>(&stored)?.wrapping_key,
                None => None,
            };
            Ok(named.as_deref() == Some(name))
        })
    }

    /// Everything that is due at `now_ms`.
    ///
    /// # Errors
    /// The store's own, and [`KmsError::Damaged`].
    pub fn due(&self, now_ms: u64) -> Result<Vec<Due>, KmsError> {
        // Nobody changes a key between the look at its records and the end of its notes.
        let _changing = self.changing();
        let notes = self.notes(now_ms)?;
        let mut due = Vec::new();
        let mut settled = Vec::new();
        for notes in notes.chunk_by(|one, other| one.key == other.key) {
            let before = due.len();
            self.due_of(&notes[0].key, now_ms, &mut due)?;
            if due.len() == before {
                settled.extend(notes);
            }
        }
        self.forget(&settled)?;
        Ok(due)
    }

    fn due_of(&self, id: &KeyId, now_ms: u64, due: &mut Vec<Due>) -> Result<(), KmsError> {
        let prefix = versions_of(STATE, id);
        self.each(&prefix, |at, stored| {
            if is_due(&decode(stored)?, now_ms) {
                let (key, version) = version_at(at)?;
                due.push(Due::Destroy { key, version });
            }
            Ok(())
        })?;
        if let Some(stored) = self.records.get(&key_record(id.as_str()))? {
            let record = KeyRecord::read(&stored)?;
            if record.unreported.is_some() || record.next_rotation_ms.is_some_and(|next| next <= now_ms) {
                due.push(Due::Rotate { key: id.clone() });
            }
        }
        Ok(())
    }

    /// Destroys a version if it is due: when this returns `true` no bytes of the store give its material any more. `report` records
    /// the event; when it fails the version stays due.
    ///
    /// # Errors
    /// What `report` answers, and the store's own.
    pub fn destroy_due(
        &self,
        id: &KeyId,
        version: u32,
        now_ms: u64,
        report: impl FnOnce() -> Result<(), KmsError>,
    ) -> Result<bool, KmsError> {
        let _destroying = self.destroying();
        let _changing = self.changing();
        let state_at = state_record(id, version);
        let Some(stored) = self.records.get(&state_at)? else {
            return Ok(false);
        };
        let old: StateRecord = decode(&stored)?;
        if !is_due(&old, now_ms) {
            return Ok(false);
        }
        let material_at = version_record(id, version);
        if let Some(stored) = self.records.get(&material_at)?
            && let Some(name) = decode::<VersionRecord>(&stored)?.wrapping_key
        {
            self.version_keys.shred(&name)?;
        }
        report()?;
        self.change(id, "", &NO_REQUEST, |_| {
            let destroyed = StateRecord {
                state: State::Destroyed,
                since_ms: now_ms,
                destroy_at_ms: Some(now_ms),
                ..old
            };
            let batch = Batch::new().delete(material_at);
            Ok((batch.put(state_at, encode(&destroyed)), None))
        })?;
        Ok(true)
    }

    /// Adds a version to a key whose rotation is due, or only records the event of one that was; gives the version. `report` records
    /// the event; when it fails the next sweep asks again.
    ///
    /// # Errors
    /// [`KmsError::TooManyVersions`], what `report` answers, and the store's own.
    pub fn rotate_due(
        &self,
        id: &KeyId,
        now_ms: u64,
        report: impl FnOnce(u32) -> Result<(), KmsError>,
    ) -> Result<Option<u32>, KmsError> {
        let _changing = self.changing();
        let key_at = key_record(id.as_str());
        let stored = self
            .records
            .get(&key_at)?
            .ok_or_else(|| KmsError::KeyNotFound(id.name()))?;
        let record = KeyRecord::read(&stored)?;
        let version = match (
            record.unreported,
            record.rotation_period_ms,
            record.next_rotation_ms,
        ) {
            (Some(version), ..) => version,
            (None, Some(period), Some(next)) if next <= now_ms => {
                let version = record.created_at_ms.len() as u32 + 1;
                self.change(id, "", &NO_REQUEST, |loaded| {
                    loaded.record.next_rotation_ms = Some(now_ms.saturating_add(period));
                    loaded.record.unreported = Some(version);
                    let material = Material::generate(loaded.key.key_type)?;
                    self.add_version(id, loaded, (&material, false), None, now_ms)
                })?;
                version
            }
            _ => return Ok(None),
        };
        report(version)?;
        self.change(id, "", &NO_REQUEST, |loaded| {
            loaded.record.unreported = None;
            Ok((Batch::new(), None))
        })?;
        Ok(Some(version))
    }
}

fn is_due(record: &StateRecord, now_ms: u64) -> bool {
    record.state.leads_to(State::Destroyed, Act::Destroy)
        && record.destroy_at_ms.is_some_and(|at| at <= now_ms)
}
