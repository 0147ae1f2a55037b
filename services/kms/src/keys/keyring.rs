//! All keys of a service, and every operation on them.
//!
//! The rule: material leaves the keyring only as a fresh data key that a caller asked for; on the disk it exists only
//! wrapped under the root key, bound to key id, version and type.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use asterism_crypto::{
    CryptoError, Digest, KeyRef, MacTag, SecretBytes, SecretKey, Signature, VerifyingKey, envelope,
};
use asterism_store::{Batch, Records, StoreError};

use crate::{
    error::KmsError,
    keys::{
        KeyId, KeyType,
        material::Material,
        record::{
            KEY, KeyRecord, RequestRecord, VersionRecord, decode, encode, key_record, request_record,
            version_record, wrap_context,
        },
    },
};

/// Versions that a key may have: their times fit in one record.
const MAX_VERSIONS: usize = 200;
/// Bytes of all labels of a key.
const MAX_LABEL_BYTES: usize = 900;
/// Keys that are kept unwrapped in memory.
const CACHED_KEYS: usize = 4096;
/// Largest input of one operation.
pub const MAX_INPUT_BYTES: usize = 64 << 10;

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
    /// Milliseconds since 1970, by version from 1.
    pub created_at_ms: Vec<u64>,
    /// Unwrapped material by version, as it is needed.
    materials: Mutex<HashMap<u32, Arc<Material>>>,
}

impl Key {
    /// The version that encrypts, signs and computes MACs.
    pub fn primary(&self) -> u32 {
        self.created_at_ms.len() as u32
    }
}

/// Makes creation and rotation idempotent: the principal who asked and the id that it gave.
pub struct RequestId<'a> {
    /// Who asked.
    pub principal: &'a str,
    /// Empty for none.
    pub id: &'a str,
}

/// A wish for a key.
#[derive(Debug)]
pub struct NewKey {
    /// `None` lets the keyring choose.
    pub id: Option<KeyId>,
    /// What it is for.
    pub key_type: KeyType,
    /// For people.
    pub labels: BTreeMap<String, String>,
}

/// A fresh data key.
pub struct DataKey {
    /// The key.
    pub plaintext: SecretKey,
    /// The key wrapped.
    pub wrapped: Vec<u8>,
    /// By which version.
    pub version: u32,
}

/// All keys.
pub struct Keyring {
    records: Arc<dyn Records>,
    root: SecretKey,
    cache: RwLock<HashMap<KeyId, Arc<Key>>>,
}

impl Keyring {
    /// A keyring over records whose material is wrapped by `root`.
    pub fn new(records: Arc<dyn Records>, root: SecretKey) -> Self {
        Self {
            records,
            root,
            cache: RwLock::default(),
        }
    }

    /// Creates a key: durable when this returns.
    ///
    /// # Errors
    /// [`KmsError::KeyExists`], [`KmsError::RequestIdReused`], [`KmsError::Field`].
    pub fn create(&self, new: NewKey, request: &RequestId<'_>, now_ms: u64) -> Result<Arc<Key>, KmsError> {
        let label_bytes: usize = new
            .labels
            .iter()
            .map(|(name, value)| name.len() + value.len() + 8)
            .sum();
        if label_bytes > MAX_LABEL_BYTES {
            return Err(KmsError::field(
                "labels",
                format!("all labels together have at most {MAX_LABEL_BYTES} bytes"),
            ));
        }
        let asked_for = new.id.as_ref().map_or("", KeyId::as_str);
        let parameters =
            Digest::of(format!("create {asked_for:?} {} {:?}", new.key_type, new.labels).as_bytes());
        if let Some(id) = self.done_before(request, &parameters)? {
            return self.get(&id);
        }
        let id = new.id.unwrap_or_else(KeyId::generate);
        let record = KeyRecord {
            key_type: new.key_type,
            owner: request.principal.to_owned(),
            labels: new.labels,
            created_at_ms: vec![now_ms],
        };
        let key_at = key_record(id.as_str());
        let batch = Batch::new()
            .expect_absent(key_at.clone())
            .put(key_at, encode(&record));
        let batch = self.with_version(batch, &id, 1, new.key_type)?;
        self.commit(batch, request, &parameters, &id, || {
            KmsError::KeyExists(id.to_string())
        })?;
        self.get(&id)
    }

