//! One suite of laws, run over every kind of records.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{collections::BTreeMap, sync::Arc};

use asterism_store::{Batch, MAX_VALUE, MemoryRecords, Records, SledOptions, SledRecords, StoreError};
use proptest::prelude::*;

fn over_all(law: impl Fn(Arc<dyn Records>)) {
    law(Arc::new(MemoryRecords::new()));
    let dir = tempfile::tempdir().unwrap();
    law(Arc::new(
        SledRecords::open(dir.path(), SledOptions::default()).unwrap(),
    ));
}

fn keys(records: &[(Vec<u8>, Vec<u8>)]) -> Vec<&[u8]> {
    records.iter().map(|(key, _)| key.as_slice()).collect()
}

#[test]
fn a_batch_is_written_whole_or_not_at_all() {
    over_all(|records| {
        records.commit(Batch::new().put("a", "1").put("b", "2")).unwrap();
        let refused = records.commit(Batch::new().put("a", "9").delete("b").expect_absent("a"));
        assert!(matches!(refused, Err(StoreError::Conflict)));
        let refused = records.commit(Batch::new().put("a", "9").expect_value("b", "3"));
        assert!(matches!(refused, Err(StoreError::Conflict)));
        assert_eq!(records.get(b"a").unwrap().as_deref(), Some(b"1".as_slice()));
        records
            .commit(
                Batch::new()
                    .put("a", "9")
                    .delete("b")
                    .expect_value("b", "2")
                    .expect_absent("c"),
            )
            .unwrap();
        assert_eq!(records.get(b"a").unwrap().as_deref(), Some(b"9".as_slice()));
        assert_eq!(records.get(b"b").unwrap(), None);
    });
}

#[test]
fn what_is_too_large_is_refused_and_leaves_nothing() {
    over_all(|records| {
        let refused = records.commit(Batch::new().put("a", "1").put("b", vec![0; MAX_VALUE + 1]));
        assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
        assert_eq!(records.get(b"a").unwrap(), None);
        records.commit(Batch::new().put("b", vec![0; MAX_VALUE])).unwrap();
        assert!(matches!(
            records.commit(Batch::new().put(vec![0; 513], "")),
            Err(StoreError::TooLarge { .. })
        ));
    });
}

#[test]
fn scans_keep_to_their_prefix_order_and_limit() {
    over_all(|records| {
        let all = ["a", "b1", "b2", "b3", "c"];
        records
            .commit(all.iter().fold(Batch::new(), |batch, key| batch.put(*key, "v")))
            .unwrap();
        assert_eq!(keys(&records.scan(b"", b"b", 10).unwrap()), [b"b1", b"b2", b"b3"]);
        assert_eq!(keys(&records.scan(b"b2", b"b", 10).unwrap()), [b"b2", b"b3"]);
        assert_eq!(keys(&records.scan(b"", b"b", 2).unwrap()), [b"b1", b"b2"]);
        assert_eq!(keys(&records.scan_back(None, b"b", 2).unwrap()), [b"b3", b"b2"]);
        assert_eq!(
            keys(&records.scan_back(Some(b"b3"), b"b", 9).unwrap()),
            [b"b2", b"b1"]
        );
        assert!(records.scan_back(Some(b"b"), b"b", 9).unwrap().is_empty());
        assert_eq!(records.scan(b"", b"", 100).unwrap().len(), 5);
        assert_eq!(records.scan_back(None, b"", 100).unwrap().len(), 5);
        assert!(records.scan(b"", b"d", 10).unwrap().is_empty());
    });
}

#[test]
fn of_many_who_race_for_one_value_each_wins_once() {
    over_all(|records| {
        records.commit(Batch::new().put("n", "0")).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut done = 0;
                    while done < 20 {
                        let now = records.get(b"n").unwrap().unwrap();
                        let next =
                            (String::from_utf8(now.clone()).unwrap().parse::<u64>().unwrap() + 1).to_string();
                        match records.commit(Batch::new().put("n", next).expect_value("n", now)) {
                            Ok(()) => done += 1,
                            Err(StoreError::Conflict) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                });
            }
        });
        assert_eq!(records.get(b"n").unwrap().as_deref(), Some(b"160".as_slice()));
    });
}

#[test]
fn tickets_are_answered_in_the_order_of_submission() {
    over_all(|records| {
        let tickets: Vec<_> = (0..200u32)
            .map(|n| {
                let batch = Batch::new().put("last", n.to_be_bytes());
                let batch = if n == 0 {
                    batch.expect_absent("last")
                } else {
                    batch.expect_value("last", (n - 1).to_be_bytes())
                };
                records.submit(batch)
            })
            .collect();
        for ticket in tickets {
            ticket.wait().unwrap();
        }
    });
}

#[test]
fn a_store_reopens_with_everything_and_for_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let records = SledRecords::open(dir.path(), SledOptions::default()).unwrap();
    records.commit(Batch::new().put("k", "v")).unwrap();
    let second = SledRecords::open(dir.path(), SledOptions::default());
    assert!(matches!(second.err(), Some(StoreError::Locked)));
    drop(records);
    let records = SledRecords::open(dir.path(), SledOptions::default()).unwrap();
    assert_eq!(records.get(b"k").unwrap().as_deref(), Some(b"v".as_slice()));
}

