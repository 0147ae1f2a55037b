//! Signatures.

use asterism_crypto::{Digest, Signature};

use super::{Processor, Protector, Purpose};
use crate::{
    error::KmsError,
    keys::{Key, Keyring, material::Material},
};

impl Protector<'_> {
    /// Signs a SHA-256 digest.
    ///
    /// # Errors
    /// None for a key of the right type.
    pub fn sign(&self, digest: &Digest) -> Result<Signature, KmsError> {
        match &*self.material {
            Material::Sign(secret) => Ok(secret.sign_digest(digest)),
            _ => Err(self.wrong_type()),
        }
    }
}

impl Processor<'_> {
    /// The version under which `signature` is right for `digest`; 0 tries them all, newest first.
    ///
    /// # Errors
    /// For a given version [`KmsError::VersionNotFound`], [`KmsError::VersionState`], [`KmsError::VersionTooOld`].
    pub fn verify(
        &self,
        digest: &Digest,
        signature: &Signature,
        version: u32,
    ) -> Result<Option<u32>, KmsError> {
        let found = self.find(version, |material| match material {
            Material::Sign(secret) => {
                let fits = secret.verifying_key().verify_digest(digest, signature).is_ok();
                Ok(fits.then_some(()))
            }
            _ => Err(self.wrong_type()),
        });
        Ok(found?.map(|((), version)| version))
    }
}

impl Keyring {
    /// Signs a SHA-256 digest by the primary version.
    ///
    /// # Errors
    /// As [`Keyring::protector`].
    pub fn sign(&self, key: &Key, digest: &Digest, now_ms: u64) -> Result<(Signature, u32), KmsError> {
        let protector = self.protector(key, Purpose::Sign, now_ms)?;
        Ok((protector.sign(digest)?, protector.version))
    }

    /// The version under which `signature` is right for `digest`; 0 tries them all, newest first.
    ///
    /// # Errors
    /// As [`Keyring::processor`] and [`Processor::verify`].
    pub fn verify(
        &self,
        key: &Key,
        digest: &Digest,
        signature: &Signature,
        version: u32,
        now_ms: u64,
    ) -> Result<Option<u32>, KmsError> {
        self.processor(key, Purpose::Sign, now_ms)?
            .verify(digest, signature, version)
    }
}
