//! Evaluation keys at rest.
//!
//! They are not secret, but whose they are matters: a key is found under its owner and its digest only. What a file holds
//! is checked against kms' record when it is loaded (see [`super::flow`]). A blob is durable before its record, and an
//! upload that is cut off leaves nothing.

use std::{
    collections::HashSet,
    fmt,
    io::{Read as _, Write as _},
    str::FromStr as _,
    sync::{Arc, Mutex, PoisonError},
};

use asterism_crypto::{Digest, DigestWriter};
use asterism_fhe::{
    params::{ALL, ParamsId},
    wire,
};
use asterism_store::{Batch, BlobName, BlobWriter, Blobs, Records, StoreError};
use serde::{Deserialize, Serialize};

use crate::{encrypted::EncryptedError, error::InferenceError};

/// Records: this byte, SHA-256 of the owner, SHA-256 of the key -> [`StoredKey`].
const KEY: u8 = b'e';
/// Most bytes of a key in one message.
const MAX_CHUNK_BYTES: usize = 1 << 20;
/// Enough of a key to tell which parameter set it says it is for.
const START_BYTES: usize = 8;

/// Names an evaluation key; `evaluationKeys/{sha256 in hex}` on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EvaluationKeyId(pub Digest);

impl EvaluationKeyId {
    /// Reads a name.
    ///
    /// # Errors
    /// [`InferenceError::Field`] when it is nothing like one.
    pub fn from_name(field: &'static str, name: &str) -> Result<Self, InferenceError> {
        name.strip_prefix("evaluationKeys/")
            .and_then(Self::parse)
            .ok_or_else(|| {
                InferenceError::field(
                    field,
                    "must be an evaluation key's name, `evaluationKeys/{sha256 in hex}`",
                )
            })
    }

    /// Reads the digest alone.
    pub fn parse(hex: &str) -> Option<Self> {
        let digest: Digest = hex.parse().ok()?;
        (digest.to_string() == hex).then_some(Self(digest))
    }

    /// `evaluationKeys/{sha256 in hex}`.
    pub fn name(self) -> String {
        format!("evaluationKeys/{self}")
    }
}

impl fmt::Display for EvaluationKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an upload says of its key.
#[derive(Clone, Debug)]
pub struct KeyHeader {
    /// Parameter set, by name.
    pub params: String,
    /// Of the whole key.
    pub sha256: Digest,
    /// Size of the whole key.
    pub total_bytes: u64,
}

/// The record of a key.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct StoredKey {
    /// Principal that registered it, and the only one that it serves.
    pub owner: String,
    /// Parameter set, by name.
    pub params: String,
    /// Of the whole key.
    pub sha256: Digest,
    /// Size of the whole key.
    pub total_bytes: u64,
}

impl StoredKey {
    /// Its name.
    pub fn id(&self) -> EvaluationKeyId {
        EvaluationKeyId(self.sha256)
    }

    fn blob(&self) -> BlobName {
        let owner = Digest::of(self.owner.as_bytes()).to_string();
        // Two owners may register the same bytes; half of a digest tells them apart.
        BlobName::from_str(&format!("{}.{}.key", self.sha256, &owner[..32]))
            .expect("hex digits and a short suffix are a blob name")
    }
}

/// Bounds on evaluation keys.
#[derive(Clone, Copy, Debug)]
pub struct KeyLimits {
    /// Most keys of one owner.
    pub per_owner: usize,
    /// Largest key.
    pub bytes: u64,
}

/// All stored evaluation keys.
pub struct EvaluationKeys {
    records: Arc<dyn Records>,
    blobs: Arc<dyn Blobs>,
    limits: KeyLimits,
    /// Held while blob and record of a key change together.
    changing: Mutex<()>,
}

/// A key on its way in. Dropped before [`EvaluationKeys::keep`], it leaves nothing.
pub struct KeyUpload {
    key: StoredKey,
    params: ParamsId,
    writer: Box<dyn BlobWriter>,
    digest: DigestWriter,
    start: Vec<u8>,
}

