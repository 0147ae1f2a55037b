//! Secrets in boxes that are wiped on drop, and are neither printed, cloned nor serialised by accident.

use zeroize::{Zeroize as _, Zeroizing};

use crate::CryptoError;

/// A 256-bit symmetric key.
pub struct SecretKey {
    // Boxed: moving the key moves a pointer and leaves no copies behind.
    bytes: Box<Zeroizing<[u8; 32]>>,
}

impl SecretKey {
    /// A fresh key from the operating system.
    ///
    /// # Errors
    /// [`CryptoError::Randomness`]
    pub fn generate() -> Result<Self, CryptoError> {
        let mut key = Self {
            bytes: Box::new(Zeroizing::new([0; 32])),
        };
        getrandom::fill(key.bytes.as_mut_slice()).map_err(|_| CryptoError::Randomness)?;
        Ok(key)
    }

    /// A key from its bytes; the caller's copy is wiped.
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        let key = Self {
            bytes: Box::new(Zeroizing::new(bytes)),
        };
        bytes.zeroize();
        key
    }

    /// A key from a slice of 32 bytes.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKey`] for any other length.
    pub fn try_from_slice(bytes: &[u8]) -> Result<Self, CryptoError> {
        if bytes.len() != 32 {
            return Err(CryptoError::InvalidKey);
        }
        let mut key = Self {
            bytes: Box::new(Zeroizing::new([0; 32])),
        };
        key.bytes.copy_from_slice(bytes);
        Ok(key)
    }

    /// The key's bytes: handle with care.
    pub fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }
}

/// Secret bytes of any length, such as a decrypted message.
pub struct SecretBytes {
    bytes: Zeroizing<Vec<u8>>,
}

impl SecretBytes {
    /// Takes the bytes; they are wiped on drop.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Zeroizing::new(bytes),
        }
    }

    /// Fresh bytes from the operating system.
    ///
    /// # Errors
    /// [`CryptoError::Randomness`]
    pub fn random(length: usize) -> Result<Self, CryptoError> {
        let mut bytes = Zeroizing::new(vec![0; length]);
        getrandom::fill(&mut bytes).map_err(|_| CryptoError::Randomness)?;
        Ok(Self { bytes })
    }

    /// The bytes: handle with care.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the buffer away; still wiped on drop.
    pub fn into_zeroizing(self) -> Zeroizing<Vec<u8>> {
        self.bytes
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// `N` random bytes from the operating system.
///
/// # Errors
/// [`CryptoError::Randomness`]
pub fn random_array<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| CryptoError::Randomness)?;
    Ok(bytes)
}
