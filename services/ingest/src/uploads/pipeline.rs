//! What happens to the bytes of an upload, on two threads: one parses and profiles, the other digests, encrypts and
//! writes. Both read the same buffers; their queues are short, so that a fast sender waits for them.

use std::{
    io::Write as _,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{Builder, JoinHandle},
};

use asterism_crypto::{
    Digest, DigestWriter, MacTag, MacWriter, SecretKey, StreamSealer,
    stream::{self, TAG_BYTES},
};
use asterism_learn::{
    csv::{CsvError, CsvLimits, CsvReader},
    profile::{Profile, Profiler},
};
use asterism_store::{BlobWriter, StoreError};
use bytes::Bytes;
use zeroize::Zeroizing;

use crate::{
    error::IngestError,
    uploads::{MAX_MANIFEST_BYTES, UploadLimits},
};

/// Pieces (of at most 1 MiB) that may wait for each thread.
const QUEUE: usize = 4;

/// What ends an upload for good; every later call gets it again.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The bytes are no CSV.
    Csv(CsvError),
    /// The column names do not fit into a manifest.
    SchemaTooLarge,
    /// Too many bytes.
    TooLarge {
        /// Most bytes.
        limit: u64,
    },
    /// The bytes are not those of the sender.
    WrongDigest,
    /// The disk is full.
    StorageFull,
    /// The disk failed otherwise.
    Storage(String),
    /// A thread ended early, or a panic came between.
    Interrupted,
}

impl Fault {
    pub(super) fn store(error: StoreError) -> Self {
        match error {
            StoreError::NoSpace => Self::StorageFull,
            error => Self::Storage(error.to_string()),
        }
    }
}

impl From<Fault> for IngestError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Csv(error) => error.into(),
            Fault::SchemaTooLarge => Self::SchemaTooLarge {
                limit: MAX_MANIFEST_BYTES,
            },
            Fault::TooLarge { limit } => Self::UploadTooLarge { limit },
            Fault::WrongDigest => Self::DigestMismatch,
            Fault::StorageFull => StoreError::NoSpace.into(),
            Fault::Storage(problem) => StoreError::Io(std::io::Error::other(problem)).into(),
            Fault::Interrupted => Self::UploadInterrupted,
        }
    }
}

/// Everything encrypted, staged and digested.
pub(super) struct Sealed {
    /// Complete, not yet durable.
    pub(super) blob: Box<dyn BlobWriter>,
    pub(super) bytes: u64,
    pub(super) chunk_bytes: u32,
    pub(super) table: Vec<Digest>,
    /// If it was asked for.
    pub(super) plaintext_sha256: Option<Digest>,
    pub(super) ciphertext_sha256: Digest,
    pub(super) hmac: MacTag,
}

/// A piece of the upload, or its end. A queue that just closes means that the upload was dropped.
enum Part {
    Data(Bytes),
    End,
}

type Worker<T> = JoinHandle<Result<T, Fault>>;

/// Takes the bytes of one upload in order. Dropped without an end, it leaves nothing.
pub(super) struct Pipeline {
    parse: SyncSender<Part>,
    seal: SyncSender<Part>,
    parser: Worker<Profile>,
    sealer: Worker<Sealed>,
    shared: Arc<Shared>,
}

/// What the threads tell while they work.
#[derive(Default)]
struct Shared {
    fault: OnceLock<Fault>,
    rows: AtomicU64,
}

impl Pipeline {
    pub(super) fn start(
        key: &SecretKey,
        context: &[u8],
        blob: Box<dyn BlobWriter>,
        limits: &UploadLimits,
        with_sha256: bool,
    ) -> Result<Self, IngestError> {
        let sealing = Sealing::new(key, context, blob, limits.chunk_bytes, with_sha256)?;
        let shared = Arc::new(Shared::default());
        let (parse, to_parse) = sync_channel(QUEUE);
        let (seal, to_seal) = sync_channel(QUEUE);
        let csv = limits.csv;
        let told = shared.clone();
        let parser = spawn("ingest-parse", move || {
            told.note(run_parser(&to_parse, csv, &told))
        })?;
        let told = shared.clone();
        let sealer = spawn("ingest-seal", move || told.note(sealing.run(&to_seal, &told)))?;
        Ok(Self {
            parse,
            seal,
            parser,
            sealer,
            shared,
        })
    }

    /// Hands over the next bytes; waits while the threads are behind.
    pub(super) fn push(&self, data: Bytes) -> Result<(), Fault> {
        if let Some(fault) = self.fault() {
            return Err(fault);
        }
        let sent = self
            .parse
            .send(Part::Data(data.clone()))
            .and_then(|()| self.seal.send(Part::Data(data)));
        sent.map_err(|_| self.fault().unwrap_or(Fault::Interrupted))
    }

