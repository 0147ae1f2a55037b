//! One message encrypted under a long-lived key.
//!
//! ```text
//! magic "AEv" | version 1 | suite 1 | key id length 1 | key id | key version 4 BE | salt 32 | commitment 32 | ciphertext | tag 16
//! ```
//!
//! Suite 1: HKDF-SHA256 derives, from the long-lived key and the random salt, an AES-256-GCM key, its nonce and the
//! commitment. Each message has a key of its own, so the limit of random 96-bit nonces (2^32 messages under one key, NIST
//! SP 800-38D) is never near. GCM authenticates the whole header and the caller's data.
//!
//! The bound: n messages under one key version share a salt with probability below n^2 / 2^257. That is 2^-32 after 2^112
//! messages, and 2^-128 after 2^64. A forgery against one message of at most 128 KiB (plaintext and associated data)
//! succeeds with probability below 2^-114 an attempt.
//!
//! The commitment makes the ciphertext fit one key only (Albertini et al., "How to abuse and fix authenticated
//! encryption without key commitment", USENIX Security 2022).

use aes_gcm::{
    Aes256Gcm, KeyInit as _, Nonce,
    aead::{Aead as _, Payload},
};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{CryptoError, SecretBytes, SecretKey, kdf, random_array};

const MAGIC: &[u8; 3] = b"AEv";
const VERSION: u8 = 1;
const SUITE: u8 = 1;
const SALT_BYTES: usize = 32;
const COMMITMENT_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const LABEL: &str = "asterism/envelope/v1";
/// Longest key id.
pub const MAX_KEY_ID_BYTES: usize = 63;

/// Which key a message is encrypted under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRef {
    /// Key id, 1–63 bytes.
    pub key: String,
    /// From 1.
    pub version: u32,
}

/// What an envelope says of itself in the clear. Trust it only after [`open`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeHeader {
    /// Which key opens it.
    pub key_ref: KeyRef,
    /// Algorithm suite; 1 is the only one.
    pub suite: u8,
    /// Bytes before the ciphertext.
    pub header_bytes: usize,
    /// Bytes of the message inside.
    pub plaintext_bytes: usize,
}

/// Encrypts `plaintext` under `key`, bound to `aad`.
///
/// # Errors
/// [`CryptoError::InvalidParameters`] for an empty or long key id, [`CryptoError::Randomness`].
pub fn seal(key: &SecretKey, key_ref: &KeyRef, plaintext: &[u8], aad: &[u8]) -> Result<Vec<u8>, CryptoError> {
    seal_with_salt(key, key_ref, plaintext, aad, &random_array()?)
}

/// Decrypts an envelope.
///
/// # Errors
/// [`CryptoError::Authentication`] for a wrong key, wrong `aad` or damage alike; the other variants for bytes that are no
/// envelope of a known version.
pub fn open(key: &SecretKey, envelope: &[u8], aad: &[u8]) -> Result<SecretBytes, CryptoError> {
    let header = parse_header(envelope)?;
    let (head, ciphertext) = envelope.split_at(header.header_bytes);
    let (preamble, rest) = head.split_at(head.len() - SALT_BYTES - COMMITMENT_BYTES);
    let (salt, commitment) = rest.split_at(SALT_BYTES);
    let derived = Derived::new(key, salt, preamble);
    if !bool::from(derived.commitment().ct_eq(commitment)) {
        return Err(CryptoError::Authentication);
    }
    let payload = Payload {
        msg: ciphertext,
        aad: &authenticated(head, aad),
    };
    let plaintext = derived
        .cipher()
        .decrypt(&derived.nonce(), payload)
        .map_err(|_| CryptoError::Authentication)?;
    Ok(SecretBytes::new(plaintext))
}

