//! How keys are stored. Every record is JSON with a closed set of fields.

use std::collections::BTreeMap;

use asterism_crypto::{Context, Digest, signed::base64_bytes};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::KmsError,
    keys::{KeyId, KeyType, State},
};

/// Records: this byte and the key id -> [`KeyRecord`].
pub(crate) const KEY: u8 = b'k';
/// Records: this byte, the key id, 0 and the version -> [`VersionRecord`].
pub(crate) const VERSION: u8 = b'v';
/// Records: this byte, the key id, 0 and the version -> [`StateRecord`].
pub(crate) const STATE: u8 = b's';
/// Records: this byte and a digest of principal and request id -> [`RequestRecord`].
const REQUEST: u8 = b'r';

/// What is written now. Format 1 had neither this number nor what follows it.
pub(crate) const FORMAT: u32 = 2;

/// A key without its material.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRecord {
    pub(crate) key_type: KeyType,
    /// Principal that made it.
    pub(crate) owner: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Milliseconds since 1970, by version from 1.
    pub(crate) created_at_ms: Vec<u64>,
    #[serde(default = "first_format")]
    format: u32,
    /// Goes up with every change of the key or of a version's state.
    #[serde(default)]
    pub(crate) revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rotation_period_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_rotation_ms: Option<u64>,
    /// Versions below neither decrypt nor verify.
    #[serde(default = "first_version")]
    pub(crate) min_version: u32,
    /// A version that scheduled rotation made, and whose event is not yet known to be recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unreported: Option<u32>,
    /// Whether the material may be exported.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) exportable: bool,
    /// Which versions are of imported material: a bit each, from the lowest of the first byte.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "base64_bytes")]
    imported: Vec<u8>,
    /// How many others have to approve a destruction or an export.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) required_approvals: u8,
}

fn is_zero(number: &u8) -> bool {
    *number == 0
}

fn first_format() -> u32 {
    1
}

fn first_version() -> u32 {
    1
}

impl KeyRecord {
    /// A key without versions.
    pub(crate) fn new(key_type: KeyType, owner: &str, labels: BTreeMap<String, String>) -> Self {
        Self {
            key_type,
            owner: owner.to_owned(),
            labels,
            created_at_ms: vec![],
            format: FORMAT,
            revision: 0,
            rotation_period_ms: None,
            next_rotation_ms: None,
            min_version: 1,
            unreported: None,
            exportable: false,
            imported: vec![],
            required_approvals: 0,
        }
    }

    /// Adds a version; gives its number.
    pub(crate) fn add_version(&mut self, now_ms: u64, imported: bool) -> u32 {
        let index = self.created_at_ms.len();
        self.created_at_ms.push(now_ms);
        if imported {
            self.imported.resize(index / 8 + 1, 0);
            self.imported[index / 8] |= 1 << (index % 8);
        }
        self.created_at_ms.len() as u32
    }

    /// Whether the material of a version was imported.
    pub(crate) fn is_imported(&self, version: u32) -> bool {
        let index = (version as usize).wrapping_sub(1);
        self.imported
            .get(index / 8)
            .is_some_and(|bits| bits >> (index % 8) & 1 == 1)
    }

    /// As it is stored from now on: one revision further.
    pub(crate) fn next(mut self) -> Self {
        self.format = FORMAT;
        self.revision += 1;
        self
    }

    /// Reads a stored key.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, KmsError> {
        let record: Self = decode(bytes)?;
        if (1..=FORMAT).contains(&record.format) {
            Ok(record)
        } else {
            Err(KmsError::Damaged("format of a key record"))
        }
    }
}

/// The material of a version.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VersionRecord {
    #[serde(with = "base64_bytes")]
    pub(crate) wrapped: Vec<u8>,
    /// Under which name the random half of its wrapping key lies. Format 1 had none: wrapped by the root key alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wrapping_key: Option<String>,
}

/// Where in its life a version is. A version without this record is active since it was made, as all were in format 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StateRecord {
    pub(crate) state: State,
    /// Milliseconds since 1970.
    pub(crate) since_ms: u64,
    /// When it became active, or will; none for a version that never was and will not be by itself.
    pub(crate) active_from_ms: Option<u64>,
    /// Where it was before its destruction was scheduled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<State>,
    /// When it is destroyed, or was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) destroy_at_ms: Option<u64>,
}

/// What a request id did.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestRecord {
    pub(crate) parameters: Digest,
    pub(crate) key: String,
}

pub(crate) fn key_record(id: &str) -> Vec<u8> {
    [&[KEY], id.as_bytes()].concat()
}

pub(crate) fn version_record(id: &KeyId, version: u32) -> Vec<u8> {
    [&versions_of(VERSION, id), version.to_be_bytes().as_slice()].concat()
}

