//! From stored bytes to plaintext, one check at a time.

use std::io::Read as _;

use asterism_client::manifest::{DATASET_MANIFEST_DOMAIN, DatasetManifest, chunk_table_digest};
use asterism_crypto::{Digest, SecretKey, StreamOpener, stream};
use asterism_store::{BlobReader, StoreError};
use zeroize::Zeroizing;

use crate::{
    datasets::{Datasets, Granted},
    error::IngestError,
    keys::Keys,
};

/// A check that failed, or one that could not be made.
pub(super) enum Finding {
    /// What is stored is not what was signed; the text says what, for people.
    Damaged(String),
    /// The check could not be made.
    Failed(IngestError),
}

impl<E: Into<IngestError>> From<E> for Finding {
    fn from(error: E) -> Self {
        match error.into() {
            IngestError::DatasetDamaged { problem, .. } => Self::Damaged(problem),
            error => Self::Failed(error),
        }
    }
}

impl Finding {
    pub(super) fn damaged(problem: impl Into<String>) -> Self {
        Self::Damaged(problem.into())
    }
}

/// The manifest, once its signature by our signer, its dataset, its owner and its digest are right.
pub(super) fn check_manifest(
    datasets: &Datasets,
    granted: &Granted,
    keys: &dyn Keys,
) -> Result<DatasetManifest, Finding> {
    let signed = datasets.signed_manifest(granted)?;
    if signed.key != keys.signer() {
        return Err(Finding::damaged(format!(
            "the manifest was signed by another key than `{}`",
            keys.signer()
        )));
    }
    let unknown = || {
        Finding::damaged(format!(
            "`{}` has no version {}",
            keys.signer(),
            signed.key_version
        ))
    };
    if signed.key_version == 0 {
        return Err(unknown());
    }
    let key = keys.public_key(signed.key_version)?.ok_or_else(unknown)?;
    let payload = signed
        .verify(DATASET_MANIFEST_DOMAIN, &key)
        .map_err(|_| Finding::damaged("the signature of the manifest does not fit"))?;
    if Digest::of(payload) != granted.record().manifest_sha256 {
        return Err(Finding::damaged("the manifest is not the one that was recorded"));
    }
    let manifest = DatasetManifest::parse(payload).map_err(|error| Finding::damaged(error.to_string()))?;
    if manifest.dataset != granted.id().to_string() || manifest.owner != granted.record().owner {
        return Err(Finding::damaged(
            "the manifest belongs to another dataset or owner",
        ));
    }
    Ok(manifest)
}

/// The data key, once kms unwrapped it for this dataset and owner.
pub(super) fn check_data_key(manifest: &DatasetManifest, keys: &dyn Keys) -> Result<SecretKey, Finding> {
    keys.unwrap_key(&manifest.data_key, &manifest.context())?
        .ok_or_else(|| Finding::damaged("kms does not unwrap the data key for this dataset and owner"))
}

/// The chunk table, once its length and digest are those of the manifest.
pub(super) fn check_table(
    datasets: &Datasets,
    granted: &Granted,
    manifest: &DatasetManifest,
) -> Result<Vec<Digest>, Finding> {
    let mut blob = datasets.table(granted)?;
    if Some(blob.len()) != manifest.chunks.checked_mul(32) {
        return Err(Finding::damaged(
            "the chunk table has another length than the manifest says",
        ));
    }
    let mut table = Vec::with_capacity(usize::try_from(manifest.chunks).unwrap_or_default());
    let mut digest = [0; 32];
    for _ in 0..manifest.chunks {
        blob.read_exact(&mut digest).map_err(StoreError::from)?;
        table.push(Digest::from_bytes(digest));
    }
    if chunk_table_digest(&table) == manifest.chunk_table_sha256 {
        Ok(table)
    } else {
        Err(Finding::damaged("the chunk table is not the one that was signed"))
    }
}

