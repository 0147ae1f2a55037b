use asterism_crypto::Digest;
use asterism_proto::audit::{Event, EventFilter};
use tonic::Code;

use crate::support::{World, assert_refused, event, of, wrong_field};

#[tokio::test]
async fn an_event_reads_back_as_it_was_sent_and_is_stored_once() {
    let world = World::start().await;
    let (kms, auditor) = (world.kms(), world.auditor());
    assert_eq!(
        kms.append((0..5).map(event).collect()).await.unwrap(),
        [0, 1, 2, 3, 4]
    );
    assert_eq!(
        kms.append(vec![event(3), event(5), event(5)]).await.unwrap(),
        [3, 5, 5]
    );
    assert!(kms.append(vec![]).await.unwrap().is_empty());
    let entries = auditor.list_all(EventFilter::default(), 0).await;
    assert_eq!(entries.len(), 6);
    for (number, entry) in entries.iter().enumerate() {
        assert_eq!(entry.index, number as u64);
        assert_eq!(entry.event.as_ref().unwrap(), &event(number as u64));
        assert_eq!(entry.leaf_sha256.len(), 32);
        assert!(entry.appended_at.is_some());
    }
    let report = auditor.verify().await.unwrap();
    assert!(
        report.verified && report.sequence_problems.is_empty(),
        "{report:?}"
    );
    let mut tree = asterism_tlog::Frontier::new();
    for entry in &entries {
        tree.append(Digest::from_bytes(entry.leaf_sha256.clone().try_into().unwrap()));
    }
    assert_eq!(
        (report.entries, report.root_sha256),
        (6, tree.root().as_bytes().to_vec())
    );
}

#[tokio::test]
async fn an_empty_log_verifies() {
    let world = World::start().await;
    let report = world.auditor().verify().await.unwrap();
    assert!(report.verified);
    assert_eq!(
        (report.entries, report.root_sha256),
        (0, Digest::of(b"").as_bytes().to_vec())
    );
}

#[tokio::test]
async fn an_id_with_another_content_is_refused_and_nothing_of_the_call_is_stored() {
    let world = World::start().await;
    let kms = world.kms();
    kms.append(vec![event(0)]).await.unwrap();
    let changed = Event {
        key_version: 9,
        ..event(0)
    };
    assert_refused(
        kms.append(vec![event(1), changed]).await,
        Code::AlreadyExists,
        "EVENT_ID_REUSED",
    );
    let kms_events = EventFilter {
        source: "kms".into(),
        ..Default::default()
    };
    assert_eq!(world.auditor().list_all(kms_events, 0).await.len(), 1);
}

#[tokio::test]
async fn bad_events_are_refused_by_name() {
    let world = World::start().await;
    let kms = world.kms();
    let refused = async |change: fn(&mut Event)| {
        let mut bad = event(1);
        change(&mut bad);
        wrong_field(kms.append(vec![event(0), bad]).await)
    };
    assert_eq!(refused(|e| e.event_id = "7".into()).await, "events[1].event_id");
    assert_eq!(
        refused(|e| e.source_sequence = 0).await,
        "events[1].source_sequence"
    );
    assert_eq!(refused(|e| e.outcome = 0).await, "events[1].outcome");
    assert_eq!(refused(|e| e.outcome = 77).await, "events[1].outcome");
    assert_eq!(refused(|e| e.occurred_at = None).await, "events[1].occurred_at");
    assert_eq!(
        refused(|e| e.occurred_at.as_mut().unwrap().nanos = -1).await,
        "events[1].occurred_at"
    );
    assert_eq!(refused(|e| e.operation.clear()).await, "events[1].operation");
    assert_eq!(
        refused(|e| e.input_sha256.truncate(31)).await,
        "events[1].input_sha256"
    );
    assert_eq!(
        refused(|e| e.resource = "x".repeat(3000)).await,
        "events[1].resource"
    );
    assert_eq!(refused(|e| e.source = "ledger".into()).await, "events[1].source");
    let many: Vec<_> = (0..1001).map(event).collect();
    assert_eq!(wrong_field(kms.append(many.clone()).await), "events");
    assert_eq!(kms.append(many[..1000].to_vec()).await.unwrap().len(), 1000);
    assert_eq!(
        world
            .auditor()
            .list_all(
                EventFilter {
                    source: "kms".into(),
                    ..Default::default()
                },
                999
            )
            .await
            .len(),
        1000
    );
}

/// Three services at once, each of which repeats itself: all acknowledged, all there once, each source in its order.
#[tokio::test]
async fn services_append_at_once() {
    let world = World::start().await;
    let mut tasks = tokio::task::JoinSet::new();
    for source in ["kms", "ingest", "inference"] {
        for repeat in 0..2 {
            let client = world.client(
                &format!("service/{source}"),
                &[asterism_chassis::identity::Role::Service],
            );
            tasks.spawn(async move {
                for start in (0..200).step_by(10) {
                    let events: Vec<_> = (start..start + 10).map(|number| of(source, number)).collect();
                    let indexes = client.append(events).await.unwrap();
                    assert_eq!(indexes.len(), 10, "{source} {repeat}");
                }
            });
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let auditor = world.auditor();
    for source in ["kms", "ingest", "inference"] {
        let filter = EventFilter {
            source: source.into(),
            ..Default::default()
        };
        let numbers: Vec<_> = auditor
            .list_all(filter, 0)
            .await
            .into_iter()
            .map(|e| e.event.unwrap().source_sequence)
            .collect();
        assert_eq!(numbers, (1..=200).collect::<Vec<_>>(), "{source}");
    }
    let report = auditor.verify().await.unwrap();
    assert!(
        report.verified && report.sequence_problems.is_empty(),
        "{report:?}"
    );
}

#[tokio::test]
async fn holes_in_a_source_are_told() {
    let world = World::start().await;
    world
        .kms()
        .append(vec![event(0), event(1), event(4)])
        .await
        .unwrap();
    let report = world.auditor().verify().await.unwrap();
    assert!(report.verified);
    assert_eq!(report.sequence_problems, ["kms: 3 to 4 missing after 2"]);
}
