//! The same operation on 1 to 1000 items under one key. What is wrong with an item fails that item alone.

use asterism_crypto::{SecretBytes, crc32c};
use asterism_proto::kms as pb;

use super::{DataKey, Kms, check_crc, check_verified, name};
use crate::error::ClientError;

/// Why an item of a batch failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({reason})")]
pub struct ItemFailure {
    /// Of google.rpc.Code.
    pub code: i32,
    /// Stable: match on it.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// What came of an item.
type Item<T> = Result<T, ItemFailure>;

impl From<pb::ItemError> for ItemFailure {
    fn from(error: pb::ItemError) -> Self {
        Self {
            code: error.code,
            reason: error.reason,
            message: error.message,
        }
    }
}

/// As many results as items, in order; each read by `read` unless it says why it failed.
fn results<R, T>(
    results: Vec<R>,
    items: usize,
    error: fn(&mut R) -> Option<pb::ItemError>,
    read: impl Fn(R) -> Result<T, ClientError>,
) -> Result<Vec<Item<T>>, ClientError> {
    if results.len() != items {
        return Err(ClientError::Protocol("kms answered another number of items"));
    }
    results
        .into_iter()
        .map(|mut result| match error(&mut result) {
            Some(error) => Ok(Err(error.into())),
            None => read(result).map(Ok),
        })
        .collect()
}

impl Kms {
    /// Encrypts each plaintext, bound to the data beside it.
    pub async fn encrypt_batch(
        &self,
        id: &str,
        items: &[(&[u8], &[u8])],
    ) -> Result<Vec<Item<Vec<u8>>>, ClientError> {
        let request = pb::BatchEncryptRequest {
            name: name(id),
            items: items
                .iter()
                .map(|(plaintext, aad)| pb::EncryptItem {
                    plaintext: plaintext.to_vec(),
                    additional_authenticated_data: aad.to_vec(),
                    plaintext_crc32c: Some(crc32c(plaintext)),
                    additional_authenticated_data_crc32c: Some(crc32c(aad)),
                })
                .collect(),
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, batch_encrypt, request))
            .await?;
        results(
            answer.results,
            items.len(),
            |r| r.error.take(),
            |result| {
                check_verified([
                    result.verified_plaintext_crc32c,
                    result.verified_additional_authenticated_data_crc32c,
                ])?;
                check_crc(&result.ciphertext, result.ciphertext_crc32c)?;
                Ok(result.ciphertext)
            },
        )
    }