/// Reads the header, which names the key; nothing of it is authenticated yet.
///
/// # Errors
/// [`CryptoError::Malformed`], [`CryptoError::UnsupportedVersion`], [`CryptoError::UnsupportedSuite`].
pub fn parse_header(envelope: &[u8]) -> Result<EnvelopeHeader, CryptoError> {
    const MALFORMED: CryptoError = CryptoError::Malformed("envelope");
    let rest = envelope.strip_prefix(MAGIC).ok_or(MALFORMED)?;
    let [version, rest @ ..] = rest else {
        return Err(MALFORMED);
    };
    if *version != VERSION {
        return Err(CryptoError::UnsupportedVersion(*version));
    }
    let [suite, rest @ ..] = rest else {
        return Err(MALFORMED);
    };
    if *suite != SUITE {
        return Err(CryptoError::UnsupportedSuite(*suite));
    }
    let [id_bytes, rest @ ..] = rest else {
        return Err(MALFORMED);
    };
    let id_bytes = usize::from(*id_bytes);
    if !(1..=MAX_KEY_ID_BYTES).contains(&id_bytes) {
        return Err(MALFORMED);
    }
    let (id, rest) = rest.split_at_checked(id_bytes).ok_or(MALFORMED)?;
    let key = str::from_utf8(id).map_err(|_| MALFORMED)?.to_owned();
    let (version, rest) = rest.split_first_chunk::<4>().ok_or(MALFORMED)?;
    let body = rest.get(SALT_BYTES + COMMITMENT_BYTES..).ok_or(MALFORMED)?;
    let plaintext_bytes = body.len().checked_sub(TAG_BYTES).ok_or(MALFORMED)?;
    Ok(EnvelopeHeader {
        key_ref: KeyRef {
            key,
            version: u32::from_be_bytes(*version),
        },
        suite: *suite,
        header_bytes: envelope.len() - body.len(),
        plaintext_bytes,
    })
}

pub(crate) fn seal_with_salt(
    key: &SecretKey,
    key_ref: &KeyRef,
    plaintext: &[u8],
    aad: &[u8],
    salt: &[u8; SALT_BYTES],
) -> Result<Vec<u8>, CryptoError> {
    let id_bytes = u8::try_from(key_ref.key.len())
        .ok()
        .filter(|bytes| (1..=MAX_KEY_ID_BYTES).contains(&usize::from(*bytes)))
        .ok_or(CryptoError::InvalidParameters("a key id has 1 to 63 bytes"))?;
    let mut envelope = Vec::with_capacity(MAX_KEY_ID_BYTES + 128 + plaintext.len());
    envelope.extend_from_slice(MAGIC);
    envelope.extend_from_slice(&[VERSION, SUITE, id_bytes]);
    envelope.extend_from_slice(key_ref.key.as_bytes());
    envelope.extend_from_slice(&key_ref.version.to_be_bytes());
    let derived = Derived::new(key, salt, &envelope);
    envelope.extend_from_slice(salt);
    envelope.extend_from_slice(derived.commitment());
    let payload = Payload {
        msg: plaintext,
        aad: &authenticated(&envelope, aad),
    };
    let ciphertext = derived
        .cipher()
        .encrypt(&derived.nonce(), payload)
        .map_err(|_| CryptoError::InvalidParameters("the message is too long for AES-GCM"))?;
    envelope.extend_from_slice(&ciphertext);
    Ok(envelope)
}

/// Key (32), nonce (12) and commitment (32) of one message.
struct Derived(Zeroizing<[u8; 76]>);

impl Derived {
    fn new(key: &SecretKey, salt: &[u8], preamble: &[u8]) -> Self {
        let mut bytes = Zeroizing::new([0; 76]);
        kdf::expand(key, salt, LABEL, preamble, bytes.as_mut_slice());
        Self(bytes)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new_from_slice(&self.0[..32]).expect("32 bytes are an AES-256 key")
    }

    fn nonce(&self) -> Nonce<aes_gcm::aead::consts::U12> {
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&self.0[32..44]);
        nonce.into()
    }

    fn commitment(&self) -> &[u8] {
        &self.0[44..]
    }
}

/// What GCM authenticates: the header with its length, then the caller's data.
fn authenticated(header: &[u8], aad: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_be_bytes(), header, aad].concat()
}
