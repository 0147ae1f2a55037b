//! One upload, from its first byte to its dataset.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use asterism_client::manifest::{
    DATASET_MANIFEST_DOMAIN, DatasetManifest, FORMAT, ManifestColumn, WrappedKey, chunk_table_digest,
    dataset_context,
};
use asterism_crypto::{Digest, Signed};
use asterism_learn::profile::{ColumnProfile, Profile};
use bytes::Bytes;
use jiff::{Timestamp, Unit};

use crate::{
    datasets::{DatasetId, Datasets, Described, NewDataset, StoredDataset},
    error::IngestError,
    keys::Keys,
    uploads::{
        Begun, MAX_MANIFEST_BYTES, UploadId, UploadLimits,
        pipeline::{Fault, Pipeline, Sealed},
    },
};

/// Who began the upload, and as what.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) owner: String,
    pub(super) display_name: String,
    /// May be empty.
    pub(super) request_id: String,
    /// The commit will carry a digest of the plaintext.
    pub(super) with_sha256: bool,
}

/// How far an upload has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that have arrived.
    pub offset: u64,
    /// Data rows that were parsed of them.
    pub rows: u64,
}

pub(super) struct Session {
    origin: Origin,
    /// False once the upload has ended, one way or the other. Beside the lock: counting must not wait for a commit.
    open: AtomicBool,
    inner: Mutex<Inner>,
}

pub(super) struct Inner {
    touched: Instant,
    received: u64,
    state: State,
}

enum State {
    /// The data key is being fetched.
    Starting,
    /// Bytes come in.
    Open(Box<Open>),
    /// All bytes are encrypted; signature and commit are to come. Kept while kms is away.
    Sealed(Box<Ready>),
    /// It has become a dataset.
    Done(DatasetId),
    /// It has ended without one; every further call gets this answer.
    Failed(Fault),
}

struct Open {
    dataset: DatasetId,
    wrapped: WrappedKey,
    pipeline: Pipeline,
}

struct Ready {
    dataset: DatasetId,
    wrapped: WrappedKey,
    profile: Profile,
    sealed: Sealed,
    created_at: Timestamp,
}

impl Session {
    pub(super) fn new(origin: Origin, now: Instant) -> Self {
        let inner = Inner {
            touched: now,
            received: 0,
            state: State::Starting,
        };
        Self {
            origin,
            open: AtomicBool::new(true),
            inner: Mutex::new(inner),
        }
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// When it was last touched; `None` while somebody works on it.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.inner.try_lock().ok().map(|inner| inner.touched)
    }

    /// Fetches the data key and opens the way for bytes.
    pub(super) fn start(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        datasets: &Datasets,
        limits: &UploadLimits,
        keys: &dyn Keys,
    ) -> Result<(), IngestError> {
        let dataset = DatasetId::generate();
        let context = dataset_context(&dataset.to_string(), &self.origin.owner);
        let started = keys.fresh(&context).and_then(|fresh| {
            let pipeline = Pipeline::start(
                &fresh.key,
                &context,
                datasets.stage()?,
                limits,
                self.origin.with_sha256,
            )?;
            Ok(Open {
                dataset,
                wrapped: fresh.wrapped,
                pipeline,
            })
        });
        match started {
            Ok(open) => {
                inner.state = State::Open(Box::new(open));
                Ok(())
            }
            Err(error) => {
                self.fail(&mut inner, Fault::Interrupted);
                Err(error)
            }
        }
    }

    /// What a repeated request to begin gets; `None` when this session stands for nothing any more.
    pub(super) fn resume(
        &self,
        id: UploadId,
        datasets: &Datasets,
        now: Instant,
    ) -> Result<Option<Begun>, IngestError> {
        let mut inner = self.lock();
        inner.touched = now;
        if let State::Open(open) = &inner.state
            && let Some(fault) = open.pipeline.fault()
        {
            self.fail(&mut inner, fault);
        }
        Ok(match &inner.state {
            State::Open(_) | State::Sealed(_) => Some(Begun::Upload {
                id,
                offset: inner.received,
            }),
            // Unless it was deleted since.
            State::Done(_) => datasets
                .made_by(&self.origin.owner, &self.origin.request_id)?
                .map(Begun::Dataset),
            State::Starting | State::Failed(_) => None,
        })
    }

