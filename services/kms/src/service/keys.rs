//! Keys: made, found, changed.

use asterism_chassis::paging::page_size;
use asterism_policy::Verb;
use asterism_proto::kms as pb;
use tonic::{Request, Response, Status};

use super::Adapter;
use crate::{keys::RequestId, wire};

pub(super) async fn create_key(
    adapter: &Adapter,
    request: Request<pb::CreateKeyRequest>,
) -> Result<Response<pb::Key>, Status> {
    adapter
        .on_open("kms.CreateKey", request, |on, message, trail| {
            trail.resource(format!("keys/{}", message.key_id));
            let request_id = wire::request_id(&message.request_id)?.to_owned();
            let request = RequestId {
                principal: on.caller.principal.id.as_str(),
                id: &request_id,
                etag: "",
            };
            let key = on
                .keyring()
                .create(wire::new_key(message)?, &request, on.now_ms)?;
            trail.resource(key.id.name()).key_version(1);
            Ok(wire::key(&key, on.now_ms))
        })
        .await
}

pub(super) async fn get_key(
    adapter: &Adapter,
    request: Request<pb::GetKeyRequest>,
) -> Result<Response<pb::Key>, Status> {
    adapter
        .on_key(
            "kms.GetKey",
            request,
            |r| &r.name,
            |on, _, trail| {
                trail.silent();
                Ok(wire::key(&on.key, on.now_ms))
            },
        )
        .await
}

pub(super) async fn list_keys(
    adapter: &Adapter,
    request: Request<pb::ListKeysRequest>,
) -> Result<Response<pb::ListKeysResponse>, Status> {
    adapter
        .on_open("kms.ListKeys", request, |on, message, trail| {
            trail.silent();
            let (access, now_ms) = (&on.open.policy.access, on.now_ms);
            let limit = page_size(message.page_size)?;
            let mut after = wire::page_token(&message.page_token)?;
            let mut keys = Vec::new();
            // Keys of others are passed over, not shown.
            loop {
                let page = on.keyring().list(after.as_ref(), limit)?;
                let more = page.len() == limit;
                after = page.last().map(|key| key.id.clone());
                keys.extend(
                    page.iter()
                        .filter(|key| access.may(on.caller, key, Verb::Get, now_ms))
                        .map(|key| wire::key(key, now_ms)),
                );
                if !more || keys.len() >= limit {
                    let token = after
                        .filter(|_| more)
                        .map(|id| id.to_string())
                        .unwrap_or_default();
                    return Ok(pb::ListKeysResponse {
                        keys,
                        next_page_token: token,
                    });
                }
            }
        })
        .await
}

pub(super) async fn rotate_key(
    adapter: &Adapter,
    request: Request<pb::RotateKeyRequest>,
) -> Result<Response<pb::Key>, Status> {
    adapter
        .on_key(
            "kms.RotateKey",
            request,
            |r| &r.name,
            |on, message, trail| {
                let request = on.request(&message.request_id, &message.etag)?;
                let active_from_ms = wire::activation_time(message.activation_time)?;
                let key = on
                    .keyring
                    .rotate(&on.key.id, active_from_ms, &request, on.now_ms)?;
                trail.key_version(key.versions.len() as u32);
                Ok(wire::key(&key, on.now_ms))
            },
        )
        .await
}

pub(super) async fn update_key(
    adapter: &Adapter,
    request: Request<pb::UpdateKeyRequest>,
) -> Result<Response<pb::Key>, Status> {
    adapter
        .on_key(
            "kms.UpdateKey",
            request,
            |r| r.key.as_ref().map_or("", |key| &key.name),
            |on, message, trail| {
                let request = on.request(&message.request_id, "")?;
                let mut update = wire::key_update(message.key.unwrap_or_default(), message.update_mask)?;
                if update
                    .required_approvals
                    .is_some_and(|number| number < on.key.required_approvals)
                {
                    on.approved("lower-required-approvals", 0, &format!("{update:?}"), request.id)?;
                    update.approved_from = Some(on.key.required_approvals);
                }
                let key = on.keyring.update(&on.key.id, &update, &request, on.now_ms)?;
                trail.key_version(key.primary(on.now_ms));
                Ok(wire::key(&key, on.now_ms))
            },
        )
        .await
}
