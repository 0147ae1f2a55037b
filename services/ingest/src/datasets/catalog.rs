//! Which datasets exist, whose they are, and where their parts lie.

use std::{io::Read as _, sync::Arc};

use asterism_client::manifest::{DatasetManifest, ManifestColumn};
use asterism_crypto::{Context, Digest, Signed};
use asterism_store::{Batch, BlobName, BlobReader, BlobWriter, Blobs, Records, StoreError, sweep};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{datasets::DatasetId, error::IngestError};

/// Records: dataset id -> [`StoredDataset`].
const DATASET: u8 = b'd';
/// Records: SHA-256 of the owner, dataset id -> nothing.
const OWNED: u8 = b'w';
/// Records: SHA-256 of owner and request id -> dataset id.
const REQUEST: u8 = b'r';
/// Largest signed manifest that is read into memory: base64 adds a third to its largest payload.
const MAX_SIGNED_BYTES: u64 = 32 << 20;

/// The record of a dataset.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct StoredDataset {
    /// For people.
    pub display_name: String,
    /// Principal that uploaded it.
    pub owner: String,
    /// Request id of the upload; may be empty.
    pub request_id: String,
    /// Data rows.
    pub rows: u64,
    /// Bytes of the CSV.
    pub bytes: u64,
    /// When it was uploaded.
    pub created_at: Timestamp,
    /// SHA-256 of the manifest's signed bytes.
    pub manifest_sha256: Digest,
}

/// A dataset that its caller may use: there is no other way to get one than [`Datasets::grant`].
#[derive(Clone, Debug)]
pub struct Granted {
    id: DatasetId,
    record: StoredDataset,
}

impl Granted {
    /// Its id.
    pub fn id(&self) -> DatasetId {
        self.id
    }

    /// Its record.
    pub fn record(&self) -> &StoredDataset {
        &self.record
    }

    pub(super) fn damaged(&self, problem: impl Into<String>) -> IngestError {
        IngestError::DatasetDamaged {
            dataset: self.id.name(),
            problem: problem.into(),
        }
    }
}

/// A dataset with its schema.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// Its id.
    pub id: DatasetId,
    /// Its record.
    pub record: StoredDataset,
    /// Profile of each column.
    pub columns: Vec<ManifestColumn>,
}

/// What becomes a dataset.
pub struct NewDataset {
    /// Its id, which its data key and chunks are bound to.
    pub id: DatasetId,
    /// Its record.
    pub record: StoredDataset,
    /// The encrypted data, complete and not yet durable.
    pub data: Box<dyn BlobWriter>,
    /// The chunk table.
    pub table: Vec<Digest>,
    /// The signed manifest.
    pub manifest: Signed,
}

/// All datasets.
pub struct Datasets {
    records: Arc<dyn Records>,
    blobs: Arc<dyn Blobs>,
}

impl Datasets {
    /// Opens the catalogue and sweeps blobs that no record names.
    ///
    /// # Errors
    /// [`IngestError::Store`]
    pub fn open(records: Arc<dyn Records>, blobs: Arc<dyn Blobs>) -> Result<Self, IngestError> {
        let datasets = Self { records, blobs };
        let unreadable = std::cell::Cell::new(None);
        let keep = |name: &BlobName| {
            let text = name.to_string();
            let Some(id) = text.split_once('.').and_then(|(id, _)| DatasetId::parse(id)) else {
                return false;
            };
            // Nothing is deleted on the word of a store that cannot be read.
            id.blobs().contains(name)
                && datasets.records.get(&dataset_key(id)).map_or_else(
                    |error| {
                        unreadable.set(Some(error));
                        true
                    },
                    |record| record.is_some(),
                )
        };
        let swept = sweep(&*datasets.blobs, &keep)?;
        if let Some(error) = unreadable.take() {
            return Err(error.into());
        }
        if !swept.is_empty() {
            tracing::info!(
                count = swept.len(),
                "removed what an interrupted upload left behind"
            );
        }
        Ok(datasets)
    }

    /// The dataset `id`, if it exists and `may_access`, told its owner, says yes. One answer for both refusals: whether
    /// somebody else's dataset exists is nobody's business.
    ///
    /// # Errors
    /// [`IngestError::DatasetNotFound`]; those of `may_access`.
    pub fn grant(
        &self,
        id: DatasetId,
        may_access: &dyn Fn(&str) -> Result<bool, IngestError>,
    ) -> Result<Granted, IngestError> {
        match self.record(id)? {
            Some(record) if may_access(&record.owner)? => Ok(Granted { id, record }),
            _ => Err(IngestError::DatasetNotFound(id.name())),
        }
    }

