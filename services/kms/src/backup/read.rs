//! Checks a backup, and opens it.

use std::io::Read;

use asterism_crypto::{
    CryptoError, Digest, StreamOpener,
    stream::{HEADER_BYTES, StreamHeader, TAG_BYTES},
};
use zeroize::Zeroizing;

use super::{
    BackupError, Header, Opener,
    entry::{Decoder, Entry, MAX_PUSH_BYTES},
    format::{Source, Trailer, stream_context},
};

/// A backup whose signature fits: by which key, the header says. Nobody has looked inside yet.
#[derive(Clone, Debug)]
pub struct Verified {
    /// What it says of itself.
    pub header: Header,
    /// SHA-256 of the whole file.
    pub sha256: Digest,
    /// Bytes of the whole file.
    pub bytes: u64,
}

impl Verified {
    /// Makes sure that this key signed it.
    ///
    /// # Errors
    /// [`BackupError::SignerDiffers`]
    pub fn expect_signer(&self, expected: &Digest) -> Result<(), BackupError> {
        if self.header.signer == *expected {
            return Ok(());
        }
        Err(BackupError::SignerDiffers {
            expected: *expected,
            actual: self.header.signer,
        })
    }
}

/// Reads a backup to its end and checks form, digest and signature. Needs no key, and trusts no one: compare
/// [`Header::signer`] with what is known of the kms.
///
/// # Errors
/// [`BackupError`], saying what is wrong with it.
pub fn verify(source: impl Read) -> Result<Verified, BackupError> {
    let mut source = Source::new(source);
    let (header, _) = Header::read(&mut source)?;
    let stream = StreamHeader::parse(&source.array::<HEADER_BYTES>()?).map_err(stream_error)?;
    let mut chunk = Vec::new();
    while frame(&mut source, stream.chunk_bytes, &mut chunk)? {}
    let (sha256, bytes) = end(&mut source, &header)?;
    Ok(Verified {
        header,
        sha256,
        bytes,
    })
}

/// Opens a backup that was verified, and shows every entry. What was shown counts only when this returns `Ok`.
///
/// # Errors
/// [`BackupError`]
pub(crate) fn open(
    source: impl Read,
    verified: &Verified,
    opener: &Opener,
    see: &mut dyn FnMut(&Entry<'_>) -> Result<(), BackupError>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), BackupError> {
    let mut source = Source::new(source);
    let (header, prefix) = Header::read(&mut source)?;
    let data_key = opener.open(&header.recipient)?;
    let stream = StreamOpener::new(
        &data_key,
        &source.array::<HEADER_BYTES>()?,
        &stream_context(&prefix),
    )
    .map_err(stream_error)?;
    let mut decoder = Decoder::new();
    let (mut chunk, mut next) = (Zeroizing::new(Vec::new()), Zeroizing::new(Vec::new()));
    let mut more = frame(&mut source, stream.chunk_bytes(), &mut chunk)?;
    let mut index = 0;
    while more {
        more = frame(&mut source, stream.chunk_bytes(), &mut next)?;
        stream
            .open_chunk_in_place(index, !more, &mut chunk)
            .map_err(|_| BackupError::ChunkAltered(index))?;
        decoder.push(&chunk, see)?;
        std::mem::swap(&mut chunk, &mut next);
        index += 1;
        progress(source.bytes());
    }
    let contents = decoder.finish()?;
    if contents != header.contents {
        return Err(BackupError::Incomplete(
            "its header counts other things".to_owned(),
        ));
    }
    let (sha256, _) = end(&mut source, &header)?;
    if sha256 != verified.sha256 {
        return Err(BackupError::Altered("it changed while it was read"));
    }
    Ok(())
}

/// Reads the next chunk, encrypted; `false` when there is none.
fn frame<R: Read>(
    source: &mut Source<R>,
    chunk_bytes: u32,
    chunk: &mut Vec<u8>,
) -> Result<bool, BackupError> {
    let most = (chunk_bytes as usize).min(MAX_PUSH_BYTES) + TAG_BYTES;
    let length = u32::from_be_bytes(source.array()?) as usize;
    if length == 0 {
        return Ok(false);
    }
    if !(TAG_BYTES..=most).contains(&length) {
        return Err(BackupError::Malformed("length of a chunk"));
    }
    chunk.resize(length, 0);
    source.fill(chunk)?;
    Ok(true)
}

/// Reads the trailer and checks it; gives digest and length of the whole file.
fn end<R: Read>(source: &mut Source<R>, header: &Header) -> Result<(Digest, u64), BackupError> {
    let before = (source.bytes(), source.digest());
    let json = source.json("trailer")?;
    Trailer::check(&json, header, before)?;
    source.end()?;
    Ok((source.digest(), source.bytes()))
}

fn stream_error(error: CryptoError) -> BackupError {
    match error {
        CryptoError::Authentication => BackupError::Altered("the header"),
        _ => BackupError::Malformed("stream header"),
    }
}
