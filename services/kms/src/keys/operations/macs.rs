//! Message authentication codes.

use super::{Processor, Protector, Purpose, check_size};
use crate::{
    error::KmsError,
    keys::{Key, Keyring, material::Material},
};

impl Protector<'_> {
    /// The MAC of `data`.
    ///
    /// # Errors
    /// [`KmsError::Field`] for more than 64 KiB.
    pub fn mac(&self, data: &[u8]) -> Result<Vec<u8>, KmsError> {
        check_size("data", data)?;
        match &*self.material {
            Material::Mac(secret) => Ok(secret.compute(data)),
            _ => Err(self.wrong_type()),
        }
    }
}

impl Processor<'_> {
    /// The version under which `mac` is right for `data`; 0 tries them all, newest first.
    ///
    /// # Errors
    /// [`KmsError::Field`], and for a given version [`KmsError::VersionNotFound`], [`KmsError::VersionState`], [`KmsError::VersionTooOld`].
    pub fn verify_mac(&self, data: &[u8], mac: &[u8], version: u32) -> Result<Option<u32>, KmsError> {
        check_size("data", data)?;
        let found = self.find(version, |material| match material {
            Material::Mac(secret) => Ok(secret.fits(data, mac).then_some(())),
            _ => Err(self.wrong_type()),
        });
        Ok(found?.map(|((), version)| version))
    }
}

impl Keyring {
    /// HMAC by the primary version.
    ///
    /// # Errors
    /// As [`Keyring::protector`] and [`Protector::mac`].
    pub fn mac(&self, key: &Key, data: &[u8], now_ms: u64) -> Result<(Vec<u8>, u32), KmsError> {
        let protector = self.protector(key, Purpose::Authenticate, now_ms)?;
        Ok((protector.mac(data)?, protector.version))
    }

    /// The version under which `mac` is right for `data`; 0 tries them all, newest first.
    ///
    /// # Errors
    /// As [`Keyring::processor`] and [`Processor::verify_mac`].
    pub fn verify_mac(
        &self,
        key: &Key,
        data: &[u8],
        mac: &[u8],
        version: u32,
        now_ms: u64,
    ) -> Result<Option<u32>, KmsError> {
        self.processor(key, Purpose::Authenticate, now_ms)?
            .verify_mac(data, mac, version)
    }
}