    /// The dataset that a request id of `owner` became.
    ///
    /// # Errors
    /// [`IngestError::Store`]
    pub fn made_by(&self, owner: &str, request_id: &str) -> Result<Option<DatasetId>, IngestError> {
        if request_id.is_empty() {
            return Ok(None);
        }
        let Some(value) = self.records.get(&request_key(owner, request_id))? else {
            return Ok(None);
        };
        DatasetId::from_slice(&value)
            .ok_or(IngestError::RecordDamaged("request id"))
            .map(Some)
    }

    /// Datasets of `owner` (`None` means everybody's) after `after`, in the order in which they were made.
    ///
    /// # Errors
    /// [`IngestError::Store`]
    pub fn page(
        &self,
        owner: Option<&str>,
        after: Option<DatasetId>,
        limit: usize,
    ) -> Result<Vec<(DatasetId, StoredDataset)>, IngestError> {
        let prefix = owner.map_or_else(|| vec![DATASET], owned_prefix);
        let mut from = prefix.clone();
        if let Some(after) = after {
            from.extend_from_slice(after.as_bytes());
            from.push(0);
        }
        let mut found = Vec::new();
        for (key, value) in self.records.scan(&from, &prefix, limit)? {
            let id = DatasetId::from_slice(&key[prefix.len()..])
                .ok_or(IngestError::RecordDamaged("dataset key"))?;
            if owner.is_none() {
                found.push((id, decode(&value)?));
            } else if let Some(record) = self.record(id)? {
                found.push((id, record));
            }
        }
        Ok(found)
    }

    /// The dataset with its schema, as far as the record vouches for the manifest.
    ///
    /// # Errors
    /// [`IngestError::DatasetDamaged`] when the stored manifest is not the one that was recorded.
    pub fn describe(&self, granted: &Granted) -> Result<Described, IngestError> {
        let signed = self.signed_manifest(granted)?;
        if Digest::of(&signed.payload) != granted.record.manifest_sha256 {
            return Err(granted.damaged("its manifest is not the one that was recorded"));
        }
        let manifest =
            DatasetManifest::parse(&signed.payload).map_err(|error| granted.damaged(error.to_string()))?;
        Ok(Described {
            id: granted.id,
            record: granted.record.clone(),
            columns: manifest.columns,
        })
    }

    /// The signed manifest as stored, not verified.
    ///
    /// # Errors
    /// [`IngestError::DatasetDamaged`] when it is missing or not even a signed statement.
    pub fn signed_manifest(&self, granted: &Granted) -> Result<Signed, IngestError> {
        let mut blob = self.part(granted, &granted.id.manifest_blob(), "manifest")?;
        if blob.len() > MAX_SIGNED_BYTES {
            return Err(granted.damaged("its manifest is too long"));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(blob.len()).unwrap_or_default());
        blob.read_to_end(&mut bytes).map_err(StoreError::from)?;
        serde_json::from_slice(&bytes).map_err(|_| granted.damaged("its manifest cannot be read"))
    }

    /// The encrypted data as stored.
    ///
    /// # Errors
    /// [`IngestError::DatasetDamaged`] when it is missing.
    pub fn data(&self, granted: &Granted) -> Result<Box<dyn BlobReader>, IngestError> {
        self.part(granted, &granted.id.data_blob(), "encrypted data")
    }

    /// The chunk table as stored.
    ///
    /// # Errors
    /// [`IngestError::DatasetDamaged`] when it is missing.
    pub fn table(&self, granted: &Granted) -> Result<Box<dyn BlobReader>, IngestError> {
        self.part(granted, &granted.id.table_blob(), "chunk table")
    }

    /// Stages the blob of an upload; nobody sees it before [`Datasets::insert`].
    ///
    /// # Errors
    /// [`IngestError::Store`]
    pub fn stage(&self) -> Result<Box<dyn BlobWriter>, IngestError> {
        Ok(self.blobs.create()?)
    }

    /// Makes a dataset: its blobs become durable, then its record, in one batch with the owner's index and the request
    /// id. Gives the id of the dataset that the request id stands for, which is another one if that was quicker.
    ///
    /// # Errors
    /// [`IngestError::Store`]; nothing is left then, except after a failed fsync of the records, where the next start
    /// finds out which of the two it is.
    pub fn insert(&self, new: NewDataset) -> Result<DatasetId, IngestError> {
        let NewDataset {
            id,
            record,
            data,
            table,
            manifest,
        } = new;
        let (owner, request_id) = (record.owner.clone(), record.request_id.clone());
        let batch = new_batch(id, &record)?;
        let written = self.write_blobs(id, data, &table, &manifest);
        match written.and_then(|()| Ok(self.records.commit(batch)?)) {
            Ok(()) => Ok(id),
            Err(IngestError::Store(StoreError::Conflict)) => {
                self.discard(id);
                self.made_by(&owner, &request_id)?
                    .ok_or(IngestError::RecordDamaged("conflicting dataset id"))
            }
            Err(error) => {
                // After a failed fsync the record may be there or not: its blobs must stay.
                if !matches!(error, IngestError::Store(StoreError::Closed)) {
                    self.discard(id);
                }
                Err(error)
            }
        }
    }

