//! Changes of keys and of their versions' states. Each is durable when it returns, and goes up in the key's etag.

use std::{collections::BTreeMap, sync::Arc};

use asterism_store::Batch;

use crate::{
    error::KmsError,
    keys::{
        Key, KeyId, Keyring, RequestId, State, agenda,
        lifecycle::Act,
        record::{StateRecord, encode, state_record},
    },
};

/// Bytes of all labels of a key.
const MAX_LABEL_BYTES: usize = 900;
const DAY_MS: u64 = 24 * 3600 * 1000;
/// The longest window of a destruction, and the one that is taken when none is asked for.
pub const MAX_WINDOW_MS: u64 = 30 * DAY_MS;
/// The shortest window of a destruction, unless the service is set to allow less.
pub const MIN_WINDOW_MS: u64 = 7 * DAY_MS;
const MIN_PERIOD_MS: u64 = DAY_MS;
const MAX_PERIOD_MS: u64 = 36_525 * DAY_MS;

/// What changes in a key; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct KeyUpdate {
    /// Must be the key's own, when not empty.
    pub etag: String,
    /// For people.
    pub labels: Option<BTreeMap<String, String>>,
    /// `Some(None)` ends scheduled rotation.
    pub rotation_period_ms: Option<Option<u64>>,
    /// When to rotate next.
    pub next_rotation_ms: Option<u64>,
    /// Older versions neither decrypt nor verify.
    pub min_version: Option<u32>,
    /// How many others have to approve a destruction or an export.
    pub required_approvals: Option<u8>,
    /// From which number others have approved lowering it.
    pub approved_from: Option<u8>,
}

impl Keyring {
    /// Changes a key's settings.
    ///
    /// # Errors
    /// [`KmsError::KeyNotFound`], [`KmsError::EtagMismatch`], [`KmsError::Field`], [`KmsError::RequestIdReused`].
    pub fn update(
        &self,
        id: &KeyId,
        update: &KeyUpdate,
        request: &RequestId<'_>,
        now_ms: u64,
    ) -> Result<Arc<Key>, KmsError> {
        let _changing = self.changing();
        // What others approved is no parameter: a repeated request may not need it any more.
        let parameters = KeyUpdate {
            approved_from: None,
            ..update.clone()
        };
        let what = format!("update {id} {parameters:?}");
        self.change(id, &what, request, |loaded| {
            if !update.etag.is_empty() && update.etag != loaded.key.etag {
                return Err(KmsError::EtagMismatch(id.name()));
            }
            let record = &mut loaded.record;
            if let Some(labels) = &update.labels {
                check_labels(labels)?;
                record.labels.clone_from(labels);
            }
            if let Some(period) = update.rotation_period_ms {
                if period.is_some_and(|period| !(MIN_PERIOD_MS..=MAX_PERIOD_MS).contains(&period)) {
                    return Err(KmsError::field(
                        "key.rotation_period",
                        "must be 1 day to 100 years, or unset for never",
                    ));
                }
                record.rotation_period_ms = period;
                record.next_rotation_ms = period.map(|period| now_ms.saturating_add(period));
            }
            if let Some(next) = update.next_rotation_ms {
                if record.rotation_period_ms.is_none() || next > now_ms.saturating_add(MAX_PERIOD_MS) {
                    return Err(KmsError::field(
                        "key.next_rotation_time",
                        "must be within 100 years, for a key with a rotation period",
                    ));
                }
                record.next_rotation_ms = Some(next);
            }
            if let Some(minimum) = update.min_version {
                // Above the primary the key could not read what it writes.
                if minimum == 0 || minimum > loaded.key.primary(now_ms).max(1) {
                    return Err(KmsError::field(
                        "key.min_decryption_version",
                        "must be 1 to the primary version",
                    ));
                }
                record.min_version = minimum;
            }
            if let Some(number) = update.required_approvals {
                // Whoever lowers it was approved for the number that they saw.
                let lowers = number < record.required_approvals;
                if lowers && update.approved_from != Some(record.required_approvals) {
                    return Err(KmsError::EtagMismatch(id.name()));
                }
                record.required_approvals = number;
            }
            Ok((Batch::new(), None))
        })
    }

