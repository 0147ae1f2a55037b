//! What key material is bound to on its way into kms and out of it: HPKE's `info`. One import or export cannot stand for another.

use crate::Context;

/// For an import job, by its 32 hex digits; `key_type` by its name, such as `AES_256_GCM`.
pub fn import_info(job: &str, key: &str, key_type: &str) -> Vec<u8> {
    Context::new("asterism/import/v1")
        .field("job", job)
        .field("key", key)
        .field("type", key_type)
        .encode()
}

/// For an export of a version.
pub fn export_info(key: &str, version: u32, key_type: &str) -> Vec<u8> {
    Context::new("asterism/export/v1")
        .field("key", key)
        .field("version", &version.to_string())
        .field("type", key_type)
        .encode()
}
