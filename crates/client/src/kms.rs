//! The key management service.

/// A write with a request id is tried again after a broken connection; with an empty one it is made once.
macro_rules! written {
    ($this:ident, $method:ident, $request:ident) => {
        if $request.request_id.is_empty() {
            $this.connection.once($this.client().$method($request)).await
        } else {
            $this
                .connection
                .retrying(|| client_call!($this, $method, $request))
                .await
        }
    };
}

mod backup;
mod batch;
mod lifecycle;
mod material;
mod system;

use asterism_crypto::{Digest, SecretBytes, SecretKey, Signature, Signed, VerifyingKey, crc32c, signed};
use asterism_proto::kms::{self as pb, key_management_service_client::KeyManagementServiceClient};
use tonic::{Code, service::interceptor::InterceptedService, transport::Channel};
use zeroize::Zeroizing;

use crate::{
    connection::{Carried, Connection, MAX_MESSAGE_BYTES},
    error::ClientError,
};

pub use backup::Backup;
pub use batch::ItemFailure;
pub use lifecycle::ReEncrypted;
pub use material::{NewMaterial, seal_for};
pub use system::{NewSeal, UnsealSecret};

type Client = KeyManagementServiceClient<InterceptedService<Channel, Carried>>;

/// A fresh data key: use it, store `wrapped`, drop it.
pub struct DataKey {
    /// The key itself; wiped on drop.
    pub key: SecretKey,
    /// The key wrapped by kms; [`Kms::unwrap_data_key`] gives it back.
    pub wrapped: Vec<u8>,
    /// Version of the wrapping key.
    pub key_version: u32,
}

/// Client of `asterism.kms.v1.KeyManagementService`. Keys are named by id, without `keys/`.
#[derive(Clone)]
pub struct Kms {
    connection: Connection,
}

impl Kms {
    /// A client over `connection`.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// The endpoint as configured.
    pub fn endpoint(&self) -> &str {
        self.connection.endpoint()
    }

    fn client(&self) -> Client {
        Client::new(self.connection.service())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Creates a key; an empty `id` lets the service choose one.
    pub async fn create_key(
        &self,
        id: &str,
        key_type: pb::KeyType,
        labels: impl IntoIterator<Item = (String, String)>,
        request_id: &str,
    ) -> Result<pb::Key, ClientError> {
        let request = pb::CreateKeyRequest {
            key_id: id.to_owned(),
            r#type: key_type.into(),
            labels: labels.into_iter().collect(),
            request_id: request_id.to_owned(),
            ..pb::CreateKeyRequest::default()
        };
        self.create(request).await
    }

    /// Creates a key as `request` has it: also with an activation time, or exportable.
    pub async fn create(&self, request: pb::CreateKeyRequest) -> Result<pb::Key, ClientError> {
        if request.request_id.is_empty() {
            return self.connection.once(self.client().create_key(request)).await;
        }
        self.connection
            .retrying(|| client_call!(self, create_key, request))
            .await
    }

    /// Gives the key `id`, made now if it does not exist.
    ///
    /// # Errors
    /// [`ClientError::Protocol`] when it exists with another type.
    pub async fn ensure_key(&self, id: &str, key_type: pb::KeyType) -> Result<pb::Key, ClientError> {
        let key = match self.key(id).await {
            Err(error) if error.code() == Code::NotFound => {
                match self.create_key(id, key_type, [], &format!("ensure-{id}")).await {
                    // Somebody else was quicker.
                    Err(error) if error.code() == Code::AlreadyExists => self.key(id).await?,
                    made => made?,
                }
            }
            found => found?,
        };
        if key.r#type == i32::from(key_type) {
            Ok(key)
        } else {
            Err(ClientError::Protocol("the key exists with another type"))
        }
    }

    /// Metadata of the key `id`.
    pub async fn key(&self, id: &str) -> Result<pb::Key, ClientError> {
        let request = pb::GetKeyRequest { name: name(id) };
        self.connection
            .retrying(|| client_call!(self, get_key, request))
            .await
    }

