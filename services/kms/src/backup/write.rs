//! Writes a backup of what was captured.

use asterism_crypto::{Digest, DigestWriter, SecretKey, StreamSealer, stream::TAG_BYTES};
use zeroize::Zeroizing;

use super::{
    BackupError, CHUNK_BYTES, Capture, Header, Recipient, Signer,
    entry::{Entry, Kind},
    format::{Statement, Trailer, stream_context},
};

/// Takes the bytes of a backup, in order.
pub(crate) type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), BackupError> + 'a;

/// Seals what was captured under a fresh data key; gives SHA-256 and length of it all.
///
/// # Errors
/// What `sink` answers, and [`BackupError::Crypto`].
pub(crate) fn write(
    capture: &mut Capture,
    recipient: &Recipient,
    signer: &Signer<'_>,
    sink: &mut Sink<'_>,
) -> Result<(Digest, u64), BackupError> {
    let data_key = SecretKey::generate()?;
    let header = Header::new(
        capture.created_at_ms,
        signer.fingerprint(),
        capture.contents,
        recipient.seal(&data_key)?,
    );
    let prefix = header.encode();
    let (sealer, stream_header) = StreamSealer::new(&data_key, CHUNK_BYTES, &stream_context(&prefix))?;
    let mut out = Out {
        sink,
        digest: DigestWriter::new(),
        bytes: 0,
    };
    out.put(&[prefix.as_slice(), &stream_header].concat())?;
    let mut body = Body {
        sealer,
        chunk: Zeroizing::new(Vec::with_capacity(CHUNK_BYTES as usize + TAG_BYTES)),
        out,
    };
    capture.each(&mut |entry| body.entry(entry))?;
    body.entry(&Entry {
        kind: Kind::End,
        name: b"",
        value: &capture.contents.encode(),
    })?;
    body.flush(true)?;
    let mut out = body.out;
    out.put(&0_u32.to_be_bytes())?;
    let statement = Statement {
        bytes: out.bytes,
        sha256: out.digest.clone().finish(),
        key_version: signer.key_version(),
    };
    let trailer = Trailer {
        signed: signer.sign(serde_json::to_vec(&statement).expect("statements serialise"))?,
        public_key: signer.public_key().to_pem(),
    };
    out.put(&trailer.encode())?;
    Ok((out.digest.finish(), out.bytes))
}

struct Out<'a, 's> {
    sink: &'a mut Sink<'s>,
    digest: DigestWriter,
    bytes: u64,
}

impl Out<'_, '_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        (self.sink)(bytes)
    }
}

/// Cuts entries into chunks and encrypts them.
struct Body<'a, 's> {
    sealer: StreamSealer,
    /// Never grows: that would leave copies of secrets behind.
    chunk: Zeroizing<Vec<u8>>,
    out: Out<'a, 's>,
}

impl Body<'_, '_> {
    fn entry(&mut self, entry: &Entry<'_>) -> Result<(), BackupError> {
        self.write(&entry.head()?)?;
        self.write(entry.name)?;
        self.write(entry.value)
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), BackupError> {
        while !bytes.is_empty() {
            // Only now: the last chunk is known by nothing coming after it, and must not be empty.
            if self.chunk.len() == CHUNK_BYTES as usize {
                self.flush(false)?;
            }
            let room = CHUNK_BYTES as usize - self.chunk.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn flush(&mut self, last: bool) -> Result<(), BackupError> {
        self.sealer.seal_chunk_in_place(&mut self.chunk, last)?;
        let length = (self.chunk.len() as u32).to_be_bytes();
        self.out.put(&[length.as_slice(), &self.chunk].concat())?;
        self.chunk.clear();
        Ok(())
    }
}
