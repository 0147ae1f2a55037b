//! How keys are stored. Every record is JSON with a closed set of fields.

use std::collections::BTreeMap;

use asterism_crypto::{Context, Digest, signed::base64_bytes};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    error::KmsError,
    keys::{KeyId, KeyType},
};

/// Records: this byte and the key id -> [`KeyRecord`].
pub(crate) const KEY: u8 = b'k';
/// Records: this byte, the key id, 0 and the version -> [`VersionRecord`].
const VERSION: u8 = b'v';
/// Records: this byte and a digest of principal and request id -> [`RequestRecord`].
const REQUEST: u8 = b'r';

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
}

/// The material of a version, wrapped by the root key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VersionRecord {
    #[serde(with = "base64_bytes")]
    pub(crate) wrapped: Vec<u8>,
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
    [
        &[VERSION],
        id.as_str().as_bytes(),
        &[0],
        version.to_be_bytes().as_slice(),
    ]
    .concat()
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