impl KeyUpload {
    /// What will be on record.
    pub fn key(&self) -> &StoredKey {
        &self.key
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`InferenceError::Field`] for an empty or a large part; [`EncryptedError::KeyLengthMismatch`] past the announced end.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), InferenceError> {
        if bytes.is_empty() || bytes.len() > MAX_CHUNK_BYTES {
            return Err(InferenceError::field("chunk", "must have 1 byte to 1 MiB"));
        }
        let found = self.writer.bytes_written() + bytes.len() as u64;
        if found > self.key.total_bytes {
            return Err(self.length_mismatch(found));
        }
        let missing = START_BYTES.saturating_sub(self.start.len()).min(bytes.len());
        self.start.extend_from_slice(&bytes[..missing]);
        self.digest.update(bytes);
        self.writer.write_all(bytes).map_err(StoreError::from)?;
        Ok(())
    }

    fn length_mismatch(&self, found: u64) -> InferenceError {
        EncryptedError::KeyLengthMismatch {
            expected: self.key.total_bytes,
            found,
        }
        .into()
    }

    /// Checks that all of it came, and is what it was said to be.
    ///
    /// # Errors
    /// [`EncryptedError::KeyLengthMismatch`], [`EncryptedError::KeyDigestMismatch`]; [`InferenceError::Field`] for what is
    /// no key of this parameter set.
    pub fn check(&self) -> Result<(), InferenceError> {
        let found = self.writer.bytes_written();
        if found != self.key.total_bytes {
            return Err(self.length_mismatch(found));
        }
        if self.digest.clone().finish() != self.key.sha256 {
            return Err(EncryptedError::KeyDigestMismatch.into());
        }
        match wire::evaluation_key_params(&self.start) {
            Ok(params) if params == self.params => Ok(()),
            _ => Err(InferenceError::field(
                "chunk",
                format!(
                    "is not an evaluation key of the parameter set {}",
                    self.params.name()
                ),
            )),
        }
    }
}

impl EvaluationKeys {
    /// Over the records and blobs of the service.
    pub fn new(records: Arc<dyn Records>, blobs: Arc<dyn Blobs>, limits: KeyLimits) -> Self {
        Self {
            records,
            blobs,
            limits,
            changing: Mutex::new(()),
        }
    }

    /// Every blob that a record names.
    pub fn blob_names(&self) -> Result<HashSet<BlobName>, InferenceError> {
        let mut names = HashSet::new();
        let mut from = vec![KEY];
        loop {
            let page = self.records.scan(&from, &[KEY], 1000)?;
            for (_, value) in &page {
                names.insert(decode(value)?.blob());
            }
            match page.into_iter().next_back() {
                Some((last, _)) => from = [last.as_slice(), &[0]].concat(),
                None => return Ok(names),
            }
        }
    }

    /// Begins an upload, once its header is known to be right and there is room for one key more.
    ///
    /// # Errors
    /// [`InferenceError::Field`]; [`EncryptedError::TooManyKeys`].
    pub fn begin(&self, owner: &str, header: KeyHeader) -> Result<KeyUpload, InferenceError> {
        let params = self.check_header(&header)?;
        let key = StoredKey {
            owner: owner.to_owned(),
            params: header.params,
            sha256: header.sha256,
            total_bytes: header.total_bytes,
        };
        self.check_room(&key)?;
        Ok(KeyUpload {
            key,
            params,
            writer: self.blobs.create()?,
            digest: DigestWriter::new(),
            start: Vec::with_capacity(START_BYTES),
        })
    }

    fn check_header(&self, header: &KeyHeader) -> Result<ParamsId, InferenceError> {
        let taking: Vec<ParamsId> = ALL
            .iter()
            .map(|params| params.id)
            .filter(|id| wire::evaluation_key_len(*id) > 0)
            .collect();
        let Some(params) = taking.iter().find(|id| id.name() == header.params) else {
            let names: Vec<&str> = taking.iter().map(|id| id.name()).collect();
            return Err(InferenceError::field(
                "header.params",
                format!(
                    "must be a parameter set that takes evaluation keys: {}",
                    names.join(", ")
                ),
            ));
        };
        let limit = self.limits.bytes;
        if header.total_bytes > limit {
            return Err(InferenceError::field(
                "header.total_bytes",
                format!("must be at most {limit}"),
            ));
        }
        let expected = wire::evaluation_key_len(*params) as u64;
        if header.total_bytes != expected {
            return Err(InferenceError::field(
                "header.total_bytes",
                format!("must be {expected}, the size of a key of {}", params.name()),
            ));
        }
        Ok(*params)
    }

