//! Encryption.

use std::sync::Arc;

use asterism_chassis::error::Failure;
use asterism_crypto::crc32c;
use asterism_proto::kms as pb;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::{Adapter, Use, access::usable};
use crate::{
    error::KmsError,
    keys::{Key, KeyId},
    wire,
};

/// The field of the checksum of additional authenticated data.
pub(super) const AAD_CRC: &str = "additional_authenticated_data_crc32c";

pub(super) async fn encrypt(
    adapter: &Adapter,
    request: Request<pb::EncryptRequest>,
) -> Result<Response<pb::EncryptResponse>, Status> {
    adapter
        .with_key(
            "kms.Encrypt",
            request,
            |r| &r.name,
            |on, message, trail| {
                let plaintext = Zeroizing::new(message.plaintext);
                let aad = message.additional_authenticated_data;
                let verified = wire::check_crc("plaintext_crc32c", &plaintext, message.plaintext_crc32c)?;
                let verified_aad =
                    wire::check_crc(AAD_CRC, &aad, message.additional_authenticated_data_crc32c)?;
                let (ciphertext, key_version) = on.keyring.encrypt(&on.key, &plaintext, &aad, on.now_ms)?;
                on.note(trail, key_version).output(&ciphertext);
                Ok(pb::EncryptResponse {
                    ciphertext_crc32c: crc32c(&ciphertext),
                    ciphertext,
                    key_version,
                    verified_plaintext_crc32c: verified,
                    verified_additional_authenticated_data_crc32c: verified_aad,
                })
            },
        )
        .await
}

pub(super) async fn decrypt(
    adapter: &Adapter,
    request: Request<pb::DecryptRequest>,
) -> Result<Response<pb::DecryptResponse>, Status> {
    adapter
        .with_key(
            "kms.Decrypt",
            request,
            |r| &r.name,
            |on, message, trail| {
                let aad = message.additional_authenticated_data;
                let verified = wire::check_crc(
                    "ciphertext_crc32c",
                    &message.ciphertext,
                    message.ciphertext_crc32c,
                )?;
                let verified_aad =
                    wire::check_crc(AAD_CRC, &aad, message.additional_authenticated_data_crc32c)?;
                trail.input(&message.ciphertext);
                let (plaintext, key_version) =
                    on.keyring
                        .decrypt(&on.key, &message.ciphertext, &aad, on.now_ms)?;
                on.note(trail, key_version);
                let plaintext = plaintext.expose().to_vec();
                Ok(pb::DecryptResponse {
                    plaintext_crc32c: crc32c(&plaintext),
                    plaintext,
                    key_version,
                    verified_ciphertext_crc32c: verified,
                    verified_additional_authenticated_data_crc32c: verified_aad,
                })
            },
        )
        .await
}

pub(super) async fn re_encrypt(
    adapter: &Adapter,
    request: Request<pb::ReEncryptRequest>,
) -> Result<Response<pb::ReEncryptResponse>, Status> {
    adapter
        .with_key(
            "kms.ReEncrypt",
            request,
            |r| &r.name,
            |on, message, trail| {
                let aad = message.additional_authenticated_data.as_slice();
                let new_aad = message.destination_additional_authenticated_data.as_deref();
                let new_aad = new_aad.unwrap_or(aad);
                let verified = wire::check_crc(
                    "ciphertext_crc32c",
                    &message.ciphertext,
                    message.ciphertext_crc32c,
                )?;
                let verified_aad =
                    wire::check_crc(AAD_CRC, aad, message.additional_authenticated_data_crc32c)?;
                let verified_new_aad = wire::check_crc(
                    "destination_additional_authenticated_data_crc32c",
                    new_aad,
                    message.destination_additional_authenticated_data_crc32c,
                )?;
                trail.input(&message.ciphertext);
                let destination = destination(on, &message.destination_name, &[new_aad])?;
                let done = on.keyring.re_encrypt(
                    (&on.key, &message.ciphertext, aad),
                    (&destination, new_aad),
                    on.now_ms,
                )?;
                on.note(trail, done.source_version).output(&done.ciphertext);
                Ok(pb::ReEncryptResponse {
                    ciphertext_crc32c: crc32c(&done.ciphertext),
                    ciphertext: done.ciphertext,
                    source_key_version: done.source_version,
                    key_version: done.version,
                    verified_ciphertext_crc32c: verified,
                    verified_additional_authenticated_data_crc32c: verified_aad,
                    verified_destination_additional_authenticated_data_crc32c: verified_new_aad,
                })
            },
        )
        .await
}

/// The key under which a re-encryption brings its ciphertexts; of another than the source the caller has to be allowed to encrypt with
/// each of `aads`.
pub(super) fn destination(on: &Use<'_>, name: &str, aads: &[&[u8]]) -> Result<Arc<Key>, Failure> {
    if name.is_empty() {
        return Ok(on.key.clone());
    }
    let id =
        KeyId::from_name(name).map_err(|_| KmsError::field("destination_name", "must be `keys/{key_id}`"))?;
    usable(on.policy, on.caller, &id, "kms.Encrypt", aads, on.now_ms)
}
