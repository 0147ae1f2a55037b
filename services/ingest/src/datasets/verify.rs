//! Re-reads everything that is stored of a dataset, and says what does not fit.

use std::io::Read as _;

use asterism_client::manifest::DatasetManifest;
use asterism_crypto::{Digest, DigestWriter, MacWriter, SecretKey, StreamOpener, stream};
use asterism_store::{BlobReader, StoreError};
use zeroize::Zeroizing;

use crate::{
    datasets::{
        Datasets, Granted,
        open::{
            Finding, check_data_key, check_header, check_manifest, check_table, sealed_bytes, stream_bytes,
        },
    },
    error::IngestError,
    keys::Keys,
};

/// One check and how it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// `signature`, `data key`, `chunk table`, `chunks`, `digest` or `hmac`.
    pub name: &'static str,
    /// Whether what is stored passed.
    pub ok: bool,
    /// What was checked, or what is wrong.
    pub detail: String,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Always the same six, in the order in which they build on each other.
    pub checks: Vec<Check>,
    /// Chunks that the manifest names; 0 when there is no manifest to believe.
    pub chunks: u64,
    /// The first chunk that is not what was signed, from 0.
    pub first_damaged_chunk: Option<u64>,
}

impl Report {
    /// Whether every check passed.
    pub fn verified(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }

    fn add(&mut self, name: &'static str, outcome: Result<impl Into<String>, String>) {
        let (ok, detail) = match outcome {
            Ok(detail) => (true, detail.into()),
            Err(detail) => (false, detail),
        };
        self.checks.push(Check { name, ok, detail });
    }
}

/// Verifies a dataset in the memory of a few chunks. What cannot be told because an earlier check failed is reported
/// as not checked, and so not as passed.
///
/// # Errors
/// Only when a check could not be made: kms or the disk does not answer.
pub fn verify(datasets: &Datasets, granted: &Granted, keys: &dyn Keys) -> Result<Report, IngestError> {
    let mut report = Report {
        checks: Vec::with_capacity(6),
        chunks: 0,
        first_damaged_chunk: None,
    };
    let manifest = match settle(check_manifest(datasets, granted, keys))? {
        Ok(manifest) => manifest,
        Err(problem) => {
            report.add("signature", Err::<&str, _>(problem));
            for name in ["data key", "chunk table", "chunks", "digest", "hmac"] {
                report.add(
                    name,
                    Err::<&str, _>("not checked: there is no manifest to check it against".to_owned()),
                );
            }
            return Ok(report);
        }
    };
    report.add("signature", Ok(format!("signed by `{}`", keys.signer())));
    report.chunks = manifest.chunks;
    let key = settle(check_data_key(&manifest, keys))?;
    report.add(
        "data key",
        key.as_ref()
            .map(|_| "kms unwraps it for this dataset and owner")
            .map_err(Clone::clone),
    );
    let table = settle(check_table(datasets, granted, &manifest))?;
    let entries = table.as_ref().map(|table| format!("{} entries", table.len()));
    report.add("chunk table", entries.map_err(Clone::clone));
    match settle(datasets.data(granted).map_err(Finding::from))? {
        Ok(blob) => Scan::new(blob, &manifest, key.ok(), table.ok()).run(&mut report)?,
        Err(problem) => {
            report.first_damaged_chunk = Some(0);
            report.add("chunks", Err::<&str, _>(problem));
            for name in ["digest", "hmac"] {
                report.add(
                    name,
                    Err::<&str, _>("not checked: the encrypted data is missing".to_owned()),
                );
            }
        }
    }
    Ok(report)
}

/// Tells damage, which goes into the report, from checks that could not be made.
fn settle<T>(result: Result<T, Finding>) -> Result<Result<T, String>, IngestError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Finding::Damaged(problem)) => Ok(Err(problem)),
        Err(Finding::Failed(error)) => Err(error),
    }
}

/// One pass over the encrypted data, with whatever of key and table passed their own checks.
struct Scan<'m> {
    blob: Box<dyn BlobReader>,
    manifest: &'m DatasetManifest,
    key: Option<SecretKey>,
    table: Option<Vec<Digest>>,
    /// Over the header and the digests of the chunks, as they are read.
    digest: DigestWriter,
    mac: Option<MacWriter>,
    buffer: Zeroizing<Vec<u8>>,
}

