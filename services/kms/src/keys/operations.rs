//! What is done with keys. The state of a version, at `now_ms`, says what it may do.

use asterism_crypto::{
    CryptoError, Digest, KeyRef, MacTag, SecretBytes, SecretKey, Signature, VerifyingKey, envelope,
};

use crate::{
    error::KmsError,
    keys::{Key, KeyType, Keyring, lifecycle::Operation, material::Material},
};

/// Largest input of one operation.
pub const MAX_INPUT_BYTES: usize = 64 << 10;

/// A fresh data key.
pub struct DataKey {
    /// The key.
    pub plaintext: SecretKey,
    /// The key wrapped.
    pub wrapped: Vec<u8>,
    /// By which version.
    pub version: u32,
}

/// A ciphertext that was brought under another version.
pub struct ReEncrypted {
    /// The new ciphertext.
    pub ciphertext: Vec<u8>,
    /// The version that the old one was under.
    pub source_version: u32,
    /// The version that the new one is under.
    pub version: u32,
}

impl Keyring {
    /// A fresh data key, wrapped by the primary version.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`], [`KmsError::Field`], [`KmsError::NoActiveVersion`], [`KmsError::VersionState`].
    pub fn generate_data_key(&self, key: &Key, aad: &[u8], now_ms: u64) -> Result<DataKey, KmsError> {
        let plaintext = SecretKey::generate()?;
        let (wrapped, version) = self.encrypt(key, plaintext.expose(), aad, now_ms)?;
        Ok(DataKey {
            plaintext,
            wrapped,
            version,
        })
    }

    /// Encrypts under the primary version; gives the ciphertext and the version.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`], [`KmsError::Field`], [`KmsError::NoActiveVersion`], [`KmsError::VersionState`].
    pub fn encrypt(
        &self,
        key: &Key,
        plaintext: &[u8],
        aad: &[u8],
        now_ms: u64,
    ) -> Result<(Vec<u8>, u32), KmsError> {
        check_size("plaintext", plaintext)?;
        check_size("additional_authenticated_data", aad)?;
        check_type(key, KeyType::Aes256Gcm)?;
        let version = key.protecting(now_ms)?;
        let material = self.material(key, version)?;
        let Material::Aes(secret) = &*material else {
            return Err(wrong_type(key, KeyType::Aes256Gcm));
        };
        let key_ref = KeyRef {
            key: key.id.to_string(),
            version,
        };
        Ok((envelope::seal(secret, &key_ref, plaintext, aad)?, version))
    }

    /// Decrypts; gives the plaintext and the version that the ciphertext names.
    ///
    /// # Errors
    /// [`KmsError::DecryptionFailed`] whatever the cause, [`KmsError::Field`] for what is no ciphertext of this key,
    /// [`KmsError::VersionState`] and [`KmsError::VersionTooOld`] for a version that may not decrypt.
    pub fn decrypt(
        &self,
        key: &Key,
        ciphertext: &[u8],
        aad: &[u8],
        now_ms: u64,
    ) -> Result<(SecretBytes, u32), KmsError> {
        check_size("additional_authenticated_data", aad)?;
        if ciphertext.len() > MAX_INPUT_BYTES + 1024 {
            return Err(too_large("ciphertext"));
        }
        check_type(key, KeyType::Aes256Gcm)?;
        let header = envelope::parse_header(ciphertext)
            .map_err(|_| KmsError::field("ciphertext", "is not a whole ciphertext of this service"))?;
        if header.key_ref.key != key.id.as_str() {
            return Err(KmsError::field(
                "ciphertext",
                "was made by another key; name that one",
            ));
        }
        // A version that never was can only come from an altered ciphertext.
        let version = header.key_ref.version;
        let permitted = key.permit(version, Operation::Process, now_ms);
        permitted.map_err(|error| match error {
            KmsError::VersionNotFound { .. } => KmsError::DecryptionFailed,
            other => other,
        })?;
        let material = self.material(key, version)?;
        let Material::Aes(secret) = &*material else {
            return Err(wrong_type(key, KeyType::Aes256Gcm));
        };
        match envelope::open(secret, ciphertext, aad) {
            Ok(plaintext) => Ok((plaintext, version)),
            Err(CryptoError::Authentication) => Err(KmsError::DecryptionFailed),
            Err(other) => Err(other.into()),
        }
    }

    /// Brings a ciphertext under the primary version of `destination`, which may be the same key. The plaintext lives in here only.
    ///
    /// # Errors
    /// As [`Keyring::decrypt`] and [`Keyring::encrypt`].
    pub fn re_encrypt(
        &self,
        (source, ciphertext, aad): (&Key, &[u8], &[u8]),
        (destination, new_aad): (&Key, &[u8]),
        now_ms: u64,
    ) -> Result<ReEncrypted, KmsError> {
        let (plaintext, source_version) = self.decrypt(source, ciphertext, aad, now_ms)?;
        let (ciphertext, version) = self.encrypt(destination, plaintext.expose(), new_aad, now_ms)?;
        Ok(ReEncrypted {
            ciphertext,
            source_version,
            version,
        })
    }

