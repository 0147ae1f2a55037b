use asterism_proto::audit::EventFilter;
use tonic::Code;

use crate::support::{PATIENCE, World, event, next, of};
use asterism_chassis::identity::Role;

#[tokio::test]
async fn a_watcher_sees_what_was_and_what_comes_once_and_in_order() {
    const BEFORE: u64 = 400;
    const WRITERS: u64 = 4;
    const EACH: u64 = 300;
    let world = World::start().await;
    let kms = world.kms();
    kms.append((0..BEFORE).map(event).collect()).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let kms = kms.clone();
        tasks.spawn(async move {
            let first = BEFORE + writer * EACH;
            for number in (first..first + EACH).step_by(3) {
                kms.append((number..number + 3).map(event).collect())
                    .await
                    .unwrap();
            }
        });
    }
    // Joins at different places while all that goes on.
    for from in [0, 1, 399, 400, 700] {
        let auditor = world.auditor();
        tasks.spawn(async move {
            let mut watch = auditor.watch(EventFilter::default(), Some(from)).await.unwrap();
            let mut ids = std::collections::BTreeSet::new();
            for expected in from..BEFORE + WRITERS * EACH {
                let entry = next(&mut watch).await.unwrap();
                assert_eq!(entry.index, expected);
                assert!(ids.insert(entry.event.unwrap().event_id));
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let report = world.auditor().verify().await.unwrap();
    assert!(report.verified, "{report:?}");
}

#[tokio::test]
async fn without_an_index_only_what_comes_is_seen_and_only_what_matches() {
    let world = World::start().await;
    let kms = world.kms();
    kms.append((0..10).map(event).collect()).await.unwrap();
    let filter = EventFilter {
        resource: "keys/2".into(),
        ..Default::default()
    };
    let mut watch = world.auditor().watch(filter, None).await.unwrap();
    world
        .client("service/ingest", &[Role::Service])
        .append(vec![of("ingest", 1)])
        .await
        .unwrap();
    kms.append((10..20).map(event).collect()).await.unwrap();
    let numbers = [next(&mut watch).await.unwrap(), next(&mut watch).await.unwrap()]
        .map(|entry| entry.event.unwrap().source_sequence - 1);
    assert_eq!(numbers, [12, 17]);
}

#[tokio::test]
async fn a_bad_filter_is_refused_and_a_shutdown_ends_the_watch_with_a_status() {
    let world = World::start().await;
    world.kms().append(vec![event(0)]).await.unwrap();
    let auditor = world.auditor();
    let bad = EventFilter {
        source: "ledger".into(),
        ..Default::default()
    };
    let refused = auditor.watch(bad, None).await.unwrap().message().await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);

    let mut watch = auditor.watch(EventFilter::default(), Some(0)).await.unwrap();
    next(&mut watch).await.unwrap();
    let stopped = tokio::spawn(world.audit.shutdown());
    let ended = next(&mut watch).await;
    assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    tokio::time::timeout(PATIENCE, stopped).await.unwrap().unwrap();
}

/// Watchers that read nothing hold up neither writers, nor other watchers, nor the shutdown.
#[tokio::test]
async fn a_slow_watcher_is_in_nobodys_way() {
    let world = World::start().await;
    let kms = world.kms();
    let mut idle = vec![];
    // More than there are places for work, each on a connection of its own: on a shared one they would use up its window.
    for _ in 0..40 {
        idle.push(
            world
                .auditor()
                .watch(EventFilter::default(), Some(0))
                .await
                .unwrap(),
        );
    }
    let mut awake = world
        .auditor()
        .watch(EventFilter::default(), Some(0))
        .await
        .unwrap();
    for start in (0..5000).step_by(1000) {
        tokio::time::timeout(PATIENCE, kms.append((start..start + 1000).map(event).collect()))
            .await
            .expect("writers wait for nobody")
            .unwrap();
    }
    for expected in 0..5000 {
        assert_eq!(next(&mut awake).await.unwrap().index, expected);
    }
    // It has missed nothing when it wakes.
    let late = &mut idle[7];
    for expected in 0..5000 {
        assert_eq!(next(late).await.unwrap().index, expected);
    }
    tokio::time::timeout(PATIENCE, world.audit.shutdown())
        .await
        .expect("shutdown waits for nobody");
}
