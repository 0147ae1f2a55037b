//! Message authentication codes.

use asterism_proto::kms as pb;
use tonic::{Request, Response, Status};

use super::Adapter;

pub(super) async fn generate_mac(
    adapter: &Adapter,
    request: Request<pb::GenerateMacRequest>,
) -> Result<Response<pb::GenerateMacResponse>, Status> {
    adapter
        .on_key(
            "kms.GenerateMac",
            request,
            |r| &r.name,
            |on, message, trail| {
                let (mac, key_version) = on.keyring.mac(&on.key, &message.data, on.now_ms)?;
                on.note(trail, key_version).output(mac.as_bytes());
                Ok(pb::GenerateMacResponse {
                    mac: mac.as_bytes().to_vec(),
                    key_version,
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
        .on_key(
            "kms.VerifyMac",
            request,
            |r| &r.name,
            |on, message, trail| {
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
                })
            },
        )
        .await
}
