//! Keys from passphrases: Argon2id (RFC 9106).

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{CryptoError, SecretKey};

/// Most memory that stored parameters may ask for.
const MAX_MEMORY_KIB: u32 = 2 << 20;
const MAX_ITERATIONS: u32 = 64;
const MAX_PARALLELISM: u32 = 64;

/// How hard guessing is.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Argon2Params {
    /// Memory in KiB; 8 per lane to 2 GiB.
    pub memory_kib: u32,
    /// Passes, 1–64.
    pub iterations: u32,
    /// Lanes, 1–64.
    pub parallelism: u32,
}

impl Default for Argon2Params {
    /// The second recommendation of RFC 9106, section 4: 64 MiB, 3 passes, 4 lanes.
    fn default() -> Self {
        Self {
            memory_kib: 64 << 10,
            iterations: 3,
            parallelism: 4,
        }
    }
}

/// Derives a 256-bit key.
///
/// # Errors
/// [`CryptoError::InvalidParameters`] for parameters out of range: a stored file cannot make this take all memory.
pub fn derive_key(password: &[u8], salt: &[u8; 16], params: &Argon2Params) -> Result<SecretKey, CryptoError> {
    const INVALID: CryptoError = CryptoError::InvalidParameters("Argon2 memory, iterations or parallelism");
    if params.memory_kib > MAX_MEMORY_KIB
        || params.iterations > MAX_ITERATIONS
        || params.parallelism > MAX_PARALLELISM
    {
        return Err(INVALID);
    }
    let checked = Params::new(params.memory_kib, params.iterations, params.parallelism, Some(32))
        .map_err(|_| INVALID)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, checked)
        .hash_password_into(password, salt, key.as_mut_slice())
        .map_err(|_| INVALID)?;
    Ok(SecretKey::from_bytes(*key))
}
