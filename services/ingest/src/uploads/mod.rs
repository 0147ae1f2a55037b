//! Uploads in progress.
//!
//! An upload is a session in memory: bytes are parsed, profiled, digested and encrypted as they come, and what is
//! staged on the disk is ciphertext without a name. Rules: nothing in clear ever touches the disk; an upload becomes a
//! dataset whole or not at all; a session that is lost (crash, expiry) loses only itself, and its caller begins again.

mod pipeline;
mod session;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use asterism_crypto::Digest;
use asterism_learn::csv::CsvLimits;
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    datasets::{DatasetId, Datasets, Described},
    error::IngestError,
    keys::Keys,
};

pub use session::Progress;

use session::{Origin, Session};

/// Most bytes of one chunk that a caller sends.
pub const MAX_PUT_BYTES: usize = 1 << 20;
/// Largest manifest: with its base64 it stays under what one message and one read may hold.
const MAX_MANIFEST_BYTES: usize = 12 << 20;
/// Ended uploads that are remembered, so that a repeated call gets the same answer.
const MAX_REMEMBERED: usize = 1024;

/// Bounds on uploads.
#[derive(Clone, Copy, Debug)]
pub struct UploadLimits {
    /// Plaintext bytes of an encrypted chunk.
    pub chunk_bytes: u32,
    /// Most bytes of one upload.
    pub max_bytes: u64,
    /// Most uploads open at once.
    pub max_open: usize,
    /// Most uploads that one owner may have open at once.
    pub max_open_per_owner: usize,
    /// An upload that nobody touches for so long is dropped.
    pub idle: Duration,
    /// What a CSV may look like.
    pub csv: CsvLimits,
}

/// Identifies an upload.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UploadId(Uuid);

impl UploadId {
    /// Reads an id. What is none is unknown, like any other upload that is not there.
    ///
    /// # Errors
    /// [`IngestError::UploadUnknown`]
    pub fn parse(text: &str) -> Result<Self, IngestError> {
        Uuid::try_parse(text)
            .map(Self)
            .map_err(|_| IngestError::UploadUnknown)
    }
}

impl std::fmt::Display for UploadId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What a request to begin says.
#[derive(Clone, Copy, Debug)]
pub struct NewUpload<'a> {
    /// Principal that the dataset will belong to.
    pub owner: &'a str,
    /// For people.
    pub display_name: &'a str,
    /// May be empty.
    pub request_id: &'a str,
    /// The commit will carry the SHA-256 of the CSV.
    pub with_sha256: bool,
}

/// What a request to begin came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// An upload, new or gone on with, that holds `offset` bytes.
    Upload {
        /// Its id.
        id: UploadId,
        /// Bytes that have arrived.
        offset: u64,
    },
    /// The request id has already become a dataset.
    Dataset(DatasetId),
}

/// All uploads in progress.
pub struct Uploads {
    datasets: Arc<Datasets>,
    limits: UploadLimits,
    table: Mutex<Table>,
}

enum Found {
    There(UploadId, Arc<Session>),
    Inserted(UploadId),
}

#[derive(Default)]
struct Table {
    sessions: HashMap<UploadId, Arc<Session>>,
    /// Owner and request id -> the upload that stands for them.
    requests: HashMap<(String, String), UploadId>,
}

impl Uploads {
    /// No uploads yet.
    pub fn new(datasets: Arc<Datasets>, limits: UploadLimits) -> Self {
        Self {
            datasets,
            limits,
            table: Mutex::default(),
        }
    }

    /// Begins an upload, goes on with the one that has this request id, or names the dataset that it became.
    ///
    /// # Errors
    /// [`IngestError::TooManyUploads`], [`IngestError::Keys`], [`IngestError::Store`].
    pub fn begin(&self, upload: NewUpload<'_>, keys: &dyn Keys, now: Instant) -> Result<Begun, IngestError> {
        let NewUpload {
            owner, request_id, ..
        } = upload;
        let origin = Origin {
            owner: owner.to_owned(),
            display_name: upload.display_name.to_owned(),
            request_id: request_id.to_owned(),
            with_sha256: upload.with_sha256,
        };
        loop {
            let fresh = Arc::new(Session::new(origin.clone(), now));
            // Locked before anybody can find it: whoever begins with the same request id meanwhile waits for this
            // session to start, and does not start another.
            let opening = fresh.lock();
            match self.find_or_insert(&fresh)? {
                Found::There(id, session) => {
                    drop(opening);
                    if let Some(begun) = session.resume(id, &self.datasets, now)? {
                        return Ok(begun);
                    }
                    self.forget(id);
                }
                Found::Inserted(id) => {
                    let begun = match self.datasets.made_by(owner, request_id) {
                        Ok(Some(dataset)) => Ok(Begun::Dataset(dataset)),
                        Ok(None) => fresh
                            .start(opening, &self.datasets, &self.limits, keys)
                            .map(|()| Begun::Upload { id, offset: 0 }),
                        Err(error) => Err(error),
                    };
                    if !matches!(begun, Ok(Begun::Upload { .. })) {
                        self.forget(id);
                    }
                    return begun;
                }
            }
        }
    }

