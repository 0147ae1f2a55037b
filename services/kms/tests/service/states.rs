//! The life of keys over gRPC: who may change it, what is refused, and how.

use asterism_chassis::identity::Role;
use asterism_proto::kms::{
    DestroyKeyVersionRequest, Key, KeyType, KeyVersion, KeyVersionState, RotateKeyRequest, UpdateKeyRequest,
    UpdateKeyVersionRequest,
};
use prost_types::{Duration, FieldMask, Timestamp};
use tonic::Code;

use crate::support::{DAY, World, eventually, make_keys, refusal, refused};

fn state_refused() -> (Code, String) {
    refused(Code::FailedPrecondition, "KEY_VERSION_STATE")
}

fn update(etag: &str) -> Key {
    Key {
        name: "keys/aes".into(),
        etag: etag.into(),
        ..Key::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn states_are_shown_changed_and_kept() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let (ciphertext, _) = kms.encrypt("aes", b"text", b"").await.unwrap();
    let version = kms.key_version("aes", 1).await.unwrap();
    assert_eq!(version.name, "keys/aes/versions/1");
    assert_eq!(version.state(), KeyVersionState::Active);
    assert_eq!(version.activation_time, version.create_time);

    world.advance(DAY);
    let suspended = kms
        .set_key_version_state("aes", 1, KeyVersionState::Suspended, "s")
        .await
        .unwrap();
    assert_ne!(suspended.state_time, version.state_time);
    assert_eq!(
        refusal(kms.decrypt("aes", &ciphertext, b"").await),
        state_refused()
    );
    assert_eq!(refusal(kms.encrypt("aes", b"", b"").await), state_refused());
    let world = world.restart().await;
    let kms = world.admin();
    assert_eq!(kms.key_version("aes", 1).await.unwrap(), suspended);
    assert_eq!(
        kms.key("aes").await.unwrap().versions,
        std::slice::from_ref(&suspended)
    );
    let again = kms
        .set_key_version_state("aes", 1, KeyVersionState::Suspended, "s")
        .await
        .unwrap();
    assert_eq!(again, suspended, "a repeated request has no second effect");
    for (state, decrypts) in [
        (KeyVersionState::Active, true),
        (KeyVersionState::Deactivated, true),
        (KeyVersionState::Compromised, true),
    ] {
        kms.set_key_version_state("aes", 1, state, "").await.unwrap();
        assert_eq!(kms.decrypt("aes", &ciphertext, b"").await.is_ok(), decrypts);
        assert_eq!(
            kms.encrypt("aes", b"", b"").await.is_ok(),
            state == KeyVersionState::Active
        );
    }
    let back = kms.set_key_version_state("aes", 1, KeyVersionState::Active, "");
    assert_eq!(refusal(back.await), state_refused());
    kms.rotate_key("aes", "r").await.unwrap();
    let moved = kms.re_encrypt("aes", &ciphertext, b"", "").await.unwrap();
    assert_eq!((moved.source_key_version, moved.key_version), (1, 2));
    assert_eq!(
        kms.decrypt("aes", &moved.ciphertext, b"").await.unwrap().expose(),
        b"text"
    );
    let (wrapped, version) = kms.generate_wrapped_data_key("aes", b"bound").await.unwrap();
    assert_eq!(version, 2);
    kms.unwrap_data_key("aes", &wrapped, b"bound").await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_changes_what_its_mask_names_if_the_etag_fits() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let made = kms.key("aes").await.unwrap();
    let mut change = update(&made.etag);
    change.labels = [("team".to_owned(), "blue".to_owned())].into();
    change.rotation_period = Some(Duration {
        seconds: 86_400,
        nanos: 0,
    });
    let labelled = kms.update_key(change.clone(), &["labels"], "u").await.unwrap();
    assert_eq!(labelled.labels["team"], "blue");
    assert_eq!(labelled.rotation_period, None, "not in the mask");
    assert_eq!(
        kms.update_key(change.clone(), &["labels"], "u").await.unwrap(),
        labelled
    );
    assert_eq!(
        refusal(kms.update_key(change, &["labels"], "").await),
        refused(Code::FailedPrecondition, "ETAG_MISMATCH")
    );

    let mut scheduled = update("");
    scheduled.rotation_period = Some(Duration {
        seconds: 86_400,
        nanos: 0,
    });
    let key = kms.update_key(scheduled, &["rotation_period"], "").await.unwrap();
    assert!(key.next_rotation_time.is_some());
    world.advance(DAY);
    eventually(|| async { kms.key("aes").await.unwrap().primary_version == 2 }).await;
    let mut minimum = update("");
    minimum.min_decryption_version = 2;
    kms.update_key(minimum, &["min_decryption_version"], "")
        .await
        .unwrap();

    let mut raw = world.raw().await;
    for (paths, field) in [
        (vec![], "update_mask"),
        (vec!["name"], "update_mask"),
        (vec!["next_rotation_time"], "key.next_rotation_time"),
    ] {
        let request = UpdateKeyRequest {
            key: Some(update("")),
            update_mask: Some(FieldMask {
                paths: paths.into_iter().map(String::from).collect(),
            }),
            request_id: String::new(),
        };
        let status = raw.update_key(world.request(request)).await.unwrap_err();
        let details = tonic_types::StatusExt::get_details_bad_request(&status).unwrap();
        assert_eq!(details.field_violations[0].field, field);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_windows_and_states_that_make_no_sense_are_refused() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let mut raw = world.raw().await;
    for name in [
        "",
        "keys/aes",
        "keys/aes/versions/",
        "keys/aes/versions/01",
        "keys/aes/versions/+1",
        "keys/aes/versions/0",
        "keys/aes/versions/1/x",
    ] {
        let request = UpdateKeyVersionRequest {
            key_version: Some(KeyVersion {
                name: name.into(),
                state: KeyVersionState::Suspended.into(),
                ..KeyVersion::default()
            }),
            ..UpdateKeyVersionRequest::default()
        };
        let status = raw.update_key_version(world.request(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name:?}");
    }
    for (seconds, nanos) in [
        (0, 0),
        (-1, 0),
        (6 * 86_400, 0),
        (31 * 86_400, 0),
        (i64::MAX, 0),
        (8 * 86_400, -1),
    ] {
        let request = DestroyKeyVersionRequest {
            name: "keys/aes/versions/1".into(),
            window: Some(Duration { seconds, nanos }),
            ..DestroyKeyVersionRequest::default()
        };
        let status = raw.destroy_key_version(world.request(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{seconds} {nanos}");
    }
    for state in [
        KeyVersionState::Unspecified,
        KeyVersionState::PreActive,
        KeyVersionState::DestroyScheduled,
        KeyVersionState::Destroyed,
    ] {
        let refused_state = kms.set_key_version_state("aes", 1, state, "").await;
        assert_eq!(refusal(refused_state).0, Code::InvalidArgument, "{state:?}");
    }
    assert_eq!(
        refusal(kms.key_version("aes", 2).await),
        refused(Code::NotFound, "KEY_VERSION_NOT_FOUND")
    );
    let rotate = RotateKeyRequest {
        name: "keys/aes".into(),
        activation_time: Some(Timestamp {
            seconds: i64::MAX,
            nanos: 0,
        }),
        ..RotateKeyRequest::default()
    };
    let status = raw.rotate_key(world.request(rotate)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_change_their_own_keys_and_nobody_elses() {
    let world = World::start().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner]);
    let bob = world.as_principal("user/bob", &[Role::DataOwner]);
    make_keys(&alice).await;
    bob.create_key("bobs", KeyType::Aes256Gcm, [], "b").await.unwrap();
    let missing = refused(Code::NotFound, "KEY_NOT_FOUND");
    let (ciphertext, _) = alice.encrypt("aes", b"hers", b"").await.unwrap();
    assert_eq!(
        refusal(bob.destroy_key_version("aes", 1, None, "").await),
        missing
    );
    assert_eq!(refusal(bob.key_version("aes", 1).await), missing);
    assert_eq!(
        refusal(bob.update_key(update(""), &["labels"], "").await),
        missing
    );
    assert_eq!(
        refusal(bob.re_encrypt("aes", &ciphertext, b"", "bobs").await),
        missing
    );
    assert_eq!(
        refusal(alice.re_encrypt("aes", &ciphertext, b"", "bobs").await),
        missing
    );
    let suspend = bob.set_key_version_state("aes", 1, KeyVersionState::Suspended, "");
    assert_eq!(refusal(suspend.await), missing);
    let scheduled = alice.destroy_key_version("aes", 1, None, "d").await.unwrap();
    assert_eq!(scheduled.state(), KeyVersionState::DestroyScheduled);
    let window = scheduled.destroy_time.unwrap().seconds - scheduled.state_time.unwrap().seconds;
    assert_eq!(window, 30 * 86_400, "the default");
    assert_eq!(refusal(bob.restore_key_version("aes", 1, "").await), missing);
    alice.restore_key_version("aes", 1, "u").await.unwrap();
    assert_eq!(
        alice.decrypt("aes", &ciphertext, b"").await.unwrap().expose(),
        b"hers"
    );
    let viewer = world.as_principal("user/eve", &[Role::Viewer]);
    assert_eq!(
        refusal(viewer.destroy_key_version("aes", 1, None, "").await),
        refused(Code::PermissionDenied, "POLICY_DENIED")
    );
    world.stop().await;
}
