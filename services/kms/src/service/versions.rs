//! Versions of keys, and their life.

use asterism_proto::kms as pb;
use tonic::{Request, Response, Status};

use super::Adapter;
use crate::{keys::State, wire};

pub(super) async fn get_key_version(
    adapter: &Adapter,
    request: Request<pb::GetKeyVersionRequest>,
) -> Result<Response<pb::KeyVersion>, Status> {
    adapter
        .on_version(
            "kms.GetKeyVersion",
            request,
            |r| &r.name,
            |on, _, _, trail| {
                trail.silent();
                Ok(on.key.clone())
            },
        )
        .await
}

pub(super) async fn update_key_version(
    adapter: &Adapter,
    request: Request<pb::UpdateKeyVersionRequest>,
) -> Result<Response<pb::KeyVersion>, Status> {
    adapter
        .on_version(
            "kms.UpdateKeyVersion",
            request,
            |r| r.key_version.as_ref().map_or("", |version| &version.name),
            |on, version, message, trail| {
                let to = wire::new_state(&message.key_version.unwrap_or_default(), message.update_mask)?;
                if to == State::Compromised {
                    trail.remark("KEY_COMPROMISED");
                }
                let request = on.request(&message.request_id, &message.etag)?;
                on.keyring.set_state(&on.key.id, version, to, &request, on.now_ms)
            },
        )
        .await
}

pub(super) async fn destroy_key_version(
    adapter: &Adapter,
    request: Request<pb::DestroyKeyVersionRequest>,
) -> Result<Response<pb::KeyVersion>, Status> {
    adapter
        .on_version(
            "kms.ScheduleKeyVersionDestruction",
            request,
            |r| &r.name,
            |on, version, message, _| {
                let window_ms = wire::window(message.window)?;
                let request = on.request(&message.request_id, &message.etag)?;
                on.approved("destroy", version, &format!("window {window_ms}"), request.id)?;
                on.keyring
                    .schedule_destruction(&on.key.id, version, window_ms, &request, on.now_ms)
            },
        )
        .await
}

pub(super) async fn restore_key_version(
    adapter: &Adapter,
    request: Request<pb::RestoreKeyVersionRequest>,
) -> Result<Response<pb::KeyVersion>, Status> {
    adapter
        .on_version(
            "kms.RestoreKeyVersion",
            request,
            |r| &r.name,
            |on, version, message, _| {
                let request = on.request(&message.request_id, &message.etag)?;
                on.keyring.restore(&on.key.id, version, &request, on.now_ms)
            },
        )
        .await
}