impl<'m> Scan<'m> {
    fn new(
        blob: Box<dyn BlobReader>,
        manifest: &'m DatasetManifest,
        key: Option<SecretKey>,
        table: Option<Vec<Digest>>,
    ) -> Self {
        let mac = key.as_ref().map(|key| MacWriter::new(&stream::mac_key(key)));
        Self {
            blob,
            manifest,
            key,
            table,
            digest: DigestWriter::new(),
            mac,
            buffer: Zeroizing::default(),
        }
    }

    fn run(mut self, report: &mut Report) -> Result<(), IngestError> {
        let opener = self.header()?;
        let mut damage = None;
        for index in 0..self.manifest.chunks {
            if let Some(problem) = self.chunk(index, opener.as_ref().ok())? {
                report.first_damaged_chunk = Some(index);
                damage = Some(problem);
                break;
            }
        }
        let complete = damage.is_none();
        let expected = stream_bytes(self.manifest);
        let problem = damage.or(opener.err()).or_else(|| {
            (self.blob.len() > expected)
                .then(|| format!("{} bytes follow the last chunk", self.blob.len() - expected))
        });
        report.add(
            "chunks",
            problem.map_or_else(|| Ok(format!("{} chunks", self.manifest.chunks)), Err),
        );

        let broken = || Err("not checked: a chunk is damaged".to_owned());
        let digest = if !complete {
            broken()
        } else if self.digest.finish() == self.manifest.ciphertext_sha256 {
            Ok("SHA-256 of the encrypted data")
        } else {
            Err("the SHA-256 of the encrypted data is not the one that was signed".to_owned())
        };
        report.add("digest", digest);

        let hmac = match self.mac.map(MacWriter::finish) {
            None => Err("not checked: there is no data key".to_owned()),
            Some(_) if !complete => broken(),
            Some(tag) if tag.fits(self.manifest.hmac.as_bytes()) => Ok("HMAC-SHA256 under the data key"),
            Some(_) => Err("the HMAC of the encrypted data is not the one that was signed".to_owned()),
        };
        report.add("hmac", hmac);
        Ok(())
    }

    /// Reads the stream header.
    fn header(&mut self) -> Result<Result<StreamOpener, String>, IngestError> {
        if !self.read(stream::HEADER_BYTES)? {
            return Ok(Err("the encrypted data ends within its header".to_owned()));
        }
        self.note(None);
        match &self.key {
            Some(key) => settle(check_header(&self.buffer, self.manifest, key)),
            None => Ok(Err(
                "chunks could not be decrypted: there is no data key".to_owned()
            )),
        }
    }

    /// Reads and checks chunk `index` and leaves its plaintext in the buffer; gives what is wrong with it.
    fn chunk(&mut self, index: u64, opener: Option<&StreamOpener>) -> Result<Option<String>, IngestError> {
        if !self.read(sealed_bytes(self.manifest, index))? {
            return Ok(Some(format!("the encrypted data ends within chunk {index}")));
        }
        let digest = Digest::of(&self.buffer);
        let listed = |table: &Vec<Digest>| table.get(usize::try_from(index).ok()?).copied();
        if let Some(table) = &self.table
            && listed(table) != Some(digest)
        {
            return Ok(Some(format!("chunk {index} is not the one in the chunk table")));
        }
        self.note(Some(digest));
        let last = index + 1 == self.manifest.chunks;
        let opened = opener.map(|opener| opener.open_chunk_in_place(index, last, &mut self.buffer));
        Ok(opened
            .is_some_and(|opened| opened.is_err())
            .then(|| format!("chunk {index} does not authenticate")))
    }

    /// Takes the header, which lies in the buffer, or a chunk into digest and HMAC.
    fn note(&mut self, chunk: Option<Digest>) {
        let bytes = chunk
            .as_ref()
            .map_or(self.buffer.as_slice(), |digest| digest.as_bytes());
        self.digest.update(bytes);
        if let Some(mac) = &mut self.mac {
            mac.update(bytes);
        }
    }

    /// Fills the buffer with exactly `count` bytes, or as many as there are and answers false.
    fn read(&mut self, count: usize) -> Result<bool, IngestError> {
        self.buffer.resize(count, 0);
        let mut filled = 0;
        while filled < count {
            match self
                .blob
                .read(&mut self.buffer[filled..])
                .map_err(StoreError::from)?
            {
                0 => break,
                more => filled += more,
            }
        }
        Ok(filled == count)
    }
}
