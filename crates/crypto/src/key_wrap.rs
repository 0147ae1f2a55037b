//! AES-256 key wrap with padding (RFC 5649, NIST SP 800-38F KWP): deterministic, authenticated, without associated data.

use aes_kw::{KeyInit as _, KwpAes256};
use zeroize::Zeroizing;

use crate::{CryptoError, SecretBytes, SecretKey};

/// Longest thing that is wrapped: any key there is fits.
pub const MAX_WRAPPED_BYTES: usize = 16 << 10;
const BLOCK_BYTES: usize = 8;

/// A key that wraps others.
pub struct WrappingKey(KwpAes256);

impl WrappingKey {
    /// Uses `key` to wrap, and for nothing else.
    pub fn new(key: &SecretKey) -> Self {
        Self(KwpAes256::new(key.expose().into()))
    }

    /// Wraps 1 to 16384 bytes; the result is 8 to 15 bytes longer.
    ///
    /// # Errors
    /// [`CryptoError::InvalidParameters`] for another length.
    pub fn wrap(&self, secret: &[u8]) -> Result<Vec<u8>, CryptoError> {
        const LENGTH: CryptoError = CryptoError::InvalidParameters("1 to 16384 bytes can be wrapped");
        if secret.is_empty() || secret.len() > MAX_WRAPPED_BYTES {
            return Err(LENGTH);
        }
        let mut wrapped = vec![0; (secret.len().div_ceil(BLOCK_BYTES) + 1) * BLOCK_BYTES];
        self.0.wrap_key(secret, &mut wrapped).map_err(|_| LENGTH)?;
        Ok(wrapped)
    }

    /// Unwraps.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`] for a length that nothing wrapped has; [`CryptoError::Authentication`] for a wrong key and for damage.
    pub fn unwrap(&self, wrapped: &[u8]) -> Result<SecretBytes, CryptoError> {
        let blocks = wrapped.len() / BLOCK_BYTES;
        if !wrapped.len().is_multiple_of(BLOCK_BYTES) || blocks < 2 || wrapped.len() > MAX_WRAPPED_BYTES + 8 {
            return Err(CryptoError::Malformed("wrapped key"));
        }
        let mut buffer = Zeroizing::new(vec![0; wrapped.len() - BLOCK_BYTES]);
        let secret = self
            .0
            .unwrap_key(wrapped, &mut buffer)
            .map_err(|_| CryptoError::Authentication)?;
        Ok(SecretBytes::new(secret.to_vec()))
    }
}
