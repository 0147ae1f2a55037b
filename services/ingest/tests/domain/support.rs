//! What every domain test needs.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use asterism_chassis::error::{Classify, ErrorClass};
use asterism_client::manifest::WrappedKey;
use asterism_crypto::{KeyRef, SecretKey, Signed, SigningKey, VerifyingKey, envelope, signed::signing_input};
use asterism_ingest::{
    IngestError,
    datasets::{DatasetId, Datasets, Described, Granted, Opened, Report, RowBatch, read_rows, verify},
    keys::{FreshKey, Keys},
    uploads::{Begun, NewUpload, UploadId, UploadLimits, Uploads},
};
use asterism_learn::csv::CsvLimits;
use asterism_store::{Blobs, FsBlobs, MemoryRecords, Records};
use tempfile::TempDir;

pub const ALICE: &str = "user/alice";
pub const KEK: &str = "dataset-kek";
pub const SIGNER: &str = "manifest-signer";
/// Small, so that small files have many chunks.
pub const CHUNK_BYTES: u32 = 4096;

/// Keys as kms would hold them.
pub struct TestKeys {
    kek: SecretKey,
    signing: SigningKey,
    /// How often a data key was made.
    pub made: AtomicU32,
    /// Set: signing fails, as when kms is away.
    pub away: AtomicBool,
}

impl TestKeys {
    pub fn new() -> Self {
        Self {
            kek: SecretKey::generate().unwrap(),
            signing: SigningKey::generate().unwrap(),
            made: AtomicU32::new(0),
            away: AtomicBool::new(false),
        }
    }

    fn check(&self) -> Result<(), IngestError> {
        if self.away.load(Ordering::SeqCst) {
            let source = Box::new(std::io::Error::other("kms is away"));
            return Err(IngestError::Keys {
                class: ErrorClass::Unavailable,
                source,
            });
        }
        Ok(())
    }
}

impl Keys for TestKeys {
    fn fresh(&self, context: &[u8]) -> Result<FreshKey, IngestError> {
        self.check()?;
        self.made.fetch_add(1, Ordering::SeqCst);
        let key = SecretKey::generate()?;
        let key_ref = KeyRef {
            key: KEK.to_owned(),
            version: 1,
        };
        let wrapped = envelope::seal(&self.kek, &key_ref, key.expose(), context)?;
        Ok(FreshKey {
            key,
            wrapped: WrappedKey {
                key: KEK.to_owned(),
                version: 1,
                wrapped,
            },
        })
    }

    fn unwrap_key(&self, wrapped: &WrappedKey, context: &[u8]) -> Result<Option<SecretKey>, IngestError> {
        self.check()?;
        let opened = envelope::open(&self.kek, &wrapped.wrapped, context).ok();
        Ok(opened.map(|bytes| SecretKey::try_from_slice(bytes.expose()).unwrap()))
    }

    fn sign(&self, domain: &str, payload: Vec<u8>) -> Result<Signed, IngestError> {
        self.check()?;
        let signature = self.signing.sign(&signing_input(domain, &payload)).to_der();
        Ok(Signed {
            domain: domain.to_owned(),
            payload,
            key: SIGNER.to_owned(),
            key_version: 1,
            signature,
        })
    }

    fn signer(&self) -> &str {
        SIGNER
    }

    fn public_key(&self, version: u32) -> Result<Option<VerifyingKey>, IngestError> {
        self.check()?;
        Ok((version == 1).then(|| self.signing.verifying_key()))
    }
}

pub fn limits() -> UploadLimits {
    UploadLimits {
        chunk_bytes: CHUNK_BYTES,
        max_bytes: 256 << 20,
        max_open: 8,
        max_open_per_owner: 4,
        idle: Duration::from_secs(900),
        csv: CsvLimits {
            max_row_bytes: 3 << 20,
            ..CsvLimits::default()
        },
    }
}

/// A domain over a directory of its own; `reopen` is what a restart does.
pub struct World {
    pub dir: TempDir,
    pub records: Arc<dyn Records>,
    pub datasets: Arc<Datasets>,
    pub uploads: Uploads,
    pub keys: TestKeys,
    pub now: Instant,
}

pub fn new_upload<'a>(owner: &'a str, display_name: &'a str, request_id: &'a str) -> NewUpload<'a> {
    NewUpload {
        owner,
        display_name,
        request_id,
        with_sha256: false,
    }
}

impl World {
    pub fn new() -> Self {
        Self::with(limits())
    }

    pub fn with(limits: UploadLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let records: Arc<dyn Records> = Arc::new(MemoryRecords::new());
        let datasets = open(&dir, &records);
        let uploads = Uploads::new(datasets.clone(), limits);
        Self {
            dir,
            records,
            datasets,
            uploads,
            keys: TestKeys::new(),
            now: Instant::now(),
        }
    }