    pub(super) fn progress(&self, now: Instant) -> Result<Progress, IngestError> {
        let mut inner = self.lock();
        inner.touched = now;
        let offset = inner.received;
        match &inner.state {
            State::Open(open) => Ok(Progress {
                offset,
                rows: open.pipeline.rows(),
            }),
            State::Sealed(ready) => Ok(Progress {
                offset,
                rows: ready.profile.rows,
            }),
            State::Done(_) => Err(IngestError::UploadClosed),
            State::Starting => Err(IngestError::UploadUnknown),
            State::Failed(fault) => Err(fault.clone().into()),
        }
    }

    pub(super) fn put(&self, offset: u64, data: Bytes, max: u64, now: Instant) -> Result<u64, IngestError> {
        let mut inner = self.lock();
        inner.touched = now;
        let due = inner.received;
        if let State::Failed(fault) = &inner.state {
            return Err(fault.clone().into());
        }
        let Some(held) = due.checked_sub(offset) else {
            return Err(IngestError::OffsetMismatch { expected: due });
        };
        let new = usize::try_from(held)
            .ok()
            .filter(|held| *held < data.len())
            .map(|held| data.slice(held..));
        let outcome = match (&inner.state, new) {
            (State::Open(open), None) => open.pipeline.fault().map_or(Ok(due), Err),
            (State::Open(open), Some(new)) => {
                let received = due + new.len() as u64;
                if received > max {
                    Err(Fault::TooLarge { limit: max })
                } else {
                    open.pipeline.push(new).map(|()| received)
                }
            }
            (State::Starting, _) => return Err(IngestError::UploadUnknown),
            (_, None) => Ok(due),
            (_, Some(_)) => return Err(IngestError::UploadClosed),
        };
        match outcome {
            Ok(received) => {
                inner.received = received;
                Ok(received)
            }
            Err(fault) => Err(self.fail(&mut inner, fault)),
        }
    }

    /// Drops what was staged.
    pub(super) fn abort(&self) -> Result<(), IngestError> {
        let mut inner = self.lock();
        match &inner.state {
            State::Done(_) => Err(IngestError::UploadClosed),
            _ => {
                self.fail(&mut inner, Fault::Interrupted);
                Ok(())
            }
        }
    }

    pub(super) fn commit(
        &self,
        size: u64,
        sha256: Option<Digest>,
        datasets: &Datasets,
        keys: &dyn Keys,
        now: Instant,
    ) -> Result<Described, IngestError> {
        let mut inner = self.lock();
        inner.touched = now;
        match &inner.state {
            State::Starting => return Err(IngestError::UploadUnknown),
            State::Failed(fault) => return Err(fault.clone().into()),
            State::Done(dataset) => {
                let granted = datasets.grant(*dataset, &|owner| Ok(owner == self.origin.owner))?;
                return datasets.describe(&granted);
            }
            State::Open(open) => {
                // What is wrong with the bytes is worth more than that some are missing.
                if let Some(fault) = open.pipeline.fault() {
                    return Err(self.fail(&mut inner, fault));
                }
            }
            State::Sealed(_) => {}
        }
        if size != inner.received {
            return Err(IngestError::SizeMismatch {
                received: inner.received,
                declared: size,
            });
        }
        if sha256.is_some() != self.origin.with_sha256 {
            return Err(IngestError::field(
                "sha256",
                "must be set exactly when BeginUpload said with_sha256",
            ));
        }
        let ready = self.seal(&mut inner)?;
        if sha256 != ready.sealed.plaintext_sha256 {
            return Err(self.fail(&mut inner, Fault::WrongDigest));
        }
        let manifest = manifest(&ready, &self.origin);
        let payload = manifest.to_bytes();
        if payload.len() > MAX_MANIFEST_BYTES {
            return Err(self.fail(&mut inner, Fault::SchemaTooLarge));
        }
        match keys.sign(DATASET_MANIFEST_DOMAIN, payload) {
            Err(error) => {
                // kms may be back in a moment: nothing that was done is done again.
                inner.state = State::Sealed(ready);
                Err(error)
            }
            Ok(signed) => self.store(&mut inner, *ready, signed, manifest.columns, datasets),
        }
    }

