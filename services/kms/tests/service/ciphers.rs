//! Encryption and data keys.

use asterism_crypto::crc32c;
use asterism_proto::kms::{DecryptRequest, EncryptRequest};
use tonic::Code;

use crate::support::{World, make_keys, refusal, refused};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_encrypted_decrypts_with_its_key_and_its_data_alone() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    kms.create_key("other", asterism_proto::kms::KeyType::Aes256Gcm, [], "other")
        .await
        .unwrap();
    for size in [0, 1, 1024, 64 << 10] {
        let plaintext = vec![b'p'; size];
        let (ciphertext, version) = kms.encrypt("aes", &plaintext, b"bound").await.unwrap();
        assert_eq!(version, 1);
        let opened = kms.decrypt("aes", &ciphertext, b"bound").await.unwrap();
        assert_eq!(opened.expose(), plaintext);
        let (again, _) = kms.encrypt("aes", &plaintext, b"bound").await.unwrap();
        assert_ne!(ciphertext, again, "deterministic");
    }

    let (ciphertext, _) = kms.encrypt("aes", b"secret", b"bound").await.unwrap();
    let failed = refused(Code::InvalidArgument, "DECRYPTION_FAILED");
    assert_eq!(refusal(kms.decrypt("aes", &ciphertext, b"other").await), failed);
    assert_eq!(refusal(kms.decrypt("aes", &ciphertext, b"").await), failed);
    assert_eq!(
        refusal(kms.decrypt("other", &ciphertext, b"bound").await),
        refused(Code::InvalidArgument, "INVALID_FIELD"),
        "the envelope names its key"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_and_every_altered_byte_of_a_ciphertext_is_refused() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let (ciphertext, _) = kms.encrypt("aes", b"secret", b"bound").await.unwrap();
    for length in 0..ciphertext.len() {
        let (code, _) = refusal(kms.decrypt("aes", &ciphertext[..length], b"bound").await);
        assert_eq!(code, Code::InvalidArgument, "cut at {length}");
    }
    for at in 0..ciphertext.len() {
        let mut altered = ciphertext.clone();
        altered[at] ^= 0x80;
        let (code, reason) = refusal(kms.decrypt("aes", &altered, b"bound").await);
        // A changed version may name one that the key does not have; nothing else may differ.
        let expected = code == Code::InvalidArgument || reason == "KEY_VERSION_NOT_FOUND";
        assert!(expected, "byte {at}: {code} {reason}");
    }
    let mut longer = ciphertext;
    longer.push(0);
    assert_eq!(
        refusal(kms.decrypt("aes", &longer, b"bound").await).0,
        Code::InvalidArgument
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_go_on_decrypting_after_rotation_and_restart() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let mut sealed = Vec::new();
    for round in 1..=4 {
        let text = format!("version {round}");
        let (ciphertext, version) = kms.encrypt("aes", text.as_bytes(), b"").await.unwrap();
        assert_eq!(version, round);
        sealed.push((text, ciphertext));
        kms.rotate_key("aes", &format!("rotate-{round}")).await.unwrap();
    }
    let world = world.restart().await;
    let kms = world.admin();
    assert_eq!(kms.key("aes").await.unwrap().versions.len(), 5);
    for (text, ciphertext) in sealed {
        let opened = kms.decrypt("aes", &ciphertext, b"").await.unwrap();
        assert_eq!(opened.expose(), text.as_bytes());
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_key_unwraps_to_itself_where_it_is_bound() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let first = kms.generate_data_key("aes", b"dataset 1").await.unwrap();
    let second = kms.generate_data_key("aes", b"dataset 1").await.unwrap();
    assert_ne!(first.key.expose(), second.key.expose());
    kms.rotate_key("aes", "r").await.unwrap();
    let unwrapped = kms
        .unwrap_data_key("aes", &first.wrapped, b"dataset 1")
        .await
        .unwrap();
    assert_eq!(unwrapped.expose(), first.key.expose());
    assert_eq!(
        refusal(kms.unwrap_data_key("aes", &first.wrapped, b"dataset 2").await),
        refused(Code::InvalidArgument, "DECRYPTION_FAILED")
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_types_unknown_keys_large_and_damaged_input_are_told_apart() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let wrong = refused(Code::FailedPrecondition, "WRONG_KEY_TYPE");
    assert_eq!(refusal(kms.encrypt("mac", b"x", b"").await), wrong);
    assert_eq!(refusal(kms.encrypt("sign", b"x", b"").await), wrong);
    assert_eq!(refusal(kms.generate_data_key("sign", b"").await), wrong);
    assert_eq!(refusal(kms.generate_mac("aes", b"x").await), wrong);
    assert_eq!(refusal(kms.sign("mac", b"x").await), wrong);
    assert_eq!(refusal(kms.public_key("aes", 0).await), wrong);
    let missing = refused(Code::NotFound, "KEY_NOT_FOUND");
    assert_eq!(refusal(kms.encrypt("none", b"x", b"").await), missing);
    assert_eq!(refusal(kms.decrypt("none", b"x", b"").await), missing);
    assert_eq!(
        refusal(kms.encrypt("aes", &[0; (64 << 10) + 1], b"").await),
        refused(Code::InvalidArgument, "INVALID_FIELD")
    );

    let mut raw = world.raw().await;
    let damaged = EncryptRequest {
        name: "keys/aes".into(),
        plaintext: b"what arrived".to_vec(),
        plaintext_crc32c: Some(crc32c(b"what was sent")),
        ..EncryptRequest::default()
    };
    let status = raw.encrypt(world.request(damaged)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("plaintext"), "{status}");
    for name in ["", "aes", "keys/", "keys/a/b", "keys/\0"] {
        let request = DecryptRequest {
            name: name.into(),
            ..DecryptRequest::default()
        };
        let status = raw.decrypt(world.request(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name:?}");
    }
    world.stop().await;
}
