//! All keys of a service: made, found, kept wrapped.
//!
//! The rule: material leaves the keyring only as a fresh data key that a caller asked for, or encrypted to the recipient of
//! an export (`keys/transfer.rs`), if the key was created exportable; on the disk it exists only
//! wrapped under the root key and a key of its version ([`crate::keys::version_keys`]), bound to key id, version and type.
//! Time is an argument everywhere.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use asterism_crypto::{Digest, SecretBytes};
use asterism_store::{Batch, Records, StoreError};

use crate::{
    error::KmsError,
    keys::{
        Key, KeyId, KeyType, RequestId, State, agenda,
        changes::check_labels,
        material::Material,
        record::{KEY, KeyRecord, STATE, StateRecord, decode, encode, key_record, state_record, versions_of},
        requests::Committed,
        transfer::ImportJobs,
        version_keys::VersionKeys,
    },
    root::Roots,
};

/// Versions that a key may have: their times fit in one record.
const MAX_VERSIONS: usize = 180;
/// Keys that are kept unwrapped in memory.
const CACHED_KEYS: usize = 4096;
/// How far ahead a version may be made.
const MAX_ACTIVATION_AHEAD_MS: u64 = 10 * 366 * 24 * 3600 * 1000;
/// Records read at once.
pub(crate) const PAGE: usize = 512;

/// A wish for a key.
#[derive(Debug)]
pub struct NewKey {
    /// `None` lets the keyring choose.
    pub id: Option<KeyId>,
    /// What it is for.
    pub key_type: KeyType,
    /// For people.
    pub labels: BTreeMap<String, String>,
    /// When the first version becomes active; `None` for at once.
    pub active_from_ms: Option<u64>,
    /// Whether its material may ever be exported.
    pub exportable: bool,
    /// How many others have to approve a destruction or an export.
    pub required_approvals: u8,
}

/// All keys.
pub struct Keyring {
    pub(crate) records: Arc<dyn Records>,
    pub(crate) version_keys: Arc<dyn VersionKeys>,
    /// Read by who wraps, until what it wrapped is durable: once another root was adopted, nothing more comes under the old one.
    pub(crate) roots: RwLock<Roots>,
    cache: RwLock<HashMap<KeyId, Arc<Key>>>,
    /// Held by whoever changes a key that is there: what it read is still so when it writes.
    changes: Mutex<()>,
    /// Held by whoever destroys, before [`Keyring::changing`], and by who needs that nothing is destroyed meanwhile.
    destructions: Mutex<()>,
    pub(crate) import_jobs: ImportJobs,
    /// Least time in which a destruction can be undone.
    pub(crate) min_window_ms: u64,
}

/// A key to be changed, read from the store.
pub(crate) struct Loaded {
    stored: Vec<u8>,
    pub(crate) record: KeyRecord,
    pub(crate) key: Key,
}

impl Keyring {
    /// A keyring over records whose material is wrapped by the roots and the keys of `version_keys`.
    pub fn new(
        records: Arc<dyn Records>,
        version_keys: Arc<dyn VersionKeys>,
        roots: impl Into<Roots>,
        min_window_ms: u64,
    ) -> Self {
        Self {
            records,
            version_keys,
            roots: RwLock::new(roots.into()),
            cache: RwLock::default(),
            changes: Mutex::default(),
            destructions: Mutex::default(),
            import_jobs: ImportJobs::default(),
            min_window_ms,
        }
    }

    /// Creates a key: durable when this returns.
    ///
    /// # Errors
    /// [`KmsError::KeyExists`], [`KmsError::RequestIdReused`], [`KmsError::Field`].
    pub fn create(&self, new: NewKey, request: &RequestId<'_>, now_ms: u64) -> Result<Arc<Key>, KmsError> {
        let asked_for = new.id.as_ref().map_or("", KeyId::as_str);
        let mut parameters = format!("create {asked_for:?} {} {:?}", new.key_type, new.labels);
        if let Some(at) = new.active_from_ms {
            parameters += &format!(" active from {at}");
        }
        if new.required_approvals > 0 {
            parameters += &format!(" approvals {}", new.required_approvals);
        }
        if new.exportable {
            parameters += " exportable";
        }
        let material = Material::generate(new.key_type)?;
        self.make(new, (&material, false), &parameters, request, now_ms)
    }

