//! Import and export of key material.

use asterism_chassis::error::Failure;
use asterism_crypto::{crc32c, hpke::EncryptionKey};
use asterism_proto::kms as pb;
use tonic::{Request, Response, Status};

use super::{Adapter, Use};
use crate::{
    error::KmsError,
    keys::{KeyId, RequestId},
    wire,
};

pub(super) async fn create_import_job(
    adapter: &Adapter,
    request: Request<pb::CreateImportJobRequest>,
) -> Result<Response<pb::ImportJob>, Status> {
    adapter
        .on_open("kms.CreateImportJob", request, |on, message, trail| {
            let id: KeyId = message.key_id.parse()?;
            trail.resource(id.name());
            let key_type = wire::key_type(message.r#type())?;
            // A key of somebody else has its name, as for CreateKey.
            if on.keyring().get(&id).is_ok() {
                on.key(&id, "kms.CreateImportJob", &[])
                    .map_err(|_| KmsError::KeyExists(id.to_string()))?;
            }
            let principal = on.caller.principal.id.as_str();
            let job = on
                .keyring()
                .create_import_job(id, key_type, principal, on.now_ms)?;
            trail.output_digest(job.public_key.fingerprint());
            Ok(wire::import_job(job))
        })
        .await
}

pub(super) async fn import_key_version(
    adapter: &Adapter,
    request: Request<pb::ImportKeyVersionRequest>,
) -> Result<Response<pb::Key>, Status> {
    adapter
        .on_open("kms.ImportKeyVersion", request, |on, message, trail| {
            trail.resource(message.import_job.clone());
            wire::check_crc(
                "sealed_material_crc32c",
                &message.sealed_material,
                message.sealed_material_crc32c,
            )?;
            trail.input(&message.sealed_material);
            let request_id = wire::request_id(&message.request_id)?.to_owned();
            let request = RequestId {
                principal: on.caller.principal.id.as_str(),
                id: &request_id,
                etag: "",
            };
            let (import, now_ms) = (wire::import(message)?, on.now_ms);
            let may_change = |id: &KeyId| on.key(id, "kms.ImportKeyVersion", &[]).map(|on| on.key);
            let key = on
                .keyring()
                .import::<Failure>(&import, &request, now_ms, may_change)?;
            trail
                .resource(key.id.name())
                .key_version(key.versions.len() as u32);
            Ok(wire::key(&key, now_ms))
        })
        .await
}

pub(super) async fn export_key_version(
    adapter: &Adapter,
    request: Request<pb::ExportKeyVersionRequest>,
) -> Result<Response<pb::ExportKeyVersionResponse>, Status> {
    adapter
        .on_open("kms.ExportKeyVersion", request, |on, message, trail| {
            let (id, version) = wire::version_name(&message.name)?;
            trail.resource(id.name()).key_version(version);
            let pem = message.recipient_public_key_pem.as_str();
            let field = "recipient_public_key_pem_crc32c";
            let verified = wire::check_crc(field, pem.as_bytes(), message.recipient_public_key_pem_crc32c)?;
            let recipient = wire::encryption_key("recipient_public_key_pem", pem)?;
            trail.input_digest(recipient.fingerprint());
            let on = on.key(&id, "kms.ExportKeyVersion", &[])?;
            let request_id = wire::request_id(&message.request_id)?;
            may_export(&on, version, &recipient, request_id)?;
            let sealed_material = on.keyring.export(&on.key, version, &recipient, on.now_ms)?;
            on.note(trail, version).output(&sealed_material);
            Ok(pb::ExportKeyVersionResponse {
                sealed_material_crc32c: crc32c(&sealed_material),
                sealed_material,
                r#type: wire::type_of(on.key.key_type).into(),
                verified_recipient_public_key_pem_crc32c: verified,
            })
        })
        .await
}

/// Whether this caller may have material of this key, which they may use. The one place for every rule about exports that goes beyond
/// that: the key has to be exportable, and as many others as it demands have to have approved this very recipient.
fn may_export(
    on: &Use<'_>,
    version: u32,
    recipient: &EncryptionKey,
    request_id: &str,
) -> Result<(), Failure> {
    if !on.key.exportable {
        return Err(KmsError::NotExportable(on.key.id.name()).into());
    }
    let recipient = format!("to {}", recipient.fingerprint());
    Ok(on.approved("export", version, &recipient, request_id)?)
}
