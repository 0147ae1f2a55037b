//! What the holder of a private key does: decrypt what was encrypted to it, agree on a secret, give its public key.

use asterism_crypto::{
    CryptoError, Digest, EncryptionKey, SecretBytes, SecretKey, VerifyingKey, hpke::OVERHEAD_BYTES,
};

use super::{MAX_INPUT_BYTES, Purpose, check_size, too_large};
use crate::{
    error::KmsError,
    keys::{Key, Keyring, lifecycle::Operation, material::Material},
};

/// The public half of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// Checks signatures.
    Verify(VerifyingKey),
    /// Is encrypted to, or agreed with.
    Encrypt(EncryptionKey),
}

impl PublicKey {
    /// SubjectPublicKeyInfo in PEM.
    pub fn to_pem(&self) -> String {
        match self {
            Self::Verify(key) => key.to_pem(),
            Self::Encrypt(key) => key.to_pem(),
        }
    }

    /// SHA-256 of the SubjectPublicKeyInfo in DER.
    pub fn fingerprint(&self) -> Digest {
        match self {
            Self::Verify(key) => key.fingerprint(),
            Self::Encrypt(key) => key.fingerprint(),
        }
    }
}

impl Keyring {
    /// Decrypts what was encrypted to a public key; 0 tries every version, newest first. Gives also the version.
    ///
    /// # Errors
    /// [`KmsError::DecryptionFailed`] whatever the cause, [`KmsError::Field`] for sizes, [`KmsError::WrongKeyType`], and for a given
    /// version what [`Key::version`] and its state say.
    pub fn decrypt_asymmetric(
        &self,
        key: &Key,
        ciphertext: &[u8],
        (info, aad): (&[u8], &[u8]),
        version: u32,
        now_ms: u64,
    ) -> Result<(SecretBytes, u32), KmsError> {
        check_size("info", info)?;
        check_size("additional_authenticated_data", aad)?;
        if ciphertext.len() > MAX_INPUT_BYTES + OVERHEAD_BYTES {
            return Err(too_large("ciphertext"));
        }
        let processor = self.processor(key, Purpose::DecryptAsymmetric, now_ms)?;
        let found = processor.find(version, |material| match material {
            Material::Decrypt(secret) => match secret.open(info, aad, ciphertext) {
                Ok(plaintext) => Ok(Some(plaintext)),
                Err(CryptoError::Authentication) => Ok(None),
                Err(_) => Err(KmsError::field("ciphertext", "is not a whole HPKE message")),
            },
            _ => Err(processor.wrong_type()),
        })?;
        found.ok_or(KmsError::DecryptionFailed)
    }

    /// The shared secret of a version (0: the primary) and a public key; gives also the version.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`], [`KmsError::NoActiveVersion`], [`KmsError::VersionNotFound`], [`KmsError::VersionState`].
    pub fn agree(
        &self,
        key: &Key,
        peer: &EncryptionKey,
        version: u32,
        now_ms: u64,
    ) -> Result<(SecretKey, u32), KmsError> {
        let processor = self.processor(key, Purpose::Agree, now_ms)?;
        let version = given_or_primary(key, version, now_ms)?;
        match &*processor.material(version)? {
            Material::Agree(secret) => Ok((secret.shared_secret(peer), version)),
            _ => Err(processor.wrong_type()),
        }
    }

    /// The public key of a version; 0 means the primary.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`], [`KmsError::NoActiveVersion`], [`KmsError::VersionNotFound`], [`KmsError::VersionState`].
    pub fn public_key(&self, key: &Key, version: u32, now_ms: u64) -> Result<(PublicKey, u32), KmsError> {
        Purpose::Publish.check(key)?;
        let version = given_or_primary(key, version, now_ms)?;
        key.permit(version, Operation::Publish, now_ms)?;
        let public = match &*self.material(key, version)? {
            Material::Sign(secret) => PublicKey::Verify(secret.verifying_key()),
            Material::Decrypt(secret) | Material::Agree(secret) => {
                PublicKey::Encrypt(secret.encryption_key())
            }
            _ => return Err(Purpose::Publish.wrong_type(key)),
        };
        Ok((public, version))
    }
}

fn given_or_primary(key: &Key, version: u32, now_ms: u64) -> Result<u32, KmsError> {
    match (version, key.primary(now_ms)) {
        (0, 0) => Err(KmsError::NoActiveVersion(key.id.name())),
        (0, primary) => Ok(primary),
        (version, _) => Ok(version),
    }
}
