//! What keys of each type make, and whether it is still good.

use asterism_crypto::{DecryptionKey, EncryptionKey, Signature};

use super::*;

/// Something that exists because of one version: a ciphertext, a MAC, a signature, a wrapped key, a message to the public key, or a secret
/// that was agreed on with the holder of the key `peer`.
pub(super) struct Made {
    pub(super) version: u32,
    pub(super) text: Vec<u8>,
    bytes: Vec<u8>,
    peer: Option<EncryptionKey>,
}

impl Made {
    pub(super) fn ciphertext(version: u32, text: Vec<u8>, bytes: Vec<u8>) -> Self {
        Self {
            version,
            text,
            bytes,
            peer: None,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Whether ciphertexts of the type name their version, and can be brought under another.
pub(super) fn re_encrypts(key_type: KeyType) -> bool {
    matches!(key_type, KeyType::Aes256Gcm | KeyType::Aes256Siv)
}

/// Whether others make what the key undoes, with its public half; or it is made with either half.
pub(super) fn is_made_with_the_public_half(key_type: KeyType) -> bool {
    matches!(key_type, KeyType::EcP256Hpke | KeyType::EcP256Ecdh)
}

/// Makes one thing of each text, all at once as a batch does.
pub(super) fn make(
    keyring: &Keyring,
    key: &Key,
    texts: Vec<Vec<u8>>,
    now: u64,
) -> Result<Vec<Made>, KmsError> {
    let protector = |purpose| keyring.protector(key, purpose, now);
    match key.key_type {
        KeyType::Aes256Gcm | KeyType::Aes256Siv => {
            let protector = protector(Purpose::Encrypt)?;
            each(texts, |text| {
                Ok((protector.version(), protector.encrypt(text, b"aad")?))
            })
        }
        KeyType::HmacSha256 | KeyType::HmacSha512 => {
            let protector = protector(Purpose::Authenticate)?;
            each(texts, |text| Ok((protector.version(), protector.mac(text)?)))
        }
        KeyType::EcSignP256Sha256 => {
            let protector = protector(Purpose::Sign)?;
            each(texts, |text| {
                let signature = protector.sign(&Digest::of(text))?;
                Ok((protector.version(), signature.to_der()))
            })
        }
        KeyType::Aes256Kwp => each(texts, |text| {
            let (wrapped, version) = keyring.wrap_key(key, text, now)?;
            Ok((version, wrapped))
        }),
        KeyType::EcP256Hpke => {
            let (public, version) = public(keyring, key, now)?;
            each(texts, |text| {
                Ok((version, public.seal(b"info", b"aad", text).expect("sealed")))
            })
        }
        KeyType::EcP256Ecdh => {
            let (public, version) = public(keyring, key, now)?;
            let agreed = texts.into_iter().map(|text| {
                let other = DecryptionKey::generate().expect("a key");
                Made {
                    version,
                    text,
                    bytes: other.shared_secret(&public).expose().to_vec(),
                    peer: Some(other.encryption_key()),
                }
            });
            Ok(agreed.collect())
        }
    }
}

fn each(
    texts: Vec<Vec<u8>>,
    mut make: impl FnMut(&[u8]) -> Result<(u32, Vec<u8>), KmsError>,
) -> Result<Vec<Made>, KmsError> {
    let made = texts.into_iter().map(|text| {
        let (version, bytes) = make(&text)?;
        Ok(Made::ciphertext(version, text, bytes))
    });
    made.collect()
}

fn public(keyring: &Keyring, key: &Key, now: u64) -> Result<(EncryptionKey, u32), KmsError> {
    match keyring.public_key(key, 0, now)? {
        (PublicKey::Encrypt(public), version) => Ok((public, version)),
        (PublicKey::Verify(_), _) => panic!("not a key to encrypt to"),
    }
}

/// Undoes or verifies what was made, once by the version that made it and once, where a caller need not name it, by all; `None` when the
/// key may not, and a panic or a failed assertion when it is neither good nor refused by the rules.
pub(super) fn is_good(keyring: &Keyring, key: &Key, made: &Made, now: u64) -> Result<bool, TestCaseError> {
    let by_its_version = undo(keyring, key, made, made.version, now)?;
    // What is agreed on says nothing of the version, and 0 is the primary one there.
    if key.key_type != KeyType::EcP256Ecdh {
        prop_assert_eq!(undo(keyring, key, made, 0, now)?, by_its_version);
    }
    Ok(by_its_version)
}

fn undo(keyring: &Keyring, key: &Key, made: &Made, version: u32, now: u64) -> Result<bool, TestCaseError> {
    let found = |found: Result<Option<u32>, KmsError>| found.map(|by| by.map(|by| (made.text.clone(), by)));
    let opened = |opened: Result<(SecretBytes, u32), KmsError>| {
        opened.map(|(text, by)| Some((text.expose().to_vec(), by)))
    };
    let done = match key.key_type {
        KeyType::Aes256Gcm | KeyType::Aes256Siv => opened(keyring.decrypt(key, &made.bytes, b"aad", now)),
        KeyType::HmacSha256 | KeyType::HmacSha512 => {
            found(keyring.verify_mac(key, &made.text, &made.bytes, version, now))
        }
        KeyType::EcSignP256Sha256 => {
            let signature = Signature::from_der(&made.bytes).expect("DER");
            found(keyring.verify(key, &Digest::of(&made.text), &signature, version, now))
        }
        KeyType::Aes256Kwp => opened(keyring.unwrap_key(key, &made.bytes, version, now)),
        KeyType::EcP256Hpke => {
            opened(keyring.decrypt_asymmetric(key, &made.bytes, (b"info", b"aad"), version, now))
        }
        KeyType::EcP256Ecdh => {
            let peer = made.peer.as_ref().expect("agreed with somebody");
            keyring.agree(key, peer, version, now).map(|(secret, by)| {
                let same = secret.expose().as_slice() == made.bytes.as_slice();
                same.then(|| (made.text.clone(), by))
            })
        }
    };
    match done {
        Ok(Some(undone)) => {
            prop_assert_eq!(undone, (made.text.clone(), made.version));
            Ok(true)
        }
        Err(KmsError::VersionState { .. } | KmsError::VersionTooOld { .. }) => Ok(false),
        // Of all versions that may be asked, none fits.
        Ok(None) | Err(KmsError::DecryptionFailed) if version == 0 => Ok(false),
        Ok(None) => Err(TestCaseError::fail("it is not what its version made")),
        Err(error) => Err(TestCaseError::fail(error.to_string())),
    }
}
