//! The keys of signed notes (C2SP `signed-note` and `tlog-cosignature`).
//!
//! ```text
//! verifier key = name "+" hex(key-id) "+" base64(type || public key)
//!
//! type  algorithm                    public key       key-id, the first 4 bytes of
//! 0x01  Ed25519                      32 bytes         SHA-256(name || 0x0a || 0x01 || public key)
//! 0x02  ECDSA P-256 with SHA-256     SPKI in DER      SHA-256(public key)
//! 0x04  cosignature/v1 by Ed25519    32 bytes         SHA-256(name || 0x0a || 0x04 || public key)
//! ```
//!
//! Signatures are 64 bytes (RFC 8032), ASN.1 DER, and 8 bytes of time followed by 64 bytes.

use std::{fmt, str::FromStr};

use asterism_crypto::{Digest, SecretKey, Signature as EcdsaSignature, VerifyingKey as EcdsaKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::{cosignature, note::NoteSignature};

const ED25519: u8 = 0x01;
const ECDSA: u8 = 0x02;
const COSIGNATURE: u8 = 0x04;

/// The most bytes of a key name.
pub const MAX_NAME: usize = 255;

/// The name of a signer, a URL without its scheme by custom (`audit.example.com/log`): not empty, without spaces, control
/// characters or `+`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName(String);

/// Tells the keys of one name apart; no more than that, for it is short enough to be forged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 4]);

/// A public key with the name of who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: KeyName,
    id: KeyId,
    key: PublicKey,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PublicKey {
    Ed25519(VerifyingKey),
    Ecdsa(EcdsaKey),
    Cosignature(VerifyingKey),
}

/// Why a key was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// See [`KeyName`].
    #[error("a key name has 1 to {MAX_NAME} bytes, and no space, control character or plus sign")]
    Name,
    /// Not three parts of the right form.
    #[error("a verifier key has the form name+hash+base64, where the hash has 8 hexadecimal digits")]
    Form,
    /// An algorithm that is not known here.
    #[error("keys of type {0:#04x} are not known; give one of Ed25519, ECDSA P-256 or cosignature/v1")]
    Type(u8),
    /// No key of its type.
    #[error("the public key is not one of its type")]
    Key,
    /// The key id is not that of the key.
    #[error("the hash {found} is not that of the key, {expected}")]
    Id {
        /// The key's.
        expected: KeyId,
        /// What stands in the text.
        found: KeyId,
    },
}

impl KeyName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let allowed = |c: char| c != '+' && !c.is_whitespace() && !c.is_control();
        if (1..=MAX_NAME).contains(&text.len()) && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(KeyError::Name)
        }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl KeyId {
    /// A key id that stands in a signature.
    pub fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// Its 4 bytes.
    pub fn as_bytes(&self) -> &[u8; 4] {
        &self.0
    }

    fn first_of(digest: &Digest) -> Self {
        let [a, b, c, d, ..] = *digest.as_bytes();
        Self([a, b, c, d])
    }
}

/// 8 hexadecimal digits.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        // `from_str_radix` takes a sign, and either case.
        if text.len() != 8 || !text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(KeyError::Form);
        }
        let id = u32::from_str_radix(text, 16).map_err(|_| KeyError::Form)?;
        Ok(Self(id.to_be_bytes()))
    }
}

impl VerifierKey {
    /// An ECDSA P-256 key, as a key service may hold it.
    pub fn ecdsa(name: KeyName, key: EcdsaKey) -> Self {
        Self::new(name, PublicKey::Ecdsa(key))
    }

    fn new(name: KeyName, key: PublicKey) -> Self {
        let id = match &key {
            PublicKey::Ecdsa(key) => KeyId::first_of(&key.fingerprint()),
            PublicKey::Ed25519(_) | PublicKey::Cosignature(_) => {
                let input = [name.as_str().as_bytes(), b"\n", &key.encode()].concat();
                KeyId::first_of(&Digest::of(&input))
            }
        };
        Self { name, id, key }
    }

    /// Who holds the key.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// Its id.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Whether it is a witness's: its signatures are cosignatures.
    pub fn is_witness(&self) -> bool {
        matches!(self.key, PublicKey::Cosignature(_))
    }

    /// The signature line for a signature that was made elsewhere, such as by a key service: DER for ECDSA P-256, 64 bytes
    /// for Ed25519. `None` when it is not this key's over `text`.
    pub fn signature(&self, text: &str, bytes: Vec<u8>) -> Option<NoteSignature> {
        self.has_signed(text, &bytes).then(|| NoteSignature {
            name: self.name.clone(),
            id: self.id,
            bytes,
        })
    }

