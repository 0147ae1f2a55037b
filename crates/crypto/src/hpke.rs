//! Encryption to a public key: HPKE (RFC 9180), base mode, one message per encapsulation.
//!
//! ```text
//! message = enc 65 (uncompressed point) | ciphertext | tag 16
//! ```
//!
//! Suite: DHKEM(P-256, HKDF-SHA256) 0x0010, HKDF-SHA256 0x0001, AES-256-GCM 0x0002. The sender is not authenticated: whoever has the
//! public key can make a message. `info` binds the purpose, `aad` whatever else both sides know.

use hpke::{
    Deserializable as _, OpModeR, OpModeS, Serializable as _, aead::AesGcm256, kdf::HkdfSha256,
    kem::DhP256HkdfSha256 as Kem,
};
use p256::{
    elliptic_curve::sec1::ToSec1Point as _,
    pkcs8::{
        DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, LineEnding,
    },
};

use crate::{CryptoError, Digest, SecretBytes, SecretKey};

/// Bytes of the encapsulated key that a message begins with.
const ENC_BYTES: usize = 65;
const TAG_BYTES: usize = 16;
/// What a message has besides its plaintext.
pub const OVERHEAD_BYTES: usize = ENC_BYTES + TAG_BYTES;

/// A private P-256 key that decrypts, or agrees on secrets; wiped on drop.
pub struct DecryptionKey(p256::SecretKey);

impl DecryptionKey {
    /// A fresh key.
    ///
    /// # Errors
    /// [`CryptoError::Randomness`]
    pub fn generate() -> Result<Self, CryptoError> {
        loop {
            // As for signing keys: 32 random bytes are no scalar of the group with probability 2^-32.
            let bytes = SecretKey::generate()?;
            if let Ok(key) = Self::from_bytes(bytes.expose()) {
                return Ok(key);
            }
        }
    }

    /// A key from its scalar, 32 bytes big-endian.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKey`] when that is not in 1..n.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CryptoError> {
        // `from_slice` would take fewer bytes as well.
        if bytes.len() != 32 {
            return Err(CryptoError::InvalidKey);
        }
        p256::SecretKey::from_slice(bytes)
            .map(Self)
            .map_err(|_| CryptoError::InvalidKey)
    }

    /// Reads PKCS#8 in PEM, as `openssl genpkey` writes it.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKey`] for anything but an unencrypted P-256 key.
    pub fn from_pem(pem: &str) -> Result<Self, CryptoError> {
        p256::SecretKey::from_pkcs8_pem(pem)
            .map(Self)
            .map_err(|_| CryptoError::InvalidKey)
    }

    /// PKCS#8 in PEM, unencrypted.
    pub fn to_pem(&self) -> zeroize::Zeroizing<String> {
        self.0
            .to_pkcs8_pem(LineEnding::LF)
            .expect("a scalar of P-256 has a PKCS#8 form")
    }

    /// The scalar, 32 bytes big-endian.
    pub fn to_secret_bytes(&self) -> SecretBytes {
        SecretBytes::new(self.0.to_bytes().to_vec())
    }

    /// The public key.
    pub fn encryption_key(&self) -> EncryptionKey {
        EncryptionKey(self.0.public_key())
    }

    /// Decrypts what [`EncryptionKey::seal`] made.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`] for what is too short to be a message; [`CryptoError::Authentication`] for a wrong key, `info` or
    /// `aad`, and for damage, alike.
    pub fn open(&self, info: &[u8], aad: &[u8], message: &[u8]) -> Result<SecretBytes, CryptoError> {
        const MALFORMED: CryptoError = CryptoError::Malformed("HPKE message");
        let (enc, ciphertext) = message.split_at_checked(ENC_BYTES).ok_or(MALFORMED)?;
        if ciphertext.len() < TAG_BYTES {
            return Err(MALFORMED);
        }
        let scalar = zeroize::Zeroizing::new(self.0.to_bytes());
        let key = <Kem as hpke::Kem>::PrivateKey::from_bytes(&scalar).map_err(|_| CryptoError::InvalidKey)?;
        let enc =
            <Kem as hpke::Kem>::EncappedKey::from_bytes(enc).map_err(|_| CryptoError::Authentication)?;
        hpke::single_shot_open::<AesGcm256, HkdfSha256, Kem>(
            &OpModeR::Base,
            &key,
            &enc,
            info,
            ciphertext,
            aad,
        )
        .map(SecretBytes::new)
        .map_err(|_| CryptoError::Authentication)
    }

    /// ECDH with `peer` (SP 800-56A, 5.7.1.2): the x-coordinate, 32 bytes. Not uniform: derive keys from it.
    pub fn shared_secret(&self, peer: &EncryptionKey) -> SecretKey {
        let shared = p256::ecdh::diffie_hellman(self.0.to_nonzero_scalar(), peer.0.as_affine());
        SecretKey::from_bytes((*shared.raw_secret_bytes()).into())
    }
}

/// A public P-256 key to encrypt to, or to agree on secrets with. A point of the curve, and not the one at infinity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptionKey(p256::PublicKey);

impl EncryptionKey {
    /// SubjectPublicKeyInfo (RFC 5480) in PEM.
    pub fn to_pem(&self) -> String {
        self.0
            .to_public_key_pem(LineEnding::LF)
            .expect("a point of P-256 has an SPKI form")
    }

    /// Reads SubjectPublicKeyInfo in PEM.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKey`] for anything but a P-256 key.
    pub fn from_pem(pem: &str) -> Result<Self, CryptoError> {
        p256::PublicKey::from_public_key_pem(pem)
            .map(Self)
            .map_err(|_| CryptoError::InvalidKey)
    }

    /// Reads SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKey`] for anything but a P-256 key.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, CryptoError> {
        p256::PublicKey::from_public_key_der(der)
            .map(Self)
            .map_err(|_| CryptoError::InvalidKey)
    }

    /// SHA-256 of the SubjectPublicKeyInfo in DER.
    pub fn fingerprint(&self) -> Digest {
        let der = self.0.to_public_key_der();
        Digest::of(der.expect("a point of P-256 has an SPKI form").as_bytes())
    }

    /// Encrypts to this key.
    ///
    /// # Errors
    /// [`CryptoError::InvalidParameters`] for a message that is too long for AES-GCM.
    pub fn seal(&self, info: &[u8], aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let point = self.0.to_sec1_point(false);
        let key = <Kem as hpke::Kem>::PublicKey::from_bytes(point.as_bytes())
            .map_err(|_| CryptoError::InvalidKey)?;
        let (enc, ciphertext) =
            hpke::single_shot_seal::<AesGcm256, HkdfSha256, Kem>(&OpModeS::Base, &key, info, plaintext, aad)
                .map_err(|_| CryptoError::InvalidParameters("the message is too long for AES-GCM"))?;
        Ok([enc.to_bytes().as_slice(), &ciphertext].concat())
    }
}
