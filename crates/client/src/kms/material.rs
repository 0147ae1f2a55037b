//! Keys for what comes from outside: public-key encryption, key agreement, wrapping, import and export, random bytes.

use asterism_crypto::{
    DecryptionKey, EncryptionKey, SecretBytes, SecretKey, crc32c,
    transfer::{export_info, import_info},
};
use asterism_proto::kms as pb;
use zeroize::Zeroizing;

use super::{Kms, check_crc, check_verified, lifecycle::version_name, name};
use crate::error::ClientError;

/// What is imported, and as what.
pub struct NewMaterial<'a> {
    /// A new key's id, or that of a key that gets a further version.
    pub key: &'a str,
    /// Its type.
    pub key_type: pb::KeyType,
    /// The raw material, as `KeyType` has it.
    pub material: &'a [u8],
    /// For a new key only.
    pub exportable: bool,
}

impl Kms {
    /// The public key of a version of an EC_P256_HPKE or EC_P256_ECDH key; 0 means the primary.
    pub async fn encryption_key(&self, id: &str, key_version: u32) -> Result<EncryptionKey, ClientError> {
        let answer = self.public_key_pem(id, key_version).await?;
        Ok(EncryptionKey::from_pem(&answer.pem)?)
    }

    /// Decrypts what was encrypted to the public key of the key `id`, with the same `info` and `aad`.
    pub async fn decrypt_asymmetric(
        &self,
        id: &str,
        ciphertext: &[u8],
        info: &[u8],
        aad: &[u8],
    ) -> Result<SecretBytes, ClientError> {
        let request = pb::AsymmetricDecryptRequest {
            name: name(id),
            ciphertext: ciphertext.to_vec(),
            info: info.to_vec(),
            additional_authenticated_data: aad.to_vec(),
            key_version: 0,
            ciphertext_crc32c: Some(crc32c(ciphertext)),
            additional_authenticated_data_crc32c: Some(crc32c(aad)),
            info_crc32c: Some(crc32c(info)),
        };
        let mut answer = self
            .connection
            .retrying(|| client_call!(self, asymmetric_decrypt, request))
            .await?;
        let plaintext = SecretBytes::new(std::mem::take(&mut answer.plaintext));
        check_verified([
            answer.verified_ciphertext_crc32c,
            answer.verified_additional_authenticated_data_crc32c,
            answer.verified_info_crc32c,
        ])?;
        check_crc(plaintext.expose(), answer.plaintext_crc32c)?;
        Ok(plaintext)
    }

    /// The shared secret (ECDH) of a version of the key `id` (0: the primary) and `peer`. Not uniform: derive keys from it.
    pub async fn shared_secret(
        &self,
        id: &str,
        peer: &EncryptionKey,
        key_version: u32,
    ) -> Result<SecretKey, ClientError> {
        let pem = peer.to_pem();
        let request = pb::DeriveSharedSecretRequest {
            name: name(id),
            key_version,
            peer_public_key_pem_crc32c: Some(crc32c(pem.as_bytes())),
            peer_public_key_pem: pem,
        };
        let mut answer = self
            .connection
            .retrying(|| client_call!(self, derive_shared_secret, request))
            .await?;
        let secret = Zeroizing::new(std::mem::take(&mut answer.shared_secret));
        check_verified([answer.verified_peer_public_key_pem_crc32c])?;
        check_crc(&secret, answer.shared_secret_crc32c)?;
        Ok(SecretKey::try_from_slice(&secret)?)
    }