    /// Sets the state of a version.
    ///
    /// # Errors
    /// [`KmsError::VersionState`] where the life of a version has no such step; [`KmsError::KeyNotFound`],
    /// [`KmsError::VersionNotFound`], [`KmsError::RequestIdReused`].
    pub fn set_state(
        &self,
        id: &KeyId,
        version: u32,
        to: State,
        request: &RequestId<'_>,
        now_ms: u64,
    ) -> Result<Arc<Key>, KmsError> {
        let what = format!("set state {id} {version} {to}");
        self.step((id, version), &what, request, |key, old| {
            let from = key.version(version)?.state(now_ms);
            if !from.leads_to(to, Act::Update) {
                return Err(key.refused(version, from));
            }
            // One that never was active does not become primary by being something else when its time comes.
            let was_active = old.active_from_ms.filter(|at| *at <= now_ms);
            let active_from_ms = match to {
                State::Active => was_active.or(Some(now_ms)),
                _ => was_active,
            };
            Ok(StateRecord {
                state: to,
                since_ms: now_ms,
                active_from_ms,
                before: None,
                destroy_at_ms: None,
            })
        })
    }

    /// Schedules the destruction of a version `window_ms` from now; it refuses every use at once.
    ///
    /// # Errors
    /// [`KmsError::Field`] for a window out of bounds; else as [`Keyring::set_state`].
    pub fn schedule_destruction(
        &self,
        id: &KeyId,
        version: u32,
        window_ms: u64,
        request: &RequestId<'_>,
        now_ms: u64,
    ) -> Result<Arc<Key>, KmsError> {
        if !(self.min_window_ms..=MAX_WINDOW_MS).contains(&window_ms) {
            return Err(KmsError::field(
                "window",
                format!("must be {} seconds to 30 days", self.min_window_ms.div_ceil(1000)),
            ));
        }
        let what = format!("destroy {id} {version} {window_ms}");
        self.step((id, version), &what, request, |key, old| {
            let from = key.version(version)?.state(now_ms);
            if !from.leads_to(State::DestroyScheduled, Act::Schedule) {
                return Err(key.refused(version, from));
            }
            Ok(StateRecord {
                state: State::DestroyScheduled,
                since_ms: now_ms,
                active_from_ms: old.active_from_ms.filter(|at| *at <= now_ms),
                before: Some(from),
                destroy_at_ms: Some(now_ms.saturating_add(window_ms)),
            })
        })
    }

    /// Undoes a scheduled destruction while its window lasts.
    ///
    /// # Errors
    /// [`KmsError::VersionState`] when none is scheduled, or the window is over; else as [`Keyring::set_state`].
    pub fn restore(
        &self,
        id: &KeyId,
        version: u32,
        request: &RequestId<'_>,
        now_ms: u64,
    ) -> Result<Arc<Key>, KmsError> {
        let what = format!("restore {id} {version}");
        self.step((id, version), &what, request, |key, old| {
            let due = old.destroy_at_ms.is_none_or(|at| at <= now_ms);
            let to = match old.before {
                Some(to) if !due && old.state.leads_to(to, Act::Restore) => to,
                _ => return Err(key.refused(version, key.version(version)?.state(now_ms))),
            };
            Ok(StateRecord {
                state: to,
                since_ms: now_ms,
                active_from_ms: old.active_from_ms,
                before: None,
                destroy_at_ms: None,
            })
        })
    }

    /// Writes a new state of a version.
    fn step(
        &self,
        (id, version): (&KeyId, u32),
        parameters: &str,
        request: &RequestId<'_>,
        work: impl FnOnce(&Key, &StateRecord) -> Result<StateRecord, KmsError>,
    ) -> Result<Arc<Key>, KmsError> {
        let _changing = self.changing();
        self.change(id, parameters, request, |loaded| {
            let old = loaded.key.version(version)?.record();
            let record = work(&loaded.key, old)?;
            let batch = Batch::new().put(state_record(id, version), encode(&record));
            let batch = match record.destroy_at_ms {
                Some(due) => agenda::note(batch, id, due),
                None => batch,
            };
            Ok((batch, None))
        })
    }
}

pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), KmsError> {
    let bytes: usize = labels
        .iter()
        .map(|(name, value)| name.len() + value.len() + 8)
        .sum();
    if bytes <= MAX_LABEL_BYTES {
        return Ok(());
    }
    Err(KmsError::field(
        "labels",
        format!("all labels together have at most {MAX_LABEL_BYTES} bytes"),
    ))
}