pub(crate) fn state_record(id: &KeyId, version: u32) -> Vec<u8> {
    [&versions_of(STATE, id), version.to_be_bytes().as_slice()].concat()
}

/// What all records of a kind about the versions of one key begin with.
pub(crate) fn versions_of(kind: u8, id: &KeyId) -> Vec<u8> {
    [&[kind], id.as_str().as_bytes(), &[0]].concat()
}

/// Key and version of a record that [`version_record`] or [`state_record`] names.
pub(crate) fn version_at(at: &[u8]) -> Result<(KeyId, u32), KmsError> {
    let damaged = KmsError::Damaged("name of a version's record");
    let Some((id, version)) = at.get(1..).and_then(|rest| rest.split_last_chunk::<4>()) else {
        return Err(damaged);
    };
    let id = id
        .strip_suffix(&[0])
        .and_then(|id| str::from_utf8(id).ok())
        .and_then(|id| id.parse().ok());
    Ok((id.ok_or(damaged)?, u32::from_be_bytes(*version)))
}

pub(crate) fn request_record(principal: &str, request_id: &str) -> Vec<u8> {
    let context = Context::new("asterism/kms-request/v1")
        .field("principal", principal)
        .field("id", request_id);
    [&[REQUEST], Digest::of(&context.encode()).as_bytes().as_slice()].concat()
}

/// What wrapped material is bound to.
pub(crate) fn wrap_context(id: &KeyId, version: u32, key_type: KeyType) -> Vec<u8> {
    Context::new("asterism/key-version/v1")
        .field("key", id.as_str())
        .field("version", &version.to_string())
        .field("type", &key_type.to_string())
        .encode()
}

pub(crate) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have string keys only and serialise")
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, KmsError> {
    serde_json::from_slice(bytes).map_err(|_| KmsError::Damaged("key record"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the first release candidate wrote; must be read for ever.
    const FORMAT_1_KEY: &str = r#"{"key_type":"aes256_gcm","owner":"user/alice","labels":{"team":"blue"},"created_at_ms":[1000,2000]}"#;
    const FORMAT_1_VERSION: &str = r#"{"wrapped":"QUV2AQE="}"#;

    #[test]
    fn records_of_format_1_are_read() {
        let key = KeyRecord::read(FORMAT_1_KEY.as_bytes()).expect("read");
        assert_eq!((key.format, key.revision, key.min_version), (1, 0, 1));
        assert_eq!(key.created_at_ms, [1000, 2000]);
        let version: VersionRecord = decode(FORMAT_1_VERSION.as_bytes()).expect("read");
        assert_eq!(
            (version.wrapped.as_slice(), version.wrapping_key),
            (b"AEv\x01\x01".as_slice(), None)
        );
        let again = KeyRecord::read(&encode(&key.next())).expect("read");
        assert_eq!((again.format, again.revision), (FORMAT, 1));
    }

    #[test]
    fn later_formats_and_unknown_fields_are_refused() {
        for (known, other) in [
            ("\"owner\"", "\"format\":3,\"owner\""),
            ("\"owner\"", "\"own\":1,\"owner\""),
        ] {
            assert!(
                KeyRecord::read(FORMAT_1_KEY.replace(known, other).as_bytes()).is_err(),
                "{other}"
            );
        }
    }

    /// The store takes no larger value than this.
    #[test]
    fn the_largest_key_fits_in_a_record() {
        let labels = [("l".repeat(60), "v".repeat(832))].into();
        let mut record = KeyRecord::new(KeyType::EcSignP256Sha256, &"o".repeat(128), labels);
        for _ in 0..180 {
            record.add_version(u64::MAX / 1_000_000, true);
        }
        record.revision = u64::MAX - 1;
        record.rotation_period_ms = Some(u64::MAX / 1_000_000);
        record.next_rotation_ms = Some(u64::MAX / 1_000_000);
        record.unreported = Some(180);
        record.min_version = 180;
        record.exportable = true;
        let bytes = encode(&record.next());
        assert!(bytes.len() <= asterism_store::MAX_VALUE, "{}", bytes.len());
        let read = KeyRecord::read(&bytes).expect("read");
        assert!((1..=180).all(|version| read.is_imported(version)));
        assert!(!read.is_imported(0) && !read.is_imported(181));
    }

    #[test]
    fn names_of_records_read_back() {
        let id: KeyId = "a-key".parse().expect("id");
        for at in [version_record(&id, 258), state_record(&id, 258)] {
            assert_eq!(version_at(&at).expect("read"), (id.clone(), 258));
        }
        assert!(version_at(b"s").is_err());
        assert!(version_at(b"sa-key\x01\0\0\0\x01").is_err());
    }
}