    /// Makes a key of this material, and whether that is imported.
    pub(crate) fn make(
        &self,
        new: NewKey,
        (material, imported): (&SecretBytes, bool),
        parameters: &str,
        request: &RequestId<'_>,
        now_ms: u64,
    ) -> Result<Arc<Key>, KmsError> {
        check_labels(&new.labels)?;
        let active_from_ms = check_activation(new.active_from_ms, now_ms)?;
        let parameters = Digest::of(parameters.as_bytes());
        if let Some(id) = self.done_before(request, &parameters)? {
            return self.get(&id);
        }
        let id = new.id.unwrap_or_else(KeyId::generate);
        let mut record = KeyRecord::new(new.key_type, request.principal, new.labels);
        record.exportable = new.exportable;
        record.add_version(now_ms, imported);
        record.required_approvals = new.required_approvals;
        let key_at = key_record(id.as_str());
        let batch = Batch::new()
            .expect_absent(key_at.clone())
            .put(key_at, encode(&record));
        let roots = self.roots.read().unwrap_or_else(PoisonError::into_inner);
        let (batch, wrapping_key) = self.with_version(&roots, batch, &id, 1, new.key_type, material)?;
        let batch = with_activation(batch, &id, 1, active_from_ms, now_ms);
        let committed = self.commit(batch, request, &parameters, &id);
        let committed = self.or_shred(committed, Some(&wrapping_key))?;
        drop(roots);
        match committed {
            Committed::Now => {
                self.version_keys.keep(&wrapping_key)?;
                self.get(&id)
            }
            Committed::Before(id) => {
                self.version_keys.shred(&wrapping_key)?;
                self.get(&id)
            }
            Committed::Not => {
                self.version_keys.shred(&wrapping_key)?;
                Err(KmsError::KeyExists(id.to_string()))
            }
        }
    }

    /// Adds a version, primary from `active_from_ms` or from now on: durable when this returns.
    ///
    /// # Errors
    /// [`KmsError::KeyNotFound`], [`KmsError::TooManyVersions`], [`KmsError::RequestIdReused`], [`KmsError::Field`].
    pub fn rotate(
        &self,
        id: &KeyId,
        active_from_ms: Option<u64>,
        request: &RequestId<'_>,
        now_ms: u64,
    ) -> Result<Arc<Key>, KmsError> {
        let mut parameters = format!("rotate {id}");
        if let Some(at) = active_from_ms {
            parameters += &format!(" active from {at}");
        }
        let active_from_ms = check_activation(active_from_ms, now_ms)?;
        let _changing = self.changing();
        self.change(id, &parameters, request, |loaded| {
            if let Some(period) = loaded.record.rotation_period_ms {
                loaded.record.next_rotation_ms = Some(now_ms.saturating_add(period));
            }
            let material = Material::generate(loaded.key.key_type)?;
            self.add_version(id, loaded, (&material, false), active_from_ms, now_ms)
        })
    }

    /// A batch that adds a version of this material to `loaded`, and the name of its wrapping key.
    pub(crate) fn add_version(
        &self,
        id: &KeyId,
        loaded: &mut Loaded,
        (material, imported): (&SecretBytes, bool),
        active_from_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<(Batch, Option<String>), KmsError> {
        let record = &mut loaded.record;
        if record.created_at_ms.len() >= MAX_VERSIONS {
            return Err(KmsError::TooManyVersions(id.name()));
        }
        let version = record.add_version(now_ms, imported);
        // Nobody adopts another root meanwhile: whoever is here holds `changing`.
        let (batch, wrapping_key) = self.with_version(
            &self.roots(),
            Batch::new(),
            id,
            version,
            record.key_type,
            material,
        )?;
        let batch = with_activation(batch, id, version, active_from_ms, now_ms);
        Ok((batch, Some(wrapping_key)))
    }

    /// A key.
    ///
    /// # Errors
    /// [`KmsError::KeyNotFound`]
    pub fn get(&self, id: &KeyId) -> Result<Arc<Key>, KmsError> {
        if let Some(key) = self.cache.read().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Ok(key.clone());
        }
        // Held while reading, so that a change in between cannot be overwritten by what was read before it.
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        let key = Arc::new(self.load(id)?.key);
        if cache.len() >= CACHED_KEYS {
            cache.clear();
        }
        cache.insert(id.clone(), key.clone());
        Ok(key)
    }

    /// Reads what [`Keyring::get`] reads for a key that is not there, and forgets it.
    pub(crate) fn look_for(&self, id: &KeyId) -> Result<(), KmsError> {
        self.records.get(&key_record(id.as_str()))?;
        Ok(())
    }

    /// Keys in order of their ids, after `after`.
    ///
    /// # Errors
    /// The store's own.
    pub fn list(&self, after: Option<&KeyId>, limit: usize) -> Result<Vec<Key>, KmsError> {
        let mut from = key_record(after.map_or("", KeyId::as_str));
        if after.is_some() {
            from.push(0);
        }
        let page = self.records.scan(&from, &[KEY], limit)?;
        page.iter()
            .map(|(at, stored)| self.read(key_at(at)?, stored).map(|(_, key)| key))
            .collect()
    }

