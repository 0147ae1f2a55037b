//! Authentication codes and signatures; those of the latter that an outsider can check, an outsider checks.

use asterism_proto::kms::{
    AsymmetricSignRequest, AsymmetricVerifyRequest, GetPublicKeyRequest, VerifyMacRequest,
    asymmetric_sign_request, asymmetric_verify_request,
};
use p256::{
    ecdsa::{DerSignature, VerifyingKey, signature::Verifier as _},
    pkcs8::DecodePublicKey as _,
};
use sha2::{Digest as _, Sha256};
use tonic::Code;

use crate::support::{World, make_keys, refusal, refused};

#[tokio::test(flavor = "multi_thread")]
async fn a_mac_is_right_for_its_data_under_any_version() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let (mac, version) = kms.generate_mac("mac", b"data").await.unwrap();
    assert_eq!((mac.len(), version), (32, 1));
    assert_eq!(kms.generate_mac("mac", b"data").await.unwrap().0, mac);
    kms.rotate_key("mac", "r").await.unwrap();
    let (newer, version) = kms.generate_mac("mac", b"data").await.unwrap();
    assert_eq!(version, 2);
    assert_ne!(newer, mac);
    for mac in [&mac, &newer] {
        assert!(kms.verify_mac("mac", b"data", mac).await.unwrap());
        assert!(!kms.verify_mac("mac", b"dat", mac).await.unwrap());
    }
    for at in 0..mac.len() {
        let mut altered = mac.clone();
        altered[at] ^= 1;
        assert!(
            !kms.verify_mac("mac", b"data", &altered).await.unwrap(),
            "byte {at}"
        );
    }
    assert!(!kms.verify_mac("mac", b"data", &mac[..31]).await.unwrap(), "cut");

    let mut raw = world.raw().await;
    let mut ask = VerifyMacRequest {
        name: "keys/mac".into(),
        data: b"data".to_vec(),
        mac: mac.clone(),
        key_version: 1,
        ..VerifyMacRequest::default()
    };
    let answer = raw.verify_mac(world.request(ask.clone())).await.unwrap();
    assert!(answer.into_inner().valid);
    ask.key_version = 2;
    let answer = raw.verify_mac(world.request(ask.clone())).await.unwrap();
    assert!(!answer.into_inner().valid, "version 2 did not make it");
    ask.key_version = 3;
    let status = raw.verify_mac(world.request(ask)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outsider_with_the_public_key_checks_a_signature() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let mut raw = world.raw().await;
    let (first, version) = kms.sign("sign", b"statement").await.unwrap();
    assert_eq!(version, 1);
    assert_eq!(
        kms.sign("sign", b"statement").await.unwrap().0,
        first,
        "RFC 6979 signatures repeat"
    );
    kms.rotate_key("sign", "r").await.unwrap();
    let by_message = AsymmetricSignRequest {
        name: "keys/sign".into(),
        input: Some(asymmetric_sign_request::Input::Message(b"statement".to_vec())),
        ..AsymmetricSignRequest::default()
    };
    let second = raw
        .asymmetric_sign(world.request(by_message))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(second.key_version, 2);

    let mut keys = Vec::new();
    for key_version in [1, 2] {
        let request = GetPublicKeyRequest {
            name: "keys/sign".into(),
            key_version,
        };
        let public = raw
            .get_public_key(world.request(request))
            .await
            .unwrap()
            .into_inner();
        let key = VerifyingKey::from_public_key_pem(&public.pem).unwrap();
        let der = p256::pkcs8::EncodePublicKey::to_public_key_der(&key).unwrap();
        assert_eq!(
            public.fingerprint_sha256,
            Sha256::digest(der.as_bytes()).as_slice(),
            "SHA-256 of the SubjectPublicKeyInfo"
        );
        keys.push(key);
    }
    let signatures = [first, second.signature].map(|der| DerSignature::try_from(der.as_slice()).unwrap());
    for (key, signature) in keys.iter().zip(&signatures) {
        key.verify(b"statement", signature).unwrap();
        key.verify(b"statemenT", signature).unwrap_err();
    }
    keys[0].verify(b"statement", &signatures[1]).unwrap_err();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_tells_right_signatures_from_wrong_ones() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    kms.create_key("foreign", asterism_proto::kms::KeyType::EcSignP256Sha256, [], "f")
        .await
        .unwrap();
    let (signature, _) = kms.sign("sign", b"statement").await.unwrap();
    let (foreign, _) = kms.sign("foreign", b"statement").await.unwrap();
    assert!(kms.verify("sign", b"statement", &signature).await.unwrap());
    assert!(!kms.verify("sign", b"other", &signature).await.unwrap());
    assert!(!kms.verify("sign", b"statement", &foreign).await.unwrap());

    let mut raw = world.raw().await;
    let mut ask = AsymmetricVerifyRequest {
        name: "keys/sign".into(),
        input: Some(asymmetric_verify_request::Input::Message(b"statement".to_vec())),
        signature: signature.clone(),
        key_version: 1,
        ..AsymmetricVerifyRequest::default()
    };
    let answer = raw.asymmetric_verify(world.request(ask.clone())).await.unwrap();
    assert!(answer.into_inner().valid);
    ask.signature = signature[..signature.len() - 1].to_vec();
    let status = raw
        .asymmetric_verify(world.request(ask.clone()))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    ask.input = Some(asymmetric_verify_request::Input::Digest(vec![0; 31]));
    let status = raw.asymmetric_verify(world.request(ask)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(
        refusal(kms.public_key("sign", 9).await),
        refused(Code::NotFound, "KEY_VERSION_NOT_FOUND")
    );
    world.stop().await;
}