    /// Adds bytes at `offset`; gives the offset that is due next. Bytes that have arrived already are skipped.
    ///
    /// # Errors
    /// [`IngestError::OffsetMismatch`] for a gap, [`IngestError::ChecksumMismatch`] (nothing is taken then), and what is
    /// wrong with the CSV, which may be bytes that an earlier call brought.
    pub fn put(
        &self,
        id: UploadId,
        owner: &str,
        offset: u64,
        data: Bytes,
        crc32c: Option<u32>,
        now: Instant,
    ) -> Result<u64, IngestError> {
        if data.len() > MAX_PUT_BYTES {
            return Err(IngestError::field("data", "must be at most 1 MiB"));
        }
        if crc32c.is_some_and(|crc| crc != asterism_crypto::crc32c(&data)) {
            return Err(IngestError::ChecksumMismatch);
        }
        self.find(id, owner)?
            .put(offset, data, self.limits.max_bytes, now)
    }

    /// How far an upload has come.
    ///
    /// # Errors
    /// [`IngestError::UploadUnknown`], or what ended the upload.
    pub fn progress(&self, id: UploadId, owner: &str, now: Instant) -> Result<Progress, IngestError> {
        self.find(id, owner)?.progress(now)
    }

    /// Ends an upload: checks its length and digest, signs the manifest, and makes everything durable. A repeated
    /// commit gets the same answer.
    ///
    /// # Errors
    /// [`IngestError::SizeMismatch`] and [`IngestError::Keys`] leave the upload open; everything else ends it.
    pub fn commit(
        &self,
        id: UploadId,
        owner: &str,
        size: u64,
        sha256: Option<Digest>,
        keys: &dyn Keys,
        now: Instant,
    ) -> Result<Described, IngestError> {
        self.find(id, owner)?
            .commit(size, sha256, &self.datasets, keys, now)
    }

    /// Drops an upload and what it staged.
    ///
    /// # Errors
    /// [`IngestError::UploadUnknown`]; [`IngestError::UploadClosed`] when it has become a dataset.
    pub fn abort(&self, id: UploadId, owner: &str) -> Result<(), IngestError> {
        self.find(id, owner)?.abort()?;
        self.forget(id);
        Ok(())
    }

    /// Drops uploads that nobody has touched for the idle time; gives how many.
    pub fn expire(&self, now: Instant) -> usize {
        let mut table = self.table();
        let idle = |session: &Session| {
            session
                .idle_since()
                .map(|since| now.saturating_duration_since(since))
        };
        let expired: Vec<UploadId> = table
            .sessions
            .iter()
            .filter(|(_, session)| idle(session).is_some_and(|idle| idle >= self.limits.idle))
            .map(|(id, _)| *id)
            .collect();
        expired.iter().filter_map(|id| table.remove(*id)).count()
    }

    /// Only the owner's own uploads exist, even for an administrator: nobody adds bytes to somebody else's data.
    fn find(&self, id: UploadId, owner: &str) -> Result<Arc<Session>, IngestError> {
        let session = self.table().sessions.get(&id).cloned();
        session
            .filter(|session| session.origin().owner == owner)
            .ok_or(IngestError::UploadUnknown)
    }

    fn find_or_insert(&self, fresh: &Arc<Session>) -> Result<Found, IngestError> {
        let Origin {
            owner, request_id, ..
        } = fresh.origin();
        let mut table = self.table();
        if let Some(id) = table.by_request(owner, request_id)
            && let Some(session) = table.sessions.get(&id)
        {
            return Ok(Found::There(id, session.clone()));
        }
        table.admit(owner, &self.limits)?;
        let id = UploadId(Uuid::new_v4());
        table.insert(id, fresh.clone());
        Ok(Found::Inserted(id))
    }

    fn forget(&self, id: UploadId) {
        self.table().remove(id);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn by_request(&self, owner: &str, request_id: &str) -> Option<UploadId> {
        self.requests
            .get(&(owner.to_owned(), request_id.to_owned()))
            .copied()
    }

    /// Refuses a new upload when too many are open; makes room among those that have ended.
    fn admit(&mut self, owner: &str, limits: &UploadLimits) -> Result<(), IngestError> {
        let open = || self.sessions.values().filter(|session| session.is_open());
        if open().count() >= limits.max_open {
            return Err(IngestError::TooManyUploads {
                limit: limits.max_open,
            });
        }
        if open().filter(|session| session.origin().owner == owner).count() >= limits.max_open_per_owner {
            return Err(IngestError::TooManyUploads {
                limit: limits.max_open_per_owner,
            });
        }
        if self.sessions.len() >= MAX_REMEMBERED + limits.max_open {
            let ended = self.sessions.iter().filter(|(_, session)| !session.is_open());
            let oldest = ended
                .min_by_key(|(_, session)| session.idle_since())
                .map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.remove(oldest);
            }
        }
        Ok(())
    }

    fn insert(&mut self, id: UploadId, session: Arc<Session>) {
        let Origin {
            owner, request_id, ..
        } = session.origin();
        if !request_id.is_empty() {
            self.requests.insert((owner.clone(), request_id.clone()), id);
        }
        self.sessions.insert(id, session);
    }

    fn remove(&mut self, id: UploadId) -> Option<Arc<Session>> {
        let session = self.sessions.remove(&id)?;
        let Origin {
            owner, request_id, ..
        } = session.origin();
        let key = (owner.clone(), request_id.clone());
        // A newer upload may stand for the request id by now.
        if self.requests.get(&key) == Some(&id) {
            self.requests.remove(&key);
        }
        Some(session)
    }
}
