//! Encryption and data keys.

use asterism_crypto::{CryptoError, SecretBytes, SecretKey, deterministic, envelope};

use super::{MAX_INPUT_BYTES, Processor, Protector, Purpose, check_size, too_large};
use crate::{
    error::KmsError,
    keys::{Key, KeyType, Keyring, material::Material},
};

/// What a ciphertext may have besides its plaintext.
const MAX_OVERHEAD_BYTES: usize = 1024;

/// A fresh data key.
pub struct DataKey {
    /// The key.
    pub plaintext: SecretKey,
    /// The key wrapped.
    pub wrapped: Vec<u8>,
    /// By which version.
    pub version: u32,
}

/// A ciphertext that was brought under another version.
pub struct ReEncrypted {
    /// The new ciphertext.
    pub ciphertext: Vec<u8>,
    /// The version that the old one was under.
    pub source_version: u32,
    /// The version that the new one is under.
    pub version: u32,
}

impl Protector<'_> {
    /// Encrypts.
    ///
    /// # Errors
    /// [`KmsError::Field`] for more than 64 KiB.
    pub fn encrypt(&self, plaintext: &[u8], aad: &[u8]) -> Result<Vec<u8>, KmsError> {
        check_size("plaintext", plaintext)?;
        check_size("additional_authenticated_data", aad)?;
        match &*self.material {
            Material::Aes(secret) => Ok(envelope::seal(secret, &self.key_ref, plaintext, aad)?),
            Material::Deterministic(secret) => Ok(secret.seal(plaintext, aad)?),
            _ => Err(self.wrong_type()),
        }
    }

    /// A fresh data key, wrapped.
    ///
    /// # Errors
    /// [`KmsError::Field`] for more than 64 KiB of `aad`.
    pub fn data_key(&self, aad: &[u8]) -> Result<DataKey, KmsError> {
        let plaintext = SecretKey::generate()?;
        let wrapped = self.encrypt(plaintext.expose(), aad)?;
        Ok(DataKey {
            plaintext,
            wrapped,
            version: self.version,
        })
    }
}

impl Processor<'_> {
    /// Decrypts; gives the plaintext and the version that the ciphertext names.
    ///
    /// # Errors
    /// [`KmsError::DecryptionFailed`] whatever the cause, [`KmsError::Field`] for what is no ciphertext of this key,
    /// [`KmsError::VersionState`] and [`KmsError::VersionTooOld`] for a version that may not decrypt.
    pub fn decrypt(&self, ciphertext: &[u8], aad: &[u8]) -> Result<(SecretBytes, u32), KmsError> {
        check_size("additional_authenticated_data", aad)?;
        if ciphertext.len() > MAX_INPUT_BYTES + MAX_OVERHEAD_BYTES {
            return Err(too_large("ciphertext"));
        }
        let key_ref = match self.key.key_type {
            KeyType::Aes256Siv => deterministic::parse_header(ciphertext),
            _ => envelope::parse_header(ciphertext).map(|header| header.key_ref),
        };
        let key_ref = key_ref
            .map_err(|_| KmsError::field("ciphertext", "is not a whole ciphertext of a key of this type"))?;
        if key_ref.key != self.key.id.as_str() {
            return Err(KmsError::field(
                "ciphertext",
                "was made by another key; name that one",
            ));
        }
        // A version that never was can only come from an altered ciphertext.
        let version = key_ref.version;
        let material = self.material(version).map_err(|error| match error {
            KmsError::VersionNotFound { .. } => KmsError::DecryptionFailed,
            other => other,
        })?;
        let opened = match &*material {
            Material::Aes(secret) => envelope::open(secret, ciphertext, aad),
            Material::Deterministic(secret) => secret.open(ciphertext, aad),
            _ => return Err(self.wrong_type()),
        };
        match opened {
            Ok(plaintext) => Ok((plaintext, version)),
            Err(CryptoError::Authentication) => Err(KmsError::DecryptionFailed),
            Err(other) => Err(other.into()),
        }
    }

    /// Brings a ciphertext under the version of `destination`. The plaintext lives in here only.
    ///
    /// # Errors
    /// As [`Processor::decrypt`] and [`Protector::encrypt`].
    pub fn re_encrypt(
        &self,
        (ciphertext, aad): (&[u8], &[u8]),
        (destination, new_aad): (&Protector<'_>, &[u8]),
    ) -> Result<ReEncrypted, KmsError> {
        let (plaintext, source_version) = self.decrypt(ciphertext, aad)?;
        Ok(ReEncrypted {
            ciphertext: destination.encrypt(plaintext.expose(), new_aad)?,
            source_version,
            version: destination.version,
        })
    }
}

impl Keyring {
    /// A fresh data key, wrapped by the primary version.
    ///
    /// # Errors
    /// As [`Keyring::protector`] and [`Protector::data_key`].
    pub fn generate_data_key(&self, key: &Key, aad: &[u8], now_ms: u64) -> Result<DataKey, KmsError> {
        self.protector(key, Purpose::MakeDataKeys, now_ms)?.data_key(aad)
    }

    /// Encrypts under the primary version; gives the ciphertext and the version.
    ///
    /// # Errors
    /// As [`Keyring::protector`] and [`Protector::encrypt`].
    pub fn encrypt(
        &self,
        key: &Key,
        plaintext: &[u8],
        aad: &[u8],
        now_ms: u64,
    ) -> Result<(Vec<u8>, u32), KmsError> {
        let protector = self.protector(key, Purpose::Encrypt, now_ms)?;
        Ok((protector.encrypt(plaintext, aad)?, protector.version))
    }

    /// Decrypts; gives the plaintext and the version that the ciphertext names.
    ///
    /// # Errors
    /// As [`Keyring::processor`] and [`Processor::decrypt`].
    pub fn decrypt(
        &self,
        key: &Key,
        ciphertext: &[u8],
        aad: &[u8],
        now_ms: u64,
    ) -> Result<(SecretBytes, u32), KmsError> {
        self.processor(key, Purpose::Encrypt, now_ms)?
            .decrypt(ciphertext, aad)
    }

    /// Brings a ciphertext under the primary version of `destination`, which may be the same key.
    ///
    /// # Errors
    /// As [`Keyring::decrypt`] and [`Keyring::encrypt`].
    pub fn re_encrypt(
        &self,
        (source, ciphertext, aad): (&Key, &[u8], &[u8]),
        (destination, new_aad): (&Key, &[u8]),
        now_ms: u64,
    ) -> Result<ReEncrypted, KmsError> {
        let processor = self.processor(source, Purpose::Encrypt, now_ms)?;
        let protector = self.protector(destination, Purpose::Encrypt, now_ms)?;
        processor.re_encrypt((ciphertext, aad), (&protector, new_aad))
    }
}