    /// Deletes a dataset: its record first, so that nothing names what is gone.
    ///
    /// # Errors
    /// [`IngestError::DatasetNotFound`] when somebody else deleted it first.
    pub fn delete(&self, granted: Granted) -> Result<(), IngestError> {
        let Granted { id, record } = granted;
        let mut batch = Batch::new()
            .expect_value(dataset_key(id), encode(&record)?)
            .delete(dataset_key(id))
            .delete(owned_key(&record.owner, id));
        if !record.request_id.is_empty() {
            batch = batch.delete(request_key(&record.owner, &record.request_id));
        }
        match self.records.commit(batch) {
            Ok(()) => {
                self.discard(id);
                Ok(())
            }
            Err(StoreError::Conflict) => Err(IngestError::DatasetNotFound(id.name())),
            Err(error) => Err(error.into()),
        }
    }

    fn record(&self, id: DatasetId) -> Result<Option<StoredDataset>, IngestError> {
        self.records
            .get(&dataset_key(id))?
            .map(|value| decode(&value))
            .transpose()
    }

    fn part(
        &self,
        granted: &Granted,
        name: &BlobName,
        what: &str,
    ) -> Result<Box<dyn BlobReader>, IngestError> {
        self.blobs.open(name).map_err(|error| match error {
            StoreError::NotFound => granted.damaged(format!("its {what} is missing")),
            error => error.into(),
        })
    }

    fn write_blobs(
        &self,
        id: DatasetId,
        data: Box<dyn BlobWriter>,
        table: &[Digest],
        manifest: &Signed,
    ) -> Result<(), IngestError> {
        data.commit(&id.data_blob())?;
        let table: Vec<u8> = table.iter().flat_map(|digest| *digest.as_bytes()).collect();
        self.write_blob(&id.table_blob(), &table)?;
        self.write_blob(&id.manifest_blob(), &encode(manifest)?)
    }

    fn write_blob(&self, name: &BlobName, bytes: &[u8]) -> Result<(), IngestError> {
        let mut writer = self.blobs.create()?;
        writer.write_all(bytes).map_err(StoreError::from)?;
        Ok(writer.commit(name)?)
    }

    /// Removes blobs that no record names. What cannot be removed now is swept at the next start.
    fn discard(&self, id: DatasetId) {
        for name in id.blobs() {
            match self.blobs.delete(&name) {
                Ok(()) | Err(StoreError::NotFound) => {}
                Err(error) => tracing::warn!(%name, %error, "a blob could not be removed"),
            }
        }
    }
}

fn new_batch(id: DatasetId, record: &StoredDataset) -> Result<Batch, IngestError> {
    let mut batch = Batch::new()
        .expect_absent(dataset_key(id))
        .put(dataset_key(id), encode(record)?)
        .put(owned_key(&record.owner, id), []);
    if !record.request_id.is_empty() {
        let key = request_key(&record.owner, &record.request_id);
        batch = batch.expect_absent(key.clone()).put(key, *id.as_bytes());
    }
    Ok(batch)
}

fn dataset_key(id: DatasetId) -> Vec<u8> {
    [&[DATASET], id.as_bytes().as_slice()].concat()
}

fn owned_prefix(owner: &str) -> Vec<u8> {
    [&[OWNED], Digest::of(owner.as_bytes()).as_bytes().as_slice()].concat()
}

fn owned_key(owner: &str, id: DatasetId) -> Vec<u8> {
    [owned_prefix(owner).as_slice(), id.as_bytes()].concat()
}

fn request_key(owner: &str, request_id: &str) -> Vec<u8> {
    let context = Context::new("asterism/ingest/request/v1")
        .field("owner", owner)
        .field("request", request_id);
    [&[REQUEST], Digest::of(&context.encode()).as_bytes().as_slice()].concat()
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, IngestError> {
    serde_json::to_vec(value).map_err(|_| IngestError::RecordDamaged("it does not serialise"))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, IngestError> {
    serde_json::from_slice(bytes).map_err(|_| IngestError::RecordDamaged("it cannot be read"))
}