    /// A page of keys, and the token of the next page (empty at the end).
    pub async fn list_keys(
        &self,
        page_size: i32,
        page_token: &str,
    ) -> Result<(Vec<pb::Key>, String), ClientError> {
        let request = pb::ListKeysRequest {
            page_size,
            page_token: page_token.to_owned(),
        };
        let page = self
            .connection
            .retrying(|| client_call!(self, list_keys, request))
            .await?;
        Ok((page.keys, page.next_page_token))
    }

    /// Adds a version and makes it primary.
    pub async fn rotate_key(&self, id: &str, request_id: &str) -> Result<pb::Key, ClientError> {
        let request = pb::RotateKeyRequest {
            name: name(id),
            request_id: request_id.to_owned(),
            ..pb::RotateKeyRequest::default()
        };
        self.rotate(request).await
    }

    /// Adds a version as `request` has it: also from a later time on, or only while the key has an etag.
    pub async fn rotate(&self, request: pb::RotateKeyRequest) -> Result<pb::Key, ClientError> {
        if request.request_id.is_empty() {
            return self.connection.once(self.client().rotate_key(request)).await;
        }
        self.connection
            .retrying(|| client_call!(self, rotate_key, request))
            .await
    }

    /// A fresh 256-bit data key, also wrapped by the primary version of the key `id` with `aad` bound in.
    pub async fn generate_data_key(&self, id: &str, aad: &[u8]) -> Result<DataKey, ClientError> {
        let request = pb::GenerateDataKeyRequest {
            name: name(id),
            additional_authenticated_data: aad.to_vec(),
            additional_authenticated_data_crc32c: Some(crc32c(aad)),
        };
        let mut answer = self
            .connection
            .retrying(|| client_call!(self, generate_data_key, request))
            .await?;
        let plaintext = Zeroizing::new(std::mem::take(&mut answer.plaintext));
        check_verified([answer.verified_additional_authenticated_data_crc32c])?;
        check_crc(&plaintext, answer.plaintext_crc32c)?;
        check_crc(&answer.wrapped, answer.wrapped_crc32c)?;
        Ok(DataKey {
            key: SecretKey::try_from_slice(&plaintext)?,
            wrapped: answer.wrapped,
            key_version: answer.key_version,
        })
    }

    /// Unwraps what [`Kms::generate_data_key`] wrapped.
    pub async fn unwrap_data_key(
        &self,
        id: &str,
        wrapped: &[u8],
        aad: &[u8],
    ) -> Result<SecretKey, ClientError> {
        let plaintext = self.decrypt(id, wrapped, aad).await?;
        Ok(SecretKey::try_from_slice(plaintext.expose())?)
    }

