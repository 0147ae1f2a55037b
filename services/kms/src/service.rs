//! The gRPC adapter: who asks, parse, one call into the domain, translate.

mod access;
mod agreement;
mod backups;
mod batch;
mod ciphers;
mod data_keys;
mod evaluation_keys;
mod keys;
mod macs;
mod signatures;
mod system;
mod transfer;
mod versions;
mod wrapping;

use std::sync::Arc;

use asterism_chassis::{
    call::{Caller, Gate, Trail},
    error::Failure,
};
use asterism_crypto::Digest;
use asterism_proto::kms::{self as pb, key_management_service_server::KeyManagementService};
use tonic::{Request, Response, Status};

use crate::{
    Clock,
    error::KmsError,
    keys::{Key, KeyId, Keyring, RequestId},
    policy::{Asked, Policy},
    vault::{Unsealed, Vault},
    wire,
};

use self::access::{Bound, usable};
pub(crate) use self::backups::Backups;
pub(crate) use self::batch::HEADROOM_BYTES as BATCH_HEADROOM_BYTES;
pub(crate) use self::system::{EXEMPT, SystemAdapter};

pub(crate) struct Adapter {
    gate: Gate,
    vault: Arc<Vault>,
    clock: Clock,
}

/// What lies behind the seal, for one request.
struct Open<'a> {
    caller: &'a Caller,
    open: &'a Unsealed,
    now_ms: u64,
}

impl<'a> Open<'a> {
    fn keyring(&self) -> &'a Keyring {
        &self.open.keyring
    }

    /// An existing key, if the caller may use it so.
    fn key(&self, id: &KeyId, operation: &str, aads: &[&[u8]]) -> Result<Use<'a>, Failure> {
        let policy = &self.open.policy;
        Ok(Use {
            caller: self.caller,
            keyring: self.keyring(),
            policy,
            key: usable(policy, self.caller, id, operation, aads, self.now_ms)?,
            now_ms: self.now_ms,
        })
    }
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

    fn request<'r>(&'r self, id: &'r str, etag: &'r str) -> Result<RequestId<'r>, KmsError> {
        Ok(RequestId {
            principal: self.caller.principal.id.as_str(),
            id: wire::request_id(id)?,
            etag,
        })
    }
}

impl Adapter {
    pub(crate) fn new(gate: Gate, vault: Arc<Vault>, clock: Clock) -> Self {
        Self { gate, vault, clock }
    }