    /// Everything in memory is lost; records and blobs stay.
    pub fn reopen(self) -> Self {
        let Self {
            dir, records, keys, ..
        } = self;
        let datasets = open(&dir, &records);
        let uploads = Uploads::new(datasets.clone(), limits());
        Self {
            dir,
            records,
            datasets,
            uploads,
            keys,
            now: Instant::now(),
        }
    }

    pub fn begin(&self, request_id: &str) -> UploadId {
        self.begin_as(new_upload(ALICE, "test", request_id))
    }

    /// An upload whose commit brings a digest.
    pub fn begin_with_sha256(&self, request_id: &str) -> UploadId {
        self.begin_as(NewUpload {
            with_sha256: true,
            ..new_upload(ALICE, "test", request_id)
        })
    }

    fn begin_as(&self, upload: NewUpload<'_>) -> UploadId {
        match self.uploads.begin(upload, &self.keys, self.now).unwrap() {
            Begun::Upload { id, .. } => id,
            Begun::Dataset(id) => panic!("already {id}"),
        }
    }

    pub fn put(&self, id: UploadId, offset: u64, data: &[u8]) -> Result<u64, IngestError> {
        self.uploads
            .put(id, ALICE, offset, data.to_vec().into(), None, self.now)
    }

    pub fn commit(&self, id: UploadId, size: usize) -> Result<Described, IngestError> {
        self.uploads
            .commit(id, ALICE, size as u64, None, &self.keys, self.now)
    }

    /// Uploads in pieces of `piece` bytes.
    pub fn upload_in(&self, csv: &[u8], piece: usize) -> Result<Described, IngestError> {
        let id = self.begin("");
        let mut offset = 0;
        for piece in csv.chunks(piece) {
            offset = self.put(id, offset, piece)?;
        }
        self.commit(id, csv.len())
    }

    pub fn upload(&self, csv: impl AsRef<[u8]>) -> Result<Described, IngestError> {
        self.upload_in(csv.as_ref(), 1 << 20)
    }

    pub fn granted(&self, id: DatasetId) -> Granted {
        self.datasets.grant(id, &|owner| Ok(owner == ALICE)).unwrap()
    }

    pub fn verify(&self, id: DatasetId) -> Report {
        verify(&self.datasets, &self.granted(id), &self.keys).unwrap()
    }

    pub fn open(&self, id: DatasetId) -> Result<Opened, IngestError> {
        Opened::open(&self.datasets, &self.granted(id), &self.keys)
    }

    pub fn rows(&self, id: DatasetId, offset: u64, limit: Option<u64>) -> Result<Vec<RowBatch>, IngestError> {
        let mut batches = Vec::new();
        read_rows(self.open(id)?, limits().csv, offset, limit, &mut |batch| {
            batches.push(batch);
            Ok(())
        })?;
        Ok(batches)
    }

    pub fn plaintext(&self, id: DatasetId) -> Result<Vec<u8>, IngestError> {
        let (mut opened, mut csv) = (self.open(id)?, Vec::new());
        while let Some(chunk) = opened.next_chunk()? {
            csv.extend_from_slice(chunk);
        }
        Ok(csv)
    }

    pub fn blob_dir(&self) -> PathBuf {
        self.dir.path().join("blobs")
    }

    pub fn blob(&self, id: DatasetId, kind: &str) -> PathBuf {
        self.blob_dir().join(format!("{id}.{kind}"))
    }

    /// Every file in the blob directory.
    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.blob_dir()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// Waits until a dropped upload's threads have removed what they staged.
    pub fn wait_for_files(&self, count: usize) {
        let begun = Instant::now();
        while self.files().len() != count {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "still {:?}",
                self.files()
            );
            std::thread::yield_now();
        }
    }

    pub fn no_dataset(&self) -> bool {
        self.datasets.page(None, None, 10).unwrap().is_empty()
    }
}

fn open(dir: &TempDir, records: &Arc<dyn Records>) -> Arc<Datasets> {
    let blobs: Arc<dyn Blobs> = Arc::new(FsBlobs::open(&dir.path().join("blobs")).unwrap());
    Arc::new(Datasets::open(records.clone(), blobs).unwrap())
}

/// `rows` rows of three columns.
pub fn csv(rows: usize) -> Vec<u8> {
    let mut text = String::from("id,value,label\n");
    for row in 0..rows {
        text.push_str(&format!(
            "{row},{}.5,{}\n",
            row % 97,
            if row % 3 == 0 { "yes" } else { "no" }
        ));
    }
    text.into_bytes()
}

#[track_caller]
pub fn reason<T>(result: Result<T, IngestError>) -> &'static str {
    match result {
        Ok(_) => panic!("not refused"),
        Err(error) => error.reason(),
    }
}