/// The stream's header, once it fits the data key, the dataset and the manifest.
pub(super) fn check_header(
    header: &[u8],
    manifest: &DatasetManifest,
    key: &SecretKey,
) -> Result<StreamOpener, Finding> {
    StreamOpener::new(key, header, &manifest.context())
        .ok()
        .filter(|opener| opener.chunk_bytes() == manifest.chunk_bytes)
        .ok_or_else(|| Finding::damaged("the header of the encrypted data does not fit its data key"))
}

/// Bytes of encrypted chunk `index`.
pub(super) fn sealed_bytes(manifest: &DatasetManifest, index: u64) -> usize {
    let chunk_bytes = u64::from(manifest.chunk_bytes);
    let plaintext = manifest
        .bytes
        .saturating_sub(index.saturating_mul(chunk_bytes))
        .min(chunk_bytes);
    plaintext as usize + stream::TAG_BYTES
}

/// Bytes of the whole stream: header, then chunks.
pub(super) fn stream_bytes(manifest: &DatasetManifest) -> u64 {
    let tags = manifest.chunks.saturating_mul(stream::TAG_BYTES as u64);
    manifest
        .bytes
        .saturating_add(tags)
        .saturating_add(stream::HEADER_BYTES as u64)
}

/// A dataset whose signature, data key, chunk table and header were checked. Each chunk is checked before it is given.
pub struct Opened {
    granted: Granted,
    manifest: DatasetManifest,
    table: Vec<Digest>,
    opener: StreamOpener,
    blob: Box<dyn BlobReader>,
    next: u64,
    buffer: Zeroizing<Vec<u8>>,
}

impl Opened {
    /// Opens a dataset.
    ///
    /// # Errors
    /// [`IngestError::DatasetDamaged`] naming the first check that failed.
    pub fn open(datasets: &Datasets, granted: &Granted, keys: &dyn Keys) -> Result<Self, IngestError> {
        let refuse = |finding| match finding {
            Finding::Damaged(problem) => granted.damaged(problem),
            Finding::Failed(error) => error,
        };
        let manifest = check_manifest(datasets, granted, keys).map_err(refuse)?;
        let table = check_table(datasets, granted, &manifest).map_err(refuse)?;
        let key = check_data_key(&manifest, keys).map_err(refuse)?;
        let mut blob = datasets.data(granted)?;
        let mut header = [0; stream::HEADER_BYTES];
        blob.read_exact(&mut header)
            .map_err(|error| short(granted, error, "its header"))?;
        let opener = check_header(&header, &manifest, &key).map_err(refuse)?;
        let granted = granted.clone();
        Ok(Self {
            granted,
            manifest,
            table,
            opener,
            blob,
            next: 0,
            buffer: Zeroizing::default(),
        })
    }

    /// The verified manifest.
    pub fn manifest(&self) -> &DatasetManifest {
        &self.manifest
    }

    /// SHA-256 of its signed bytes.
    pub fn manifest_sha256(&self) -> Digest {
        self.granted.record().manifest_sha256
    }

    /// The plaintext of the next chunk, or `None` after the last.
    ///
    /// # Errors
    /// [`IngestError::DatasetDamaged`] naming the chunk.
    pub fn next_chunk(&mut self) -> Result<Option<&[u8]>, IngestError> {
        let index = self.next;
        if index == self.manifest.chunks {
            return Ok(None);
        }
        self.buffer.resize(sealed_bytes(&self.manifest, index), 0);
        self.blob
            .read_exact(&mut self.buffer)
            .map_err(|error| short(&self.granted, error, &format!("chunk {index}")))?;
        let expected = usize::try_from(index)
            .ok()
            .and_then(|index| self.table.get(index));
        let last = index + 1 == self.manifest.chunks;
        if expected != Some(&Digest::of(&self.buffer))
            || self
                .opener
                .open_chunk_in_place(index, last, &mut self.buffer)
                .is_err()
        {
            return Err(self.granted.damaged(format!("chunk {index} is damaged")));
        }
        self.next += 1;
        Ok(Some(&self.buffer))
    }
}

fn short(granted: &Granted, error: std::io::Error, what: &str) -> IngestError {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        granted.damaged(format!("its encrypted data ends before {what} does"))
    } else {
        StoreError::from(error).into()
    }
}
