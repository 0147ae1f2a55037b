//! What bad input gets: a precise status, and nothing is stored.

use asterism_client::proto::{
    inference::{Algorithm, TrainRequest},
    kms::KeyType,
};
use tonic::Code;

use crate::support::{World, fresh_id, order, reason, small_csv, train, upload};

#[tokio::test(flavor = "multi_thread")]
async fn csv_that_is_none_is_refused_and_leaves_no_dataset() {
    let world = World::start().await;
    let services = world.admin();
    let mixed = [b"a,b\n1,2\n".as_slice(), b"caf\xe9,3\n"].concat();
    let utf16: Vec<u8> = [0xFF, 0xFE]
        .into_iter()
        .chain("a,b\n1,2\n".encode_utf16().flat_map(u16::to_le_bytes))
        .collect();
    let huge_cell = [b"a,b\n1,".as_slice(), &vec![b'x'; 20 << 20]].concat();
    let cases: [(&str, &[u8], &str); 9] = [
        ("empty", b"", "the file is empty"),
        ("header only", b"a,b\n", "row"),
        ("ragged", b"a,b\n1,2\n1,2,3\n", "row 2"),
        ("duplicate column", b"a,b,a\n1,2,3\n", "column"),
        ("mixed encodings", &mixed, "row 2"),
        ("UTF-16", &utf16, "UTF-8"),
        ("NUL", b"a,b\n1,\0\n", "row 1"),
        ("unterminated quote", b"a,b\n1,\"2\n", "quote"),
        ("huge cell", &huge_cell, "row 1"),
    ];
    for (name, bytes, told) in cases {
        let error = upload(&services, bytes).await.expect_err(name);
        assert_eq!(error.code(), Code::InvalidArgument, "{name}: {error}");
        assert!(error.to_string().contains(told), "{name}: {error}");
        assert!(error.reason().is_some(), "{name}: {error}");
        assert!(!error.to_string().contains("xxxxxxxx"), "{name} leaks cells");
    }
    assert!(services.ingest.list(100, "").await.unwrap().0.is_empty());

    let wide: Vec<String> = (0..10_000).map(|column| format!("c{column}")).collect();
    let row = vec!["1"; 10_000].join(",");
    let dataset = upload(&services, format!("{}\n{row}\n", wide.join(",")))
        .await
        .unwrap();
    assert_eq!(
        services.ingest.get(&dataset.name).await.unwrap().columns.len(),
        10_000
    );
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stops_halfway_becomes_no_dataset_and_can_go_on() {
    let world = World::start().await;
    let services = world.admin();
    let csv = small_csv(100).into_bytes();
    let (head, tail) = csv.split_at(300);
    let request_id = fresh_id();
    let begun = services
        .ingest
        .begin_upload("halfway", &request_id, false)
        .await
        .unwrap();
    assert_eq!(
        services
            .ingest
            .put_chunk(&begun.upload_id, 0, head.to_vec())
            .await
            .unwrap(),
        300
    );

    let early = services
        .ingest
        .commit_upload(&begun.upload_id, csv.len() as u64, None)
        .await;
    assert_eq!(
        early.as_ref().expect_err("truncated").code(),
        Code::FailedPrecondition
    );
    assert!(services.ingest.list(100, "").await.unwrap().0.is_empty());

    let again = services
        .ingest
        .begin_upload("halfway", &request_id, false)
        .await
        .unwrap();
    assert_eq!(
        (again.upload_id.as_str(), again.offset),
        (begun.upload_id.as_str(), 300)
    );
    let gap = services
        .ingest
        .put_chunk(&begun.upload_id, 301, tail[1..].to_vec())
        .await;
    assert_eq!(reason(gap), "OFFSET_MISMATCH");
    assert_eq!(
        services
            .ingest
            .put_chunk(&begun.upload_id, 0, head.to_vec())
            .await
            .unwrap(),
        300
    );
    services
        .ingest
        .put_chunk(&begun.upload_id, 300, tail.to_vec())
        .await
        .unwrap();
    let dataset = services
        .ingest
        .commit_upload(&begun.upload_id, csv.len() as u64, None)
        .await
        .unwrap();
    assert_eq!(dataset.rows, 100);
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_used_as_they_were_made_or_not_at_all() {
    let world = World::start().await;
    let kms = world.admin().kms;
    kms.create_key("aes", KeyType::Aes256Gcm, [], &fresh_id())
        .await
        .unwrap();
    kms.create_key("sign", KeyType::EcSignP256Sha256, [], &fresh_id())
        .await
        .unwrap();
    let (mut ciphertext, _) = kms.encrypt("aes", b"secret", b"right").await.unwrap();

    assert_eq!(reason(kms.key("none").await), "KEY_NOT_FOUND");
    assert_eq!(reason(kms.encrypt("sign", b"x", b"").await), "WRONG_KEY_TYPE");
    assert_eq!(reason(kms.sign("aes", b"x").await), "WRONG_KEY_TYPE");
    assert_eq!(
        reason(kms.decrypt("aes", &ciphertext, b"wrong").await.map(drop)),
        "DECRYPTION_FAILED"
    );
    assert!(kms.decrypt("aes", &ciphertext[..40], b"right").await.is_err());
    let last = ciphertext.len() - 1;
    ciphertext[last] ^= 1;
    assert_eq!(
        reason(kms.decrypt("aes", &ciphertext, b"right").await.map(drop)),
        "DECRYPTION_FAILED"
    );
    assert_eq!(
        kms.encrypt("aes", &[0; (64 << 10) + 1], b"")
            .await
            .expect_err("large")
            .code(),
        Code::InvalidArgument
    );
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wishes_that_no_model_can_fulfil_are_refused_with_the_reason() {
    let world = World::start().await;
    let services = world.admin();
    let dataset = upload(&services, small_csv(40)).await.unwrap();
    let good = TrainRequest {
        label: "label".into(),
        ..order(&dataset.name, Algorithm::LogisticRegression)
    };
    let one_class = upload(&services, "a,label\n1,x\n2,x\n3,x\n4,x\n").await.unwrap();
    let missing_label = upload(&services, "a,label\n1,x\n2,NaN\n3,y\n4,y\n")
        .await
        .unwrap();
    let with = |change: &dyn Fn(&mut TrainRequest)| {
        let mut request = TrainRequest {
            request_id: fresh_id(),
            ..good.clone()
        };
        change(&mut request);
        request
    };
    let cases = [
        (
            "unknown label",
            with(&|r| r.label = "nope".into()),
            Code::InvalidArgument,
            "nope",
        ),
        (
            "unknown feature",
            with(&|r| r.features = vec!["nope".into()]),
            Code::InvalidArgument,
            "nope",
        ),
        (
            "bad share",
            with(&|r| r.test_fraction = 1.5),
            Code::InvalidArgument,
            "test_fraction",
        ),
        (
            "no algorithm",
            with(&|r| r.algorithm = 0),
            Code::InvalidArgument,
            "algorithm",
        ),
        (
            "bad parameter",
            with(&|r| r.hyperparameters = [("depth".into(), "x".into())].into()),
            Code::InvalidArgument,
            "depth",
        ),
        (
            "unknown dataset",
            with(&|r| r.dataset = format!("datasets/{}", fresh_id())),
            Code::NotFound,
            "datasets/",
        ),
        (
            "one class",
            with(&|r| r.dataset.clone_from(&one_class.name)),
            Code::FailedPrecondition,
            "class",
        ),
        (
            "missing label",
            with(&|r| r.dataset.clone_from(&missing_label.name)),
            Code::FailedPrecondition,
            "label",
        ),
    ];
    for (name, request, code, told) in cases {
        let error = train(&services, request).await.expect_err(name);
        assert_eq!(error.code(), code, "{name}: {error}");
        assert!(error.to_string().contains(told), "{name}: {error}");
        assert!(error.reason().is_some(), "{name}: {error}");
    }
    let model = train(&services, good).await.unwrap();
    for row in [vec![1.0], vec![1.0, 2.0, 3.0], vec![f64::INFINITY, 1.0]] {
        let error = services
            .inference
            .predict(&model.name, vec![row])
            .await
            .expect_err("bad row");
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
    assert_eq!(services.inference.list(100, "").await.unwrap().0.len(), 1);
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_forgers_are_turned_away() {
    let world = World::start().await;
    let endpoints = world.constellation.endpoints().clone();
    for token in ["", "v1.e30.AAAA", "garbage"] {
        let stranger = endpoints
            .connect(&asterism_client::Credentials::token(token), None)
            .unwrap();
        for code in [
            stranger.kms.key("k").await.expect_err("kms").code(),
            stranger.ingest.list(1, "").await.expect_err("ingest").code(),
            stranger
                .inference
                .list(1, "")
                .await
                .expect_err("inference")
                .code(),
            stranger.audit.verify().await.expect_err("audit").code(),
        ] {
            assert_eq!(code, Code::Unauthenticated, "{token}");
        }
    }
    world.constellation.shutdown().await;
}