    /// Ends the pipeline, unless an earlier commit did.
    fn seal(&self, inner: &mut Inner) -> Result<Box<Ready>, IngestError> {
        match std::mem::replace(&mut inner.state, State::Failed(Fault::Interrupted)) {
            State::Sealed(ready) => Ok(ready),
            State::Open(open) => {
                let Open {
                    dataset,
                    wrapped,
                    pipeline,
                } = *open;
                let (profile, sealed) = pipeline.finish().map_err(|fault| self.fail(inner, fault))?;
                let now = Timestamp::now();
                let created_at = now.round(Unit::Microsecond).unwrap_or(now);
                Ok(Box::new(Ready {
                    dataset,
                    wrapped,
                    profile,
                    sealed,
                    created_at,
                }))
            }
            other => {
                inner.state = other;
                Err(IngestError::UploadInterrupted)
            }
        }
    }

    fn store(
        &self,
        inner: &mut Inner,
        ready: Ready,
        manifest: Signed,
        columns: Vec<ManifestColumn>,
        datasets: &Datasets,
    ) -> Result<Described, IngestError> {
        let record = StoredDataset {
            display_name: self.origin.display_name.clone(),
            owner: self.origin.owner.clone(),
            request_id: self.origin.request_id.clone(),
            rows: ready.profile.rows,
            bytes: ready.sealed.bytes,
            created_at: ready.created_at,
            manifest_sha256: Digest::of(&manifest.payload),
        };
        let id = ready.dataset;
        let new = NewDataset {
            id,
            record: record.clone(),
            data: ready.sealed.blob,
            table: ready.sealed.table,
            manifest,
        };
        match datasets.insert(new) {
            Ok(stored) => {
                inner.state = State::Done(stored);
                self.open.store(false, Ordering::Release);
                if stored == id {
                    return Ok(Described { id, record, columns });
                }
                datasets.describe(&datasets.grant(stored, &|owner| Ok(owner == self.origin.owner))?)
            }
            Err(IngestError::Store(error)) => Err(self.fail(inner, Fault::store(error))),
            Err(error) => {
                self.fail(inner, Fault::Interrupted);
                Err(error)
            }
        }
    }

    /// Ends the upload; what it staged goes.
    fn fail(&self, inner: &mut Inner, fault: Fault) -> IngestError {
        inner.state = State::Failed(fault.clone());
        self.open.store(false, Ordering::Release);
        fault.into()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn manifest(ready: &Ready, origin: &Origin) -> DatasetManifest {
    let Ready {
        dataset,
        wrapped,
        profile,
        sealed,
        created_at,
    } = ready;
    DatasetManifest {
        format: FORMAT,
        dataset: dataset.to_string(),
        display_name: origin.display_name.clone(),
        owner: origin.owner.clone(),
        created_at: created_at.to_string(),
        rows: profile.rows,
        bytes: sealed.bytes,
        columns: profile.columns.iter().map(column).collect(),
        chunk_bytes: sealed.chunk_bytes,
        chunks: sealed.table.len() as u64,
        chunk_table_sha256: chunk_table_digest(&sealed.table),
        ciphertext_sha256: sealed.ciphertext_sha256,
        hmac: Digest::from_bytes(*sealed.hmac.as_bytes()),
        data_key: wrapped.clone(),
    }
}

fn column(profile: &ColumnProfile) -> ManifestColumn {
    // JSON has no infinities; the sum of large numbers may be one.
    let finite = |number: Option<f64>| number.filter(|number| number.is_finite());
    ManifestColumn {
        name: profile.name.clone(),
        kind: profile.kind.name().to_owned(),
        missing: profile.missing,
        distinct: profile.distinct,
        distinct_exact: profile.distinct_exact,
        min: finite(profile.min),
        max: finite(profile.max),
        mean: finite(profile.mean),
    }
}
