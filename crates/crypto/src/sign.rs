//! ECDSA over P-256 with SHA-256 (FIPS 186-5), deterministic (RFC 6979).

use p256::{
    ecdsa::{
        self,
        signature::{
            Signer as _, Verifier as _,
            hazmat::{PrehashSigner as _, PrehashVerifier as _},
        },
    },
    pkcs8::{DecodePublicKey as _, EncodePublicKey as _, LineEnding},
};

use crate::{CryptoError, Digest, SecretBytes, SecretKey};

/// A private key; wiped on drop.
pub struct SigningKey(ecdsa::SigningKey);

impl SigningKey {
    /// A fresh key.
    ///
    /// # Errors
    /// [`CryptoError::Randomness`]
    pub fn generate() -> Result<Self, CryptoError> {
        loop {
            // 32 random bytes are no scalar of the group with probability 2^-32: draw again (FIPS 186-5, A.2.2).
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
        ecdsa::SigningKey::from_slice(bytes)
            .map(Self)
            .map_err(|_| CryptoError::InvalidKey)
    }

    /// The scalar, 32 bytes big-endian.
    pub fn to_secret_bytes(&self) -> SecretBytes {
        SecretBytes::new(self.0.to_bytes().to_vec())
    }

    /// Signs the SHA-256 of `message`.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message))
    }

    /// Signs a digest that was computed elsewhere.
    pub fn sign_digest(&self, digest: &Digest) -> Signature {
        Signature(
            self.0
                .sign_prehash(digest.as_bytes())
                .expect("32 bytes are long enough for P-256"),
        )
    }

    /// The public key.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(*self.0.verifying_key())
    }
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey(ecdsa::VerifyingKey);

impl VerifyingKey {
    /// SubjectPublicKeyInfo (RFC 5480) in DER.
    pub fn to_spki_der(&self) -> Vec<u8> {
        self.0
            .to_public_key_der()
            .expect("a point of P-256 has an SPKI form")
            .into_vec()
    }

    /// Reads SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKey`] for anything but a P-256 key.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, CryptoError> {
        ecdsa::VerifyingKey::from_public_key_der(der)
            .map(Self)
            .map_err(|_| CryptoError::InvalidKey)
    }

    /// SubjectPublicKeyInfo in PEM (RFC 7468).
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
        ecdsa::VerifyingKey::from_public_key_pem(pem)
            .map(Self)
            .map_err(|_| CryptoError::InvalidKey)
    }

    /// Checks a signature over the SHA-256 of `message`.
    ///
    /// # Errors
    /// [`CryptoError::InvalidSignature`]
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), CryptoError> {
        self.0
            .verify(message, &signature.0)
            .map_err(|_| CryptoError::InvalidSignature)
    }

    /// Checks a signature over a digest that was computed elsewhere.
    ///
    /// # Errors
    /// [`CryptoError::InvalidSignature`]
    pub fn verify_digest(&self, digest: &Digest, signature: &Signature) -> Result<(), CryptoError> {
        self.0
            .verify_prehash(digest.as_bytes(), &signature.0)
            .map_err(|_| CryptoError::InvalidSignature)
    }

    /// SHA-256 of the SubjectPublicKeyInfo in DER.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.to_spki_der())
    }
}

/// A signature `(r, s)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature(ecdsa::Signature);

impl Signature {
    /// ASN.1 DER (RFC 3279).
    pub fn to_der(&self) -> Vec<u8> {
        self.0.to_der().as_bytes().to_vec()
    }

    /// Reads DER; other encodings of the same numbers (BER) are refused.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`]
    pub fn from_der(der: &[u8]) -> Result<Self, CryptoError> {
        ecdsa::Signature::from_der(der)
            .map(Self)
            .map_err(|_| CryptoError::Malformed("DER signature"))
    }

    /// `r || s`, 32 bytes each (IEEE P1363).
    pub fn to_fixed(&self) -> [u8; 64] {
        self.0.to_bytes().into()
    }

    /// Reads `r || s`.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`] for another length or numbers outside 1..n.
    pub fn from_fixed(bytes: &[u8]) -> Result<Self, CryptoError> {
        ecdsa::Signature::from_slice(bytes)
            .map(Self)
            .map_err(|_| CryptoError::Malformed("fixed-size signature"))
    }
}
