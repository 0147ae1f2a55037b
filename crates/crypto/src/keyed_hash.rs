//! HMAC with SHA-256 or SHA-512 under a key that is used often: the padded key is hashed once, not for every message.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq as _;

use crate::CryptoError;

/// Shortest key that is taken: 128 bits.
pub const MIN_KEY_BYTES: usize = 16;
/// Longest key that is taken: a block of SHA-512; HMAC would only hash a longer one.
pub const MAX_KEY_BYTES: usize = 128;

/// The hash function in an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacHash {
    /// Tags of 32 bytes.
    Sha256,
    /// Tags of 64 bytes.
    Sha512,
}

/// A key for HMAC (RFC 2104, FIPS 198-1); wiped on drop.
pub struct HmacKey(State);

enum State {
    Sha256(Hmac<Sha256>),
    Sha512(Hmac<Sha512>),
}

impl HmacKey {
    /// A key of 16 to 128 bytes.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKey`] for any other length.
    pub fn new(hash: MacHash, key: &[u8]) -> Result<Self, CryptoError> {
        if !(MIN_KEY_BYTES..=MAX_KEY_BYTES).contains(&key.len()) {
            return Err(CryptoError::InvalidKey);
        }
        let state = match hash {
            MacHash::Sha256 => Hmac::new_from_slice(key).map(State::Sha256),
            MacHash::Sha512 => Hmac::new_from_slice(key).map(State::Sha512),
        };
        state.map(Self).map_err(|_| CryptoError::InvalidKey)
    }

    /// The tag of `message`.
    pub fn compute(&self, message: &[u8]) -> Vec<u8> {
        match &self.0 {
            State::Sha256(keyed) => {
                let mut mac = keyed.clone();
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            }
            State::Sha512(keyed) => {
                let mut mac = keyed.clone();
                mac.update(message);
                mac.finalize().into_bytes().to_vec()
            }
        }
    }

    /// Whether `tag`, whole, is that of `message`; in constant time.
    pub fn fits(&self, message: &[u8], tag: &[u8]) -> bool {
        self.compute(message).as_slice().ct_eq(tag).into()
    }
}
