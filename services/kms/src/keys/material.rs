//! What a key version is made of.

use std::fmt;

use asterism_crypto::{MacKey, SecretBytes, SecretKey, SigningKey};
use serde::{Deserialize, Serialize};

use crate::error::KmsError;

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyType {
    /// Encrypts, decrypts, wraps data keys.
    Aes256Gcm,
    /// Makes and checks MACs.
    HmacSha256,
    /// Signs and verifies.
    EcSignP256Sha256,
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes256Gcm => "AES_256_GCM",
            Self::HmacSha256 => "HMAC_SHA256",
            Self::EcSignP256Sha256 => "EC_SIGN_P256_SHA256",
        })
    }
}

/// An unwrapped key version; wiped on drop.
pub(crate) enum Material {
    Aes(SecretKey),
    Mac(MacKey),
    Sign(SigningKey),
}

impl Material {
    /// Fresh material, and its 32 bytes to be wrapped.
    pub(crate) fn generate(key_type: KeyType) -> Result<SecretBytes, KmsError> {
        Ok(match key_type {
            KeyType::Aes256Gcm | KeyType::HmacSha256 => {
                SecretBytes::new(SecretKey::generate()?.expose().to_vec())
            }
            KeyType::EcSignP256Sha256 => SigningKey::generate()?.to_secret_bytes(),
        })
    }

    /// Material from its unwrapped bytes.
    pub(crate) fn from_bytes(key_type: KeyType, bytes: &SecretBytes) -> Result<Self, KmsError> {
        let damaged = |_| KmsError::Damaged("unwrapped key material");
        Ok(match key_type {
            KeyType::Aes256Gcm => Self::Aes(SecretKey::try_from_slice(bytes.expose()).map_err(damaged)?),
            KeyType::HmacSha256 => Self::Mac(MacKey::new(
                SecretKey::try_from_slice(bytes.expose()).map_err(damaged)?,
            )),
            KeyType::EcSignP256Sha256 => Self::Sign(SigningKey::from_bytes(bytes.expose()).map_err(damaged)?),
        })
    }
}
