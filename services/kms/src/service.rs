//! The gRPC adapter: who asks, parse, one call into the domain, translate.

use std::sync::Arc;

use asterism_chassis::{
    call::{Caller, Gate, Trail},
    error::Failure,
    paging::page_size,
};
use asterism_crypto::crc32c;
use asterism_proto::kms::{self as pb, key_management_service_server::KeyManagementService};
use tonic::{Request, Response, Status};

use crate::{
    error::KmsError,
    keys::{
        Key, KeyId, Keyring, RequestId,
        evaluation::{self, EvaluationKeys},
    },
    wire,
};

pub(crate) struct Adapter {
    gate: Gate,
    keyring: Arc<Keyring>,
    evaluation_keys: Arc<EvaluationKeys>,
}

impl Adapter {
    pub(crate) fn new(gate: Gate, keyring: Arc<Keyring>, evaluation_keys: Arc<EvaluationKeys>) -> Self {
        Self {
            gate,
            keyring,
            evaluation_keys,
        }
    }

    /// Runs an operation on one existing key that the caller may use.
    async fn on_key<Req, Res>(
        &self,
        operation: &'static str,
        request: Request<Req>,
        name: fn(&Req) -> &str,
        work: impl FnOnce(&Keyring, &Key, Req, &mut Trail) -> Result<Res, KmsError> + Send + 'static,
    ) -> Result<Response<Res>, Status>
    where
        Req: Send + 'static,
        Res: Send + 'static,
    {
        let keyring = self.keyring.clone();
        self.gate
            .blocking(operation, request, move |caller, message, trail| {
                let id = KeyId::from_name(name(&message))?;
                trail.resource(id.name());
                let key = usable(&keyring, caller, &id)?;
                Ok(work(&keyring, &key, message, trail)?)
            })
            .await
    }
}

/// The key, if the caller may use it; to others it does not exist.
fn usable(keyring: &Keyring, caller: &Caller, id: &KeyId) -> Result<Arc<Key>, Failure> {
    let key = keyring.get(id)?;
    // A service makes keys for itself, also while it acts for somebody.
    let own = caller.principal.id.as_str() == key.owner;
    if own || caller.may_access(&key.owner) {
        Ok(key)
    } else {
        Err(KmsError::KeyNotFound(id.name()).into())
    }
}

fn now_ms() -> u64 {
    std::time::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_millis() as u64)
}

#[tonic::async_trait]
impl KeyManagementService for Adapter {
    async fn create_key(&self, request: Request<pb::CreateKeyRequest>) -> Result<Response<pb::Key>, Status> {
        let keyring = self.keyring.clone();
        self.gate
            .blocking("kms.CreateKey", request, move |caller, message, trail| {
                trail.resource(format!("keys/{}", message.key_id));
                let request_id = wire::request_id(&message.request_id)?.to_owned();
                let request = RequestId {
                    principal: caller.principal.id.as_str(),
                    id: &request_id,
                };
                let key = keyring.create(wire::new_key(message)?, &request, now_ms())?;
                trail.resource(key.id.name()).key_version(key.primary());
                Ok(wire::key(&key))
            })
            .await
    }

    async fn get_key(&self, request: Request<pb::GetKeyRequest>) -> Result<Response<pb::Key>, Status> {
        self.on_key(
            "kms.GetKey",
            request,
            |r| &r.name,
            |_, key, _, trail| {
                trail.silent();
                Ok(wire::key(key))
            },
        )
        .await
    }

