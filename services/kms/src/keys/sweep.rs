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
            KEY, KeyRecord, STATE, StateRecord, VERSION, VersionRecord, decode, encode, state_record,
            version_at, version_record,
        },
    },
};

use super::keyring::key_at;

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
    /// Shreds wrapping keys that no version has: what a crash left. Only before anything else is done.
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

    /// Everything that is due at `now_ms`. Reads the record of every key.
    ///
    /// # Errors
    /// The store's own, and [`KmsError::Damaged`].
    pub fn due(&self, now_ms: u64) -> Result<Vec<Due>, KmsError> {
        let mut due = Vec::new();
        self.each(&[STATE], |at, stored| {
            if is_due(&decode(stored)?, now_ms) {
                let (key, version) = version_at(at)?;
                due.push(Due::Destroy { key, version });
            }
            Ok(())
        })?;
        self.each(&[KEY], |at, stored| {
            let record = KeyRecord::read(stored)?;
            if record.unreported.is_some() || record.next_rotation_ms.is_some_and(|next| next <= now_ms) {
                due.push(Due::Rotate { key: key_at(at)? });
            }
            Ok(())
        })?;
        Ok(due)
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
        let key_at = super::record::key_record(id.as_str());
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