    /// Decrypts each ciphertext, with the data beside it.
    pub async fn decrypt_batch(
        &self,
        id: &str,
        items: &[(&[u8], &[u8])],
    ) -> Result<Vec<Item<SecretBytes>>, ClientError> {
        let request = pb::BatchDecryptRequest {
            name: name(id),
            items: items
                .iter()
                .map(|(ciphertext, aad)| pb::DecryptItem {
                    ciphertext: ciphertext.to_vec(),
                    additional_authenticated_data: aad.to_vec(),
                    ciphertext_crc32c: Some(crc32c(ciphertext)),
                    additional_authenticated_data_crc32c: Some(crc32c(aad)),
                })
                .collect(),
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, batch_decrypt, request))
            .await?;
        results(
            answer.results,
            items.len(),
            |r| r.error.take(),
            |result| {
                let plaintext = SecretBytes::new(result.plaintext);
                check_verified([
                    result.verified_ciphertext_crc32c,
                    result.verified_additional_authenticated_data_crc32c,
                ])?;
                check_crc(plaintext.expose(), result.plaintext_crc32c)?;
                Ok(plaintext)
            },
        )
    }

    /// Brings each ciphertext under the primary version of `destination` (empty for the same key), with the same data beside it.
    pub async fn re_encrypt_batch(
        &self,
        id: &str,
        items: &[(&[u8], &[u8])],
        destination: &str,
    ) -> Result<Vec<Item<Vec<u8>>>, ClientError> {
        let request = pb::BatchReEncryptRequest {
            name: name(id),
            items: items
                .iter()
                .map(|(ciphertext, aad)| pb::ReEncryptItem {
                    ciphertext: ciphertext.to_vec(),
                    additional_authenticated_data: aad.to_vec(),
                    ciphertext_crc32c: Some(crc32c(ciphertext)),
                    additional_authenticated_data_crc32c: Some(crc32c(aad)),
                    ..pb::ReEncryptItem::default()
                })
                .collect(),
            destination_name: if destination.is_empty() {
                String::new()
            } else {
                name(destination)
            },
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, batch_re_encrypt, request))
            .await?;
        results(
            answer.results,
            items.len(),
            |r| r.error.take(),
            |result| {
                check_verified([
                    result.verified_ciphertext_crc32c,
                    result.verified_additional_authenticated_data_crc32c,
                ])?;
                check_crc(&result.ciphertext, result.ciphertext_crc32c)?;
                Ok(result.ciphertext)
            },
        )
    }

    /// A fresh data key for each piece of additional authenticated data.
    pub async fn generate_data_keys(
        &self,
        id: &str,
        aads: &[&[u8]],
    ) -> Result<Vec<Item<DataKey>>, ClientError> {
        let request = pb::BatchGenerateDataKeyRequest {
            name: name(id),
            items: aads
                .iter()
                .map(|aad| pb::DataKeyItem {
                    additional_authenticated_data: aad.to_vec(),
                    additional_authenticated_data_crc32c: Some(crc32c(aad)),
                })
                .collect(),
            wrapped_only: false,
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, batch_generate_data_key, request))
            .await?;
        let key_version = answer.key_version;
        results(
            answer.results,
            aads.len(),
            |r| r.error.take(),
            |result| {
                let plaintext = SecretBytes::new(result.plaintext);
                check_verified([result.verified_additional_authenticated_data_crc32c])?;
                check_crc(plaintext.expose(), result.plaintext_crc32c)?;
                check_crc(&result.wrapped, result.wrapped_crc32c)?;
                Ok(DataKey {
                    key: asterism_crypto::SecretKey::try_from_slice(plaintext.expose())?,
                    wrapped: result.wrapped,
                    key_version,
                })
            },
        )
    }

    /// The MAC of each.
    pub async fn generate_macs(&self, id: &str, data: &[&[u8]]) -> Result<Vec<Item<Vec<u8>>>, ClientError> {
        let request = pb::BatchGenerateMacRequest {
            name: name(id),
            items: data
                .iter()
                .map(|data| pb::MacItem {
                    data: data.to_vec(),
                    data_crc32c: Some(crc32c(data)),
                })
                .collect(),
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, batch_generate_mac, request))
            .await?;
        results(
            answer.results,
            data.len(),
            |r| r.error.take(),
            |result| {
                check_verified([result.verified_data_crc32c])?;
                check_crc(&result.mac, result.mac_crc32c)?;
                Ok(result.mac)
            },
        )
    }

    /// Whether each MAC is right for the data before it, under any version.
    pub async fn verify_macs(
        &self,
        id: &str,
        items: &[(&[u8], &[u8])],
    ) -> Result<Vec<Item<bool>>, ClientError> {
        let request = pb::BatchVerifyMacRequest {
            name: name(id),
            items: items
                .iter()
                .map(|(data, mac)| pb::VerifyMacItem {
                    data: data.to_vec(),
                    mac: mac.to_vec(),
                    key_version: 0,
                    data_crc32c: Some(crc32c(data)),
                    mac_crc32c: Some(crc32c(mac)),
                })
                .collect(),
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, batch_verify_mac, request))
            .await?;
        results(answer.results, items.len(), |r| r.error.take(), verdict)
    }

    /// A signature (DER) over the SHA-256 of each message.
    pub async fn sign_batch(&self, id: &str, messages: &[&[u8]]) -> Result<Vec<Item<Vec<u8>>>, ClientError> {
        let request = pb::BatchAsymmetricSignRequest {
            name: name(id),
            items: messages
                .iter()
                .map(|message| {
                    let digest = asterism_crypto::Digest::of(message);
                    pb::SignItem {
                        input_crc32c: Some(crc32c(digest.as_bytes())),
                        input: Some(pb::sign_item::Input::Digest(digest.as_bytes().to_vec())),
                    }
                })
                .collect(),
            signature_encoding: pb::SignatureEncoding::Der.into(),
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, batch_asymmetric_sign, request))
            .await?;
        results(
            answer.results,
            messages.len(),
            |r| r.error.take(),
            |result| {
                check_verified([result.verified_input_crc32c])?;
                check_crc(&result.signature, result.signature_crc32c)?;
                Ok(result.signature)
            },
        )
    }

    /// Whether each signature (DER) is right for the message before it, under any version.
    pub async fn verify_batch(
        &self,
        id: &str,
        items: &[(&[u8], &[u8])],
    ) -> Result<Vec<Item<bool>>, ClientError> {
        let request = pb::BatchAsymmetricVerifyRequest {
            name: name(id),
            items: items
                .iter()
                .map(|(message, signature)| {
                    let digest = asterism_crypto::Digest::of(message);
                    pb::VerifyItem {
                        signature: signature.to_vec(),
                        key_version: 0,
                        input_crc32c: Some(crc32c(digest.as_bytes())),
                        signature_crc32c: Some(crc32c(signature)),
                        input: Some(pb::verify_item::Input::Digest(digest.as_bytes().to_vec())),
                    }
                })
                .collect(),
            signature_encoding: pb::SignatureEncoding::Der.into(),
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, batch_asymmetric_verify, request))
            .await?;
        results(answer.results, items.len(), |r| r.error.take(), verdict)
    }
}

fn verdict(result: pb::VerifyResult) -> Result<bool, ClientError> {
    check_verified([result.verified_input_crc32c, result.verified_proof_crc32c])?;
    Ok(result.valid)
}
