use std::fs;

use asterism_proto::audit::EventFilter;
use asterism_store::{Batch, Records as _};
use tempfile::TempDir;

use crate::support::{World, data, event, records};

const SIZE: u64 = 60;

/// Where an entry is kept, as `log/keys.rs` has it.
fn entry_key(index: u64) -> Vec<u8> {
    [b"e".as_slice(), &index.to_be_bytes()].concat()
}

fn kms_events() -> EventFilter {
    EventFilter {
        source: "kms".into(),
        ..Default::default()
    }
}

async fn filled() -> World {
    let world = World::start().await;
    world.kms().append((0..SIZE).map(event).collect()).await.unwrap();
    world
}

#[tokio::test]
async fn everything_is_there_after_a_restart_and_repeats_are_known() {
    let world = filled().await;
    let before = world.auditor().list_all(EventFilter::default(), 0).await;
    let world = world.restart().await;
    assert_eq!(world.auditor().list_all(EventFilter::default(), 0).await, before);
    let again: Vec<_> = (SIZE - 5..SIZE + 5).map(event).collect();
    let indexes: Vec<_> = (SIZE - 5..SIZE + 5).collect();
    assert_eq!(world.kms().append(again).await.unwrap(), indexes);
    let report = world.auditor().verify().await.unwrap();
    assert!(
        report.verified && report.sequence_problems.is_empty(),
        "{report:?}"
    );
}

/// The end that nobody prepared for: connections are cut, no hook runs.
#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_hard_stop() {
    let world = filled().await;
    let World {
        dir,
        authority,
        audit,
    } = world;
    drop(audit);
    let config = asterism_audit::Config {
        common: asterism_chassis::config::Common::embedded("audit", dir.path()),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let audit = asterism_audit::start(config, listener).await.unwrap();
    let world = World {
        dir,
        authority,
        audit,
    };
    assert_eq!(world.auditor().list_all(kms_events(), 0).await.len() as u64, SIZE);
    assert!(world.auditor().verify().await.unwrap().verified);
}

#[tokio::test]
async fn an_entry_that_was_altered_dropped_or_swapped_in_the_store_is_named() {
    let tampered: [fn(&TempDir); 3] = [
        |dir| {
            let records = records(dir);
            let mut stored = records.get(&entry_key(20)).unwrap().unwrap();
            *stored.last_mut().unwrap() ^= 1;
            records.commit(Batch::new().put(entry_key(20), stored)).unwrap();
        },
        |dir| records(dir).commit(Batch::new().delete(entry_key(20))).unwrap(),
        |dir| {
            let records = records(dir);
            let [one, other] = [20, 31].map(|index| records.get(&entry_key(index)).unwrap().unwrap());
            let swapped = Batch::new().put(entry_key(20), other).put(entry_key(31), one);
            records.commit(swapped).unwrap();
        },
    ];
    for tamper in tampered {
        let world = filled().await.restart_after(tamper).await;
        let report = world.auditor().verify().await.unwrap();
        assert!(!report.verified);
        assert_eq!(
            (report.first_bad_index, report.entries),
            (Some(20), 20),
            "{report:?}"
        );
        assert!(!report.problem.is_empty());
    }
}

#[tokio::test]
async fn a_missing_entry_is_an_error_and_not_a_shorter_answer() {
    let dropped = |dir: &TempDir| records(dir).commit(Batch::new().delete(entry_key(20))).unwrap();
    let world = filled().await.restart_after(dropped).await;
    for filter in [kms_events(), EventFilter::default()] {
        let page = world
            .auditor()
            .list(asterism_proto::audit::ListEventsRequest {
                filter: Some(filter),
                ..Default::default()
            })
            .await;
        crate::support::assert_refused(page, tonic::Code::Internal, "LOG_DAMAGED");
    }
}

#[tokio::test]
async fn a_store_that_was_rolled_back_is_refused() {
    let world = filled().await;
    let (copies, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // A copy of the store as it is now, whole in every way.
    let world = world
        .restart_after(|dir| copy(&data(dir).join("records"), copies.path()))
        .await;
    world
        .kms()
        .append((SIZE..SIZE + 3).map(event).collect())
        .await
        .unwrap();
    let problem = world
        .refused_after(|dir| {
            let store = data(dir).join("records");
            copy(&store, backup.path());
            fs::remove_dir_all(&store).unwrap();
            copy(copies.path(), &store);
        })
        .await;
    assert!(
        problem.contains("rolled back") && problem.contains("head.json"),
        "{problem}"
    );
}

#[tokio::test]
async fn a_store_that_is_gone_is_refused_and_a_damaged_end_named() {
    let problem = filled()
        .await
        .refused_after(|dir| fs::remove_dir_all(data(dir).join("records")).unwrap())
        .await;
    assert!(problem.contains("rolled back"), "{problem}");

    let last = |dir: &TempDir| {
        let records = records(dir);
        let (key, mut stored) = records.scan_back(None, b"e", 1).unwrap().remove(0);
        stored[40] ^= 1;
        records.commit(Batch::new().put(key, stored)).unwrap();
    };
    let problem = filled().await.refused_after(last).await;
    assert!(
        problem.contains("damaged") && problem.contains(&format!("entry {}", SIZE - 1)),
        "{problem}"
    );
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for found in fs::read_dir(from).unwrap() {
        let found = found.unwrap();
        let target = to.join(found.file_name());
        if found.file_type().unwrap().is_dir() {
            copy(&found.path(), &target);
        } else {
            fs::copy(found.path(), target).unwrap();
        }
    }
}
