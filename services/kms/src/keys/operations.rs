//! What is done with keys. The state of a version, at `now_ms`, says what it may do.
//!
//! [`Protector`] and [`Processor`] unwrap what they need once, for one message or a thousand.

mod agreement;
mod ciphers;
mod macs;
mod signatures;
mod wrapping;

use std::{cell::RefCell, sync::Arc};

use asterism_crypto::KeyRef;

use crate::{
    error::KmsError,
    keys::{Key, KeyType, Keyring, lifecycle::Operation, material::Material},
};

pub use agreement::PublicKey;
pub use ciphers::{DataKey, ReEncrypted};

/// Largest input of one operation.
pub const MAX_INPUT_BYTES: usize = 64 << 10;

/// What a key is asked to do, and so of which type it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Encrypt and decrypt.
    Encrypt,
    /// Make data keys.
    MakeDataKeys,
    /// Make and check MACs.
    Authenticate,
    /// Sign and verify.
    Sign,
    /// Decrypt what was encrypted to a public key.
    DecryptAsymmetric,
    /// Agree on a secret.
    Agree,
    /// Wrap and unwrap keys.
    Wrap,
    /// Have a public key.
    Publish,
}

impl Purpose {
    fn allows(self, key_type: KeyType) -> bool {
        match self {
            Self::Encrypt => matches!(key_type, KeyType::Aes256Gcm | KeyType::Aes256Siv),
            Self::MakeDataKeys => key_type == KeyType::Aes256Gcm,
            Self::Authenticate => matches!(key_type, KeyType::HmacSha256 | KeyType::HmacSha512),
            Self::Sign => key_type == KeyType::EcSignP256Sha256,
            Self::DecryptAsymmetric => key_type == KeyType::EcP256Hpke,
            Self::Agree => key_type == KeyType::EcP256Ecdh,
            Self::Wrap => key_type == KeyType::Aes256Kwp,
            Self::Publish => matches!(
                key_type,
                KeyType::EcSignP256Sha256 | KeyType::EcP256Hpke | KeyType::EcP256Ecdh
            ),
        }
    }

    /// The types that serve, for people.
    fn needed(self) -> &'static str {
        match self {
            Self::Encrypt => "AES_256_GCM or AES_256_SIV",
            Self::MakeDataKeys => "AES_256_GCM",
            Self::Authenticate => "HMAC_SHA256 or HMAC_SHA512",
            Self::Sign => "EC_SIGN_P256_SHA256",
            Self::DecryptAsymmetric => "EC_P256_HPKE",
            Self::Agree => "EC_P256_ECDH",
            Self::Wrap => "AES_256_KWP",
            Self::Publish => "EC_SIGN_P256_SHA256, EC_P256_HPKE or EC_P256_ECDH",
        }
    }

    pub(crate) fn check(self, key: &Key) -> Result<(), KmsError> {
        if self.allows(key.key_type) {
            return Ok(());
        }
        Err(self.wrong_type(key))
    }

    fn wrong_type(self, key: &Key) -> KmsError {
        KmsError::WrongKeyType {
            key: key.id.name(),
            actual: key.key_type,
            needed: self.needed().to_owned(),
        }
    }
}

/// The primary version of a key, ready to encrypt, sign or authenticate.
pub struct Protector<'a> {
    key: &'a Key,
    purpose: Purpose,
    version: u32,
    /// How ciphertexts name the version.
    key_ref: KeyRef,
    material: Arc<Material>,
}

impl Protector<'_> {
    /// Which version it is.
    pub fn version(&self) -> u32 {
        self.version
    }

    fn wrong_type(&self) -> KmsError {
        self.purpose.wrong_type(self.key)
    }
}

/// The versions of a key that decrypt or verify, each unwrapped at its first use.
pub struct Processor<'a> {
    keyring: &'a Keyring,
    key: &'a Key,
    purpose: Purpose,
    now_ms: u64,
    opened: RefCell<Vec<(u32, Arc<Material>)>>,
}

impl Processor<'_> {
    /// The material of a version, if that may decrypt or verify now.
    fn material(&self, version: u32) -> Result<Arc<Material>, KmsError> {
        self.key.permit(version, Operation::Process, self.now_ms)?;
        let mut opened = self.opened.borrow_mut();
        if let Some((_, material)) = opened.iter().find(|(number, _)| *number == version) {
            return Ok(material.clone());
        }
        let material = self.keyring.material(self.key, version)?;
        opened.push((version, material.clone()));
        Ok(material)
    }

    /// The version that fits, and what `fits` gave for it: of the given one, or for 0 the newest of those that may be asked.
    fn find<T>(
        &self,
        version: u32,
        fits: impl Fn(&Material) -> Result<Option<T>, KmsError>,
    ) -> Result<Option<(T, u32)>, KmsError> {
        if version != 0 {
            let found = fits(&*self.material(version)?)?;
            return Ok(found.map(|found| (found, version)));
        }
        for version in self.key.versions.iter().rev().map(|version| version.number) {
            if self.key.permit(version, Operation::Process, self.now_ms).is_err() {
                continue;
            }
            if let Some(found) = fits(&*self.material(version)?)? {
                return Ok(Some((found, version)));
            }
        }
        Ok(None)
    }

    fn wrong_type(&self) -> KmsError {
        self.purpose.wrong_type(self.key)
    }
}

impl Keyring {
    /// The primary version, ready.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`], [`KmsError::NoActiveVersion`], [`KmsError::VersionState`].
    pub fn protector<'a>(
        &self,
        key: &'a Key,
        purpose: Purpose,
        now_ms: u64,
    ) -> Result<Protector<'a>, KmsError> {
        purpose.check(key)?;
        let version = key.protecting(now_ms)?;
        Ok(Protector {
            key,
            purpose,
            version,
            key_ref: key.reference(version),
            material: self.material(key, version)?,
        })
    }

    /// All versions, ready to decrypt or verify.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`]
    pub fn processor<'a>(
        &'a self,
        key: &'a Key,
        purpose: Purpose,
        now_ms: u64,
    ) -> Result<Processor<'a>, KmsError> {
        purpose.check(key)?;
        Ok(Processor {
            keyring: self,
            key,
            purpose,
            now_ms,
            opened: RefCell::default(),
        })
    }
}

fn check_size(field: &'static str, bytes: &[u8]) -> Result<(), KmsError> {
    if bytes.len() > MAX_INPUT_BYTES {
        Err(too_large(field))
    } else {
        Ok(())
    }
}

fn too_large(field: &'static str) -> KmsError {
    KmsError::field(
        field,
        "has at most 64 KiB; encrypt more with a data key from GenerateDataKey",
    )
}
