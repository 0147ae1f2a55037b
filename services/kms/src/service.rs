//! The gRPC adapter: who asks, parse, one call into the domain, translate.

mod access;

use std::sync::Arc;

use asterism_chassis::{
    call::{Caller, Gate, Trail},
    error::Failure,
    paging::page_size,
};
use asterism_crypto::{Digest, crc32c};
use asterism_policy::Verb;
use asterism_proto::kms::{self as pb, key_management_service_server::KeyManagementService};
use tonic::{Request, Response, Status};

use crate::{
    Clock,
    error::KmsError,
    keys::{
        Key, KeyId, Keyring, RequestId, State,
        evaluation::{self, EvaluationKeys},
    },
    policy::{Asked, Policy},
    wire,
};

use self::access::{Bound, verb_of};

pub(crate) struct Adapter {
    gate: Gate,
    keyring: Arc<Keyring>,
    evaluation_keys: Arc<EvaluationKeys>,
    policy: Policy,
    clock: Clock,
}

/// An existing key that the caller may use, at the moment of the request.
struct Use<'a> {
    caller: &'a Caller,
    keyring: &'a Keyring,
    policy: &'a Policy,
    key: Arc<Key>,
    now_ms: u64,
}

impl Use<'_> {
    /// Notes which version was used, and if it is a compromised one.
    fn note<'t>(&self, trail: &'t mut Trail, version: u32) -> &'t mut Trail {
        if self.key.is_compromised(version, self.now_ms) {
            trail.remark("KEY_COMPROMISED");
        }
        trail.key_version(version)
    }

    /// Passes once as many others have approved this very call as the key demands.
    fn approved(
        &self,
        operation: &'static str,
        version: u32,
        parameters: &str,
        request_id: &str,
    ) -> Result<(), KmsError> {
        let asked = Asked {
            operation,
            key: &self.key.id.name(),
            version,
            parameters: Digest::of(parameters.as_bytes()),
            required: self.key.required_approvals,
            principal: self.caller.principal.id.as_str(),
            request_id,
        };
        Ok(self.policy.approvals.consume(&asked, self.now_ms)?)
    }

    fn request<'r>(&'r self, id: &'r str) -> Result<RequestId<'r>, KmsError> {
        Ok(RequestId {
            principal: self.caller.principal.id.as_str(),
            id: wire::request_id(id)?,
        })
    }
}

impl Adapter {
    pub(crate) fn new(
        gate: Gate,
        keyring: Arc<Keyring>,
        evaluation_keys: Arc<EvaluationKeys>,
        policy: Policy,
        clock: Clock,
    ) -> Self {
        Self {
            gate,
            keyring,
            evaluation_keys,
            policy,
            clock,
        }
    }

