//! kms away, restarts, damage and floods.

use std::time::{Duration, Instant};

use asterism_client::{ClientError, proto::kms::KeyType};
use asterism_crypto::Signed;
use tonic::Code;

use crate::support::{World, csv, reason, upload};

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_quickly_and_without_kms_and_says_what_is_missing() {
    let mut world = World::start().await;
    let bytes = csv(100);
    let dataset = upload(&world.alice(), &bytes, "r1").await.unwrap();
    let begun = world.alice().begin_upload("test", "r2", false).await.unwrap();
    world
        .alice()
        .put_chunk(&begun.upload_id, 0, bytes.clone())
        .await
        .unwrap();
    world.kms.take().unwrap().shutdown().await;

    let refused = world
        .alice()
        .commit_upload(&begun.upload_id, bytes.len() as u64, None)
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), refused.reason()),
        (Code::Unavailable, Some("KMS_FAILED"))
    );
    // What is one's own is listed; for more, kms has to say that nothing denies it.
    assert_eq!(world.alice().list(10, "").await.unwrap().0.len(), 1);
    assert_eq!(
        reason(world.alice().get(&dataset.name).await),
        "POLICY_UNAVAILABLE"
    );
    assert_eq!(
        world.alice().verify(&dataset.name).await.unwrap_err().code(),
        Code::Unavailable
    );

    let before = Instant::now();
    let world = world.restart().await;
    // The bound is 80 ms in an optimised build on an idle machine; shutdown of the old one is part of this.
    assert!(before.elapsed() < Duration::from_secs(10));
    assert_eq!(world.alice().list(10, "").await.unwrap().0.len(), 1);
    let refused = world.alice().begin_upload("test", "r3", false).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_the_session_and_nothing_else() {
    let world = World::start().await;
    let bytes = csv(1000);
    let dataset = upload(&world.alice(), &bytes, "r1").await.unwrap();
    let begun = world.alice().begin_upload("test", "r2", false).await.unwrap();
    world
        .alice()
        .put_chunk(&begun.upload_id, 0, bytes[..5000].to_vec())
        .await
        .unwrap();
    let world = world.restart().await;
    let alice = world.alice();
    assert_eq!(world.files(), 3);
    assert_eq!(alice.get(&dataset.name).await.unwrap(), dataset);
    let lost = alice
        .put_chunk(&begun.upload_id, 5000, bytes[5000..].to_vec())
        .await
        .unwrap_err();
    assert_eq!(
        (lost.code(), lost.reason()),
        (Code::NotFound, Some("UPLOAD_UNKNOWN"))
    );
    assert_eq!(upload(&alice, &bytes, "r1").await.unwrap(), dataset);
    assert_eq!(upload(&alice, &bytes, "r2").await.unwrap().rows, 1000);
    assert_eq!(alice.list(10, "").await.unwrap().0.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_and_bad_rows_are_told_in_details() {
    let world = World::start().await;
    let alice = world.alice();
    let begun = alice.begin_upload("test", "", false).await.unwrap();
    assert_eq!(begun.max_chunk_bytes, 1 << 20);
    assert_eq!(
        alice
            .put_chunk(&begun.upload_id, 0, b"a,b\n1,2\n".to_vec())
            .await
            .unwrap(),
        8
    );
    let ClientError::Refused {
        code,
        reason,
        metadata,
        ..
    } = alice
        .put_chunk(&begun.upload_id, 9, b"x".to_vec())
        .await
        .unwrap_err()
    else {
        panic!("not refused")
    };
    assert_eq!(
        (code, reason.as_str()),
        (Code::FailedPrecondition, "OFFSET_MISMATCH")
    );
    assert_eq!(metadata["expected_offset"], "8");
    alice.put_chunk(&begun.upload_id, 8, b"3\n".to_vec()).await.ok();
    let ClientError::Refused {
        code,
        reason,
        metadata,
        violations,
        ..
    } = alice.commit_upload(&begun.upload_id, 10, None).await.unwrap_err()
    else {
        panic!("not refused")
    };
    assert_eq!(
        (code, reason.as_str(), metadata["row"].as_str()),
        (Code::InvalidArgument, "CSV_RAGGED_ROW", "2")
    );
    assert_eq!(violations[0].0, "data");
    assert!(alice.list(10, "").await.unwrap().0.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_another_key_of_the_same_kms_is_refused() {
    let world = World::start().await;
    let alice = world.alice();
    let dataset = upload(&alice, &csv(50), "r1").await.unwrap();
    let id = dataset.name.strip_prefix("datasets/").unwrap();
    let path = world.blobs().join(format!("{id}.manifest"));
    let original = std::fs::read(&path).unwrap();
    let signed: Signed = serde_json::from_slice(&original).unwrap();
    let kms = world.kms_client();
    kms.create_key("rogue", KeyType::EcSignP256Sha256, [], "rogue")
        .await
        .unwrap();
    let forged = kms
        .sign_statement("rogue", &signed.domain, signed.payload.clone())
        .await
        .unwrap();
    let renamed = Signed {
        key: signed.key.clone(),
        ..forged.clone()
    };
    let versioned = Signed {
        key_version: 9,
        ..signed.clone()
    };
    for forgery in [forged, renamed, versioned] {
        std::fs::write(&path, serde_json::to_vec(&forgery).unwrap()).unwrap();
        let report = alice.verify(&dataset.name).await.unwrap();
        assert!(!report.verified && !report.checks[0].ok, "{report:?}");
        let mut rows = alice.read_rows(&dataset.name, 0, 0).await.unwrap();
        assert_eq!(rows.message().await.unwrap_err().code(), Code::FailedPrecondition);
    }
    std::fs::write(&path, original).unwrap();
    assert!(alice.verify(&dataset.name).await.unwrap().verified);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_key_of_another_dataset_is_refused_by_kms() {
    let world = World::start().await;
    let alice = world.alice();
    let one = upload(&alice, &csv(50), "r1").await.unwrap();
    let two = upload(&alice, &csv(50), "r2").await.unwrap();
    let part = |name: &str, kind: &str| {
        world
            .blobs()
            .join(format!("{}.{kind}", name.strip_prefix("datasets/").unwrap()))
    };
    for kind in ["data", "table", "manifest"] {
        std::fs::copy(part(&two.name, kind), part(&one.name, kind)).unwrap();
    }
    let report = alice.verify(&one.name).await.unwrap();
    assert!(!report.verified && !report.checks[0].ok, "{report:?}");
    assert_eq!(reason(alice.get(&one.name).await), "DATASET_DAMAGED");
    assert!(alice.verify(&two.name).await.unwrap().verified);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_uploads_at_once_are_all_whole_and_one_too_many_is_refused() {
    let world = World::with(|config| config.uploads.max_open_per_owner = 6).await;
    let alice = world.alice();
    let uploads = (0..6).map(|index| {
        let alice = alice.clone();
        tokio::spawn(async move {
            upload(&alice, &csv(2000 + index), &format!("r{index}"))
                .await
                .unwrap()
        })
    });
    let made = futures::future::join_all(uploads.collect::<Vec<_>>()).await;
    for (index, dataset) in made.into_iter().enumerate() {
        let dataset = dataset.unwrap();
        assert_eq!(dataset.rows, 2000 + index as u64);
        assert!(alice.verify(&dataset.name).await.unwrap().verified);
    }
    for index in 0..6 {
        alice
            .begin_upload("open", &format!("o{index}"), false)
            .await
            .unwrap();
    }
    let refused = alice.begin_upload("open", "o6", false).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.reason()),
        (Code::ResourceExhausted, Some("TOO_MANY_UPLOADS"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_uploads_expire_by_themselves() {
    let world = World::with(|config| config.uploads.idle_seconds = 1).await;
    let alice = world.alice();
    let begun = alice.begin_upload("test", "", false).await.unwrap();
    alice.put_chunk(&begun.upload_id, 0, csv(10)).await.unwrap();
    assert_eq!(world.files(), 1);
    let gone = async {
        while world.files() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
    assert_eq!(
        reason(alice.upload_state(&begun.upload_id).await),
        "UPLOAD_UNKNOWN"
    );
}
