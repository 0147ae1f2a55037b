//! Signed statements: exact bytes, signed for one purpose.

use serde::{Deserialize, Serialize};

use crate::{Context, CryptoError, Signature, VerifyingKey};

/// A statement with its signature. In JSON, bytes are base64.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// What the statement is for; a signature for one domain never fits another.
    pub domain: String,
    /// The exact bytes that were signed.
    #[serde(with = "base64_bytes")]
    pub payload: Vec<u8>,
    /// Id of the signing key.
    pub key: String,
    /// Its version.
    pub key_version: u32,
    /// ECDSA P-256, ASN.1 DER.
    #[serde(with = "base64_bytes")]
    pub signature: Vec<u8>,
}

impl Signed {
    /// Checks domain and signature, and only then gives the payload.
    ///
    /// # Errors
    /// [`CryptoError::InvalidSignature`]
    pub fn verify(&self, expected_domain: &str, key: &VerifyingKey) -> Result<&[u8], CryptoError> {
        if self.domain != expected_domain {
            return Err(CryptoError::InvalidSignature);
        }
        let signature = Signature::from_der(&self.signature).map_err(|_| CryptoError::InvalidSignature)?;
        key.verify(&signing_input(&self.domain, &self.payload), &signature)?;
        Ok(&self.payload)
    }
}

/// The bytes whose SHA-256 is signed: a fixed prefix and the domain, each with its length, then the payload.
pub fn signing_input(domain: &str, payload: &[u8]) -> Vec<u8> {
    let mut input = Context::new("asterism/signed/v1")
        .field("domain", domain)
        .encode();
    input.extend_from_slice(payload);
    input
}

/// Bytes as standard base64 in JSON: `#[serde(with = "asterism_crypto::signed::base64_bytes")]`.
pub mod base64_bytes {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    /// Writes bytes as base64.
    ///
    /// # Errors
    /// The serialiser's own.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    /// Reads bytes from base64.
    ///
    /// # Errors
    /// When the text is not base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD
            .decode(String::deserialize(deserializer)?)
            .map_err(D::Error::custom)
    }
}