    /// Encrypts at most 64 KiB under the primary version; gives the ciphertext and the version.
    pub async fn encrypt(
        &self,
        id: &str,
        plaintext: &[u8],
        aad: &[u8],
    ) -> Result<(Vec<u8>, u32), ClientError> {
        let request = pb::EncryptRequest {
            name: name(id),
            plaintext: plaintext.to_vec(),
            additional_authenticated_data: aad.to_vec(),
            plaintext_crc32c: Some(crc32c(plaintext)),
            additional_authenticated_data_crc32c: Some(crc32c(aad)),
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, encrypt, request))
            .await?;
        check_verified([
            answer.verified_plaintext_crc32c,
            answer.verified_additional_authenticated_data_crc32c,
        ])?;
        check_crc(&answer.ciphertext, answer.ciphertext_crc32c)?;
        Ok((answer.ciphertext, answer.key_version))
    }

    /// Decrypts what [`Kms::encrypt`] gave, with the same `aad`.
    pub async fn decrypt(&self, id: &str, ciphertext: &[u8], aad: &[u8]) -> Result<SecretBytes, ClientError> {
        let request = pb::DecryptRequest {
            name: name(id),
            ciphertext: ciphertext.to_vec(),
            additional_authenticated_data: aad.to_vec(),
            ciphertext_crc32c: Some(crc32c(ciphertext)),
            additional_authenticated_data_crc32c: Some(crc32c(aad)),
        };
        let mut answer = self
            .connection
            .retrying(|| client_call!(self, decrypt, request))
            .await?;
        let plaintext = SecretBytes::new(std::mem::take(&mut answer.plaintext));
        check_verified([
            answer.verified_ciphertext_crc32c,
            answer.verified_additional_authenticated_data_crc32c,
        ])?;
        check_crc(plaintext.expose(), answer.plaintext_crc32c)?;
        Ok(plaintext)
    }

    /// HMAC of `data`, and the version that made it.
    pub async fn generate_mac(&self, id: &str, data: &[u8]) -> Result<(Vec<u8>, u32), ClientError> {
        let request = pb::GenerateMacRequest {
            name: name(id),
            data: data.to_vec(),
            data_crc32c: Some(crc32c(data)),
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, generate_mac, request))
            .await?;
        check_verified([answer.verified_data_crc32c])?;
        check_crc(&answer.mac, answer.mac_crc32c)?;
        Ok((answer.mac, answer.key_version))
    }

    /// Whether `mac` is right for `data` under any version of the key.
    pub async fn verify_mac(&self, id: &str, data: &[u8], mac: &[u8]) -> Result<bool, ClientError> {
        let request = pb::VerifyMacRequest {
            name: name(id),
            data: data.to_vec(),
            mac: mac.to_vec(),
            key_version: 0,
            data_crc32c: Some(crc32c(data)),
            mac_crc32c: Some(crc32c(mac)),
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, verify_mac, request))
            .await?;
        check_verified([answer.verified_data_crc32c, answer.verified_mac_crc32c])?;
        Ok(answer.valid)
    }

    /// ECDSA P-256 signature (DER) over the SHA-256 of `message`, and the version that made it.
    pub async fn sign(&self, id: &str, message: &[u8]) -> Result<(Vec<u8>, u32), ClientError> {
        self.sign_digest(id, &Digest::of(message)).await
    }

    /// ECDSA P-256 signature (DER) over a SHA-256 digest, and the version that made it.
    pub async fn sign_digest(&self, id: &str, digest: &Digest) -> Result<(Vec<u8>, u32), ClientError> {
        let input = pb::asymmetric_sign_request::Input::Digest(digest.as_bytes().to_vec());
        let request = pb::AsymmetricSignRequest {
            name: name(id),
            input: Some(input),
            input_crc32c: Some(crc32c(digest.as_bytes())),
            signature_encoding: pb::SignatureEncoding::Der.into(),
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, asymmetric_sign, request))
            .await?;
        check_verified([answer.verified_input_crc32c])?;
        check_crc(&answer.signature, answer.signature_crc32c)?;
        Ok((answer.signature, answer.key_version))
    }

    /// Signs `payload` as a statement of `domain`.
    pub async fn sign_statement(
        &self,
        id: &str,
        domain: &str,
        payload: Vec<u8>,
    ) -> Result<Signed, ClientError> {
        let digest = Digest::of(&signed::signing_input(domain, &payload));
        let (signature, key_version) = self.sign_digest(id, &digest).await?;
        Ok(Signed {
            domain: domain.to_owned(),
            payload,
            key: id.to_owned(),
            key_version,
            signature,
        })
    }

    /// Whether kms holds `signature` (DER) to be right for `message` under any version of the key.
    pub async fn verify(&self, id: &str, message: &[u8], signature: &[u8]) -> Result<bool, ClientError> {
        // A signature that is not even DER is the caller's mistake: say so before asking.
        Signature::from_der(signature)?;
        let digest = Digest::of(message);
        let request = pb::AsymmetricVerifyRequest {
            name: name(id),
            input: Some(pb::asymmetric_verify_request::Input::Digest(
                digest.as_bytes().to_vec(),
            )),
            signature: signature.to_vec(),
            key_version: 0,
            signature_encoding: pb::SignatureEncoding::Der.into(),
            input_crc32c: Some(crc32c(digest.as_bytes())),
            signature_crc32c: Some(crc32c(signature)),
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, asymmetric_verify, request))
            .await?;
        check_verified([answer.verified_input_crc32c, answer.verified_signature_crc32c])?;
        Ok(answer.valid)
    }

    /// The public key of a version; 0 means the primary.
    pub async fn public_key(&self, id: &str, key_version: u32) -> Result<VerifyingKey, ClientError> {
        Ok(VerifyingKey::from_pem(
            &self.public_key_pem(id, key_version).await?.pem,
        )?)
    }

    /// The public key of a version, of a key of any type that has one; 0 means the primary.
    pub async fn public_key_pem(&self, id: &str, key_version: u32) -> Result<pb::PublicKey, ClientError> {
        let request = pb::GetPublicKeyRequest {
            name: name(id),
            key_version,
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, get_public_key, request))
            .await?;
        check_crc(answer.pem.as_bytes(), answer.pem_crc32c)?;
        Ok(answer)
    }

    /// Checks that `statement` was signed for `domain` by the key `id`, and gives its payload.
    ///
    /// # Errors
    /// [`ClientError::Verification`] when it names another key or the signature does not fit.
    pub async fn verify_statement<'a>(
        &self,
        id: &str,
        domain: &str,
        statement: &'a Signed,
    ) -> Result<&'a [u8], ClientError> {
        if statement.key != id {
            return Err(ClientError::Verification(format!(
                "signed by the key `{}`, not by `{id}`",
                statement.key
            )));
        }
        let key = self.public_key(id, statement.key_version.max(1)).await?;
        statement
            .verify(domain, &key)
            .map_err(|_| ClientError::Verification(format!("the signature of `{id}` does not fit")))
    }

    /// Records an evaluation key of the caller's, or of whoever this connection acts for. Only services and administrators
    /// may.
    pub async fn record_evaluation_key(
        &self,
        sha256: &Digest,
        params: &str,
        total_bytes: u64,
    ) -> Result<pb::EvaluationKeyRecord, ClientError> {
        let request = pb::RecordEvaluationKeyRequest {
            sha256: sha256.as_bytes().to_vec(),
            params: params.to_owned(),
            total_bytes,
        };
        self.connection
            .retrying(|| client_call!(self, record_evaluation_key, request))
            .await
    }

    /// The record of an evaluation key.
    pub async fn evaluation_key_record(
        &self,
        sha256: &Digest,
    ) -> Result<pb::EvaluationKeyRecord, ClientError> {
        let request = pb::GetEvaluationKeyRecordRequest {
            name: format!("evaluationKeys/{sha256}"),
        };
        self.connection
            .retrying(|| client_call!(self, get_evaluation_key_record, request))
            .await
    }

    /// Deletes the record of an evaluation key.
    pub async fn delete_evaluation_key_record(&self, sha256: &Digest) -> Result<(), ClientError> {
        let request = pb::DeleteEvaluationKeyRecordRequest {
            name: format!("evaluationKeys/{sha256}"),
        };
        self.connection
            .once(self.client().delete_evaluation_key_record(request))
            .await
            .map(drop)
    }
}

fn name(id: &str) -> String {
    format!("keys/{id}")
}

fn check_crc(bytes: &[u8], expected: u32) -> Result<(), ClientError> {
    if crc32c(bytes) == expected {
        Ok(())
    } else {
        Err(ClientError::Protocol(
            "the answer was damaged on the way: its CRC32C does not fit",
        ))
    }
}

/// Whether kms saw every checksum that the request had.
fn check_verified<const N: usize>(verified: [bool; N]) -> Result<(), ClientError> {
    if verified.iter().all(|seen| *seen) {
        Ok(())
    } else {
        Err(ClientError::Protocol(
            "the request was damaged on the way: kms did not see its checksums",
        ))
    }
}
