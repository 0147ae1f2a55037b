//! The life of keys and their versions. A write with a request id is tried again after a broken connection; with an empty one it is
//! made once.

use std::time::Duration;

use asterism_crypto::crc32c;
use asterism_proto::kms as pb;
use prost_types::FieldMask;

use super::{Kms, check_crc, check_verified, name};
use crate::error::ClientError;

/// A ciphertext that kms brought under another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReEncrypted {
    /// The new ciphertext.
    pub ciphertext: Vec<u8>,
    /// The version that the old one was under.
    pub source_key_version: u32,
    /// The version that the new one is under.
    pub key_version: u32,
}

impl Kms {
    /// Sets the fields of `key` that `fields` names: `labels`, `rotation_period`, `next_rotation_time`, `min_decryption_version`,
    /// `required_approvals`. When `key.etag` is not empty, only if the key has not changed since (reason `ETAG_MISMATCH`).
    pub async fn update_key(
        &self,
        key: pb::Key,
        fields: &[&str],
        request_id: &str,
    ) -> Result<pb::Key, ClientError> {
        let request = pb::UpdateKeyRequest {
            key: Some(key),
            update_mask: Some(mask(fields)),
            request_id: request_id.to_owned(),
        };
        written!(self, update_key, request)
    }

    /// A version of the key `id`.
    pub async fn key_version(&self, id: &str, version: u32) -> Result<pb::KeyVersion, ClientError> {
        let request = pb::GetKeyVersionRequest {
            name: version_name(id, version),
        };
        self.connection
            .retrying(|| client_call!(self, get_key_version, request))
            .await
    }

    /// Sets the state of a version: active, suspended, deactivated or compromised.
    pub async fn set_key_version_state(
        &self,
        id: &str,
        version: u32,
        state: pb::KeyVersionState,
        request_id: &str,
    ) -> Result<pb::KeyVersion, ClientError> {
        let request = pb::UpdateKeyVersionRequest {
            key_version: Some(pb::KeyVersion {
                name: version_name(id, version),
                state: state.into(),
                ..pb::KeyVersion::default()
            }),
            update_mask: Some(mask(&["state"])),
            request_id: request_id.to_owned(),
            etag: String::new(),
        };
        self.update_key_version(request).await
    }

    /// Sets the state of a version as `request` has it: also only while the key has an etag.
    pub async fn update_key_version(
        &self,
        request: pb::UpdateKeyVersionRequest,
    ) -> Result<pb::KeyVersion, ClientError> {
        written!(self, update_key_version, request)
    }

    /// Has a version destroyed after `window`, or after the longest there is; it refuses all use at once.
    pub async fn destroy_key_version(
        &self,
        id: &str,
        version: u32,
        window: Option<Duration>,
        request_id: &str,
    ) -> Result<pb::KeyVersion, ClientError> {
        let window = window
            .map(prost_types::Duration::try_from)
            .transpose()
            .map_err(|_| ClientError::Protocol("the window is too long for a message"))?;
        let request = pb::DestroyKeyVersionRequest {
            name: version_name(id, version),
            window,
            request_id: request_id.to_owned(),
            etag: String::new(),
        };
        self.destroy(request).await
    }

    /// Has a version destroyed as `request` has it: also only while the key has an etag.
    pub async fn destroy(
        &self,
        request: pb::DestroyKeyVersionRequest,
    ) -> Result<pb::KeyVersion, ClientError> {
        written!(self, destroy_key_version, request)
    }

    /// Undoes [`Kms::destroy_key_version`] while its window lasts.
    pub async fn restore_key_version(
        &self,
        id: &str,
        version: u32,
        request_id: &str,
    ) -> Result<pb::KeyVersion, ClientError> {
        let request = pb::RestoreKeyVersionRequest {
            name: version_name(id, version),
            request_id: request_id.to_owned(),
            etag: String::new(),
        };
        self.restore(request).await
    }

    /// Undoes a destruction as `request` has it: also only while the key has an etag.
    pub async fn restore(
        &self,
        request: pb::RestoreKeyVersionRequest,
    ) -> Result<pb::KeyVersion, ClientError> {
        written!(self, restore_key_version, request)
    }

    /// Brings a ciphertext of the key `id` under the primary version of `destination` (empty for the same key), with the same `aad`.
    /// The plaintext does not leave kms.
    pub async fn re_encrypt(
        &self,
        id: &str,
        ciphertext: &[u8],
        aad: &[u8],
        destination: &str,
    ) -> Result<ReEncrypted, ClientError> {
        let request = pb::ReEncryptRequest {
            name: name(id),
            ciphertext: ciphertext.to_vec(),
            additional_authenticated_data: aad.to_vec(),
            destination_name: if destination.is_empty() {
                String::new()
            } else {
                name(destination)
            },
            destination_additional_authenticated_data: None,
            ciphertext_crc32c: Some(crc32c(ciphertext)),
            additional_authenticated_data_crc32c: Some(crc32c(aad)),
            destination_additional_authenticated_data_crc32c: None,
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, re_encrypt, request))
            .await?;
        check_verified([
            answer.verified_ciphertext_crc32c,
            answer.verified_additional_authenticated_data_crc32c,
        ])?;
        check_crc(&answer.ciphertext, answer.ciphertext_crc32c)?;
        Ok(ReEncrypted {
            ciphertext: answer.ciphertext,
            source_key_version: answer.source_key_version,
            key_version: answer.key_version,
        })
    }

    /// A fresh data key, wrapped only; gives also the version that wrapped it.
    pub async fn generate_wrapped_data_key(
        &self,
        id: &str,
        aad: &[u8],
    ) -> Result<(Vec<u8>, u32), ClientError> {
        let request = pb::GenerateDataKeyWithoutPlaintextRequest {
            name: name(id),
            additional_authenticated_data: aad.to_vec(),
            additional_authenticated_data_crc32c: Some(crc32c(aad)),
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, generate_data_key_without_plaintext, request))
            .await?;
        check_verified([answer.verified_additional_authenticated_data_crc32c])?;
        check_crc(&answer.wrapped, answer.wrapped_crc32c)?;
        Ok((answer.wrapped, answer.key_version))
    }
}

pub(super) fn version_name(id: &str, version: u32) -> String {
    format!("keys/{id}/versions/{version}")
}

fn mask(fields: &[&str]) -> FieldMask {
    FieldMask {
        paths: fields.iter().map(|field| (*field).to_owned()).collect(),
    }
}
