//! What a key version is made of.

use std::fmt;

use asterism_crypto::{
    CryptoError, DecryptionKey, DeterministicKey, HmacKey, KeyRef, MacHash, SecretBytes, SecretKey,
    SigningKey, WrappingKey,
};
use serde::{Deserialize, Serialize};

use crate::{error::KmsError, keys::Key};

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyType {
    /// Encrypts, decrypts, wraps data keys.
    Aes256Gcm,
    /// Makes and checks MACs.
    HmacSha256,
    /// Signs and verifies.
    EcSignP256Sha256,
    /// Makes and checks longer MACs.
    HmacSha512,
    /// Decrypts what was encrypted to its public key.
    EcP256Hpke,
    /// Agrees on secrets.
    EcP256Ecdh,
    /// Wraps keys from outside.
    Aes256Kwp,
    /// Encrypts and decrypts deterministically.
    Aes256Siv,
}

impl KeyType {
    /// Every type.
    pub fn all() -> [Self; 8] {
        [
            Self::Aes256Gcm,
            Self::HmacSha256,
            Self::EcSignP256Sha256,
            Self::HmacSha512,
            Self::EcP256Hpke,
            Self::EcP256Ecdh,
            Self::Aes256Kwp,
            Self::Aes256Siv,
        ]
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes256Gcm => "AES_256_GCM",
            Self::HmacSha256 => "HMAC_SHA256",
            Self::EcSignP256Sha256 => "EC_SIGN_P256_SHA256",
            Self::HmacSha512 => "HMAC_SHA512",
            Self::EcP256Hpke => "EC_P256_HPKE",
            Self::EcP256Ecdh => "EC_P256_ECDH",
            Self::Aes256Kwp => "AES_256_KWP",
            Self::Aes256Siv => "AES_256_SIV",
        })
    }
}

/// An unwrapped key version; wiped on drop.
pub(crate) enum Material {
    Aes(SecretKey),
    Deterministic(DeterministicKey),
    Mac(HmacKey),
    Sign(SigningKey),
    Decrypt(DecryptionKey),
    Agree(DecryptionKey),
    Wrap(WrappingKey),
}

impl Material {
    /// The bytes of fresh material, to be wrapped.
    pub(crate) fn generate(key_type: KeyType) -> Result<SecretBytes, KmsError> {
        Ok(match key_type {
            KeyType::Aes256Gcm | KeyType::HmacSha256 | KeyType::Aes256Kwp | KeyType::Aes256Siv => {
                SecretBytes::random(32)?
            }
            KeyType::HmacSha512 => SecretBytes::random(64)?,
            KeyType::EcSignP256Sha256 => SigningKey::generate()?.to_secret_bytes(),
            KeyType::EcP256Hpke | KeyType::EcP256Ecdh => DecryptionKey::generate()?.to_secret_bytes(),
        })
    }

    /// The material of a version from its bytes.
    pub(crate) fn from_bytes(key: &Key, version: u32, bytes: &SecretBytes) -> Result<Self, CryptoError> {
        if key.key_type == KeyType::Aes256Siv {
            let key_ref = key.reference(version);
            let secret = SecretKey::try_from_slice(bytes.expose())?;
            return DeterministicKey::new(&secret, &key_ref).map(Self::Deterministic);
        }
        Self::of_type(key.key_type, bytes.expose())
    }

    /// Whether the bytes can be material of this type.
    pub(crate) fn check(key_type: KeyType, bytes: &SecretBytes) -> Result<(), CryptoError> {
        Self::of_type(key_type, bytes.expose()).map(drop)
    }

    fn of_type(key_type: KeyType, bytes: &[u8]) -> Result<Self, CryptoError> {
        Ok(match key_type {
            KeyType::Aes256Gcm | KeyType::Aes256Siv => Self::Aes(SecretKey::try_from_slice(bytes)?),
            KeyType::HmacSha256 => Self::Mac(HmacKey::new(MacHash::Sha256, bytes)?),
            KeyType::HmacSha512 => Self::Mac(HmacKey::new(MacHash::Sha512, bytes)?),
            KeyType::EcSignP256Sha256 => Self::Sign(SigningKey::from_bytes(bytes)?),
            KeyType::EcP256Hpke => Self::Decrypt(DecryptionKey::from_bytes(bytes)?),
            KeyType::EcP256Ecdh => Self::Agree(DecryptionKey::from_bytes(bytes)?),
            KeyType::Aes256Kwp => Self::Wrap(WrappingKey::new(&SecretKey::try_from_slice(bytes)?)),
        })
    }
}

impl Key {
    /// How a ciphertext names a version.
    pub(crate) fn reference(&self, version: u32) -> KeyRef {
        KeyRef {
            key: self.id.to_string(),
            version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_material_is_of_its_type_and_every_type_has_a_name_of_its_own() {
        let mut names = std::collections::HashSet::new();
        for key_type in KeyType::all() {
            let bytes = Material::generate(key_type).expect("made");
            Material::check(key_type, &bytes).expect("of its type");
            for wrong in [vec![], vec![1; 15], vec![1; 129]] {
                assert!(
                    Material::check(key_type, &SecretBytes::new(wrong)).is_err(),
                    "{key_type}"
                );
            }
            assert!(names.insert(key_type.to_string()));
        }
    }

    /// The names are stored: they stay.
    #[test]
    fn types_are_stored_under_these_names() {
        let stored: Vec<String> = KeyType::all()
            .iter()
            .map(|key_type| serde_json::to_string(key_type).expect("text"))
            .collect();
        let expected = [
            "aes256_gcm",
            "hmac_sha256",
            "ec_sign_p256_sha256",
            "hmac_sha512",
            "ec_p256_hpke",
            "ec_p256_ecdh",
            "aes256_kwp",
            "aes256_siv",
        ];
        assert_eq!(stored, expected.map(|name| format!("\"{name}\"")));
    }
}