    /// Adds a version and makes it primary: durable when this returns.
    ///
    /// # Errors
    /// [`KmsError::KeyNotFound`], [`KmsError::TooManyVersions`], [`KmsError::RequestIdReused`].
    pub fn rotate(&self, id: &KeyId, request: &RequestId<'_>, now_ms: u64) -> Result<Arc<Key>, KmsError> {
        let parameters = Digest::of(format!("rotate {id}").as_bytes());
        if let Some(id) = self.done_before(request, &parameters)? {
            return self.get(&id);
        }
        let key_at = key_record(id.as_str());
        let stored = self
            .records
            .get(&key_at)?
            .ok_or_else(|| KmsError::KeyNotFound(id.name()))?;
        let mut record: KeyRecord = decode(&stored)?;
        if record.created_at_ms.len() >= MAX_VERSIONS {
            return Err(KmsError::TooManyVersions(id.name()));
        }
        record.created_at_ms.push(now_ms);
        let version = record.created_at_ms.len() as u32;
        let batch = Batch::new()
            .expect_value(key_at.clone(), stored)
            .put(key_at, encode(&record));
        let batch = self.with_version(batch, id, version, record.key_type)?;
        // Somebody else rotated in between: the caller may simply ask again.
        self.commit(batch, request, &parameters, id, || KmsError::RequestIdReused)?;
        self.cache
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
        self.get(id)
    }

