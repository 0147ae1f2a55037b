//! Which models exist, and where their parts lie.
//!
//! The rule: a record names only blobs that are durable. Blobs are written first, the record last and in one batch with
//! the request id; what a crash leaves between the two is swept at the next start.

use std::{collections::HashSet, io::Read as _, sync::Arc};

use asterism_crypto::{Digest, Signed};
use asterism_store::{Batch, BlobName, Blobs, Records, StoreError, sweep};
use serde::{Deserialize, Serialize};

use crate::{error::InferenceError, models::ModelId};

/// Records: model id -> [`StoredModel`].
const MODEL: u8 = b'm';
/// Records: SHA-256 of owner and request id -> [`MadeBy`].
const REQUEST: u8 = b'r';
/// Records: model id -> [`Compilation`].
const COMPILATION: u8 = b'c';
/// Largest blob that is read into memory.
const MAX_BLOB_BYTES: u64 = 1 << 30;

/// The record of a model.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct StoredModel {
    /// Principal that owns it.
    pub owner: String,
    /// SHA-256 of the manifest's bytes.
    pub manifest_sha256: Digest,
}

/// How a model was compiled for encrypted prediction: enough to do so again.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Compilation {
    /// The plan that was asked for, by name; none lets the compiler choose.
    pub plan: Option<String>,
    /// Keep only the bin edges that some tree splits on.
    pub used_edges_only: bool,
    /// SHA-256 of the compiled model: compiled again, it must be the same.
    pub compiled_sha256: Digest,
}

/// What a request id became.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MadeBy {
    model: String,
    request_sha256: Digest,
}

/// Identifies a request that makes a model.
#[derive(Clone, Debug)]
pub struct RequestKey {
    /// SHA-256 of owner and request id.
    pub key: Digest,
    /// SHA-256 of the request's parameters.
    pub parameters: Digest,
}

/// The registry of models: records and blobs.
pub struct Registry {
    records: Arc<dyn Records>,
    blobs: Arc<dyn Blobs>,
}

impl Registry {
    /// Opens the registry and sweeps blobs that no record names: neither one of a model, nor one that `others` tells of.
    pub fn open(
        records: Arc<dyn Records>,
        blobs: Arc<dyn Blobs>,
        others: HashSet<BlobName>,
    ) -> Result<Self, InferenceError> {
        let registry = Self { records, blobs };
        let mut named = others;
        let mut after = None;
        loop {
            let page = registry.page(after, 1000)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            named.extend(
                page.iter()
                    .flat_map(|(id, _)| [id.model_blob(), id.manifest_blob()]),
            );
        }
        let swept = sweep(&*registry.blobs, &|name| named.contains(name))?;
        if !swept.is_empty() {
            tracing::info!(
                count = swept.len(),
                "removed what an interrupted training or upload left behind"
            );
        }
        Ok(registry)
    }

    /// The model that a request already made, if any.
    ///
    /// # Errors
    /// [`InferenceError::RequestIdReused`] when the id was used with other parameters.
    pub fn made_by(&self, request: &RequestKey) -> Result<Option<ModelId>, InferenceError> {
        let Some(bytes) = self.records.get(&request_key(request))? else {
            return Ok(None);
        };
        let made: MadeBy =
            serde_json::from_slice(&bytes).map_err(|_| InferenceError::Damaged("request id record"))?;
        if made.request_sha256 != request.parameters {
            return Err(InferenceError::RequestIdReused);
        }
        ModelId::from_name(&format!("models/{}", made.model)).map(Some)
    }

    /// Stores a model: durable when this returns. Of two racing requests with one id, the first wins and its model is
    /// given.
    pub fn put(
        &self,
        id: ModelId,
        owner: &str,
        ciphertext: &[u8],
        manifest: &Signed,
        request: Option<&RequestKey>,
    ) -> Result<ModelId, InferenceError> {
        self.write_blob(&id.model_blob(), ciphertext)?;
        let signed = serde_json::to_vec(manifest).map_err(|_| InferenceError::Damaged("signed manifest"))?;
        self.write_blob(&id.manifest_blob(), &signed)?;
        let record = StoredModel {
            owner: owner.to_owned(),
            manifest_sha256: Digest::of(&manifest.payload),
        };
        let mut batch = Batch::new()
            .expect_absent(model_key(id))
            .put(model_key(id), encode(&record)?);
        if let Some(request) = request {
            let made = MadeBy {
                model: id.to_string(),
                request_sha256: request.parameters,
            };
            let key = request_key(request);
            batch = batch.expect_absent(key.clone()).put(key, encode(&made)?);
        }
        match self.records.commit(batch) {
            Ok(()) => Ok(id),
            Err(StoreError::Conflict) => {
                self.discard(id)?;
                request
                    .map(|request| self.made_by(request))
                    .transpose()?
                    .flatten()
                    .ok_or(InferenceError::Damaged("conflicting model id"))
            }
            Err(error) => {
                self.discard(id)?;
                Err(error.into())
            }
        }
    }

