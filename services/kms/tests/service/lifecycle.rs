//! Keys are made, listed and rotated; each write once, whoever repeats it.

use std::collections::BTreeSet;

use asterism_chassis::identity::Role;
use asterism_proto::kms::{CreateKeyRequest, KeyType};
use tonic::Code;

use crate::support::{World, make_keys, refusal, refused};

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_all_types_are_made_found_and_listed() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let labelled = kms
        .create_key(
            "",
            KeyType::Aes256Gcm,
            [("team".to_owned(), "blue".to_owned())],
            "r1",
        )
        .await
        .unwrap();
    assert!(labelled.name.starts_with("keys/key-"), "{}", labelled.name);
    assert_eq!(labelled.labels["team"], "blue");
    assert_eq!((labelled.primary_version, labelled.versions.len()), (1, 1));
    assert!(labelled.create_time.is_some());

    let id = labelled.name.strip_prefix("keys/").unwrap();
    assert_eq!(kms.key(id).await.unwrap(), labelled);
    assert_eq!(
        kms.key("mac").await.unwrap().r#type,
        i32::from(KeyType::HmacSha256)
    );

    let mut names = BTreeSet::new();
    let mut token = String::new();
    loop {
        let (page, next) = kms.list_keys(1, &token).await.unwrap();
        assert!(page.len() <= 1);
        names.extend(page.into_iter().map(|key| key.name));
        if next.is_empty() {
            break;
        }
        token = next;
    }
    let expected = ["keys/aes", "keys/mac", "keys/sign", labelled.name.as_str()];
    assert_eq!(names, expected.map(String::from).into());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_has_the_same_answer_and_no_second_effect() {
    let world = World::start().await;
    let kms = world.admin();
    let first = kms.create_key("", KeyType::Aes256Gcm, [], "same").await.unwrap();
    let second = kms.create_key("", KeyType::Aes256Gcm, [], "same").await.unwrap();
    assert_eq!(first, second);
    assert_eq!(kms.list_keys(100, "").await.unwrap().0.len(), 1);
    assert_eq!(
        refusal(kms.create_key("", KeyType::HmacSha256, [], "same").await),
        refused(Code::AlreadyExists, "REQUEST_ID_REUSED")
    );

    let id = first.name.strip_prefix("keys/").unwrap();
    let rotated = kms.rotate_key(id, "rotate").await.unwrap();
    assert_eq!(rotated.primary_version, 2);
    let world = world.restart().await;
    let kms = world.admin();
    assert_eq!(kms.rotate_key(id, "rotate").await.unwrap(), rotated);
    assert_eq!(kms.rotate_key(id, "again").await.unwrap().primary_version, 3);
    assert_eq!(
        refusal(kms.create_key(id, KeyType::Aes256Gcm, [], "other").await),
        refused(Code::AlreadyExists, "KEY_EXISTS")
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_name_the_field() {
    let world = World::start().await;
    let mut raw = world.raw().await;
    let good = CreateKeyRequest {
        key_id: "fine".into(),
        r#type: KeyType::Aes256Gcm.into(),
        ..CreateKeyRequest::default()
    };
    let bad = [
        (
            "type",
            CreateKeyRequest {
                r#type: 0,
                ..good.clone()
            },
        ),
        (
            "type",
            CreateKeyRequest {
                r#type: 99,
                ..good.clone()
            },
        ),
        (
            "key_id",
            CreateKeyRequest {
                key_id: "Upper".into(),
                ..good.clone()
            },
        ),
        (
            "key_id",
            CreateKeyRequest {
                key_id: "../../etc".into(),
                ..good.clone()
            },
        ),
        (
            "key_id",
            CreateKeyRequest {
                key_id: "a".repeat(64),
                ..good.clone()
            },
        ),
        (
            "request_id",
            CreateKeyRequest {
                request_id: "a b".into(),
                ..good.clone()
            },
        ),
        (
            "labels",
            CreateKeyRequest {
                labels: [(String::new(), "x".into())].into(),
                ..good.clone()
            },
        ),
    ];
    for (field, message) in bad {
        let status = raw.create_key(world.request(message)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{field}");
        let details = tonic_types::StatusExt::get_details_bad_request(&status).unwrap();
        assert_eq!(details.field_violations[0].field, field);
    }
    let kms = world.admin();
    assert!(kms.list_keys(100, "").await.unwrap().0.is_empty());
    assert_eq!(
        refusal(kms.list_keys(100, "Not a token").await),
        refused(Code::InvalidArgument, "INVALID_FIELD")
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_somebody_else_does_not_exist() {
    let world = World::start().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner]);
    let bob = world.as_principal("user/bob", &[Role::DataOwner]);
    make_keys(&alice).await;
    let (ciphertext, _) = alice.encrypt("aes", b"hers", b"").await.unwrap();
    let missing = refused(Code::NotFound, "KEY_NOT_FOUND");
    assert_eq!(refusal(bob.key("aes").await), missing);
    assert_eq!(refusal(bob.decrypt("aes", &ciphertext, b"").await), missing);
    assert_eq!(refusal(bob.sign("sign", b"x").await), missing);
    assert_eq!(refusal(bob.rotate_key("aes", "r").await), missing);
    assert_eq!(alice.rotate_key("aes", "r").await.unwrap().primary_version, 2);
    assert!(bob.list_keys(100, "").await.unwrap().0.is_empty());
    assert_eq!(
        world
            .admin()
            .decrypt("aes", &ciphertext, b"")
            .await
            .unwrap()
            .expose(),
        b"hers"
    );
    world.stop().await;
}