    /// Wraps key material (RFC 5649); gives also the version that did.
    pub async fn wrap_key(&self, id: &str, material: &[u8]) -> Result<(Vec<u8>, u32), ClientError> {
        let request = pb::WrapKeyRequest {
            name: name(id),
            key_material: material.to_vec(),
            key_material_crc32c: Some(crc32c(material)),
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, wrap_key, request))
            .await?;
        check_verified([answer.verified_key_material_crc32c])?;
        check_crc(&answer.wrapped, answer.wrapped_crc32c)?;
        Ok((answer.wrapped, answer.key_version))
    }

    /// Unwraps what any version of the key wrapped.
    pub async fn unwrap_key(&self, id: &str, wrapped: &[u8]) -> Result<SecretBytes, ClientError> {
        let request = pb::UnwrapKeyRequest {
            name: name(id),
            wrapped: wrapped.to_vec(),
            key_version: 0,
            wrapped_crc32c: Some(crc32c(wrapped)),
        };
        let mut answer = self
            .connection
            .retrying(|| client_call!(self, unwrap_key, request))
            .await?;
        let material = SecretBytes::new(std::mem::take(&mut answer.key_material));
        check_verified([answer.verified_wrapped_crc32c])?;
        check_crc(material.expose(), answer.key_material_crc32c)?;
        Ok(material)
    }

    /// Random bytes from kms' operating system: 1 to 65536.
    pub async fn random_bytes(&self, length: u32) -> Result<SecretBytes, ClientError> {
        let request = pb::GenerateRandomBytesRequest { length };
        let mut answer = self
            .connection
            .retrying(|| client_call!(self, generate_random_bytes, request))
            .await?;
        let data = SecretBytes::new(std::mem::take(&mut answer.data));
        check_crc(data.expose(), answer.data_crc32c)?;
        Ok(data)
    }

    /// Makes a key, or a further version of one, of material from here: encrypts it to an import job's key, and bound to the job.
    pub async fn import_key(&self, new: NewMaterial<'_>, request_id: &str) -> Result<pb::Key, ClientError> {
        let job = self.create_import_job(new.key, new.key_type).await?;
        let sealed = seal_for(&job, new.material)?;
        let request = pb::ImportKeyVersionRequest {
            import_job: job.name,
            sealed_material_crc32c: Some(crc32c(&sealed)),
            sealed_material: sealed,
            exportable: new.exportable,
            request_id: request_id.to_owned(),
            ..pb::ImportKeyVersionRequest::default()
        };
        self.import_key_version(request).await
    }

    /// A job for one import, with the public key to encrypt to.
    pub async fn create_import_job(
        &self,
        id: &str,
        key_type: pb::KeyType,
    ) -> Result<pb::ImportJob, ClientError> {
        let request = pb::CreateImportJobRequest {
            key_id: id.to_owned(),
            r#type: key_type.into(),
        };
        let job = self
            .connection
            .once(self.client().create_import_job(request))
            .await?;
        check_crc(job.public_key_pem.as_bytes(), job.public_key_pem_crc32c)?;
        if job.key_id != id || job.r#type() != key_type {
            return Err(ClientError::Protocol("kms answered with a job for another key"));
        }
        Ok(job)
    }

    /// Imports as `request` has it: for material that was encrypted elsewhere.
    pub async fn import_key_version(
        &self,
        request: pb::ImportKeyVersionRequest,
    ) -> Result<pb::Key, ClientError> {
        written!(self, import_key_version, request)
    }

    /// The material of a version of an exportable key, encrypted on its way to a key that lives for this call only.
    ///
    /// # Errors
    /// Reason `NOT_EXPORTABLE` for a key that was not created so.
    pub async fn export_key(&self, id: &str, version: u32) -> Result<SecretBytes, ClientError> {
        let recipient = DecryptionKey::generate()?;
        let answer = self
            .export_key_to(id, version, &recipient.encryption_key())
            .await?;
        let info = export_info(id, version, type_name(answer.r#type()));
        Ok(recipient.open(&info, b"", &answer.sealed_material)?)
    }

    /// The material of a version of an exportable key, encrypted to `recipient`: HPKE, empty aad, info as `export_info` has it.
    pub async fn export_key_to(
        &self,
        id: &str,
        version: u32,
        recipient: &EncryptionKey,
    ) -> Result<pb::ExportKeyVersionResponse, ClientError> {
        let pem = recipient.to_pem();
        let request = pb::ExportKeyVersionRequest {
            name: version_name(id, version),
            recipient_public_key_pem_crc32c: Some(crc32c(pem.as_bytes())),
            recipient_public_key_pem: pem,
            request_id: String::new(),
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, export_key_version, request))
            .await?;
        check_verified([answer.verified_recipient_public_key_pem_crc32c])?;
        check_crc(&answer.sealed_material, answer.sealed_material_crc32c)?;
        Ok(answer)
    }
}

/// The material, encrypted for an import job.
///
/// # Errors
/// [`ClientError::Protocol`] for what is no import job.
pub fn seal_for(job: &pb::ImportJob, material: &[u8]) -> Result<Vec<u8>, ClientError> {
    let id = job.name.strip_prefix("importJobs/").ok_or(ClientError::Protocol(
        "kms answered with an odd name of an import job",
    ))?;
    let info = import_info(id, &job.key_id, type_name(job.r#type()));
    Ok(EncryptionKey::from_pem(&job.public_key_pem)?.seal(&info, b"", material)?)
}

fn type_name(key_type: pb::KeyType) -> &'static str {
    key_type.as_str_name().trim_start_matches("KEY_TYPE_")
}
