//! Between messages and the domain.

mod backups;
mod proofs;
mod system;

use std::collections::BTreeMap;

use asterism_crypto::{Digest, crc32c};
use asterism_proto::kms as pb;

use crate::{
    error::KmsError,
    keys::{
        Import, ImportJob, Key, KeyId, KeyType, KeyUpdate, MAX_WINDOW_MS, NewKey, State, Version,
        evaluation::{self, EvaluationKeyRecord},
    },
    policy::MAX_REQUIRED,
};

pub(crate) use backups::backup_recipient;
pub(crate) use proofs::{Encoding, check_crc, encryption_key, input};
pub(crate) use system::{
    new_seal, secret as unseal_secret, secrets as unseal_secrets, status as seal_status,
};

const MAX_LABELS: usize = 32;
const MAX_LABEL_BYTES: usize = 63;
const MAX_REQUEST_ID_BYTES: usize = 64;
const MAX_SEALED_BYTES: usize = 1024;

pub(crate) fn new_key(request: pb::CreateKeyRequest) -> Result<NewKey, KmsError> {
    let key_type = key_type(request.r#type())?;
    let id = if request.key_id.is_empty() {
        None
    } else {
        Some(request.key_id.parse()?)
    };
    Ok(NewKey {
        id,
        key_type,
        active_from_ms: activation_time(request.activation_time)?,
        required_approvals: required_approvals("required_approvals", request.required_approvals)?,
        labels: labels("labels", request.labels)?,
        exportable: request.exportable,
    })
}

pub(crate) fn key_type(key_type: pb::KeyType) -> Result<KeyType, KmsError> {
    Ok(match key_type {
        pb::KeyType::Aes256Gcm => KeyType::Aes256Gcm,
        pb::KeyType::HmacSha256 => KeyType::HmacSha256,
        pb::KeyType::EcSignP256Sha256 => KeyType::EcSignP256Sha256,
        pb::KeyType::HmacSha512 => KeyType::HmacSha512,
        pb::KeyType::EcP256Hpke => KeyType::EcP256Hpke,
        pb::KeyType::EcP256Ecdh => KeyType::EcP256Ecdh,
        pb::KeyType::Aes256Kwp => KeyType::Aes256Kwp,
        pb::KeyType::Aes256Siv => KeyType::Aes256Siv,
        pb::KeyType::Unspecified => {
            return Err(KmsError::field("type", "must be one of the known key types"));
        }
    })
}

/// The type as it is named on the wire.
pub(crate) fn type_of(key_type: KeyType) -> pb::KeyType {
    match key_type {
        KeyType::Aes256Gcm => pb::KeyType::Aes256Gcm,
        KeyType::HmacSha256 => pb::KeyType::HmacSha256,
        KeyType::EcSignP256Sha256 => pb::KeyType::EcSignP256Sha256,
        KeyType::HmacSha512 => pb::KeyType::HmacSha512,
        KeyType::EcP256Hpke => pb::KeyType::EcP256Hpke,
        KeyType::EcP256Ecdh => pb::KeyType::EcP256Ecdh,
        KeyType::Aes256Kwp => pb::KeyType::Aes256Kwp,
        KeyType::Aes256Siv => pb::KeyType::Aes256Siv,
    }
}

pub(crate) fn import(request: pb::ImportKeyVersionRequest) -> Result<Import, KmsError> {
    let hex = |id: &&str| {
        id.len() == 32
            && id
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let job = request
        .import_job
        .strip_prefix("importJobs/")
        .filter(hex)
        .ok_or_else(|| KmsError::field("import_job", "must be `importJobs/{32 hex digits}`"))?;
    if request.sealed_material.len() > MAX_SEALED_BYTES {
        return Err(KmsError::field("sealed_material", "is longer than any key"));
    }
    Ok(Import {
        job: job.to_owned(),
        sealed: request.sealed_material,
        labels: labels("labels", request.labels)?,
        exportable: request.exportable,
        active_from_ms: activation_time(request.activation_time)?,
    })
}

pub(crate) fn import_job(job: ImportJob) -> pb::ImportJob {
    let pem = job.public_key.to_pem();
    pb::ImportJob {
        name: format!("importJobs/{}", job.id),
        key_id: job.key.to_string(),
        r#type: type_of(job.key_type).into(),
        public_key_pem_crc32c: crc32c(pem.as_bytes()),
        public_key_pem: pem,
        expire_time: Some(timestamp(job.expires_at_ms)),
    }
}

fn labels(
    field: &'static str,
    labels: std::collections::HashMap<String, String>,
) -> Result<BTreeMap<String, String>, KmsError> {
    let fits = |(name, value): (&String, &String)| {
        !name.is_empty() && name.len() <= MAX_LABEL_BYTES && value.len() <= MAX_LABEL_BYTES
    };
    if labels.len() <= MAX_LABELS && labels.iter().all(fits) {
        return Ok(labels.into_iter().collect());
    }
    Err(KmsError::field(
        field,
        "at most 32, with names and values of at most 63 bytes",
    ))
}

fn required_approvals(field: &'static str, number: u32) -> Result<u8, KmsError> {
    u8::try_from(number)
        .ok()
        .filter(|number| *number <= MAX_REQUIRED)
        .ok_or_else(|| KmsError::field(field, "must be 0 to 3"))
}

pub(crate) fn activation_time(time: Option<prost_types::Timestamp>) -> Result<Option<u64>, KmsError> {
    time.map(|time| milliseconds("activation_time", time)).transpose()
}

/// What an update of a key asks for: the fields that its mask names.
pub(crate) fn key_update(key: pb::Key, mask: Option<prost_types::FieldMask>) -> Result<KeyUpdate, KmsError> {
    let paths = mask.unwrap_or_default().paths;
    if paths.is_empty() {
        return Err(KmsError::field("update_mask", "must name at least one field"));
    }
    let mut update = KeyUpdate {
        etag: key.etag,
        ..KeyUpdate::default()
    };
    let mut given = Some(key.labels);
    for path in &paths {
        match path.as_str() {
            "labels" => {
                if let Some(given) = given.take() {
                    update.labels = Some(labels("key.labels", given)?);
                }
            }
            "rotation_period" => {
                let period = key.rotation_period;
                update.rotation_period_ms = Some(
                    period
                        .map(|period| length("key.rotation_period", period))
                        .transpose()?,
                );
            }
            "next_rotation_time" => {
                let time = key
                    .next_rotation_time
                    .ok_or_else(|| KmsError::field("key.next_rotation_time", "must be set"))?;
                update.next_rotation_ms = Some(milliseconds("key.next_rotation_time", time)?);
            }
            "min_decryption_version" => update.min_version = Some(key.min_decryption_version),
            "required_approvals" => {
                let number = required_approvals("key.required_approvals", key.required_approvals)?;
                update.required_approvals = Some(number);
            }
            _ => {
                return Err(KmsError::field(
                    "update_mask",
                    "may name labels, rotation_period, next_rotation_time, min_decryption_version and required_approvals",
                ));
            }
        }
    }
    Ok(update)
}

/// Reads `keys/{id}/versions/{number}`.
pub(crate) fn version_name(name: &str) -> Result<(KeyId, u32), KmsError> {
    let read = name.split_once("/versions/").and_then(|(key, number)| {
        let plain = !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|_| plain)?;
        Some((KeyId::from_name(key).ok()?, number))
    });
    read.ok_or_else(|| KmsError::field("name", "must be `keys/{key_id}/versions/{version}`"))
}

/// A state that may be asked for; which steps there are is the domain's to say.
pub(crate) fn new_state(
    version: &pb::KeyVersion,
    mask: Option<prost_types::FieldMask>,
) -> Result<State, KmsError> {
    let paths = mask.unwrap_or_default().paths;
    if !paths.iter().all(|path| path == "state") {
        return Err(KmsError::field("update_mask", "may name state only"));
    }
    match version.state() {
        pb::KeyVersionState::Active => Ok(State::Active),
        pb::KeyVersionState::Suspended => Ok(State::Suspended),
        pb::KeyVersionState::Deactivated => Ok(State::Deactivated),
        pb::KeyVersionState::Compromised => Ok(State::Compromised),
        _ => Err(KmsError::field(
            "key_version.state",
            "must be ACTIVE, SUSPENDED, DEACTIVATED or COMPROMISED; destroy and restore by their own methods",
        )),
    }
}

/// The window of a destruction.
pub(crate) fn window(window: Option<prost_types::Duration>) -> Result<u64, KmsError> {
    window.map_or(Ok(MAX_WINDOW_MS), |window| length("window", window))
}

fn milliseconds(field: &'static str, time: prost_types::Timestamp) -> Result<u64, KmsError> {
    positive(time.seconds, time.nanos).ok_or_else(|| KmsError::field(field, "must be a time after 1970"))
}

fn length(field: &'static str, length: prost_types::Duration) -> Result<u64, KmsError> {
    positive(length.seconds, length.nanos).ok_or_else(|| KmsError::field(field, "must be above zero"))
}

/// Milliseconds, when they are above zero.
fn positive(seconds: i64, nanos: i32) -> Option<u64> {
    let nanos = u64::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    let ms = u64::try_from(seconds).ok()?.checked_mul(1000)?;
    ms.checked_add(nanos / 1_000_000).filter(|ms| *ms > 0)
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

pub(crate) fn key(key: &Key, now_ms: u64) -> pb::Key {
    pb::Key {
        name: key.id.name(),
        r#type: type_of(key.key_type).into(),
        primary_version: key.primary(now_ms),
        versions: key
            .versions
            .iter()
            .map(|version| self::version(&key.id, version, now_ms))
            .collect(),
        create_time: key.versions.first().map(|first| timestamp(first.created_at_ms)),
        labels: key.labels.clone().into_iter().collect(),
        etag: key.etag.clone(),
        rotation_period: key.rotation_period_ms.map(|ms| prost_types::Duration {
            seconds: (ms / 1000) as i64,
            nanos: (ms % 1000 * 1_000_000) as i32,
        }),
        next_rotation_time: key.next_rotation_ms.map(timestamp),
        min_decryption_version: key.min_version,
        exportable: key.exportable,
        required_approvals: key.required_approvals.into(),
    }
}

pub(crate) fn version(id: &KeyId, version: &Version, now_ms: u64) -> pb::KeyVersion {
    pb::KeyVersion {
        version: version.number,
        create_time: Some(timestamp(version.created_at_ms)),
        name: format!("{}/versions/{}", id.name(), version.number),
        state: match version.state(now_ms) {
            State::PreActive => pb::KeyVersionState::PreActive,
            State::Active => pb::KeyVersionState::Active,
            State::Suspended => pb::KeyVersionState::Suspended,
            State::Deactivated => pb::KeyVersionState::Deactivated,
            State::Compromised => pb::KeyVersionState::Compromised,
            State::DestroyScheduled => pb::KeyVersionState::DestroyScheduled,
            State::Destroyed => pb::KeyVersionState::Destroyed,
        }
        .into(),
        state_time: Some(timestamp(version.since_ms(now_ms))),
        activation_time: version.active_from_ms().map(timestamp),
        destroy_time: version.destroy_at_ms().map(timestamp),
        imported: version.imported,
    }
}

pub(crate) fn timestamp(ms: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: (ms / 1000) as i64,
        nanos: (ms % 1000 * 1_000_000) as i32,
    }
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
