//! Verifies and decrypts a stored dataset chunk by chunk, without trusting whoever stores it.

use asterism_crypto::{
    Digest, DigestWriter, MacKey, MacWriter, SecretBytes, SecretKey, StreamOpener, stream,
};

use crate::{
    error::ClientError,
    manifest::{DatasetManifest, chunk_table_digest},
};

/// Bytes of an authentication tag after every chunk.
const TAG_BYTES: u64 = 16;

/// Takes the stored blob in pieces of any size and gives its plaintext.
///
/// Every chunk is authenticated before it is released. That the dataset is *complete* and is the one that the manifest
/// describes is known only after [`DatasetReader::finish`]: act on nothing before it.
pub struct DatasetReader<'m> {
    manifest: &'m DatasetManifest,
    table: Vec<Digest>,
    data_key: SecretKey,
    opener: Option<StreamOpener>,
    next_chunk: u64,
    pending: Vec<u8>,
    digest: DigestWriter,
    mac: MacWriter,
}

impl<'m> DatasetReader<'m> {
    /// A reader for the dataset of a manifest whose signature was checked.
    ///
    /// # Errors
    /// [`ClientError::Verification`] when the chunk table is not the manifest's.
    pub fn new(
        manifest: &'m DatasetManifest,
        chunk_table: &[u8],
        data_key: SecretKey,
    ) -> Result<Self, ClientError> {
        let (digests, rest) = chunk_table.as_chunks::<32>();
        let table: Vec<Digest> = digests.iter().map(|bytes| Digest::from_bytes(*bytes)).collect();
        if !rest.is_empty()
            || table.len() as u64 != manifest.chunks
            || chunk_table_digest(&table) != manifest.chunk_table_sha256
        {
            return Err(ClientError::Verification(
                "the chunk table is not the one that was signed".into(),
            ));
        }
        let mac_key: MacKey = stream::mac_key(&data_key);
        Ok(Self {
            manifest,
            table,
            data_key,
            opener: None,
            next_chunk: 0,
            pending: Vec::new(),
            digest: DigestWriter::new(),
            mac: MacWriter::new(&mac_key),
        })
    }

    /// Takes the next bytes of the blob; gives each chunk's plaintext to `sink` as soon as it is authenticated.
    ///
    /// # Errors
    /// [`ClientError::Verification`] naming the first damaged chunk.
    pub fn push(
        &mut self,
        bytes: &[u8],
        sink: &mut dyn FnMut(&SecretBytes) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        self.pending.extend_from_slice(bytes);
        if self.opener.is_none() {
            if self.pending.len() < stream::HEADER_BYTES {
                return Ok(());
            }
            let header: Vec<u8> = self.pending.drain(..stream::HEADER_BYTES).collect();
            let opener =
                StreamOpener::new(&self.data_key, &header, &self.manifest.context()).map_err(|_| {
                    ClientError::Verification("the blob's header does not fit its data key".into())
                })?;
            self.note(&header);
            self.opener = Some(opener);
        }
        loop {
            let Some(want) = self.next_chunk_bytes() else {
                return if self.pending.is_empty() {
                    Ok(())
                } else {
                    Err(ClientError::Verification(
                        "the blob is longer than its manifest says".into(),
                    ))
                };
            };
            if self.pending.len() < want {
                return Ok(());
            }
            let plaintext = self.open_chunk(want)?;
            sink(&plaintext)?;
        }
    }

    /// Header and chunk digests are what digest and HMAC are made of.
    fn note(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.mac.update(bytes);
    }

    /// Checks that nothing is missing, the blob's digest, and its HMAC.
    ///
    /// # Errors
    /// [`ClientError::Verification`] naming what does not fit.
    pub fn finish(self) -> Result<(), ClientError> {
        if self.next_chunk != self.manifest.chunks {
            let (have, want) = (self.next_chunk, self.manifest.chunks);
            return Err(ClientError::Verification(format!(
                "the blob ends after {have} of {want} chunks"
            )));
        }
        if self.digest.finish() != self.manifest.ciphertext_sha256 {
            return Err(ClientError::Verification(
                "the blob's SHA-256 is not the one that was signed".into(),
            ));
        }
        if !self.mac.finish().fits(self.manifest.hmac.as_bytes()) {
            return Err(ClientError::Verification(
                "the blob's HMAC is not the one that was signed".into(),
            ));
        }
        Ok(())
    }

    /// Ciphertext bytes of the chunk that is due; `None` after the last.
    fn next_chunk_bytes(&self) -> Option<usize> {
        let before = self.next_chunk.checked_mul(self.manifest.chunk_bytes.into())?;
        if self.next_chunk >= self.manifest.chunks {
            return None;
        }
        let plaintext = self
            .manifest
            .bytes
            .saturating_sub(before)
            .min(self.manifest.chunk_bytes.into());
        usize::try_from(plaintext + TAG_BYTES).ok()
    }

    fn open_chunk(&mut self, bytes: usize) -> Result<SecretBytes, ClientError> {
        let index = self.next_chunk;
        let last = index + 1 == self.manifest.chunks;
        let damaged = || ClientError::Verification(format!("chunk {index} is damaged"));
        let ciphertext: Vec<u8> = self.pending.drain(..bytes).collect();
        let expected = usize::try_from(index).ok().and_then(|i| self.table.get(i));
        let digest = Digest::of(&ciphertext);
        if expected != Some(&digest) {
            return Err(damaged());
        }
        self.note(digest.as_bytes());
        let opener = self.opener.as_ref().ok_or_else(damaged)?;
        let plaintext = opener
            .open_chunk(index, last, &ciphertext)
            .map_err(|_| damaged())?;
        self.next_chunk += 1;
        Ok(plaintext)
    }
}
