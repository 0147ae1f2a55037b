//! Deterministic (convergent) encryption: equal plaintexts with equal associated data give equal ciphertexts, which is what it is for,
//! and what it leaks. Nothing else: AES-SIV (RFC 5297) has no nonce that could repeat.
//!
//! ```text
//! magic "ADv" | version 1 | suite 1 | key id length 1 | key id | key version 4 BE | commitment 32 | SIV 16 | ciphertext
//! ```
//!
//! Suite 1: HKDF-SHA256 derives, from the long-lived key and the header before the commitment, a key for AES-256-SIV (64 bytes) and the
//! commitment. SIV authenticates two strings: that header, and the caller's data. The synthetic IV is a 128-bit MAC of the plaintext:
//! two different plaintexts meet in it with probability 2^-32 after 2^48 messages under one key version, and would then share a key stream.

use aes_siv::{KeyInit as _, siv::Aes256Siv};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{CryptoError, KeyRef, SecretBytes, SecretKey, envelope::MAX_KEY_ID_BYTES, kdf};

const MAGIC: &[u8; 3] = b"ADv";
const VERSION: u8 = 1;
const SUITE: u8 = 1;
const SIV_KEY_BYTES: usize = 64;
const COMMITMENT_BYTES: usize = 32;
const SIV_BYTES: usize = 16;
const LABEL: &str = "asterism/deterministic/v1";

/// A key that encrypts deterministically; its derived keys are kept, as every message has the same.
pub struct DeterministicKey {
    header: Vec<u8>,
    derived: Zeroizing<[u8; SIV_KEY_BYTES + COMMITMENT_BYTES]>,
}

impl DeterministicKey {
    /// Uses `key` for this, and for nothing else.
    ///
    /// # Errors
    /// [`CryptoError::InvalidParameters`] for an empty or long key id.
    pub fn new(key: &SecretKey, key_ref: &KeyRef) -> Result<Self, CryptoError> {
        let id_bytes = u8::try_from(key_ref.key.len())
            .ok()
            .filter(|bytes| (1..=MAX_KEY_ID_BYTES).contains(&usize::from(*bytes)))
            .ok_or(CryptoError::InvalidParameters("a key id has 1 to 63 bytes"))?;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&[VERSION, SUITE, id_bytes]);
        header.extend_from_slice(key_ref.key.as_bytes());
        header.extend_from_slice(&key_ref.version.to_be_bytes());
        let mut derived = Zeroizing::new([0; SIV_KEY_BYTES + COMMITMENT_BYTES]);
        kdf::expand(key, &[], LABEL, &header, derived.as_mut_slice());
        Ok(Self { header, derived })
    }

    /// Encrypts `plaintext`, bound to `aad`.
    ///
    /// # Errors
    /// None that can happen: RFC 5297 bounds the number of associated strings, which is two.
    pub fn seal(&self, plaintext: &[u8], aad: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let sealed = self
            .cipher()
            .encrypt([self.header.as_slice(), aad], plaintext)
            .map_err(|_| CryptoError::InvalidParameters("the message is too long for AES-SIV"))?;
        Ok([self.header.as_slice(), self.commitment(), &sealed].concat())
    }

    /// Decrypts what [`DeterministicKey::seal`] made.
    ///
    /// # Errors
    /// [`CryptoError::Authentication`] for another key, wrong `aad` or damage alike.
    pub fn open(&self, sealed: &[u8], aad: &[u8]) -> Result<SecretBytes, CryptoError> {
        let rest = sealed
            .strip_prefix(self.header.as_slice())
            .ok_or(CryptoError::Authentication)?;
        let (commitment, body) = rest
            .split_at_checked(COMMITMENT_BYTES)
            .filter(|(_, body)| body.len() >= SIV_BYTES)
            .ok_or(CryptoError::Authentication)?;
        if !bool::from(self.commitment().ct_eq(commitment)) {
            return Err(CryptoError::Authentication);
        }
        self.cipher()
            .decrypt([self.header.as_slice(), aad], body)
            .map(SecretBytes::new)
            .map_err(|_| CryptoError::Authentication)
    }

    fn cipher(&self) -> Aes256Siv {
        Aes256Siv::new_from_slice(&self.derived[..SIV_KEY_BYTES]).expect("64 bytes are an AES-256-SIV key")
    }

    fn commitment(&self) -> &[u8] {
        &self.derived[SIV_KEY_BYTES..]
    }
}

/// Which key a ciphertext names. Trust it only after [`DeterministicKey::open`].
///
/// # Errors
/// [`CryptoError::Malformed`], [`CryptoError::UnsupportedVersion`], [`CryptoError::UnsupportedSuite`].
pub fn parse_header(sealed: &[u8]) -> Result<KeyRef, CryptoError> {
    const MALFORMED: CryptoError = CryptoError::Malformed("deterministic ciphertext");
    let rest = sealed.strip_prefix(MAGIC).ok_or(MALFORMED)?;
    let ([version, suite, id_bytes], rest) = rest.split_first_chunk().ok_or(MALFORMED)?;
    if *version != VERSION {
        return Err(CryptoError::UnsupportedVersion(*version));
    }
    if *suite != SUITE {
        return Err(CryptoError::UnsupportedSuite(*suite));
    }
    let id_bytes = usize::from(*id_bytes);
    if !(1..=MAX_KEY_ID_BYTES).contains(&id_bytes) {
        return Err(MALFORMED);
    }
    let (id, rest) = rest.split_at_checked(id_bytes).ok_or(MALFORMED)?;
    let key = str::from_utf8(id).map_err(|_| MALFORMED)?.to_owned();
    let (version, rest) = rest.split_first_chunk::<4>().ok_or(MALFORMED)?;
    if rest.len() < COMMITMENT_BYTES + SIV_BYTES {
        return Err(MALFORMED);
    }
    let version = u32::from_be_bytes(*version);
    Ok(KeyRef { key, version })
}