    /// Runs an operation on one existing key that the caller may use.
    async fn on_key<Req, Res>(
        &self,
        operation: &'static str,
        request: Request<Req>,
        name: fn(&Req) -> &str,
        work: impl FnOnce(&Use<'_>, Req, &mut Trail) -> Result<Res, Failure> + Send + 'static,
    ) -> Result<Response<Res>, Status>
    where
        Req: Bound + Send + 'static,
        Res: Send + 'static,
    {
        let (keyring, policy, clock) = (self.keyring.clone(), self.policy.clone(), self.clock.clone());
        self.gate
            .blocking(operation, request, move |caller, message, trail| {
                let id = KeyId::from_name(name(&message))?;
                trail.resource(id.name());
                let now_ms = clock();
                let on = Use {
                    caller,
                    keyring: &keyring,
                    policy: &policy,
                    key: usable(&policy, caller, &id, operation, &message.aads(), now_ms)?,
                    now_ms,
                };
                work(&on, message, trail)
            })
            .await
    }

    /// Changes a version of a key that the caller may change, or only looks at it.
    async fn on_version<Req>(
        &self,
        operation: &'static str,
        request: Request<Req>,
        name: fn(&Req) -> &str,
        work: impl FnOnce(&Use<'_>, u32, Req, &mut Trail) -> Result<Arc<Key>, KmsError> + Send + 'static,
    ) -> Result<Response<pb::KeyVersion>, Status>
    where
        Req: Bound + Send + 'static,
    {
        let (keyring, policy, clock) = (self.keyring.clone(), self.policy.clone(), self.clock.clone());
        self.gate
            .blocking(operation, request, move |caller, message, trail| {
                let (id, version) = wire::version_name(name(&message))?;
                trail.resource(id.name()).key_version(version);
                let now_ms = clock();
                let on = Use {
                    caller,
                    keyring: &keyring,
                    policy: &policy,
                    key: usable(&policy, caller, &id, operation, &message.aads(), now_ms)?,
                    now_ms,
                };
                let key = work(&on, version, message, trail)?;
                Ok(wire::version(&id, key.version(version)?, on.now_ms))
            })
            .await
    }
}

/// The key, if the caller may use it so; to who may not see it, it does not exist.
fn usable(
    policy: &Policy,
    caller: &Caller,
    id: &KeyId,
    operation: &str,
    aads: &[&[u8]],
    now_ms: u64,
) -> Result<Arc<Key>, Failure> {
    let verb = verb_of(operation).ok_or_else(|| Failure::internal("an operation without a verb"))?;
    policy.access.key(caller, id, verb, aads, now_ms)
}

#[tonic::async_trait]
impl KeyManagementService for Adapter {
    async fn create_key(&self, request: Request<pb::CreateKeyRequest>) -> Result<Response<pb::Key>, Status> {
        let (keyring, clock) = (self.keyring.clone(), self.clock.clone());
        self.gate
            .blocking("kms.CreateKey", request, move |caller, message, trail| {
                trail.resource(format!("keys/{}", message.key_id));
                let request_id = wire::request_id(&message.request_id)?.to_owned();
                let request = RequestId {
                    principal: caller.principal.id.as_str(),
                    id: &request_id,
                };
                let now_ms = clock();
                let key = keyring.create(wire::new_key(message)?, &request, now_ms)?;
                trail.resource(key.id.name()).key_version(1);
                Ok(wire::key(&key, now_ms))
            })
            .await
    }

    async fn get_key(&self, request: Request<pb::GetKeyRequest>) -> Result<Response<pb::Key>, Status> {
        self.on_key(
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

    async fn list_keys(
        &self,
        request: Request<pb::ListKeysRequest>,
    ) -> Result<Response<pb::ListKeysResponse>, Status> {
        let (keyring, policy, clock) = (self.keyring.clone(), self.policy.clone(), self.clock.clone());
        self.gate
            .blocking("kms.ListKeys", request, move |caller, message, trail| {
                trail.silent();
                let now_ms = clock();
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
                            .filter(|key| policy.access.may(caller, key, Verb::Get, now_ms))
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

    async fn rotate_key(&self, request: Request<pb::RotateKeyRequest>) -> Result<Response<pb::Key>, Status> {
        self.on_key(
            "kms.RotateKey",
            request,
            |r| &r.name,
            |on, message, trail| {
                let request = on.request(&message.request_id)?;
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

    async fn update_key(&self, request: Request<pb::UpdateKeyRequest>) -> Result<Response<pb::Key>, Status> {
        self.on_key(
            "kms.UpdateKey",
            request,
            |r| r.key.as_ref().map_or("", |key| &key.name),
            |on, message, trail| {
                let request = on.request(&message.request_id)?;
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

    async fn get_key_version(
        &self,
        request: Request<pb::GetKeyVersionRequest>,
    ) -> Result<Response<pb::KeyVersion>, Status> {
        self.on_version(
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

    async fn update_key_version(
        &self,
        request: Request<pb::UpdateKeyVersionRequest>,
    ) -> Result<Response<pb::KeyVersion>, Status> {
        self.on_version(
            "kms.UpdateKeyVersion",
            request,
            |r| r.key_version.as_ref().map_or("", |version| &version.name),
            |on, version, message, trail| {
                let to = wire::new_state(&message.key_version.unwrap_or_default(), message.update_mask)?;
                if to == State::Compromised {
                    trail.remark("KEY_COMPROMISED");
                }
                let request = on.request(&message.request_id)?;
                on.keyring.set_state(&on.key.id, version, to, &request, on.now_ms)
            },
        )
        .await
    }

    async fn destroy_key_version(
        &self,
        request: Request<pb::DestroyKeyVersionRequest>,
    ) -> Result<Response<pb::KeyVersion>, Status> {
        self.on_version(
            "kms.ScheduleKeyVersionDestruction",
            request,
            |r| &r.name,
            |on, version, message, _| {
                let window_ms = wire::window(message.window)?;
                let request = on.request(&message.request_id)?;
                on.approved("destroy", version, &format!("window {window_ms}"), request.id)?;
                on.keyring
                    .schedule_destruction(&on.key.id, version, window_ms, &request, on.now_ms)
            },
        )
        .await
    }

    async fn restore_key_version(
        &self,
        request: Request<pb::RestoreKeyVersionRequest>,
    ) -> Result<Response<pb::KeyVersion>, Status> {
        self.on_version(
            "kms.RestoreKeyVersion",
            request,
            |r| &r.name,
            |on, version, message, _| {
                let request = on.request(&message.request_id)?;
                on.keyring.restore(&on.key.id, version, &request, on.now_ms)
            },
        )
        .await
    }

    async fn re_encrypt(
        &self,
        request: Request<pb::ReEncryptRequest>,
    ) -> Result<Response<pb::ReEncryptResponse>, Status> {
        self.on_key(
            "kms.ReEncrypt",
            request,
            |r| &r.name,
            |on, message, trail| {
                wire::check_crc(
                    "ciphertext_crc32c",
                    &message.ciphertext,
                    message.ciphertext_crc32c,
                )?;
                trail.input(&message.ciphertext);
                let destination = match message.destination_name.as_str() {
                    "" => on.key.clone(),
                    name => {
                        let id = KeyId::from_name(name)
                            .map_err(|_| KmsError::field("destination_name", "must be `keys/{key_id}`"))?;
                        let aad = &message.additional_authenticated_data;
                        let new_aad = message.destination_additional_authenticated_data.as_ref();
                        let aads = [new_aad.unwrap_or(aad).as_slice()];
                        usable(on.policy, on.caller, &id, "kms.Encrypt", &aads, on.now_ms)?
                    }
                };
                let aad = message.additional_authenticated_data.as_slice();
                let new_aad = message.destination_additional_authenticated_data;
                let done = on.keyring.re_encrypt(
                    (&on.key, &message.ciphertext, aad),
                    (&destination, new_aad.as_deref().unwrap_or(aad)),
                    on.now_ms,
                )?;
                on.note(trail, done.source_version).output(&done.ciphertext);
                Ok(pb::ReEncryptResponse {
                    ciphertext_crc32c: crc32c(&done.ciphertext),
                    ciphertext: done.ciphertext,
                    source_key_version: done.source_version,
                    key_version: done.version,
                })
            },
        )
        .await
    }

    async fn generate_data_key_without_plaintext(
        &self,
        request: Request<pb::GenerateDataKeyWithoutPlaintextRequest>,
    ) -> Result<Response<pb::GenerateDataKeyWithoutPlaintextResponse>, Status> {
        self.on_key(
            "kms.GenerateDataKeyWithoutPlaintext",
            request,
            |r| &r.name,
            |on, message, trail| {
                let aad = &message.additional_authenticated_data;
                let data_key = on.keyring.generate_data_key(&on.key, aad, on.now_ms)?;
                on.note(trail, data_key.version).output(&data_key.wrapped);
                Ok(pb::GenerateDataKeyWithoutPlaintextResponse {
                    wrapped_crc32c: crc32c(&data_key.wrapped),
                    wrapped: data_key.wrapped,
                    key_version: data_key.version,
                })
            },
        )
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
            |on, message, trail| {
                let data_key = on.keyring.generate_data_key(
                    &on.key,
                    &message.additional_authenticated_data,
                    on.now_ms,
                )?;
                on.note(trail, data_key.version).output(&data_key.wrapped);
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
            |on, message, trail| {
                wire::check_crc("plaintext_crc32c", &message.plaintext, message.plaintext_crc32c)?;
                let plaintext = zeroize::Zeroizing::new(message.plaintext);
                let (ciphertext, key_version) = on.keyring.encrypt(
                    &on.key,
                    &plaintext,
                    &message.additional_authenticated_data,
                    on.now_ms,
                )?;
                on.note(trail, key_version).output(&ciphertext);
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
            |on, message, trail| {
                wire::check_crc(
                    "ciphertext_crc32c",
                    &message.ciphertext,
                    message.ciphertext_crc32c,
                )?;
                trail.input(&message.ciphertext);
                let (plaintext, key_version) = on.keyring.decrypt(
                    &on.key,
                    &message.ciphertext,
                    &message.additional_authenticated_data,
                    on.now_ms,
                )?;
                on.note(trail, key_version);
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

    async fn verify_mac(
        &self,
        request: Request<pb::VerifyMacRequest>,
    ) -> Result<Response<pb::VerifyMacResponse>, Status> {
        self.on_key(
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

    async fn asymmetric_sign(
        &self,
        request: Request<pb::AsymmetricSignRequest>,
    ) -> Result<Response<pb::AsymmetricSignResponse>, Status> {
        self.on_key(
            "kms.AsymmetricSign",
            request,
            |r| &r.name,
            |on, message, trail| {
                let digest = wire::sign_input(message.input)?;
                let (signature, key_version) = on.keyring.sign(&on.key, &digest, on.now_ms)?;
                let signature = signature.to_der();
                on.note(trail, key_version)
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
            |on, message, trail| {
                let digest = wire::verify_input(message.input)?;
                trail.input_digest(digest);
                let signature = wire::signature(&message.signature)?;
                let version =
                    on.keyring
                        .verify(&on.key, &digest, &signature, message.key_version, on.now_ms)?;
                on.note(trail, version.unwrap_or(0));
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
        let (keyring, policy, clock) = (self.keyring.clone(), self.policy.clone(), self.clock.clone());
        self.gate
            .blocking("kms.GetPublicKey", request, move |caller, message, trail| {
                let id = KeyId::from_name(&message.name)?;
                trail.resource(id.name());
                let (key, now_ms) = (keyring.get(&id)?, clock());
                if policy.access.hides_public_key(caller, &key, now_ms) {
                    return Err(KmsError::KeyNotFound(id.name()).into());
                }
                let public = keyring.public_key(&key, message.key_version, now_ms);
                let (public, key_version) = public.map_err(|error| {
                    // Of a key without a public half, others learn nothing.
                    if policy.access.may(caller, &key, Verb::Get, now_ms) {
                        error
                    } else {
                        KmsError::KeyNotFound(id.name())
                    }
                })?;
                if key.is_compromised(key_version, now_ms) {
                    trail.key_version(key_version).remark("KEY_COMPROMISED");
                } else {
                    trail.silent();
                }
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