    /// Runs an operation on what lies behind the seal, at the moment of the request.
    async fn on_open<Req, Res>(
        &self,
        operation: &'static str,
        request: Request<Req>,
        work: impl FnOnce(&Open<'_>, Req, &mut Trail) -> Result<Res, Failure> + Send + 'static,
    ) -> Result<Response<Res>, Status>
    where
        Req: Send + 'static,
        Res: Send + 'static,
    {
        let (vault, clock) = (self.vault.clone(), self.clock.clone());
        self.gate
            .blocking(operation, request, move |caller, message, trail| {
                let open = vault.get()?;
                let now_ms = clock();
                work(
                    &Open {
                        caller,
                        open: &open,
                        now_ms,
                    },
                    message,
                    trail,
                )
            })
            .await
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
        self.on_open(operation, request, move |on, message, trail| {
            let id = KeyId::from_name(name(&message))?;
            trail.resource(id.name());
            let on = on.key(&id, operation, &message.aads())?;
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
        self.on_open(operation, request, move |on, message, trail| {
            let (id, version) = wire::version_name(name(&message))?;
            trail.resource(id.name()).key_version(version);
            let on = on.key(&id, operation, &message.aads())?;
            let key = work(&on, version, message, trail)?;
            Ok(wire::version(&id, key.version(version)?, on.now_ms))
        })
        .await
    }
}

#[tonic::async_trait]
impl KeyManagementService for Adapter {
    async fn create_key(&self, request: Request<pb::CreateKeyRequest>) -> Result<Response<pb::Key>, Status> {
        keys::create_key(self, request).await
    }

    async fn get_key(&self, request: Request<pb::GetKeyRequest>) -> Result<Response<pb::Key>, Status> {
        keys::get_key(self, request).await
    }

    async fn list_keys(
        &self,
        request: Request<pb::ListKeysRequest>,
    ) -> Result<Response<pb::ListKeysResponse>, Status> {
        keys::list_keys(self, request).await
    }

    async fn rotate_key(&self, request: Request<pb::RotateKeyRequest>) -> Result<Response<pb::Key>, Status> {
        keys::rotate_key(self, request).await
    }

    async fn update_key(&self, request: Request<pb::UpdateKeyRequest>) -> Result<Response<pb::Key>, Status> {
        keys::update_key(self, request).await
    }

    async fn get_key_version(
        &self,
        request: Request<pb::GetKeyVersionRequest>,
    ) -> Result<Response<pb::KeyVersion>, Status> {
        versions::get_key_version(self, request).await
    }

    async fn update_key_version(
        &self,
        request: Request<pb::UpdateKeyVersionRequest>,
    ) -> Result<Response<pb::KeyVersion>, Status> {
        versions::update_key_version(self, request).await
    }

    async fn destroy_key_version(
        &self,
        request: Request<pb::DestroyKeyVersionRequest>,
    ) -> Result<Response<pb::KeyVersion>, Status> {
        versions::destroy_key_version(self, request).await
    }

    async fn restore_key_version(
        &self,
        request: Request<pb::RestoreKeyVersionRequest>,
    ) -> Result<Response<pb::KeyVersion>, Status> {
        versions::restore_key_version(self, request).await
    }

    async fn re_encrypt(
        &self,
        request: Request<pb::ReEncryptRequest>,
    ) -> Result<Response<pb::ReEncryptResponse>, Status> {
        ciphers::re_encrypt(self, request).await
    }

    async fn generate_data_key_without_plaintext(
        &self,
        request: Request<pb::GenerateDataKeyWithoutPlaintextRequest>,
    ) -> Result<Response<pb::GenerateDataKeyWithoutPlaintextResponse>, Status> {
        data_keys::generate_data_key_without_plaintext(self, request).await
    }

    async fn generate_data_key(
        &self,
        request: Request<pb::GenerateDataKeyRequest>,
    ) -> Result<Response<pb::GenerateDataKeyResponse>, Status> {
        data_keys::generate_data_key(self, request).await
    }

    async fn encrypt(
        &self,
        request: Request<pb::EncryptRequest>,
    ) -> Result<Response<pb::EncryptResponse>, Status> {
        ciphers::encrypt(self, request).await
    }

    async fn decrypt(
        &self,
        request: Request<pb::DecryptRequest>,
    ) -> Result<Response<pb::DecryptResponse>, Status> {
        ciphers::decrypt(self, request).await
    }

    async fn generate_mac(
        &self,
        request: Request<pb::GenerateMacRequest>,
    ) -> Result<Response<pb::GenerateMacResponse>, Status> {
        macs::generate_mac(self, request).await
    }

    async fn verify_mac(
        &self,
        request: Request<pb::VerifyMacRequest>,
    ) -> Result<Response<pb::VerifyMacResponse>, Status> {
        macs::verify_mac(self, request).await
    }

    async fn asymmetric_sign(
        &self,
        request: Request<pb::AsymmetricSignRequest>,
    ) -> Result<Response<pb::AsymmetricSignResponse>, Status> {
        signatures::asymmetric_sign(self, request).await
    }

    async fn asymmetric_verify(
        &self,
        request: Request<pb::AsymmetricVerifyRequest>,
    ) -> Result<Response<pb::AsymmetricVerifyResponse>, Status> {
        signatures::asymmetric_verify(self, request).await
    }

    async fn get_public_key(
        &self,
        request: Request<pb::GetPublicKeyRequest>,
    ) -> Result<Response<pb::PublicKey>, Status> {
        signatures::get_public_key(self, request).await
    }

    async fn record_evaluation_key(
        &self,
        request: Request<pb::RecordEvaluationKeyRequest>,
    ) -> Result<Response<pb::EvaluationKeyRecord>, Status> {
        evaluation_keys::record_evaluation_key(self, request).await
    }

    async fn get_evaluation_key_record(
        &self,
        request: Request<pb::GetEvaluationKeyRecordRequest>,
    ) -> Result<Response<pb::EvaluationKeyRecord>, Status> {
        evaluation_keys::get_evaluation_key_record(self, request).await
    }

    async fn delete_evaluation_key_record(
        &self,
        request: Request<pb::DeleteEvaluationKeyRecordRequest>,
    ) -> Result<Response<pb::DeleteEvaluationKeyRecordResponse>, Status> {
        evaluation_keys::delete_evaluation_key_record(self, request).await
    }

    async fn asymmetric_decrypt(
        &self,
        request: Request<pb::AsymmetricDecryptRequest>,
    ) -> Result<Response<pb::AsymmetricDecryptResponse>, Status> {
        agreement::asymmetric_decrypt(self, request).await
    }

    async fn derive_shared_secret(
        &self,
        request: Request<pb::DeriveSharedSecretRequest>,
    ) -> Result<Response<pb::DeriveSharedSecretResponse>, Status> {
        agreement::derive_shared_secret(self, request).await
    }

    async fn wrap_key(
        &self,
        request: Request<pb::WrapKeyRequest>,
    ) -> Result<Response<pb::WrapKeyResponse>, Status> {
        wrapping::wrap_key(self, request).await
    }

    async fn unwrap_key(
        &self,
        request: Request<pb::UnwrapKeyRequest>,
    ) -> Result<Response<pb::UnwrapKeyResponse>, Status> {
        wrapping::unwrap_key(self, request).await
    }

    async fn generate_random_bytes(
        &self,
        request: Request<pb::GenerateRandomBytesRequest>,
    ) -> Result<Response<pb::GenerateRandomBytesResponse>, Status> {
        wrapping::generate_random_bytes(self, request).await
    }

    async fn create_import_job(
        &self,
        request: Request<pb::CreateImportJobRequest>,
    ) -> Result<Response<pb::ImportJob>, Status> {
        transfer::create_import_job(self, request).await
    }

    async fn import_key_version(
        &self,
        request: Request<pb::ImportKeyVersionRequest>,
    ) -> Result<Response<pb::Key>, Status> {
        transfer::import_key_version(self, request).await
    }

    async fn export_key_version(
        &self,
        request: Request<pb::ExportKeyVersionRequest>,
    ) -> Result<Response<pb::ExportKeyVersionResponse>, Status> {
        transfer::export_key_version(self, request).await
    }

    async fn batch_encrypt(
        &self,
        request: Request<pb::BatchEncryptRequest>,
    ) -> Result<Response<pb::BatchEncryptResponse>, Status> {
        batch::encrypt(self, request).await
    }

    async fn batch_decrypt(
        &self,
        request: Request<pb::BatchDecryptRequest>,
    ) -> Result<Response<pb::BatchDecryptResponse>, Status> {
        batch::decrypt(self, request).await
    }

    async fn batch_re_encrypt(
        &self,
        request: Request<pb::BatchReEncryptRequest>,
    ) -> Result<Response<pb::BatchReEncryptResponse>, Status> {
        batch::re_encrypt(self, request).await
    }

    async fn batch_generate_data_key(
        &self,
        request: Request<pb::BatchGenerateDataKeyRequest>,
    ) -> Result<Response<pb::BatchGenerateDataKeyResponse>, Status> {
        batch::generate_data_key(self, request).await
    }

    async fn batch_generate_mac(
        &self,
        request: Request<pb::BatchGenerateMacRequest>,
    ) -> Result<Response<pb::BatchGenerateMacResponse>, Status> {
        batch::generate_mac(self, request).await
    }

    async fn batch_verify_mac(
        &self,
        request: Request<pb::BatchVerifyMacRequest>,
    ) -> Result<Response<pb::BatchVerifyMacResponse>, Status> {
        batch::verify_mac(self, request).await
    }

    async fn batch_asymmetric_sign(
        &self,
        request: Request<pb::BatchAsymmetricSignRequest>,
    ) -> Result<Response<pb::BatchAsymmetricSignResponse>, Status> {
        batch::asymmetric_sign(self, request).await
    }

    async fn batch_asymmetric_verify(
        &self,
        request: Request<pb::BatchAsymmetricVerifyRequest>,
    ) -> Result<Response<pb::BatchAsymmetricVerifyResponse>, Status> {
        batch::asymmetric_verify(self, request).await
    }
}