    /// HMAC-SHA256 by the primary version.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`], [`KmsError::Field`], [`KmsError::NoActiveVersion`], [`KmsError::VersionState`].
    pub fn mac(&self, key: &Key, data: &[u8], now_ms: u64) -> Result<(MacTag, u32), KmsError> {
        check_size("data", data)?;
        check_type(key, KeyType::HmacSha256)?;
        let version = key.protecting(now_ms)?;
        let material = self.material(key, version)?;
        let Material::Mac(secret) = &*material else {
            return Err(wrong_type(key, KeyType::HmacSha256));
        };
        Ok((secret.compute(data), version))
    }

    /// The version under which `mac` is right for `data`; 0 tries them all, newest first.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`], [`KmsError::VersionNotFound`], [`KmsError::Field`].
    pub fn verify_mac(
        &self,
        key: &Key,
        data: &[u8],
        mac: &[u8],
        version: u32,
        now_ms: u64,
    ) -> Result<Option<u32>, KmsError> {
        check_size("data", data)?;
        check_type(key, KeyType::HmacSha256)?;
        self.find_version(key, version, now_ms, |material| match material {
            Material::Mac(secret) => Ok(secret.verify(data, mac).is_ok()),
            _ => Err(wrong_type(key, KeyType::HmacSha256)),
        })
    }

    /// Signs a SHA-256 digest by the primary version.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`]
    pub fn sign(&self, key: &Key, digest: &Digest, now_ms: u64) -> Result<(Signature, u32), KmsError> {
        check_type(key, KeyType::EcSignP256Sha256)?;
        let version = key.protecting(now_ms)?;
        let material = self.material(key, version)?;
        let Material::Sign(secret) = &*material else {
            return Err(wrong_type(key, KeyType::EcSignP256Sha256));
        };
        Ok((secret.sign_digest(digest), version))
    }

    /// The version under which `signature` is right for `digest`; 0 tries them all, newest first.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`], [`KmsError::VersionNotFound`].
    pub fn verify(
        &self,
        key: &Key,
        digest: &Digest,
        signature: &Signature,
        version: u32,
        now_ms: u64,
    ) -> Result<Option<u32>, KmsError> {
        check_type(key, KeyType::EcSignP256Sha256)?;
        self.find_version(key, version, now_ms, |material| match material {
            Material::Sign(secret) => Ok(secret.verifying_key().verify_digest(digest, signature).is_ok()),
            _ => Err(wrong_type(key, KeyType::EcSignP256Sha256)),
        })
    }

    /// The public key of a version; 0 means the primary.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`], [`KmsError::VersionNotFound`].
    pub fn public_key(&self, key: &Key, version: u32, now_ms: u64) -> Result<(VerifyingKey, u32), KmsError> {
        check_type(key, KeyType::EcSignP256Sha256)?;
        let version = match (version, key.primary(now_ms)) {
            (0, 0) => return Err(KmsError::NoActiveVersion(key.id.name())),
            (0, primary) => primary,
            (version, _) => version,
        };
        key.permit(version, Operation::Publish, now_ms)?;
        let material = self.material(key, version)?;
        let Material::Sign(secret) = &*material else {
            return Err(wrong_type(key, KeyType::EcSignP256Sha256));
        };
        Ok((secret.verifying_key(), version))
    }

    /// The version that fits: the given one, or for 0 the newest of those that may be asked.
    fn find_version(
        &self,
        key: &Key,
        version: u32,
        now_ms: u64,
        fits: impl Fn(&Material) -> Result<bool, KmsError>,
    ) -> Result<Option<u32>, KmsError> {
        if version != 0 {
            key.permit(version, Operation::Process, now_ms)?;
            return Ok(fits(&*self.material(key, version)?)?.then_some(version));
        }
        for version in key.versions.iter().rev().map(|version| version.number) {
            let permitted = key.permit(version, Operation::Process, now_ms).is_ok();
            if permitted && fits(&*self.material(key, version)?)? {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }
}

fn check_type(key: &Key, needed: KeyType) -> Result<(), KmsError> {
    if key.key_type == needed {
        Ok(())
    } else {
        Err(wrong_type(key, needed))
    }
}

fn wrong_type(key: &Key, needed: KeyType) -> KmsError {
    KmsError::WrongKeyType {
        key: key.id.name(),
        actual: key.key_type,
        needed,
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