/// sled's threads hold on to a database for a while after it was closed.
#[test]
fn a_database_that_is_still_held_in_this_process_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    drop(SledRecords::open(dir.path(), SledOptions::default()).unwrap());
    let held = sled::open(dir.path().join("sled")).unwrap();
    let letting_go = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(held);
    });
    SledRecords::open(dir.path(), SledOptions::default()).unwrap();
    letting_go.join().unwrap();
}

#[test]
fn a_nearly_full_disk_refuses_writes_and_allows_deletions() {
    let dir = tempfile::tempdir().unwrap();
    {
        let records = SledRecords::open(dir.path(), SledOptions::default()).unwrap();
        records.commit(Batch::new().put("k", "v")).unwrap();
    }
    // As much space as no disk has stands for a disk without space.
    let full = SledOptions {
        min_free_bytes: u64::MAX,
        ..SledOptions::default()
    };
    let records = SledRecords::open(dir.path(), full).unwrap();
    assert!(matches!(
        records.commit(Batch::new().put("l", "v")),
        Err(StoreError::NoSpace)
    ));
    assert_eq!(records.get(b"l").unwrap(), None);
    records.commit(Batch::new().delete("k")).unwrap();
    assert_eq!(records.get(b"k").unwrap(), None);
}

#[test]
fn a_damaged_file_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    {
        let records = SledRecords::open(dir.path(), SledOptions::default()).unwrap();
        for n in 0..200u32 {
            records
                .commit(Batch::new().put(n.to_be_bytes(), vec![n as u8; 300]))
                .unwrap();
        }
    }
    let file = dir.path().join("sled").join("db");
    let original = std::fs::read(&file).unwrap();
    for at in [10, original.len() / 4, original.len() / 2] {
        let mut damaged = original.clone();
        damaged[at] ^= 0x40;
        std::fs::write(&file, &damaged).unwrap();
        // Either it says so, or everything that it gives is what was written.
        if let Ok(records) = SledRecords::open(dir.path(), SledOptions::default()) {
            for (key, value) in records.scan(b"", b"", 1000).unwrap_or_default() {
                assert!(
                    value.iter().all(|byte| *byte == key[3]),
                    "a wrong value was given"
                );
            }
        }
    }
}

/// Two records that are always changed together are the same in every snapshot.
#[test]
fn a_snapshot_is_of_one_moment() {
    over_all(|records| {
        let put = |value: u32| {
            let value = value.to_be_bytes();
            (0..50_u8).fold(Batch::new(), |batch, key| batch.put([key], value))
        };
        records.commit(put(0)).unwrap();
        let writer = records.clone();
        let writes = std::thread::spawn(move || (1..60).for_each(|value| writer.commit(put(value)).unwrap()));
        loop {
            let done = writes.is_finished();
            let mut seen = Vec::new();
            let see = &mut |key: &[u8], value: &[u8]| {
                seen.push((key.to_vec(), value.to_vec()));
                Ok(())
            };
            records.snapshot(see).unwrap();
            assert_eq!(seen.len(), 50);
            assert!(seen.is_sorted() && seen.iter().all(|(_, value)| *value == seen[0].1));
            if done {
                break;
            }
        }
        writes.join().unwrap();
    });
}

#[derive(Debug, Clone)]
enum Op {
    Put(u8, u8),
    Delete(u8),
    PutIfAbsent(u8, u8),
    Replace(u8, u8, u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..8u8, any::<u8>()).prop_map(|(k, v)| Op::Put(k, v)),
        (0..8u8).prop_map(Op::Delete),
        (0..8u8, any::<u8>()).prop_map(|(k, v)| Op::PutIfAbsent(k, v)),
        (0..8u8, 0..4u8, 0..4u8).prop_map(|(k, old, new)| Op::Replace(k, old, new)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever is done, records say what a map would.
    #[test]
    fn records_are_a_map(ops in prop::collection::vec(op(), 1..40)) {
        over_all(|records| {
            let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            for op in &ops {
                let (batch, holds, write) = match *op {
                    Op::Put(k, v) => (Batch::new().put([k], [v]), true, (k, Some(v))),
                    Op::Delete(k) => (Batch::new().delete([k]), true, (k, None)),
                    Op::PutIfAbsent(k, v) => {
                        (Batch::new().expect_absent([k]).put([k], [v]), !model.contains_key(&vec![k]), (k, Some(v)))
                    }
                    Op::Replace(k, old, new) => {
                        let holds = model.get(&vec![k]) == Some(&vec![old]);
                        (Batch::new().expect_value([k], [old]).put([k], [new]), holds, (k, Some(new)))
                    }
                };
                assert_eq!(records.commit(batch).is_ok(), holds);
                if holds {
                    match write {
                        (k, Some(v)) => model.insert(vec![k], vec![v]),
                        (k, None) => model.remove(&vec![k]),
                    };
                }
            }
            let all: BTreeMap<_, _> = records.scan(b"", b"", 100).unwrap().into_iter().collect();
            assert_eq!(all, model);
        });
    }
}
