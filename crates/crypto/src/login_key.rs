//! Keys that people and services log in with: how they lie in a file, and what they sign.

use p256::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, LineEnding};
use zeroize::Zeroizing;

use crate::{Context, CryptoError, Digest, SigningKey, VerifyingKey};

/// Reads a private key: PKCS#8 in PEM (RFC 5958, RFC 7468), as `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` writes it.
///
/// # Errors
/// [`CryptoError::InvalidKey`] for anything but a P-256 key.
pub fn from_pem(pem: &str) -> Result<SigningKey, CryptoError> {
    let key = p256::SecretKey::from_pkcs8_pem(pem).map_err(|_| CryptoError::InvalidKey)?;
    let scalar = Zeroizing::new(<[u8; 32]>::from(key.to_bytes()));
    SigningKey::from_bytes(scalar.as_slice())
}

/// The private key as [`from_pem`] reads it: handle with care.
pub fn to_pem(key: &SigningKey) -> Zeroizing<String> {
    let key = p256::SecretKey::from_slice(key.to_secret_bytes().expose())
        .expect("a signing key is a scalar of P-256");
    key.to_pkcs8_pem(LineEnding::LF)
        .expect("a scalar of P-256 has a PKCS#8 form")
}

/// What a key signs to log in: good for one challenge, one principal, one audience and one sender (a static key of the channel as
/// text, or `loopback`).
pub fn login_statement(challenge: &[u8], principal: &str, audience: &[String], sender: &str) -> Vec<u8> {
    Context::new("asterism/key-login/v1")
        .field("challenge", &hex::encode(challenge))
        .field("principal", principal)
        .field("audience", &audience.join(" "))
        .field("sender", sender)
        .encode()
}

/// What a key signs to show, when an invitation is used up, that its private half is there.
pub fn enrolment_statement(invitation: &str, principal: &str, public: &VerifyingKey) -> Vec<u8> {
    Context::new("asterism/enrol-key/v1")
        .field("invitation", &Digest::of(invitation.as_bytes()).to_string())
        .field("principal", principal)
        .field("key", &public.fingerprint().to_string())
        .encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`, and its public half by `openssl pkey -pubout`.
    const OPENSSL: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgHuXw7/QA4gOA9ZsR
utm/L7tawaU74X4Ee3Pv88EYbhGhRANCAARibu34YbG0mGtRUSB+Ol9iLUCVirWB
Qc5KH/UVjOeoPNmAPP0kcvphh6D2nAVGED3ClShK7/j/H4lAOZ/OxtO2
-----END PRIVATE KEY-----
";
    const OPENSSL_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYm7t+GGxtJhrUVEgfjpfYi1AlYq1
gUHOSh/1FYznqDzZgDz9JHL6YYeg9pwFRhA9wpUoSu/4/x+JQDmfzsbTtg==
-----END PUBLIC KEY-----
";

    #[test]
    fn a_key_of_openssl_is_read() {
        let key = from_pem(OPENSSL).expect("read");
        assert_eq!(key.verifying_key().to_pem(), OPENSSL_PUBLIC);
    }

    #[test]
    fn keys_read_back_and_others_are_refused() {
        let key = SigningKey::generate().expect("a key");
        let again = from_pem(&to_pem(&key)).expect("read");
        assert_eq!(again.verifying_key(), key.verifying_key());
        assert!(from_pem(&key.verifying_key().to_pem()).is_err());
        assert!(from_pem("").is_err());
    }

    #[test]
    fn statements_differ_in_every_part() {
        let audience = ["kms".to_owned(), "audit".to_owned()];
        let base = login_statement(&[1; 32], "user/alice", &audience, "loopback");
        for other in [
            login_statement(&[2; 32], "user/alice", &audience, "loopback"),
            login_statement(&[1; 32], "user/bob", &audience, "loopback"),
            login_statement(&[1; 32], "user/alice", &audience[..1], "loopback"),
            login_statement(&[1; 32], "user/alice", &audience, "asx1"),
        ] {
            assert_ne!(other, base);
        }
    }
}
