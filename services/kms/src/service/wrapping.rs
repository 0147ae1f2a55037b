//! Keys from outside, wrapped and unwrapped; random bytes.

use asterism_crypto::crc32c;
use asterism_proto::kms as pb;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::Adapter;
use crate::wire;

pub(super) async fn wrap_key(
    adapter: &Adapter,
    request: Request<pb::WrapKeyRequest>,
) -> Result<Response<pb::WrapKeyResponse>, Status> {
    adapter
        .on_key(
            "kms.WrapKey",
            request,
            |r| &r.name,
            |on, message, trail| {
                let secret = Zeroizing::new(message.key_material);
                let verified = wire::check_crc("key_material_crc32c", &secret, message.key_material_crc32c)?;
                let (wrapped, key_version) = on.keyring.wrap_key(&on.key, &secret, on.now_ms)?;
                on.note(trail, key_version).output(&wrapped);
                Ok(pb::WrapKeyResponse {
                    wrapped_crc32c: crc32c(&wrapped),
                    wrapped,
                    key_version,
                    verified_key_material_crc32c: verified,
                })
            },
        )
        .await
}

pub(super) async fn unwrap_key(
    adapter: &Adapter,
    request: Request<pb::UnwrapKeyRequest>,
) -> Result<Response<pb::UnwrapKeyResponse>, Status> {
    adapter
        .on_key(
            "kms.UnwrapKey",
            request,
            |r| &r.name,
            |on, message, trail| {
                let verified = wire::check_crc("wrapped_crc32c", &message.wrapped, message.wrapped_crc32c)?;
                trail.input(&message.wrapped);
                let (secret, key_version) =
                    on.keyring
                        .unwrap_key(&on.key, &message.wrapped, message.key_version, on.now_ms)?;
                on.note(trail, key_version);
                Ok(pb::UnwrapKeyResponse {
                    key_material: secret.expose().to_vec(),
                    key_version,
                    key_material_crc32c: crc32c(secret.expose()),
                    verified_wrapped_crc32c: verified,
                })
            },
        )
        .await
}

pub(super) async fn generate_random_bytes(
    adapter: &Adapter,
    request: Request<pb::GenerateRandomBytesRequest>,
) -> Result<Response<pb::GenerateRandomBytesResponse>, Status> {
    adapter
        .on_open("kms.GenerateRandomBytes", request, |on, message, _| {
            let data = on.keyring().random_bytes(message.length)?;
            Ok(pb::GenerateRandomBytesResponse {
                data: data.expose().to_vec(),
                data_crc32c: crc32c(data.expose()),
            })
        })
        .await
}
