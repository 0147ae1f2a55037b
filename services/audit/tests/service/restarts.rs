use std::fs;

use asterism_proto::audit::EventFilter;
use asterism_store::{Batch, Records as _};
use tempfile::TempDir;

use crate::support::{World, data, event, records};

const SIZE: u64 = 60;

/// Where the entries are that were appended together from that one on, as `log/keys.rs` has it.
fn entries_key(first: u64) -> Vec<u8> {
    [b"E".as_slice(), &first.to_be_bytes()].concat()
}

fn kms_events() -> EventFilter {
    EventFilter {
        source: "kms".into(),
        ..Default::default()
    }
}

async fn filled() -> World {
    let world = World::start().await;
    for first in (0..SIZE).step_by(10) {
        let events = (first..first + 10).map(event).collect();
        world.kms().append(events).await.unwrap();
    }
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

/// Flips a bit of a digest that entry 23 has.
fn alter(dir: &TempDir) {
    let records = records(dir);
    let mut stored = records.get(&entries_key(20)).unwrap().unwrap();
    let place = stored.windows(32).position(|window| window == [23; 32]).unwrap();
    stored[place] ^= 1;
    records.commit(Batch::new().put(entries_key(20), stored)).unwrap();
}

type Tamper = fn(&TempDir);

#[tokio::test]
async fn an_entry_near_the_end_that_was_altered_dropped_or_swapped_is_refused_at_the_start() {
    let tampered: [(Tamper, &str); 3] = [
        (alter, "entry 23"),
        (
            |dir| records(dir).commit(Batch::new().delete(entries_key(20))).unwrap(),
            "entry 20",
        ),
        (
            |dir| {
                let records = records(dir);
                let [one, other] = [20, 30].map(|first| records.get(&entries_key(first)).unwrap().unwrap());
                let swapped = Batch::new().put(entries_key(20), other).put(entries_key(30), one);
                records.commit(swapped).unwrap();
            },
            "head",
        ),
    ];
    for (tamper, named) in tampered {
        let problem = filled().await.refused_after(tamper).await;
        assert!(
            problem.contains("damaged") && problem.contains(named),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn what_is_not_looked_at_at_the_start_is_named_by_a_verification() {
    let tamper = |dir: &TempDir| {
        let records = records(dir);
        let (key, mut block) = records.scan(&[], b"I", 1).unwrap().remove(0);
        // The index of the last id of the block.
        *block.last_mut().unwrap() ^= 2;
        records.commit(Batch::new().put(key, block)).unwrap();
    };
    let world = filled().await.restart_after(tamper).await;
    let report = world.auditor().verify().await.unwrap();
    assert!(!report.verified);
    assert_eq!(report.first_bad_index, Some(SIZE - 1), "{report:?}");
    assert!(!report.problem.is_empty());
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

    let problem = filled().await.refused_after(alter).await;
    assert!(
        problem.contains("damaged") && problem.contains("entry 23"),
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
