//! Checksums, digests and signatures.

use asterism_crypto::{Digest, EncryptionKey, Signature, crc32c};
use asterism_proto::kms as pb;

use crate::error::KmsError;

/// Checks a checksum if there is one; says whether there was.
pub(crate) fn check_crc(field: &'static str, bytes: &[u8], crc: Option<u32>) -> Result<bool, KmsError> {
    match crc {
        Some(crc) if crc != crc32c(bytes) => Err(KmsError::ChecksumMismatch { field }),
        given => Ok(given.is_some()),
    }
}

/// What is signed, or said to be.
pub(crate) enum Input {
    Message(Vec<u8>),
    Digest(Vec<u8>),
}

macro_rules! inputs {
    ($($of:ident),*) => {$(
        impl From<pb::$of::Input> for Input {
            fn from(input: pb::$of::Input) -> Self {
                match input {
                    pb::$of::Input::Message(bytes) => Self::Message(bytes),
                    pb::$of::Input::Digest(bytes) => Self::Digest(bytes),
                }
            }
        }
    )*};
}

inputs!(
    asymmetric_sign_request,
    asymmetric_verify_request,
    sign_item,
    verify_item
);

/// The digest to be signed or verified, and whether a checksum was checked.
pub(crate) fn input(input: Option<impl Into<Input>>, crc: Option<u32>) -> Result<(Digest, bool), KmsError> {
    match input.map(Into::into) {
        Some(Input::Message(message)) => {
            let verified = check_crc("input_crc32c", &message, crc)?;
            Ok((digest_of(&message)?, verified))
        }
        Some(Input::Digest(bytes)) => {
            let verified = check_crc("input_crc32c", &bytes, crc)?;
            Ok((digest(&bytes)?, verified))
        }
        None => Err(KmsError::field("input", "must be a message or a digest")),
    }
}

/// How signatures are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Der,
    Fixed,
}

impl Encoding {
    pub(crate) fn parse(encoding: i32) -> Result<Self, KmsError> {
        match pb::SignatureEncoding::try_from(encoding) {
            Ok(pb::SignatureEncoding::Unspecified | pb::SignatureEncoding::Der) => Ok(Self::Der),
            Ok(pb::SignatureEncoding::Fixed) => Ok(Self::Fixed),
            Err(_) => Err(KmsError::field("signature_encoding", "must be DER or FIXED")),
        }
    }

    pub(crate) fn read(self, signature: &[u8]) -> Result<Signature, KmsError> {
        match self {
            Self::Der => Signature::from_der(signature)
                .map_err(|_| KmsError::field("signature", "must be an ECDSA signature in DER")),
            Self::Fixed => Signature::from_fixed(signature)
                .map_err(|_| KmsError::field("signature", "must be the 64 bytes of r and s")),
        }
    }

    pub(crate) fn write(self, signature: &Signature) -> Vec<u8> {
        match self {
            Self::Der => signature.to_der(),
            Self::Fixed => signature.to_fixed().to_vec(),
        }
    }
}

/// Longest PEM that is read.
const MAX_PEM_BYTES: usize = 4096;

pub(crate) fn encryption_key(field: &'static str, pem: &str) -> Result<EncryptionKey, KmsError> {
    let read = (pem.len() <= MAX_PEM_BYTES).then(|| EncryptionKey::from_pem(pem));
    match read {
        Some(Ok(key)) => Ok(key),
        _ => Err(KmsError::field(
            field,
            "must be a P-256 public key as SubjectPublicKeyInfo in PEM",
        )),
    }
}

fn digest_of(message: &[u8]) -> Result<Digest, KmsError> {
    if message.len() > crate::keys::MAX_INPUT_BYTES {
        return Err(KmsError::field(
            "message",
            "has at most 64 KiB; send the SHA-256 digest of more",
        ));
    }
    Ok(Digest::of(message))
}

fn digest(bytes: &[u8]) -> Result<Digest, KmsError> {
    let bytes: [u8; 32] = bytes
        .try_into()
        .map_err(|_| KmsError::field("digest", "must be the 32 bytes of a SHA-256"))?;
    Ok(Digest::from_bytes(bytes))
}
