//! Every method, as its callers see it.

use asterism_chassis::identity::Role;
use asterism_client::{
    Ingest, Kms,
    proto::ingest::{
        BeginUploadRequest, Column, ColumnKind, CommitUploadRequest, UploadRequest,
        ingest_service_client::IngestServiceClient, upload_request::Part,
    },
};
use asterism_crypto::Digest;

use crate::support::{OWNER, World, csv, reason, upload};

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_from_upload_to_deletion() {
    let world = World::start().await;
    let alice = world.alice();
    let bytes = csv(100_000);
    let dataset = upload(&alice, &bytes, "r1").await.unwrap();
    assert_eq!(
        (dataset.rows, dataset.bytes, dataset.owner.as_str()),
        (100_000, bytes.len() as u64, "user/alice")
    );
    let kinds: Vec<_> = dataset.columns.iter().map(Column::kind).collect();
    assert_eq!(kinds, [ColumnKind::Integer, ColumnKind::Float, ColumnKind::Text]);
    assert!(dataset.create_time.is_some());

    assert_eq!(alice.get(&dataset.name).await.unwrap(), dataset);
    assert_eq!(upload(&alice, &bytes, "r1").await.unwrap(), dataset);
    let (listed, token) = alice.list(10, "").await.unwrap();
    assert_eq!(
        (listed.len(), listed[0].name.as_str(), token.as_str()),
        (1, dataset.name.as_str(), "")
    );

    let report = alice.verify(&dataset.name).await.unwrap();
    assert!(report.verified, "{report:?}");
    let names: Vec<_> = report.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(
        names,
        ["signature", "data key", "chunk table", "chunks", "digest", "hmac"]
    );
    assert_eq!(report.chunks, 2);

    // Whoever does not believe ingest checks and decrypts by itself.
    let mut plaintext = Vec::new();
    let verified = alice
        .open_dataset(&world.kms_client(), &dataset.name, "manifest-signer", |chunk| {
            plaintext.extend_from_slice(chunk.expose());
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(plaintext, bytes);
    assert_eq!(
        verified.sha256.as_bytes().as_slice(),
        &dataset.manifest_sha256[..]
    );

    alice.delete(&dataset.name).await.unwrap();
    assert_eq!(reason(alice.get(&dataset.name).await), "DATASET_NOT_FOUND");
    assert_eq!(world.files(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_read_in_messages_with_the_columns_first() {
    let world = World::start().await;
    let alice = world.alice();
    let dataset = upload(&alice, &csv(20_000), "r1").await.unwrap();
    let mut stream = alice.read_rows(&dataset.name, 5, 10_000).await.unwrap();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.columns, ["id", "value", "label"]);
    let (mut next, mut messages) = (5, 0);
    while let Some(message) = stream.message().await.unwrap() {
        messages += 1;
        for row in message.rows {
            assert_eq!(row.cells[0], next.to_string());
            next += 1;
        }
    }
    assert_eq!(next, 10_005);
    assert!(messages > 1);
    let mut none = alice
        .read_rows("datasets/00000000-0000-0000-0000-000000000000", 0, 0)
        .await
        .unwrap();
    assert_eq!(none.message().await.unwrap_err().code(), tonic::Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_does_what_the_unary_calls_do() {
    let world = World::start().await;
    let bytes = csv(1000);
    let client = || IngestServiceClient::new(world.connection("user/alice", OWNER).service());
    let part = |part| UploadRequest { part: Some(part) };
    let begin = |request_id: &str| {
        let begin = BeginUploadRequest {
            display_name: "stream".into(),
            request_id: request_id.into(),
            with_sha256: true,
        };
        part(Part::Begin(begin))
    };
    let chunks = || {
        bytes
            .chunks(5000)
            .map(|chunk| part(Part::Chunk(chunk.to_vec().into())))
    };
    let sha256 = Digest::of(&bytes).as_bytes().to_vec();
    let commit = CommitUploadRequest {
        upload_id: String::new(),
        size: bytes.len() as u64,
        sha256: sha256.into(),
    };
    let whole: Vec<_> = [begin("s1")]
        .into_iter()
        .chain(chunks())
        .chain([part(Part::Commit(commit.clone()))])
        .collect();
    let dataset = client()
        .upload(futures::stream::iter(whole.clone()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(dataset.rows, 1000);
    let again = client()
        .upload(futures::stream::iter(whole))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again, dataset);

    // Cut off: no dataset, and nothing is left when nobody could go on with it.
    let cut: Vec<_> = [begin("")].into_iter().chain(chunks().take(3)).collect();
    let refused = client().upload(futures::stream::iter(cut)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    // With a request id the next stream starts over, and what has arrived is skipped.
    let cut: Vec<_> = [begin("s2")].into_iter().chain(chunks().take(3)).collect();
    client().upload(futures::stream::iter(cut)).await.unwrap_err();
    let rest: Vec<_> = [begin("s2")]
        .into_iter()
        .chain(chunks())
        .chain([part(Part::Commit(commit))])
        .collect();
    let second = client()
        .upload(futures::stream::iter(rest))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((second.rows, second.name == dataset.name), (1000, false));

    let headless: Vec<_> = chunks().take(1).collect();
    let refused = client()
        .upload(futures::stream::iter(headless))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert_eq!(world.alice().list(10, "").await.unwrap().0.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_administrators_and_services_see_what_they_may() {
    let world = World::start().await;
    let dataset = upload(&world.alice(), &csv(10), "r1").await.unwrap();
    let bob = world.client("user/bob", OWNER);
    let name = dataset.name.as_str();
    let missing = "datasets/00000000-0000-0000-0000-000000000000";
    for name in [name, missing] {
        assert_eq!(reason(bob.get(name).await), "DATASET_NOT_FOUND");
        assert_eq!(reason(bob.manifest(name).await), "DATASET_NOT_FOUND");
        assert_eq!(reason(bob.verify(name).await), "DATASET_NOT_FOUND");
        assert_eq!(reason(bob.delete(name).await), "DATASET_NOT_FOUND");
    }
    assert!(bob.list(10, "").await.unwrap().0.is_empty());

    let admin = world.client("user/admin", &[Role::Admin]);
    assert_eq!(admin.list(10, "").await.unwrap().0.len(), 1);
    assert!(admin.verify(name).await.unwrap().verified);
    let service = world
        .connection("service/inference", &[Role::Service])
        .on_behalf_of("user/alice");
    assert_eq!(
        Ingest::new(service.clone()).list(10, "").await.unwrap().0.len(),
        1
    );
    assert_eq!(Ingest::new(service).get(name).await.unwrap().name, name);

    let viewer = world.client("user/alice", &[Role::Viewer]);
    assert_eq!(viewer.get(name).await.unwrap().name, name);
    assert_eq!(reason(viewer.delete(name).await), "POLICY_DENIED");
    assert_eq!(reason(viewer.begin_upload("x", "", false).await), "POLICY_DENIED");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_fields_are_checked() {
    let world = World::start().await;
    let alice = world.alice();
    let mut made = Vec::new();
    for request in ["1", "2", "3"] {
        made.push(upload(&alice, &csv(3), request).await.unwrap().name);
    }
    let (one, token) = alice.list(2, "").await.unwrap();
    let (two, end) = alice.list(2, &token).await.unwrap();
    let names: Vec<_> = one.into_iter().chain(two).map(|dataset| dataset.name).collect();
    assert_eq!((names, end.as_str()), (made, ""));
    assert_eq!(reason(alice.list(-1, "").await), "INVALID_FIELD");
    assert_eq!(reason(alice.list(1, "garbage").await), "INVALID_FIELD");
    assert_eq!(reason(alice.get("garbage").await), "INVALID_FIELD");
    assert_eq!(reason(alice.begin_upload("", "", false).await), "INVALID_FIELD");
    assert_eq!(
        reason(alice.begin_upload("x", "white space", false).await),
        "INVALID_FIELD"
    );
    assert_eq!(
        reason(alice.put_chunk("garbage", 0, b"a".to_vec()).await),
        "UPLOAD_UNKNOWN"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ends_of_an_upload_are_on_record_and_its_chunks_are_not() {
    let world = World::start().await;
    let alice = world.alice();
    let dataset = upload(&alice, &csv(100_000), "r1").await.unwrap();
    alice.verify(&dataset.name).await.unwrap();
    let mut rows = alice.read_rows(&dataset.name, 0, 1).await.unwrap();
    while rows.message().await.unwrap().is_some() {}
    alice.put_chunk("unknown", 0, vec![]).await.unwrap_err();
    drop((alice, rows));
    let events = world.events().await;
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event.operation.as_str(), event.resource.as_str()))
        .collect();
    let upload = events[0].resource.clone();
    assert!(upload.starts_with("uploads/"));
    let name = dataset.name.as_str();
    assert_eq!(
        seen,
        [
            ("ingest.BeginUpload", upload.as_str()),
            ("ingest.CommitUpload", name),
            ("ingest.VerifyDataset", name),
            // Before the first row, and at the end.
            ("ingest.ReadRows", name),
            ("ingest.ReadRows", name),
            // A failure is always an event.
            ("ingest.PutChunk", ""),
        ]
    );
    assert_eq!(events[5].reason, "UPLOAD_UNKNOWN");
    assert!(
        events
            .iter()
            .all(|event| event.principal == "user/alice" && !event.trace_id.is_empty())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kms_sees_for_whom_ingest_asks() {
    let world = World::start().await;
    upload(&world.alice(), &csv(3), "r1").await.unwrap();
    let kms: Kms = world.kms_client();
    let (keys, _) = kms.list_keys(10, "").await.unwrap();
    let names: Vec<_> = keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["keys/dataset-kek", "keys/manifest-signer"]);
}
