//! Decryption with a private key, and agreement on secrets.

use asterism_crypto::crc32c;
use asterism_proto::kms as pb;
use tonic::{Request, Response, Status};

use super::{Adapter, ciphers::AAD_CRC};
use crate::wire;

pub(super) async fn asymmetric_decrypt(
    adapter: &Adapter,
    request: Request<pb::AsymmetricDecryptRequest>,
) -> Result<Response<pb::AsymmetricDecryptResponse>, Status> {
    adapter
        .on_key(
            "kms.AsymmetricDecrypt",
            request,
            |r| &r.name,
            |on, message, trail| {
                let (info, aad) = (&message.info, &message.additional_authenticated_data);
                let verified = wire::check_crc(
                    "ciphertext_crc32c",
                    &message.ciphertext,
                    message.ciphertext_crc32c,
                )?;
                let verified_aad =
                    wire::check_crc(AAD_CRC, aad, message.additional_authenticated_data_crc32c)?;
                let verified_info = wire::check_crc("info_crc32c", info, message.info_crc32c)?;
                trail.input(&message.ciphertext);
                let (plaintext, key_version) = on.keyring.decrypt_asymmetric(
                    &on.key,
                    &message.ciphertext,
                    (info, aad),
                    message.key_version,
                    on.now_ms,
                )?;
                on.note(trail, key_version);
                let plaintext = plaintext.expose().to_vec();
                Ok(pb::AsymmetricDecryptResponse {
                    plaintext_crc32c: crc32c(&plaintext),
                    plaintext,
                    key_version,
                    verified_ciphertext_crc32c: verified,
                    verified_additional_authenticated_data_crc32c: verified_aad,
                    verified_info_crc32c: verified_info,
                })
            },
        )
        .await
}

pub(super) async fn derive_shared_secret(
    adapter: &Adapter,
    request: Request<pb::DeriveSharedSecretRequest>,
) -> Result<Response<pb::DeriveSharedSecretResponse>, Status> {
    adapter
        .on_key(
            "kms.DeriveSharedSecret",
            request,
            |r| &r.name,
            |on, message, trail| {
                let verified = wire::check_crc(
                    "peer_public_key_pem_crc32c",
                    message.peer_public_key_pem.as_bytes(),
                    message.peer_public_key_pem_crc32c,
                )?;
                let peer = wire::encryption_key("peer_public_key_pem", &message.peer_public_key_pem)?;
                trail.input_digest(peer.fingerprint());
                let (secret, key_version) =
                    on.keyring.agree(&on.key, &peer, message.key_version, on.now_ms)?;
                on.note(trail, key_version);
                Ok(pb::DeriveSharedSecretResponse {
                    shared_secret: secret.expose().to_vec(),
                    key_version,
                    shared_secret_crc32c: crc32c(secret.expose()),
                    verified_peer_public_key_pem_crc32c: verified,
                })
            },
        )
        .await
}
