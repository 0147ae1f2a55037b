use std::{fs, sync::Arc};

use asterism_store::{Batch, MemoryRecords, Records};

use super::{Filled, at, event, memory, open, sled};
use crate::{
    error::AuditError,
    log::{Filter, Head, Log, keys},
};

#[test]
fn everything_is_there_after_a_restart() {
    let Filled { dir, records, log } = Filled::new(sled, 50);
    let (head, entries) = (log.head(), log.entries(0, 100).unwrap());
    drop((log, records));
    let records = sled(dir.path());
    let log = open(&dir, &records);
    assert_eq!(log.head(), head);
    assert_eq!(log.entries(0, 100).unwrap(), entries);
    assert_eq!(log.append(&[event(7), event(50)], at(2000)).unwrap(), [7, 50]);
    assert_eq!(log.size(), 51);
    let report = log.verify().unwrap();
    assert_eq!((report.bad, report.sequence_problems), (None, vec![]));
    let filter = Filter {
        resource: "keys/3".into(),
        ..Filter::default()
    };
    assert_eq!(log.find(&filter, 0, 100).unwrap().entries.len(), 10);
}

#[test]
fn a_log_that_was_rolled_back_does_not_open() {
    let Filled { dir, log, .. } = Filled::new(memory, 20);
    log.note_head().unwrap();
    let opened = |records: Arc<dyn Records>| Log::open(records, &dir.path().join("head.json")).err();
    for shorter in [0, 1, 19] {
        let Filled { records, .. } = Filled::new(memory, shorter);
        assert!(
            matches!(opened(records), Some(AuditError::RolledBack(_))),
            "{shorter}"
        );
    }
    // As long, and whole, but another.
    let other = Filled::new(memory, 0);
    other
        .log
        .append(&(1..30).map(event).collect::<Vec<_>>(), at(1))
        .unwrap();
    let error = opened(other.records).unwrap();
    assert!(
        matches!(&error, AuditError::RolledBack(text) if text.contains("first 20")),
        "{error}"
    );
    assert!(error.to_string().contains("head.json"), "tells the next step");
    // Gone on since.
    let Filled { records, .. } = Filled::new(memory, 25);
    assert!(opened(records).is_none());
    // Opening noted it.
    let Filled { records, .. } = Filled::new(memory, 24);
    assert!(matches!(opened(records), Some(AuditError::RolledBack(_))));
}

#[test]
fn the_note_is_of_the_durable_head_and_never_goes_back() {
    let Filled { dir, log, .. } = Filled::new(memory, 5);
    let file = dir.path().join("head.json");
    assert!(!file.exists());
    log.note_head().unwrap();
    let noted = || serde_json::from_slice::<Head>(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(noted(), log.head());
    log.append(&[event(5)], at(1)).unwrap();
    assert_eq!(noted().size, 5);
    log.note_head().unwrap();
    assert_eq!(noted(), log.head());
    drop(log);
    fs::write(&file, b"{}").unwrap();
    let opened = Log::open(Arc::new(MemoryRecords::new()), &file);
    assert!(matches!(opened, Err(AuditError::Damaged(_))));
}

type Damage = fn(&dyn Records) -> Batch;

/// What a start looks at: the head, the last entries and the tree over all.
#[test]
fn a_damaged_end_is_noticed_at_the_start() {
    let other = |records: &dyn Records, index| records.get(&keys::entries(index)).unwrap().unwrap();
    let damages: [(&str, Damage); 6] = [
        ("entry 14 is missing", |_| Batch::new().delete(keys::entries(14))),
        ("entry 14 was altered", |records| {
            let mut stored = records.get(&keys::entries(14)).unwrap().unwrap();
            stored[60] ^= 1;
            Batch::new().put(keys::entries(14), stored)
        }),
        ("head", |records| {
            let other = records.get(&keys::entries(0)).unwrap().unwrap();
            Batch::new().put(keys::entries(7), other)
        }),
        ("beyond", |records| {
            let other = records.get(&keys::entries(7)).unwrap().unwrap();
            Batch::new().put(keys::entries(20), other)
        }),
        ("head", |_| Batch::new().put([keys::HEAD], [1, 2, 3])),
        ("head", |records| {
            let mut stored = records.get(&[keys::HEAD]).unwrap().unwrap();
            stored[20] ^= 1;
            Batch::new().put([keys::HEAD], stored)
        }),
    ];
    for (named, damage) in damages {
        let Filled { dir, records, log } = Filled::new(memory, 20);
        drop(log);
        assert!(!other(&*records, 14).is_empty());
        records.commit(damage(&*records)).unwrap();
        let error = Log::open(records, &dir.path().join("head.json")).err().unwrap();
        assert!(
            matches!(&error, AuditError::Damaged(text) if text.contains(named)),
            "{named}: {error}"
        );
    }
}

/// Enough for tiles of two levels, and for runs of the index.
#[test]
fn a_long_log_opens_as_it_was() {
    const SIZE: u64 = 128 * 128 + 300;
    let Filled { dir, records, log } = Filled::new(memory, 0);
    for start in (0..SIZE).step_by(700) {
        let events: Vec<_> = (start..SIZE.min(start + 700)).map(event).collect();
        log.append(&events, at(1)).unwrap();
    }
    let (head, tile) = (log.head(), keys::tile(1, 0));
    assert!(records.get(&tile).unwrap().is_some());
    drop(log);
    let log = open(&dir, &records);
    assert_eq!(log.head(), head);
    assert_eq!(log.append(&[event(3), event(SIZE)], at(1)).unwrap(), [3, SIZE]);
    let report = log.verify().unwrap();
    assert_eq!((report.bad, report.head), (None, log.head()));
    drop(log);
    // The index is made again where it is gone.
    let runs = records.scan(&[], &[keys::INDEX], usize::MAX).unwrap();
    let gone = runs
        .iter()
        .fold(Batch::new(), |batch, (key, _)| batch.delete(key.clone()));
    records.commit(gone).unwrap();
    let log = open(&dir, &records);
    assert_eq!(log.verify().unwrap().bad, None);
    assert_eq!(records.scan(&[], &[keys::INDEX], usize::MAX).unwrap(), runs);
    drop(log);
    // A tile that was altered does not lead to the head any more.
    let mut altered = records.get(&tile).unwrap().unwrap();
    altered[100] ^= 1;
    records.commit(Batch::new().put(tile, altered)).unwrap();
    let opened = Log::open(records, &dir.path().join("head.json"));
    assert!(matches!(opened, Err(AuditError::Damaged(text)) if text.contains("head")));
}