    /// Whether these bytes are this key's signature over the text of a note.
    pub fn has_signed(&self, text: &str, signature: &[u8]) -> bool {
        match &self.key {
            PublicKey::Ed25519(key) => ed25519_fits(key, text.as_bytes(), signature),
            PublicKey::Ecdsa(key) => EcdsaSignature::from_der(signature)
                .is_ok_and(|signature| key.verify(text.as_bytes(), &signature).is_ok()),
            PublicKey::Cosignature(key) => cosignature::split(signature).is_some_and(|(time, signature)| {
                ed25519_fits(key, cosignature::message(text, time).as_bytes(), signature)
            }),
        }
    }
}

fn ed25519_fits(key: &VerifyingKey, message: &[u8], signature: &[u8]) -> bool {
    Signature::from_slice(signature).is_ok_and(|signature| key.verify_strict(message, &signature).is_ok())
}

impl PublicKey {
    /// Type and key, as in a verifier key.
    fn encode(&self) -> Vec<u8> {
        let (kind, key) = match self {
            Self::Ed25519(key) => (ED25519, key.as_bytes().to_vec()),
            Self::Ecdsa(key) => (ECDSA, key.to_spki_der()),
            Self::Cosignature(key) => (COSIGNATURE, key.as_bytes().to_vec()),
        };
        [&[kind], key.as_slice()].concat()
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let (kind, bytes) = bytes.split_first().ok_or(KeyError::Form)?;
        let ed25519 = || {
            let bytes = bytes.try_into().map_err(|_| KeyError::Key)?;
            VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Key)
        };
        match *kind {
            ED25519 => ed25519().map(Self::Ed25519),
            COSIGNATURE => ed25519().map(Self::Cosignature),
            ECDSA => {
                let key = EcdsaKey::from_spki_der(bytes).map_err(|_| KeyError::Key)?;
                Ok(Self::Ecdsa(key))
            }
            other => Err(KeyError::Type(other)),
        }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}+{}+{}",
            self.name,
            self.id,
            STANDARD.encode(self.key.encode())
        )
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, rest) = text.split_once('+').ok_or(KeyError::Form)?;
        // Base64 has plus signs of its own: only the first two divide.
        let (id, key) = rest.split_once('+').ok_or(KeyError::Form)?;
        let found: KeyId = id.parse()?;
        let key = PublicKey::decode(&STANDARD.decode(key).map_err(|_| KeyError::Form)?)?;
        let key = Self::new(name.parse()?, key);
        if key.id == found {
            Ok(key)
        } else {
            Err(KeyError::Id {
                expected: key.id,
                found,
            })
        }
    }
}

/// Reads verifier keys, one a line; blank lines and those that begin with `#` are skipped.
///
/// # Errors
/// The number of the first line that is no key, and why.
pub fn parse_keys(text: &str) -> Result<Vec<VerifierKey>, (usize, KeyError)> {
    (1..)
        .zip(text.lines().map(str::trim))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| line.parse().map_err(|error| (number, error)))
        .collect()
}

/// Signs notes with Ed25519 (type 0x01).
pub struct NoteSigner {
    key: SigningKey,
    verifier: VerifierKey,
}

impl NoteSigner {
    /// The signer of that name whose seed this is (RFC 8032, section 5.1.5).
    pub fn new(name: KeyName, seed: &SecretKey) -> Self {
        let key = SigningKey::from_bytes(seed.expose());
        let verifier = VerifierKey::new(name, PublicKey::Ed25519(key.verifying_key()));
        Self { key, verifier }
    }

    /// The key that its signatures are checked with.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Signs the text of a note.
    pub fn sign(&self, text: &str) -> NoteSignature {
        NoteSignature {
            name: self.verifier.name.clone(),
            id: self.verifier.id,
            bytes: self.key.sign(text.as_bytes()).to_bytes().to_vec(),
        }
    }
}

/// Cosigns checkpoints as a witness (type 0x04). Whoever cosigns says to have checked that the log only grew.
pub struct Cosigner {
    key: SigningKey,
    verifier: VerifierKey,
}

impl Cosigner {
    /// The witness of that name whose seed this is. No other signer may have the same seed: a cosignature does not say
    /// which name it is by.
    pub fn new(name: KeyName, seed: &SecretKey) -> Self {
        let key = SigningKey::from_bytes(seed.expose());
        let verifier = VerifierKey::new(name, PublicKey::Cosignature(key.verifying_key()));
        Self { key, verifier }
    }

    /// The key that its cosignatures are checked with.
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// Cosigns the text of a checkpoint at `time`, in seconds since 1970.
    ///
    /// # Errors
    /// [`cosignature::TimeTooLarge`]
    pub fn cosign(&self, text: &str, time: u64) -> Result<NoteSignature, cosignature::TimeTooLarge> {
        cosignature::check_time(time)?;
        let signature = self.key.sign(cosignature::message(text, time).as_bytes());
        Ok(NoteSignature {
            name: self.verifier.name.clone(),
            id: self.verifier.id,
            bytes: [time.to_be_bytes().as_slice(), &signature.to_bytes()].concat(),
        })
    }
}