    /// What has gone wrong so far.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.shared.fault.get().cloned()
    }

    /// Data rows parsed so far.
    pub(super) fn rows(&self) -> u64 {
        self.shared.rows.load(Ordering::Relaxed)
    }

    /// Waits until every byte is parsed and encrypted.
    pub(super) fn finish(self) -> Result<(Profile, Sealed), Fault> {
        let Self {
            parse,
            seal,
            parser,
            sealer,
            shared,
        } = self;
        // A thread that is gone has left its fault behind.
        let _ = parse.send(Part::End);
        let _ = seal.send(Part::End);
        drop((parse, seal));
        let profile = parser.join().unwrap_or(Err(Fault::Interrupted));
        let sealed = sealer.join().unwrap_or(Err(Fault::Interrupted));
        match (profile, sealed) {
            (Ok(profile), Ok(sealed)) => Ok((profile, sealed)),
            (profile, sealed) => {
                let later = profile.err().or(sealed.err()).unwrap_or(Fault::Interrupted);
                Err(shared.fault.get().cloned().unwrap_or(later))
            }
        }
    }
}

impl Shared {
    /// Keeps the first fault of either thread.
    fn note<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        if let Err(fault) = &result {
            let _ = self.fault.set(fault.clone());
        }
        result
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<Worker<T>, IngestError> {
    Ok(Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(StoreError::Io)?)
}

fn run_parser(queue: &Receiver<Part>, limits: CsvLimits, shared: &Shared) -> Result<Profile, Fault> {
    let mut reader = CsvReader::new(limits);
    let mut profiler = Profiler::new();
    while let Ok(part) = queue.recv() {
        match part {
            Part::Data(data) => {
                reader.feed(&data, &mut profiler).map_err(Fault::Csv)?;
                shared.rows.store(reader.rows(), Ordering::Relaxed);
            }
            Part::End => {
                reader.finish(&mut profiler).map_err(Fault::Csv)?;
                return Ok(profiler.finish());
            }
        }
    }
    Err(Fault::Interrupted)
}

/// Digests, encrypts and stages. Plaintext lies in `buffer` alone, and is encrypted or wiped there.
struct Sealing {
    sealer: StreamSealer,
    buffer: Zeroizing<Vec<u8>>,
    chunk_bytes: usize,
    bytes: u64,
    plaintext: Option<DigestWriter>,
    ciphertext: DigestWriter,
    hmac: MacWriter,
    table: Vec<Digest>,
    blob: Box<dyn BlobWriter>,
}

impl Sealing {
    fn new(
        key: &SecretKey,
        context: &[u8],
        mut blob: Box<dyn BlobWriter>,
        chunk_bytes: u32,
        with_sha256: bool,
    ) -> Result<Self, IngestError> {
        let (sealer, header) = StreamSealer::new(key, chunk_bytes, context)?;
        blob.write_all(&header).map_err(StoreError::from)?;
        let mut ciphertext = DigestWriter::new();
        ciphertext.update(&header);
        let mut hmac = MacWriter::new(&stream::mac_key(key));
        hmac.update(&header);
        let chunk_bytes = chunk_bytes as usize;
        Ok(Self {
            sealer,
            // Never grows, and so leaves no copies of plaintext behind.
            buffer: Zeroizing::new(Vec::with_capacity(chunk_bytes + TAG_BYTES)),
            chunk_bytes,
            bytes: 0,
            plaintext: with_sha256.then(DigestWriter::new),
            ciphertext,
            hmac,
            table: Vec::new(),
            blob,
        })
    }

    fn run(mut self, queue: &Receiver<Part>, shared: &Shared) -> Result<Sealed, Fault> {
        while let Ok(part) = queue.recv() {
            // Once the parser has refused the file, nothing more of it is staged.
            if let Some(fault) = shared.fault.get() {
                return Err(fault.clone());
            }
            match part {
                Part::Data(data) => self.add(&data)?,
                Part::End => return self.finish(),
            }
        }
        Err(Fault::Interrupted)
    }

    fn add(&mut self, mut data: &[u8]) -> Result<(), Fault> {
        self.bytes += data.len() as u64;
        while !data.is_empty() {
            // A full chunk waits until it is known not to be the last.
            if self.buffer.len() == self.chunk_bytes {
                self.seal(false)?;
            }
            let room = self.chunk_bytes - self.buffer.len();
            let (block, rest) = data.split_at(room.min(data.len()));
            if let Some(plaintext) = &mut self.plaintext {
                plaintext.update(block);
            }
            self.buffer.extend_from_slice(block);
            data = rest;
        }
        Ok(())
    }

    /// Encrypts the buffer and writes it.
    fn seal(&mut self, last: bool) -> Result<(), Fault> {
        self.sealer
            .seal_chunk_in_place(&mut self.buffer, last)
            .map_err(|error| Fault::Storage(error.to_string()))?;
        let digest = Digest::of(&self.buffer);
        self.ciphertext.update(digest.as_bytes());
        self.hmac.update(digest.as_bytes());
        self.table.push(digest);
        self.blob
            .write_all(&self.buffer)
            .map_err(|error| Fault::store(error.into()))?;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Sealed, Fault> {
        self.seal(true)?;
        Ok(Sealed {
            blob: self.blob,
            bytes: self.bytes,
            chunk_bytes: self.chunk_bytes as u32,
            table: self.table,
            plaintext_sha256: self.plaintext.map(DigestWriter::finish),
            ciphertext_sha256: self.ciphertext.finish(),
            hmac: self.hmac.finish(),
        })
    }
}