    /// The root keys as they are now.
    pub(crate) fn roots(&self) -> Roots {
        self.roots.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the place of the one who changes keys.
    pub(crate) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of the one who destroys versions: meanwhile no wrapping key of theirs goes.
    pub(crate) fn destroying(&self) -> MutexGuard<'_, ()> {
        self.destructions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a key once: `work` alters the record and gives what is written with it, and the name of a wrapping key that was made
    /// for it. Only for who holds [`Keyring::changing`].
    pub(crate) fn change(
        &self,
        id: &KeyId,
        parameters: &str,
        request: &RequestId<'_>,
        work: impl FnOnce(&mut Loaded) -> Result<(Batch, Option<String>), KmsError>,
    ) -> Result<Arc<Key>, KmsError> {
        let parameters = match request.etag {
            "" => Digest::of(parameters.as_bytes()),
            etag => Digest::of(format!("{parameters} if {etag}").as_bytes()),
        };
        if let Some(id) = self.done_before(request, &parameters)? {
            return self.get(&id);
        }
        let mut loaded = self.load(id)?;
        if !request.etag.is_empty() && request.etag != loaded.key.etag {
            return Err(KmsError::EtagMismatch(id.name()));
        }
        let rotation_before = loaded.record.next_rotation_ms;
        let (mut batch, wrapping_key) = work(&mut loaded)?;
        if let Some(due) = loaded.record.next_rotation_ms
            && rotation_before != Some(due)
        {
            batch = agenda::note(batch, id, due);
        }
        let at = key_record(id.as_str());
        let batch = batch
            .expect_value(at.clone(), loaded.stored)
            .put(at, encode(&loaded.record.next()));
        let committed = self.commit(batch, request, &parameters, id);
        let committed = self.or_shred(committed, wrapping_key.as_deref())?;
        self.cache
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
        match (&committed, wrapping_key) {
            (Committed::Now, Some(name)) => self.version_keys.keep(&name)?,
            (Committed::Before(_) | Committed::Not, Some(name)) => self.version_keys.shred(&name)?,
            (_, None) => {}
        }
        match committed {
            Committed::Now | Committed::Before(_) => self.get(id),
            // Nobody else changes keys: the id was used for a creation at the same moment.
            Committed::Not => Err(KmsError::RequestIdReused),
        }
    }

    /// Shreds a wrapping key whose record was refused for want of space: a full disk would fill with them. After any other failure a record may
    /// name it, and the next start decides.
    fn or_shred<T>(&self, committed: Result<T, KmsError>, wrapping_key: Option<&str>) -> Result<T, KmsError> {
        if let (Err(KmsError::Store(StoreError::NoSpace)), Some(name)) = (&committed, wrapping_key) {
            self.version_keys.shred(name)?;
        }
        committed
    }

    /// Reads a key from the store.
    pub(crate) fn load(&self, id: &KeyId) -> Result<Loaded, KmsError> {
        let stored = self
            .records
            .get(&key_record(id.as_str()))?
            .ok_or_else(|| KmsError::KeyNotFound(id.name()))?;
        let (record, key) = self.read(id.clone(), &stored)?;
        Ok(Loaded { stored, record, key })
    }

    fn read(&self, id: KeyId, stored: &[u8]) -> Result<(KeyRecord, Key), KmsError> {
        let record = KeyRecord::read(stored)?;
        let mut etag = Digest::of(stored).to_string();
        etag.truncate(16);
        let prefix = versions_of(STATE, &id);
        let mut states = HashMap::new();
        for (at, stored) in self.records.scan(&prefix, &prefix, record.created_at_ms.len())? {
            let number = at.last_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
            states.insert(number, decode::<StateRecord>(&stored)?);
        }
        let key = Key::new(id, record.clone(), etag, states);
        Ok((record, key))
    }

    /// Goes through all records under a prefix.
    pub(crate) fn each(
        &self,
        prefix: &[u8],
        mut see: impl FnMut(&[u8], &[u8]) -> Result<(), KmsError>,
    ) -> Result<(), KmsError> {
        let mut from = prefix.to_vec();
        loop {
            let page = self.records.scan(&from, prefix, PAGE)?;
            for (at, stored) in &page {
                see(at, stored)?;
            }
            match page.into_iter().next_back() {
                Some((at, _)) => from = [at.as_slice(), &[0]].concat(),
                None => return Ok(()),
            }
        }
    }
}

/// The key id in the name of a key's record.
pub(crate) fn key_at(at: &[u8]) -> Result<KeyId, KmsError> {
    let id = at
        .get(1..)
        .and_then(|id| str::from_utf8(id).ok())
        .and_then(|id| id.parse().ok());
    id.ok_or(KmsError::Damaged("key id"))
}

/// The activation time, if it is still to come.
pub(crate) fn check_activation(active_from_ms: Option<u64>, now_ms: u64) -> Result<Option<u64>, KmsError> {
    match active_from_ms {
        Some(at) if at > now_ms.saturating_add(MAX_ACTIVATION_AHEAD_MS) => Err(KmsError::field(
            "activation_time",
            "must be at most 10 years ahead",
        )),
        Some(at) if at <= now_ms => Ok(None),
        later => Ok(later),
    }
}

/// Has the version wait for its activation time, if there is one.
fn with_activation(
    batch: Batch,
    id: &KeyId,
    version: u32,
    active_from_ms: Option<u64>,
    now_ms: u64,
) -> Batch {
    if active_from_ms.is_none() {
        return batch;
    }
    let record = StateRecord {
        state: State::PreActive,
        since_ms: now_ms,
        active_from_ms,
        before: None,
        destroy_at_ms: None,
    };
    batch.put(state_record(id, version), encode(&record))
}
