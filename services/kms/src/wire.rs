//! Between messages and the domain.

use std::collections::BTreeMap;

use asterism_crypto::{Digest, Signature, crc32c};
use asterism_proto::kms as pb;

use crate::{
    error::KmsError,
    keys::{
        Key, KeyId, KeyType, NewKey,
        evaluation::{self, EvaluationKeyRecord},
    },
};

const MAX_LABELS: usize = 32;
const MAX_LABEL_BYTES: usize = 63;
const MAX_REQUEST_ID_BYTES: usize = 64;

pub(crate) fn new_key(request: pb::CreateKeyRequest) -> Result<NewKey, KmsError> {
    let key_type = match request.r#type() {
        pb::KeyType::Aes256Gcm => KeyType::Aes256Gcm,
        pb::KeyType::HmacSha256 => KeyType::HmacSha256,
        pb::KeyType::EcSignP256Sha256 => KeyType::EcSignP256Sha256,
        pb::KeyType::Unspecified => {
            return Err(KmsError::field("type", "must be one of the known key types"));
        }
    };
    if request.labels.len() > MAX_LABELS
        || request.labels.iter().any(|(name, value)| {
            name.is_empty() || name.len() > MAX_LABEL_BYTES || value.len() > MAX_LABEL_BYTES
        })
    {
        return Err(KmsError::field(
            "labels",
            "at most 32, with names and values of at most 63 bytes",
        ));
    }
    let id = if request.key_id.is_empty() {
        None
    } else {
        Some(request.key_id.parse()?)
    };
    Ok(NewKey {
        id,
        key_type,
        labels: request.labels.into_iter().collect::<BTreeMap<_, _>>(),
    })
}

pub(crate) fn request_id(id: &str) -> Result<&str, KmsError> {
    if id.len() <= MAX_REQUEST_ID_BYTES && id.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(id)
    } else {
        Err(KmsError::field(
            "request_id",
            "must be at most 64 visible ASCII characters",
        ))
    }
}

/// A page token is the last id of the page before.
pub(crate) fn page_token(token: &str) -> Result<Option<KeyId>, KmsError> {
    if token.is_empty() {
        return Ok(None);
    }
    token
        .parse()
        .map(Some)
        .map_err(|_| KmsError::field("page_token", "must be one that ListKeys gave"))
}

pub(crate) fn key(key: &Key) -> pb::Key {
    let versions = key.created_at_ms.iter().zip(1..);
    pb::Key {
        name: key.id.name(),
        r#type: match key.key_type {
            KeyType::Aes256Gcm => pb::KeyType::Aes256Gcm,
            KeyType::HmacSha256 => pb::KeyType::HmacSha256,
            KeyType::EcSignP256Sha256 => pb::KeyType::EcSignP256Sha256,
        }
        .into(),
        primary_version: key.primary(),
        versions: versions
            .map(|(ms, version)| pb::KeyVersion {
                version,
                create_time: Some(timestamp(*ms)),
            })
            .collect(),
        create_time: key.created_at_ms.first().map(|ms| timestamp(*ms)),
        labels: key.labels.clone().into_iter().collect(),
    }
}

fn timestamp(ms: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: (ms / 1000) as i64,
        nanos: (ms % 1000 * 1_000_000) as i32,
    }
}

pub(crate) fn check_crc(field: &'static str, bytes: &[u8], crc: Option<u32>) -> Result<(), KmsError> {
    match crc {
        Some(crc) if crc != crc32c(bytes) => Err(KmsError::ChecksumMismatch { field }),
        _ => Ok(()),
    }
}

pub(crate) fn sign_input(input: Option<pb::asymmetric_sign_request::Input>) -> Result<Digest, KmsError> {
    use pb::asymmetric_sign_request::Input;
    match input {
        Some(Input::Message(message)) => digest_of(&message),
        Some(Input::Digest(bytes)) => digest(&bytes),
        None => Err(KmsError::field("input", "must be a message or a digest")),
    }
}

pub(crate) fn verify_input(input: Option<pb::asymmetric_verify_request::Input>) -> Result<Digest, KmsError> {
    use pb::asymmetric_verify_request::Input;
    match input {
        Some(Input::Message(message)) => digest_of(&message),
        Some(Input::Digest(bytes)) => digest(&bytes),
        None => Err(KmsError::field("input", "must be a message or a digest")),
    }
}

pub(crate) fn signature(der: &[u8]) -> Result<Signature, KmsError> {
    Signature::from_der(der).map_err(|_| KmsError::field("signature", "must be an ECDSA signature in DER"))
}

pub(crate) fn evaluation_key(
    request: pb::RecordEvaluationKeyRequest,
    owner: &str,
) -> Result<EvaluationKeyRecord, KmsError> {
    let sha256: [u8; 32] = request
        .sha256
        .as_slice()
        .try_into()
        .map_err(|_| KmsError::field("sha256", "must be the 32 bytes of a SHA-256"))?;
    Ok(EvaluationKeyRecord {
        owner: owner.to_owned(),
        sha256: Digest::from_bytes(sha256),
        params: request.params,
        total_bytes: request.total_bytes,
    })
}

/// The digest in `evaluationKeys/{sha256 in hex}`.
pub(crate) fn evaluation_key_name(name: &str) -> Result<Digest, KmsError> {
    name.strip_prefix("evaluationKeys/")
        .and_then(|hex| {
            hex.parse()
                .ok()
                .filter(|digest: &Digest| digest.to_string() == hex)
        })
        .ok_or_else(|| KmsError::field("name", "must be `evaluationKeys/{sha256 in hex}`"))
}

pub(crate) fn evaluation_key_record(record: EvaluationKeyRecord) -> pb::EvaluationKeyRecord {
    pb::EvaluationKeyRecord {
        name: evaluation::name(&record.sha256),
        owner: record.owner,
        sha256: record.sha256.as_bytes().to_vec(),
        params: record.params,
        total_bytes: record.total_bytes,
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
