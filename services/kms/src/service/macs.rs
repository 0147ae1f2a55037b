//! Message authentication codes.

use asterism_crypto::crc32c;
use asterism_proto::kms as pb;
use tonic::{Request, Response, Status};

use super::Adapter;
use crate::wire;

pub(super) async fn generate_mac(
    adapter: &Adapter,
    request: Request<pb::GenerateMacRequest>,
) -> Result<Response<pb::GenerateMacResponse>, Status> {
    adapter
        .with_key(
            "kms.GenerateMac",
            request,
            |r| &r.name,
            |on, message, trail| {
                let verified = wire::check_crc("data_crc32c", &message.data, message.data_crc32c)?;
                let (mac, key_version) = on.keyring.mac(&on.key, &message.data, on.now_ms)?;
                on.note(trail, key_version).output(&mac);
                Ok(pb::GenerateMacResponse {
                    mac_crc32c: crc32c(&mac),
                    mac,
                    key_version,
                    verified_data_crc32c: verified,
                })
            },
        )
        .await
}

pub(super) async fn verify_mac(
    adapter: &Adapter,
    request: Request<pb::VerifyMacRequest>,
) -> Result<Response<pb::VerifyMacResponse>, Status> {
    adapter
        .with_key(
            "kms.VerifyMac",
            request,
            |r| &r.name,
            |on, message, trail| {
                let verified = wire::check_crc("data_crc32c", &message.data, message.data_crc32c)?;
                let verified_mac = wire::check_crc("mac_crc32c", &message.mac, message.mac_crc32c)?;
                trail.input(&message.mac);
                let version = on.keyring.verify_mac(
                    &on.key,
                    &message.data,
                    &message.mac,
                    message.key_version,
                    on.now_ms,
                )?;
                on.note(trail, version.unwrap_or(0));
                Ok(pb::VerifyMacResponse {
                    valid: version.is_some(),
                    key_version: version.unwrap_or(0),
                    verified_data_crc32c: verified,
                    verified_mac_crc32c: verified_mac,
                })
            },
        )
        .await
}