    /// A key.
    ///
    /// # Errors
    /// [`KmsError::KeyNotFound`]
    pub fn get(&self, id: &KeyId) -> Result<Arc<Key>, KmsError> {
        if let Some(key) = self.cache.read().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Ok(key.clone());
        }
        // Held while reading, so that a rotation in between cannot be overwritten by what was read before it.
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        let stored = self
            .records
            .get(&key_record(id.as_str()))?
            .ok_or_else(|| KmsError::KeyNotFound(id.name()))?;
        let key = Arc::new(to_key(id.clone(), decode(&stored)?));
        if cache.len() >= CACHED_KEYS {
            cache.clear();
        }
        cache.insert(id.clone(), key.clone());
        Ok(key)
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
            .map(|(at, stored)| {
                let id = str::from_utf8(&at[1..]).ok().and_then(|id| id.parse().ok());
                Ok(to_key(id.ok_or(KmsError::Damaged("key id"))?, decode(stored)?))
            })
            .collect()
    }

    /// A fresh data key, wrapped by the primary version.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`], [`KmsError::Field`].
    pub fn generate_data_key(&self, key: &Key, aad: &[u8]) -> Result<DataKey, KmsError> {
        let plaintext = SecretKey::generate()?;
        let (wrapped, version) = self.encrypt(key, plaintext.expose(), aad)?;
        Ok(DataKey {
            plaintext,
            wrapped,
            version,
        })
    }

    /// Encrypts under the primary version; gives the ciphertext and the version.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`], [`KmsError::Field`].
    pub fn encrypt(&self, key: &Key, plaintext: &[u8], aad: &[u8]) -> Result<(Vec<u8>, u32), KmsError> {
        check_size("plaintext", plaintext)?;
        check_size("additional_authenticated_data", aad)?;
        let version = key.primary();
        let material = self.material(key, version)?;
        let Material::Aes(secret) = &*material else {
            return Err(wrong_type(key, KeyType::Aes256Gcm));
        };
        let key_ref = KeyRef {
            key: key.id.to_string(),
            version,
        };
        Ok((envelope::seal(secret, &key_ref, plaintext, aad)?, version))
    }

    /// Decrypts; gives the plaintext and the version that the ciphertext names.
    ///
    /// # Errors
    /// [`KmsError::DecryptionFailed`] whatever the cause, [`KmsError::Field`] for what is no ciphertext of this key.
    pub fn decrypt(&self, key: &Key, ciphertext: &[u8], aad: &[u8]) -> Result<(SecretBytes, u32), KmsError> {
        check_size("additional_authenticated_data", aad)?;
        if ciphertext.len() > MAX_INPUT_BYTES + 1024 {
            return Err(too_large("ciphertext"));
        }
        if key.key_type != KeyType::Aes256Gcm {
            return Err(wrong_type(key, KeyType::Aes256Gcm));
        }
        let header = envelope::parse_header(ciphertext)
            .map_err(|_| KmsError::field("ciphertext", "is not a whole ciphertext of this service"))?;
        if header.key_ref.key != key.id.as_str() {
            return Err(KmsError::field(
                "ciphertext",
                "was made by another key; name that one",
            ));
        }
        // A version that never was can only come from an altered ciphertext.
        let version = header.key_ref.version;
        let material = self.material(key, version).map_err(|error| match error {
            KmsError::VersionNotFound { .. } => KmsError::DecryptionFailed,
            other => other,
        })?;
        let Material::Aes(secret) = &*material else {
            return Err(wrong_type(key, KeyType::Aes256Gcm));
        };
        match envelope::open(secret, ciphertext, aad) {
            Ok(plaintext) => Ok((plaintext, version)),
            Err(CryptoError::Authentication) => Err(KmsError::DecryptionFailed),
            Err(other) => Err(other.into()),
        }
    }

    /// HMAC-SHA256 by the primary version.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`], [`KmsError::Field`].
    pub fn mac(&self, key: &Key, data: &[u8]) -> Result<(MacTag, u32), KmsError> {
        check_size("data", data)?;
        let material = self.material(key, key.primary())?;
        let Material::Mac(secret) = &*material else {
            return Err(wrong_type(key, KeyType::HmacSha256));
        };
        Ok((secret.compute(data), key.primary()))
    }

    /// The version under which `mac` is right for `data`; 0 tries them all, newest first.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`], [`KmsError::VersionNotFound`], [`KmsError::Field`].
    pub fn verify_mac(
        &self,
        key: &Key,
        data: &[u8],
        mac: &[u8],
        version: u32,
    ) -> Result<Option<u32>, KmsError> {
        check_size("data", data)?;
        self.find_version(key, version, |material| match material {
            Material::Mac(secret) => Ok(secret.verify(data, mac).is_ok()),
            _ => Err(wrong_type(key, KeyType::HmacSha256)),
        })
    }

    /// Signs a SHA-256 digest by the primary version.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`]
    pub fn sign(&self, key: &Key, digest: &Digest) -> Result<(Signature, u32), KmsError> {
        let material = self.material(key, key.primary())?;
        let Material::Sign(secret) = &*material else {
            return Err(wrong_type(key, KeyType::EcSignP256Sha256));
        };
        Ok((secret.sign_digest(digest), key.primary()))
    }

    /// The version under which `signature` is right for `digest`; 0 tries them all, newest first.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`], [`KmsError::VersionNotFound`].
    pub fn verify(
        &self,
        key: &Key,
        digest: &Digest,
        signature: &Signature,
        version: u32,
    ) -> Result<Option<u32>, KmsError> {
        self.find_version(key, version, |material| match material {
            Material::Sign(secret) => Ok(secret.verifying_key().verify_digest(digest, signature).is_ok()),
            _ => Err(wrong_type(key, KeyType::EcSignP256Sha256)),
        })
    }

    /// The public key of a version; 0 means the primary.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`], [`KmsError::VersionNotFound`].
    pub fn public_key(&self, key: &Key, version: u32) -> Result<(VerifyingKey, u32), KmsError> {
        let version = if version == 0 { key.primary() } else { version };
        let material = self.material(key, version)?;
        let Material::Sign(secret) = &*material else {
            return Err(wrong_type(key, KeyType::EcSignP256Sha256));
        };
        Ok((secret.verifying_key(), version))
    }

    fn find_version(
        &self,
        key: &Key,
        version: u32,
        fits: impl Fn(&Material) -> Result<bool, KmsError>,
    ) -> Result<Option<u32>, KmsError> {
        let candidates = if version == 0 {
            1..=key.primary()
        } else {
            version..=version
        };
        for version in candidates.rev() {
            if fits(&*self.material(key, version)?)? {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// The material of a version, unwrapped at its first use.
    fn material(&self, key: &Key, version: u32) -> Result<Arc<Material>, KmsError> {
        if let Some(material) = key
            .materials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&version)
        {
            return Ok(material.clone());
        }
        if version == 0 || version > key.primary() {
            return Err(KmsError::VersionNotFound {
                key: key.id.name(),
                version,
            });
        }
        let stored = self.records.get(&version_record(&key.id, version))?;
        let record: VersionRecord = decode(&stored.ok_or(KmsError::Damaged("a version is missing"))?)?;
        let context = wrap_context(&key.id, version, key.key_type);
        let bytes = envelope::open(&self.root, &record.wrapped, &context)
            .map_err(|_| KmsError::Damaged("wrapped key material"))?;
        let material = Arc::new(Material::from_bytes(key.key_type, &bytes)?);
        key.materials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(version, material.clone());
        Ok(material)
    }

    /// Adds fresh wrapped material to a batch.
    fn with_version(
        &self,
        batch: Batch,
        id: &KeyId,
        version: u32,
        key_type: KeyType,
    ) -> Result<Batch, KmsError> {
        let bytes = Material::generate(key_type)?;
        let root_ref = KeyRef {
            key: "root".to_owned(),
            version: 1,
        };
        let wrapped = envelope::seal(
            &self.root,
            &root_ref,
            bytes.expose(),
            &wrap_context(id, version, key_type),
        )?;
        let at = version_record(id, version);
        Ok(batch
            .expect_absent(at.clone())
            .put(at, encode(&VersionRecord { wrapped })))
    }

    /// What the request id already did, if anything.
    fn done_before(&self, request: &RequestId<'_>, parameters: &Digest) -> Result<Option<KeyId>, KmsError> {
        if request.id.is_empty() {
            return Ok(None);
        }
        let Some(stored) = self.records.get(&request_record(request.principal, request.id))? else {
            return Ok(None);
        };
        let record: RequestRecord = decode(&stored)?;
        if record.parameters != *parameters {
            return Err(KmsError::RequestIdReused);
        }
        Ok(Some(record.key.parse()?))
    }

    /// Commits a change together with its request id. A conflict is this very request, made twice at once, or else what
    /// `conflict` says.
    fn commit(
        &self,
        mut batch: Batch,
        request: &RequestId<'_>,
        parameters: &Digest,
        id: &KeyId,
        conflict: impl FnOnce() -> KmsError,
    ) -> Result<(), KmsError> {
        if !request.id.is_empty() {
            let at = request_record(request.principal, request.id);
            let record = RequestRecord {
                parameters: *parameters,
                key: id.to_string(),
            };
            batch = batch.expect_absent(at.clone()).put(at, encode(&record));
        }
        match self.records.commit(batch) {
            Ok(()) => Ok(()),
            Err(StoreError::Conflict) => match self.done_before(request, parameters)? {
                Some(_) => Ok(()),
                None => Err(conflict()),
            },
            Err(error) => Err(error.into()),
        }
    }
}

fn to_key(id: KeyId, record: KeyRecord) -> Key {
    Key {
        id,
        key_type: record.key_type,
        owner: record.owner,
        labels: record.labels,
        created_at_ms: record.created_at_ms,
        materials: Mutex::default(),
    }
}

fn wrong_type(key: &Key, needed: KeyType) -> KmsError {
    KmsError::WrongKeyType {
        key: key.id.name(),
        actual: key.key_type,
        needed,
    }
}

fn check_size(field: &'static str, bytes: &[u8]) -> Result<(), KmsError> {
    if bytes.len() > MAX_INPUT_BYTES {
        Err(too_large(field))
    } else {
        Ok(())
    }
}

fn too_large(field: &'static str) -> KmsError {
    KmsError::field(
        field,
        "has at most 64 KiB; encrypt more with a data key from GenerateDataKey",
    )
}
