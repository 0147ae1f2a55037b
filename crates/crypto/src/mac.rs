//! HMAC-SHA256 (RFC 2104, FIPS 198-1).

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::{CryptoError, SecretKey};

/// A key for HMAC-SHA256.
pub struct MacKey(SecretKey);

impl MacKey {
    /// Uses `key` for MACs, and for nothing else.
    pub fn new(key: SecretKey) -> Self {
        Self(key)
    }

    /// The tag of `message`.
    pub fn compute(&self, message: &[u8]) -> MacTag {
        let mut writer = MacWriter::new(self);
        writer.update(message);
        writer.finish()
    }

    /// Checks a tag in constant time.
    ///
    /// # Errors
    /// [`CryptoError::Authentication`] when it does not fit, whatever its length.
    pub fn verify(&self, message: &[u8], tag: &[u8]) -> Result<(), CryptoError> {
        if bool::from(self.compute(message).0.as_slice().ct_eq(tag)) {
            Ok(())
        } else {
            Err(CryptoError::Authentication)
        }
    }
}

/// A tag of 32 bytes. Compare by [`MacKey::verify`] or [`MacTag::fits`], which take constant time.
#[derive(Clone, Copy)]
pub struct MacTag([u8; 32]);

impl MacTag {
    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether `other` is the same tag, in constant time.
    pub fn fits(&self, other: &[u8]) -> bool {
        self.0.as_slice().ct_eq(other).into()
    }
}

/// Computes the tag of a message that comes in pieces.
pub struct MacWriter(Hmac<Sha256>);

impl MacWriter {
    /// Nothing written yet.
    pub fn new(key: &MacKey) -> Self {
        Self(Hmac::new_from_slice(key.0.expose()).expect("HMAC takes keys of any length"))
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The tag of everything.
    pub fn finish(self) -> MacTag {
        MacTag(self.0.finalize().into_bytes().into())
    }
}