    /// Room for one key more, or the key is there already.
    fn check_room(&self, key: &StoredKey) -> Result<(), InferenceError> {
        let limit = self.limits.per_owner;
        if self.find(&key.owner, key.id())?.is_some() {
            return Ok(());
        }
        let prefix = owner_prefix(&key.owner);
        if self.records.scan(&prefix, &prefix, limit)?.len() >= limit {
            return Err(EncryptedError::TooManyKeys(limit).into());
        }
        Ok(())
    }

    /// Stores a key that came whole: durable when this returns. The same key again takes the place of what is stored.
    ///
    /// # Errors
    /// As [`KeyUpload::check`] and [`EvaluationKeys::begin`].
    pub fn keep(&self, upload: KeyUpload) -> Result<StoredKey, InferenceError> {
        upload.check()?;
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_room(&upload.key)?;
        upload.writer.commit(&upload.key.blob())?;
        let value =
            serde_json::to_vec(&upload.key).map_err(|_| InferenceError::Damaged("record to write"))?;
        let at = record_key(&upload.key.owner, upload.key.id());
        if let Err(error) = self.records.commit(Batch::new().put(at, value)) {
            if self
                .find(&upload.key.owner, upload.key.id())
                .is_ok_and(|key| key.is_none())
            {
                self.discard(&upload.key)?;
            }
            return Err(error.into());
        }
        Ok(upload.key)
    }

    fn find(&self, owner: &str, id: EvaluationKeyId) -> Result<Option<StoredKey>, InferenceError> {
        let stored = self.records.get(&record_key(owner, id))?;
        stored.map(|bytes| decode(&bytes)).transpose()
    }

    /// The record of a key of `owner`'s.
    ///
    /// # Errors
    /// [`EncryptedError::KeyNotFound`] also for a key that somebody else has.
    pub fn get(&self, owner: &str, id: EvaluationKeyId) -> Result<StoredKey, InferenceError> {
        self.find(owner, id)?
            .ok_or_else(|| EncryptedError::KeyNotFound(id.name()).into())
    }

    /// Keys of `owner`'s in order of their names, after `after`.
    pub fn page(
        &self,
        owner: &str,
        after: Option<EvaluationKeyId>,
        limit: usize,
    ) -> Result<Vec<StoredKey>, InferenceError> {
        let prefix = owner_prefix(owner);
        let from = match after {
            Some(id) => [record_key(owner, id).as_slice(), &[0]].concat(),
            None => prefix.clone(),
        };
        let page = self.records.scan(&from, &prefix, limit)?;
        page.iter().map(|(_, value)| decode(value)).collect()
    }

    /// The bytes of a key as stored: of the size on record, not verified otherwise.
    ///
    /// # Errors
    /// [`EncryptedError::KeyRefused`]
    pub fn read(&self, key: &StoredKey) -> Result<Vec<u8>, InferenceError> {
        let refused = |problem| EncryptedError::KeyRefused {
            key: key.id().name(),
            problem,
        };
        let reader = match self.blobs.open(&key.blob()) {
            Ok(reader) => reader,
            Err(StoreError::NotFound) => return Err(refused("its file is missing").into()),
            Err(error) => return Err(error.into()),
        };
        if reader.len() != key.total_bytes {
            return Err(refused("its file has another size").into());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(key.total_bytes).unwrap_or(0));
        reader
            .take(key.total_bytes)
            .read_to_end(&mut bytes)
            .map_err(StoreError::from)?;
        Ok(bytes)
    }

    /// Deletes a key of `owner`'s: its record first, so that nothing names what is gone.
    ///
    /// # Errors
    /// [`EncryptedError::KeyNotFound`]
    pub fn delete(&self, owner: &str, id: EvaluationKeyId) -> Result<(), InferenceError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let key = self.get(owner, id)?;
        self.records.commit(Batch::new().delete(record_key(owner, id)))?;
        self.discard(&key)
    }

    fn discard(&self, key: &StoredKey) -> Result<(), InferenceError> {
        match self.blobs.delete(&key.blob()) {
            Ok(()) | Err(StoreError::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn owner_prefix(owner: &str) -> Vec<u8> {
    [&[KEY], Digest::of(owner.as_bytes()).as_bytes().as_slice()].concat()
}

fn record_key(owner: &str, id: EvaluationKeyId) -> Vec<u8> {
    [owner_prefix(owner).as_slice(), id.0.as_bytes()].concat()
}

fn decode(bytes: &[u8]) -> Result<StoredKey, InferenceError> {
    serde_json::from_slice(bytes).map_err(|_| InferenceError::Damaged("evaluation key record"))
}

#[cfg(test)]
mod tests;
