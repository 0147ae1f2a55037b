//! The parts of a backup that can be read without its key.
//!
//! ```text
//! magic "ASTRBKUP" | format 2 BE | header length 4 BE | header, JSON
//! stream header 73
//! for every chunk: length 4 BE | ciphertext | tag 16
//! 0 4 BE
//! trailer length 4 BE | trailer, JSON
//! ```

use std::io::Read;

use asterism_crypto::{Context, Digest, DigestWriter, Signed, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::{
    BackupError, Contents,
    capture::{DOMAIN, SIGNER},
    recipient::SealedKey,
};
use crate::keys::record::FORMAT as STORE_FORMAT;

const MAGIC: &[u8; 8] = b"ASTRBKUP";
/// The newest format that is known.
pub const MAX_FORMAT: u16 = 1;
/// AES-256-GCM streams, HPKE over P-256, ECDSA P-256.
pub(crate) const SUITE: u32 = 1;
const MAX_JSON_BYTES: u32 = 64 << 10;

/// What a backup says of itself in the clear. Signed, and authenticated by its encryption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub(crate) suite: u32,
    /// Milliseconds since 1970 when the records were taken.
    pub created_at_ms: u64,
    /// Version of the program that made it.
    pub software: String,
    /// Format of the records of keys.
    pub(crate) store_format: u32,
    /// SHA-256 of the SubjectPublicKeyInfo of the key that signs it: which kms made it.
    pub signer: Digest,
    /// What is in it.
    pub contents: Contents,
    /// To whom it is sealed.
    pub recipient: SealedKey,
}

impl Header {
    pub(crate) fn new(created_at_ms: u64, signer: Digest, contents: Contents, recipient: SealedKey) -> Self {
        Self {
            suite: SUITE,
            created_at_ms,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            store_format: STORE_FORMAT,
            signer,
            contents,
            recipient,
        }
    }

    /// Everything up to the end of the header.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("headers serialise");
        let format = MAX_FORMAT.to_be_bytes();
        [
            MAGIC.as_slice(),
            &format,
            &(json.len() as u32).to_be_bytes(),
            &json,
        ]
        .concat()
    }

    /// Reads everything up to the end of the header; gives also its exact bytes.
    pub(crate) fn read<R: Read>(source: &mut Source<R>) -> Result<(Self, Vec<u8>), BackupError> {
        let magic: [u8; 8] = source.array().map_err(|error| match error {
            BackupError::Truncated => BackupError::NotABackup,
            other => other,
        })?;
        if magic != *MAGIC {
            return Err(BackupError::NotABackup);
        }
        let format = u16::from_be_bytes(source.array()?);
        if format > MAX_FORMAT {
            return Err(BackupError::Newer {
                found: format.into(),
                known: MAX_FORMAT.into(),
                by: String::new(),
            });
        }
        if format == 0 {
            return Err(BackupError::Malformed("format version"));
        }
        let json = source.json("header")?;
        let prefix = [
            magic.as_slice(),
            &format.to_be_bytes(),
            &(json.len() as u32).to_be_bytes(),
            &json,
        ]
        .concat();
        Ok((Self::parse(&json)?, prefix))
    }

    fn parse(json: &[u8]) -> Result<Self, BackupError> {
        /// What tells whether the rest can be read.
        #[derive(Deserialize)]
        struct Versions {
            suite: u32,
            store_format: u32,
            software: String,
        }
        let malformed = |_| BackupError::Malformed("header");
        let versions: Versions = serde_json::from_slice(json).map_err(malformed)?;
        if versions.store_format > STORE_FORMAT {
            // Not signed yet: shown only if it is what a version looks like.
            let plain = |c: char| c.is_ascii_alphanumeric() || ".-+".contains(c);
            let software = versions.software.as_str();
            let by = (software.len() < 32 && software.chars().all(plain)).then(|| format!(" ({software})"));
            return Err(BackupError::Newer {
                found: versions.store_format,
                known: STORE_FORMAT,
                by: by.unwrap_or_default(),
            });
        }
        if versions.suite != SUITE {
            return Err(BackupError::UnknownSuite(versions.suite));
        }
        serde_json::from_slice(json).map_err(malformed)
    }
}

/// What the encryption of the chunks is bound to: the exact bytes before them.
pub(crate) fn stream_context(prefix: &[u8]) -> Vec<u8> {
    Context::new("asterism/backup/v1")
        .field("header", &Digest::of(prefix).to_string())
        .encode()
}

/// What is signed.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Statement {
    /// Bytes before the trailer.
    pub(crate) bytes: u64,
    /// Their SHA-256.
    pub(crate) sha256: Digest,
    /// Version of the key that signs.
    pub(crate) key_version: u32,
}

/// What ends a backup.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trailer {
    /// Over a [`Statement`].
    pub(crate) signed: Signed,
    /// SubjectPublicKeyInfo in PEM.
    pub(crate) public_key: String,
}

impl Trailer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("trailers serialise");
        [&(json.len() as u32).to_be_bytes(), json.as_slice()].concat()
    }

    /// Checks that the key which `header` names signed as many bytes of this SHA-256.
    pub(crate) fn check(
        json: &[u8],
        header: &Header,
        (bytes, sha256): (u64, Digest),
    ) -> Result<(), BackupError> {
        let trailer: Self = serde_json::from_slice(json).map_err(|_| BackupError::Malformed("trailer"))?;
        let key = VerifyingKey::from_pem(&trailer.public_key)
            .map_err(|_| BackupError::Malformed("public key of the signer"))?;
        // Everything in the trailer means something: what could be changed unseen would be.
        let canonical = trailer.signed.key == SIGNER && key.to_pem() == trailer.public_key;
        if key.fingerprint() != header.signer || !canonical {
            return Err(BackupError::Signature);
        }
        let payload = trailer.signed.verify(DOMAIN, &key);
        let payload = payload.map_err(|_| BackupError::Signature)?;
        let signed: Statement =
            serde_json::from_slice(payload).map_err(|_| BackupError::Malformed("signed statement"))?;
        let statement = Statement {
            bytes,
            sha256,
            key_version: trailer.signed.key_version,
        };
        if signed == statement {
            Ok(())
        } else {
            Err(BackupError::Signature)
        }
    }
}

/// A backup as it is read: counted and digested.
pub(crate) struct Source<R> {
    inner: R,
    digest: DigestWriter,
    bytes: u64,
}

impl<R: Read> Source<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            digest: DigestWriter::new(),
            bytes: 0,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Of everything so far.
    pub(crate) fn digest(&self) -> Digest {
        self.digest.clone().finish()
    }

    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BackupError> {
        self.inner.read_exact(buffer)?;
        self.digest.update(buffer);
        self.bytes += buffer.len() as u64;
        Ok(())
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// A length and as many bytes of JSON.
    pub(crate) fn json(&mut self, what: &'static str) -> Result<Vec<u8>, BackupError> {
        let length = u32::from_be_bytes(self.array()?);
        if length > MAX_JSON_BYTES {
            return Err(BackupError::Malformed(what));
        }
        let mut json = vec![0; length as usize];
        self.fill(&mut json)?;
        Ok(json)
    }

    pub(crate) fn end(&mut self) -> Result<(), BackupError> {
        match self.inner.read_exact(&mut [0]) {
            Ok(()) => Err(BackupError::Trailing),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
