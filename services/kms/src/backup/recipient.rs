//! To whom a backup is sealed: the holder of a P-256 key, which may follow from a passphrase.
//!
//! Whoever makes the backup learns the public key only. So a passphrase stays with its operator: Argon2id makes of it a private key
//! here, and kms is told the public half and, for the header, how hard and with which salt it was made.

use asterism_crypto::{
    Argon2Params, Context, CryptoError, DecryptionKey, Digest, EncryptionKey, SecretKey, kdf, password,
    random_array, signed::base64_bytes,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::BackupError;

/// A shorter passphrase is guessed too soon.
pub const MIN_PASSPHRASE_BYTES: usize = 12;
const PURPOSE: &str = "asterism/backup-recipient/v1";
const PASSPHRASE_LABEL: &str = "asterism/backup-passphrase/v1";

/// How a passphrase becomes a key. Nothing of it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derivation {
    /// How hard guessing is.
    pub argon2id: Argon2Params,
    /// 16 bytes.
    #[serde(with = "base64_bytes")]
    pub salt: Vec<u8>,
}

impl Derivation {
    fn key(&self, passphrase: &[u8]) -> Result<DecryptionKey, BackupError> {
        let salt = self.salt.as_slice().try_into();
        let salt = salt.map_err(|_| BackupError::Malformed("salt"))?;
        let secret = password::derive_key(passphrase, salt, &self.argon2id)?;
        // One in 2^32 derived numbers is no scalar of the group: then the next.
        for attempt in 0..=u8::MAX {
            let scalar = kdf::derive(&secret, b"", PASSPHRASE_LABEL, &[attempt]);
            if let Ok(key) = DecryptionKey::from_bytes(scalar.expose()) {
                return Ok(key);
            }
        }
        Err(CryptoError::InvalidKey.into())
    }
}

/// To whom a backup is sealed.
#[derive(Clone, Debug)]
pub struct Recipient {
    key: EncryptionKey,
    derivation: Option<Derivation>,
}

impl Recipient {
    /// The holder of this key, which was derived from a passphrase if `derivation` says how.
    pub fn new(key: EncryptionKey, derivation: Option<Derivation>) -> Self {
        Self { key, derivation }
    }

    /// Whoever knows the passphrase; with a fresh salt.
    ///
    /// # Errors
    /// [`BackupError::ShortPassphrase`], [`BackupError::Crypto`].
    pub fn by_passphrase(passphrase: &[u8]) -> Result<Self, BackupError> {
        if passphrase.len() < MIN_PASSPHRASE_BYTES {
            return Err(BackupError::ShortPassphrase(MIN_PASSPHRASE_BYTES));
        }
        let derivation = Derivation {
            argon2id: Argon2Params::default(),
            salt: random_array::<16>()?.to_vec(),
        };
        let key = derivation.key(passphrase)?.encryption_key();
        Ok(Self::new(key, Some(derivation)))
    }

    /// The public key.
    pub fn key(&self) -> &EncryptionKey {
        &self.key
    }

    /// How the key follows from a passphrase, if it does.
    pub fn derivation(&self) -> Option<&Derivation> {
        self.derivation.as_ref()
    }

    pub(crate) fn seal(&self, data_key: &SecretKey) -> Result<SealedKey, BackupError> {
        let fingerprint = self.key.fingerprint();
        Ok(SealedKey {
            sealed: self.key.seal(&info(&fingerprint), b"", data_key.expose())?,
            fingerprint,
            passphrase: self.derivation.clone(),
        })
    }
}

/// The backup's data key as the header has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedKey {
    /// Whom it is sealed to: SHA-256 of the SubjectPublicKeyInfo.
    pub fingerprint: Digest,
    /// How that key follows from a passphrase, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase: Option<Derivation>,
    /// HPKE message.
    #[serde(with = "base64_bytes")]
    sealed: Vec<u8>,
}

/// What opens a backup.
pub enum Opener {
    /// A passphrase.
    Passphrase(Zeroizing<Vec<u8>>),
    /// The private key of the recipient.
    PrivateKey(DecryptionKey),
}

impl Opener {
    pub(crate) fn open(&self, sealed: &SealedKey) -> Result<SecretKey, BackupError> {
        match (self, &sealed.passphrase) {
            (Self::Passphrase(passphrase), Some(derivation)) => {
                let key = derivation.key(passphrase)?;
                if key.encryption_key().fingerprint() != sealed.fingerprint {
                    return Err(BackupError::WrongPassphrase);
                }
                unseal(&key, sealed)
            }
            (Self::PrivateKey(key), None) => {
                let actual = key.encryption_key().fingerprint();
                if actual != sealed.fingerprint {
                    return Err(BackupError::WrongPrivateKey {
                        expected: sealed.fingerprint,
                        actual,
                    });
                }
                unseal(key, sealed)
            }
            (Self::Passphrase(_), None) => Err(BackupError::OtherSealing(
                "to a public key; give the file of its private key",
            )),
            (Self::PrivateKey(_), Some(_)) => Err(BackupError::OtherSealing(
                "with a passphrase; give the file that holds it",
            )),
        }
    }
}

fn unseal(key: &DecryptionKey, sealed: &SealedKey) -> Result<SecretKey, BackupError> {
    let opened = key.open(&info(&sealed.fingerprint), b"", &sealed.sealed);
    let data_key = opened.map_err(|_| BackupError::Altered("the sealed data key"))?;
    SecretKey::try_from_slice(data_key.expose()).map_err(|_| BackupError::Malformed("data key"))
}

fn info(fingerprint: &Digest) -> Vec<u8> {
    Context::new(PURPOSE)
        .field("recipient", &fingerprint.to_string())
        .encode()
}
