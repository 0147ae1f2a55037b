//! Data keys.

use asterism_crypto::crc32c;
use asterism_proto::kms as pb;
use tonic::{Request, Response, Status};

use super::{Adapter, ciphers::AAD_CRC};
use crate::wire;

pub(super) async fn generate_data_key(
    adapter: &Adapter,
    request: Request<pb::GenerateDataKeyRequest>,
) -> Result<Response<pb::GenerateDataKeyResponse>, Status> {
    adapter
        .with_key(
            "kms.GenerateDataKey",
            request,
            |r| &r.name,
            |on, message, trail| {
                let aad = message.additional_authenticated_data;
                let verified = wire::check_crc(AAD_CRC, &aad, message.additional_authenticated_data_crc32c)?;
                let data_key = on.keyring.generate_data_key(&on.key, &aad, on.now_ms)?;
                on.note(trail, data_key.version).output(&data_key.wrapped);
                let plaintext = data_key.plaintext.expose().to_vec();
                Ok(pb::GenerateDataKeyResponse {
                    plaintext_crc32c: crc32c(&plaintext),
                    wrapped_crc32c: crc32c(&data_key.wrapped),
                    plaintext,
                    wrapped: data_key.wrapped,
                    key_version: data_key.version,
                    verified_additional_authenticated_data_crc32c: verified,
                })
            },
        )
        .await
}

pub(super) async fn generate_data_key_without_plaintext(
    adapter: &Adapter,
    request: Request<pb::GenerateDataKeyWithoutPlaintextRequest>,
) -> Result<Response<pb::GenerateDataKeyWithoutPlaintextResponse>, Status> {
    adapter
        .with_key(
            "kms.GenerateDataKeyWithoutPlaintext",
            request,
            |r| &r.name,
            |on, message, trail| {
                let aad = &message.additional_authenticated_data;
                let verified = wire::check_crc(AAD_CRC, aad, message.additional_authenticated_data_crc32c)?;
                let data_key = on.keyring.generate_data_key(&on.key, aad, on.now_ms)?;
                on.note(trail, data_key.version).output(&data_key.wrapped);
                Ok(pb::GenerateDataKeyWithoutPlaintextResponse {
                    wrapped_crc32c: crc32c(&data_key.wrapped),
                    wrapped: data_key.wrapped,
                    key_version: data_key.version,
                    verified_additional_authenticated_data_crc32c: verified,
                })
            },
        )
        .await
}