    async fn list_keys(
        &self,
        request: Request<pb::ListKeysRequest>,
    ) -> Result<Response<pb::ListKeysResponse>, Status> {
        let keyring = self.keyring.clone();
        self.gate
            .blocking("kms.ListKeys", request, move |caller, message, trail| {
                trail.silent();
                let limit = page_size(message.page_size)?;
                let mut after = wire::page_token(&message.page_token)?;
                let mut keys = Vec::new();
                // Keys of others are passed over, not shown.
                loop {
                    let page = keyring.list(after.as_ref(), limit)?;
                    let more = page.len() == limit;
                    after = page.last().map(|key| key.id.clone());
                    keys.extend(
                        page.iter()
                            .filter(|key| caller.may_access(&key.owner))
                            .map(wire::key),
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

    async fn rotate_key(&self, request: Request<pb::RotateKeyRequest>) -> Result<Response<pb::Key>, Status> {
        let keyring = self.keyring.clone();
        self.gate
            .blocking("kms.RotateKey", request, move |caller, message, trail| {
                let id = KeyId::from_name(&message.name)?;
                trail.resource(id.name());
                usable(&keyring, caller, &id)?;
                let request_id = wire::request_id(&message.request_id)?;
                let request = RequestId {
                    principal: caller.principal.id.as_str(),
                    id: request_id,
                };
                let key = keyring.rotate(&id, &request, now_ms())?;
                trail.key_version(key.primary());
                Ok(wire::key(&key))
            })
            .await
    }

    async fn generate_data_key(
        &self,
        request: Request<pb::GenerateDataKeyRequest>,
    ) -> Result<Response<pb::GenerateDataKeyResponse>, Status> {
        self.on_key(
            "kms.GenerateDataKey",
            request,
            |r| &r.name,
            |keyring, key, message, trail| {
                let data_key = keyring.generate_data_key(key, &message.additional_authenticated_data)?;
                trail.key_version(data_key.version).output(&data_key.wrapped);
                let plaintext = data_key.plaintext.expose().to_vec();
                Ok(pb::GenerateDataKeyResponse {
                    plaintext_crc32c: crc32c(&plaintext),
                    wrapped_crc32c: crc32c(&data_key.wrapped),
                    plaintext,
                    wrapped: data_key.wrapped,
                    key_version: data_key.version,
                })
            },
        )
        .await
    }

    async fn encrypt(
        &self,
        request: Request<pb::EncryptRequest>,
    ) -> Result<Response<pb::EncryptResponse>, Status> {
        self.on_key(
            "kms.Encrypt",
            request,
            |r| &r.name,
            |keyring, key, message, trail| {
                wire::check_crc("plaintext_crc32c", &message.plaintext, message.plaintext_crc32c)?;
                let plaintext = zeroize::Zeroizing::new(message.plaintext);
                let (ciphertext, key_version) =
                    keyring.encrypt(key, &plaintext, &message.additional_authenticated_data)?;
                trail.key_version(key_version).output(&ciphertext);
                Ok(pb::EncryptResponse {
                    ciphertext_crc32c: crc32c(&ciphertext),
                    ciphertext,
                    key_version,
                })
            },
        )
        .await
    }

    async fn decrypt(
        &self,
        request: Request<pb::DecryptRequest>,
    ) -> Result<Response<pb::DecryptResponse>, Status> {
        self.on_key(
            "kms.Decrypt",
            request,
            |r| &r.name,
            |keyring, key, message, trail| {
                wire::check_crc(
                    "ciphertext_crc32c",
                    &message.ciphertext,
                    message.ciphertext_crc32c,
                )?;
                trail.input(&message.ciphertext);
                let (plaintext, key_version) =
                    keyring.decrypt(key, &message.ciphertext, &message.additional_authenticated_data)?;
                trail.key_version(key_version);
                let plaintext = plaintext.expose().to_vec();
                Ok(pb::DecryptResponse {
                    plaintext_crc32c: crc32c(&plaintext),
                    plaintext,
                    key_version,
                })
            },
        )
        .await
    }

    async fn generate_mac(
        &self,
        request: Request<pb::GenerateMacRequest>,
    ) -> Result<Response<pb::GenerateMacResponse>, Status> {
        self.on_key(
            "kms.GenerateMac",
            request,
            |r| &r.name,
            |keyring, key, message, trail| {
                let (mac, key_version) = keyring.mac(key, &message.data)?;
                trail.key_version(key_version).output(mac.as_bytes());
                Ok(pb::GenerateMacResponse {
                    mac: mac.as_bytes().to_vec(),
                    key_version,
                })
            },
        )
        .await
    }

    async fn verify_mac(
        &self,
        request: Request<pb::VerifyMacRequest>,
    ) -> Result<Response<pb::VerifyMacResponse>, Status> {
        self.on_key(
            "kms.VerifyMac",
            request,
            |r| &r.name,
            |keyring, key, message, trail| {
                trail.input(&message.mac);
                let version = keyring.verify_mac(key, &message.data, &message.mac, message.key_version)?;
                trail.key_version(version.unwrap_or(0));
                Ok(pb::VerifyMacResponse {
                    valid: version.is_some(),
                    key_version: version.unwrap_or(0),
                })
            },
        )
        .await
    }

    async fn asymmetric_sign(
        &self,
        request: Request<pb::AsymmetricSignRequest>,
    ) -> Result<Response<pb::AsymmetricSignResponse>, Status> {
        self.on_key(
            "kms.AsymmetricSign",
            request,
            |r| &r.name,
            |keyring, key, message, trail| {
                let digest = wire::sign_input(message.input)?;
                let (signature, key_version) = keyring.sign(key, &digest)?;
                let signature = signature.to_der();
                trail
                    .key_version(key_version)
                    .input_digest(digest)
                    .output(&signature);
                Ok(pb::AsymmetricSignResponse {
                    signature,
                    key_version,
                })
            },
        )
        .await
    }

    async fn asymmetric_verify(
        &self,
        request: Request<pb::AsymmetricVerifyRequest>,
    ) -> Result<Response<pb::AsymmetricVerifyResponse>, Status> {
        self.on_key(
            "kms.AsymmetricVerify",
            request,
            |r| &r.name,
            |keyring, key, message, trail| {
                let digest = wire::verify_input(message.input)?;
                trail.input_digest(digest);
                let signature = wire::signature(&message.signature)?;
                let version = keyring.verify(key, &digest, &signature, message.key_version)?;
                trail.key_version(version.unwrap_or(0));
                Ok(pb::AsymmetricVerifyResponse {
                    valid: version.is_some(),
                    key_version: version.unwrap_or(0),
                })
            },
        )
        .await
    }

    /// Public keys are public: whoever may read keys at all may have them.
    async fn get_public_key(
        &self,
        request: Request<pb::GetPublicKeyRequest>,
    ) -> Result<Response<pb::PublicKey>, Status> {
        let keyring = self.keyring.clone();
        self.gate
            .blocking("kms.GetPublicKey", request, move |_, message, trail| {
                let id = KeyId::from_name(&message.name)?;
                trail.resource(id.name()).silent();
                let (public, key_version) = keyring.public_key(&*keyring.get(&id)?, message.key_version)?;
                Ok(pb::PublicKey {
                    name: id.name(),
                    key_version,
                    pem: public.to_pem(),
                    fingerprint_sha256: public.fingerprint().as_bytes().to_vec(),
                })
            })
            .await
    }

    async fn record_evaluation_key(
        &self,
        request: Request<pb::RecordEvaluationKeyRequest>,
    ) -> Result<Response<pb::EvaluationKeyRecord>, Status> {
        let keys = self.evaluation_keys.clone();
        self.gate
            .blocking(
                "kms.RecordEvaluationKey",
                request,
                move |caller, message, trail| {
                    let record = wire::evaluation_key(message, caller.owner().as_str())?;
                    trail
                        .resource(evaluation::name(&record.sha256))
                        .input_digest(record.sha256);
                    keys.record(&record)?;
                    Ok(wire::evaluation_key_record(record))
                },
            )
            .await
    }

    async fn get_evaluation_key_record(
        &self,
        request: Request<pb::GetEvaluationKeyRecordRequest>,
    ) -> Result<Response<pb::EvaluationKeyRecord>, Status> {
        let keys = self.evaluation_keys.clone();
        self.gate
            .blocking(
                "kms.GetEvaluationKeyRecord",
                request,
                move |caller, message, trail| {
                    trail.silent();
                    let sha256 = wire::evaluation_key_name(&message.name)?;
                    trail.resource(evaluation::name(&sha256));
                    let record = keys.get(caller.owner().as_str(), &sha256)?;
                    Ok(wire::evaluation_key_record(record))
                },
            )
            .await
    }

    async fn delete_evaluation_key_record(
        &self,
        request: Request<pb::DeleteEvaluationKeyRecordRequest>,
    ) -> Result<Response<pb::DeleteEvaluationKeyRecordResponse>, Status> {
        let keys = self.evaluation_keys.clone();
        self.gate
            .blocking(
                "kms.DeleteEvaluationKeyRecord",
                request,
                move |caller, message, trail| {
                    let sha256 = wire::evaluation_key_name(&message.name)?;
                    trail.resource(evaluation::name(&sha256));
                    keys.delete(caller.owner().as_str(), &sha256)?;
                    Ok(pb::DeleteEvaluationKeyRecordResponse {})
                },
            )
            .await
    }
}