    /// The record of a model.
    pub fn get(&self, id: ModelId) -> Result<StoredModel, InferenceError> {
        let bytes = self
            .records
            .get(&model_key(id))?
            .ok_or_else(|| InferenceError::ModelNotFound(id.name()))?;
        decode(&bytes)
    }

    /// Models in the order in which they were made, after `after`.
    pub fn page(
        &self,
        after: Option<ModelId>,
        limit: usize,
    ) -> Result<Vec<(ModelId, StoredModel)>, InferenceError> {
        let mut from = after.map_or_else(|| vec![MODEL], model_key);
        if after.is_some() {
            from.push(0);
        }
        self.records
            .scan(&from, &[MODEL], limit)?
            .iter()
            .map(|(key, value)| {
                let id = ModelId::from_slice(&key[1..]).ok_or(InferenceError::Damaged("model key"))?;
                Ok((id, decode(value)?))
            })
            .collect()
    }

    /// The signed manifest as stored, not verified.
    pub fn signed_manifest(&self, id: ModelId) -> Result<Vec<u8>, InferenceError> {
        self.read_blob(id, &id.manifest_blob())
    }

    /// The encrypted model as stored, not verified.
    pub fn ciphertext(&self, id: ModelId) -> Result<Vec<u8>, InferenceError> {
        self.read_blob(id, &id.model_blob())
    }

    /// Remembers how a model was compiled, in place of an earlier compilation: durable when this returns.
    ///
    /// # Errors
    /// [`InferenceError::ModelNotFound`] when it was deleted meanwhile.
    pub fn put_compilation(&self, id: ModelId, compilation: &Compilation) -> Result<(), InferenceError> {
        let gone = || InferenceError::ModelNotFound(id.name());
        let model = self.records.get(&model_key(id))?.ok_or_else(gone)?;
        let batch = Batch::new()
            .expect_value(model_key(id), model)
            .put(compilation_key(id), encode(compilation)?);
        match self.records.commit(batch) {
            Err(StoreError::Conflict) => Err(gone()),
            other => Ok(other?),
        }
    }

    /// How a model was compiled; `None` when it was not.
    pub fn compilation(&self, id: ModelId) -> Result<Option<Compilation>, InferenceError> {
        let stored = self.records.get(&compilation_key(id))?;
        stored
            .map(|bytes| {
                serde_json::from_slice(&bytes).map_err(|_| InferenceError::Damaged("compilation record"))
            })
            .transpose()
    }

    /// Deletes a model and its compilation: the records first, so that nothing names what is gone.
    pub fn delete(&self, id: ModelId) -> Result<(), InferenceError> {
        let batch = Batch::new().delete(model_key(id)).delete(compilation_key(id));
        self.records.commit(batch)?;
        self.discard(id)
    }

    fn discard(&self, id: ModelId) -> Result<(), InferenceError> {
        for blob in [id.model_blob(), id.manifest_blob()] {
            match self.blobs.delete(&blob) {
                Ok(()) | Err(StoreError::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn write_blob(&self, name: &BlobName, bytes: &[u8]) -> Result<(), InferenceError> {
        let mut writer = self.blobs.create()?;
        writer.write_all(bytes).map_err(StoreError::from)?;
        Ok(writer.commit(name)?)
    }

    fn read_blob(&self, id: ModelId, name: &BlobName) -> Result<Vec<u8>, InferenceError> {
        let refused = |problem| InferenceError::ModelRefused {
            model: id.name(),
            problem,
        };
        let reader = match self.blobs.open(name) {
            Ok(reader) => reader,
            Err(StoreError::NotFound) => return Err(refused("a part of it is missing")),
            Err(error) => return Err(error.into()),
        };
        if reader.len() > MAX_BLOB_BYTES {
            return Err(refused("a part of it is larger than any model"));
        }
        let mut bytes = Vec::new();
        reader
            .take(MAX_BLOB_BYTES)
            .read_to_end(&mut bytes)
            .map_err(StoreError::from)?;
        Ok(bytes)
    }
}

fn model_key(id: ModelId) -> Vec<u8> {
    [&[MODEL], id.as_bytes().as_slice()].concat()
}

fn compilation_key(id: ModelId) -> Vec<u8> {
    [&[COMPILATION], id.as_bytes().as_slice()].concat()
}

fn request_key(request: &RequestKey) -> Vec<u8> {
    [&[REQUEST], request.key.as_bytes().as_slice()].concat()
}

fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, InferenceError> {
    serde_json::to_vec(record).map_err(|_| InferenceError::Damaged("record to write"))
}

fn decode(bytes: &[u8]) -> Result<StoredModel, InferenceError> {
    serde_json::from_slice(bytes).map_err(|_| InferenceError::Damaged("model record"))
}
