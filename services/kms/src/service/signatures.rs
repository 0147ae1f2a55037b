//! Signatures and public keys.

use asterism_chassis::error::Failure;
use asterism_crypto::crc32c;
use asterism_policy::Verb;
use asterism_proto::kms as pb;
use tonic::{Request, Response, Status};

use super::Adapter;
use crate::{
    keys::KeyId,
    policy::hidden,
    wire::{self, Encoding},
};

pub(super) async fn asymmetric_sign(
    adapter: &Adapter,
    request: Request<pb::AsymmetricSignRequest>,
) -> Result<Response<pb::AsymmetricSignResponse>, Status> {
    adapter
        .with_key(
            "kms.AsymmetricSign",
            request,
            |r| &r.name,
            |on, message, trail| {
                let encoding = Encoding::parse(message.signature_encoding)?;
                let (digest, verified) = wire::input(message.input, message.input_crc32c)?;
                let (signature, key_version) = on.keyring.sign(&on.key, &digest, on.now_ms)?;
                let signature = encoding.write(&signature);
                on.note(trail, key_version)
                    .input_digest(digest)
                    .output(&signature);
                Ok(pb::AsymmetricSignResponse {
                    signature_crc32c: crc32c(&signature),
                    signature,
                    key_version,
                    verified_input_crc32c: verified,
                })
            },
        )
        .await
}

pub(super) async fn asymmetric_verify(
    adapter: &Adapter,
    request: Request<pb::AsymmetricVerifyRequest>,
) -> Result<Response<pb::AsymmetricVerifyResponse>, Status> {
    adapter
        .on_key(
            "kms.AsymmetricVerify",
            request,
            |r| &r.name,
            |on, message, trail| {
                let encoding = Encoding::parse(message.signature_encoding)?;
                let (digest, verified) = wire::input(message.input, message.input_crc32c)?;
                trail.input_digest(digest);
                let verified_signature =
                    wire::check_crc("signature_crc32c", &message.signature, message.signature_crc32c)?;
                let signature = encoding.read(&message.signature)?;
                let version =
                    on.keyring
                        .verify(&on.key, &digest, &signature, message.key_version, on.now_ms)?;
                on.note(trail, version.unwrap_or(0));
                Ok(pb::AsymmetricVerifyResponse {
                    valid: version.is_some(),
                    key_version: version.unwrap_or(0),
                    verified_input_crc32c: verified,
                    verified_signature_crc32c: verified_signature,
                })
            },
        )
        .await
}

/// Public keys are public: whoever may read keys at all may have them.
pub(super) async fn get_public_key(
    adapter: &Adapter,
    request: Request<pb::GetPublicKeyRequest>,
) -> Result<Response<pb::PublicKey>, Status> {
    adapter
        .on_open("kms.GetPublicKey", request, |on, message, trail| {
            let (access, now_ms) = (&on.open.policy.access, on.now_ms);
            let id = KeyId::from_name(&message.name)?;
            trail.resource(id.name());
            let key = on.keyring().get(&id)?;
            if access.hides_public_key(on.caller, &key, now_ms) {
                return Err(hidden(id.name()));
            }
            let public = on.keyring().public_key(&key, message.key_version, now_ms);
            let (public, key_version) = public.map_err(|error| {
                // Of a key without a public half, others learn nothing.
                if access.may(on.caller, &key, Verb::Get, now_ms) {
                    Failure::from(error)
                } else {
                    hidden(id.name())
                }
            })?;
            if key.is_compromised(key_version, now_ms) {
                trail.key_version(key_version).remark("KEY_COMPROMISED");
            } else {
                trail.silent();
            }
            let pem = public.to_pem();
            Ok(pb::PublicKey {
                name: id.name(),
                key_version,
                pem_crc32c: crc32c(pem.as_bytes()),
                pem,
                fingerprint_sha256: public.fingerprint().as_bytes().to_vec(),
                r#type: wire::type_of(key.key_type).into(),
            })
        })
        .await
}
