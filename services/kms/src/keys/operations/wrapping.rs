//! Keys from outside, wrapped and unwrapped; random bytes.

use asterism_crypto::{CryptoError, SecretBytes};

use super::{MAX_INPUT_BYTES, Purpose};
use crate::{
    error::KmsError,
    keys::{Key, Keyring, material::Material},
};

impl Keyring {
    /// Wraps key material under the primary version; gives also the version.
    ///
    /// # Errors
    /// [`KmsError::Field`] for another length than 1 to 16384 bytes; else as [`Keyring::protector`].
    pub fn wrap_key(&self, key: &Key, secret: &[u8], now_ms: u64) -> Result<(Vec<u8>, u32), KmsError> {
        let protector = self.protector(key, Purpose::Wrap, now_ms)?;
        let Material::Wrap(wrapping) = &*protector.material else {
            return Err(protector.wrong_type());
        };
        match wrapping.wrap(secret) {
            Ok(wrapped) => Ok((wrapped, protector.version)),
            Err(_) => Err(KmsError::field("key_material", "must be 1 to 16384 bytes")),
        }
    }

    /// Unwraps what a version wrapped; 0 tries every version, newest first. Gives also the version.
    ///
    /// # Errors
    /// [`KmsError::DecryptionFailed`] whatever the cause, [`KmsError::Field`] for a length that nothing wrapped has,
    /// [`KmsError::WrongKeyType`], and for a given version what its state says.
    pub fn unwrap_key(
        &self,
        key: &Key,
        wrapped: &[u8],
        version: u32,
        now_ms: u64,
    ) -> Result<(SecretBytes, u32), KmsError> {
        let processor = self.processor(key, Purpose::Wrap, now_ms)?;
        let found = processor.find(version, |material| match material {
            Material::Wrap(wrapping) => match wrapping.unwrap(wrapped) {
                Ok(secret) => Ok(Some(secret)),
                Err(CryptoError::Authentication) => Ok(None),
                Err(_) => Err(KmsError::field(
                    "wrapped",
                    "must be 16 to 16392 bytes, a multiple of 8",
                )),
            },
            _ => Err(processor.wrong_type()),
        })?;
        found.ok_or(KmsError::DecryptionFailed)
    }

    /// Random bytes from the operating system.
    ///
    /// # Errors
    /// [`KmsError::Field`] for another length than 1 to 65536.
    pub fn random_bytes(&self, length: u32) -> Result<SecretBytes, KmsError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if !(1..=MAX_INPUT_BYTES).contains(&length) {
            return Err(KmsError::field("length", "must be 1 to 65536"));
        }
        Ok(SecretBytes::random(length)?)
    }
}
