use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use asterism_store::{Batch, MAX_VALUE, MemoryRecords, Records, StoreError, Ticket, records::Record};

use super::{BACKENDS, Filled, at, event, facts, id, memory, open};
use crate::{
    error::AuditError,
    log::{Event, Facts, Filter, Log, MAX_APPEND, Source},
};

#[test]
fn a_repeated_event_keeps_its_index_and_a_changed_one_is_refused() {
    for backend in BACKENDS {
        let Filled { log, .. } = Filled::new(backend, 10);
        assert_eq!(
            log.append(&[event(3), event(10), event(10)], at(2000)).unwrap(),
            [3, 10, 10]
        );
        assert_eq!(log.append(&[event(3), event(10)], at(2000)).unwrap(), [3, 10]);
        assert_eq!(log.size(), 11);
        let changed = Event::new(Facts {
            key_version: 99,
            ..facts(4)
        })
        .unwrap();
        let refused = log.append(&[event(11), changed.clone()], at(2000));
        assert!(matches!(refused, Err(AuditError::EventIdReused(reused)) if reused == id(4)));
        let within = Event::new(Facts {
            key_version: 99,
            ..facts(12)
        })
        .unwrap();
        assert!(log.append(&[event(12), within], at(2000)).is_err());
        assert_eq!(log.size(), 11);
        assert!(log.append(&[], at(2000)).unwrap().is_empty());
        assert_eq!(log.verify().unwrap().bad, None);
    }
}

#[test]
fn an_append_of_too_many_events_is_refused() {
    let Filled { log, .. } = Filled::new(memory, 0);
    let events: Vec<_> = (0..=MAX_APPEND as u64).map(event).collect();
    assert!(matches!(
        log.append(&events, at(1)),
        Err(AuditError::Field { .. })
    ));
    assert_eq!(log.append(&events[1..], at(1)).unwrap().len(), MAX_APPEND);
}

#[test]
fn the_log_never_goes_back_in_time() {
    let Filled { dir, records, log } = Filled::new(memory, 1);
    log.append(&[event(1)], at(5000)).unwrap();
    log.append(&[event(2)], at(4000)).unwrap();
    drop(log);
    open(&dir, &records).append(&[event(3)], at(3000)).unwrap();
    let times: Vec<_> = open(&dir, &records)
        .entries(0, 10)
        .unwrap()
        .iter()
        .map(|e| e.appended_at)
        .collect();
    assert_eq!(times, [at(1000), at(5000), at(5000), at(5000)]);
}

/// Events of several threads, each of which sends its own twice and everybody's first: every event is there once, at the
/// index that everybody was told, in the order of its source.
#[test]
fn concurrent_appends_lose_and_double_nothing() {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 25;
    for backend in BACKENDS {
        let Filled { log, .. } = Filled::new(backend, 0);
        let of = |thread: u64, round: u64| {
            let source = Source::ALL[(thread % 4) as usize];
            Event::new(Facts {
                source,
                ..facts(1 + thread * 1000 + round)
            })
            .unwrap()
        };
        let told: Vec<(Event, u64)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let log = &log;
                    scope.spawn(move || {
                        let mut told = vec![];
                        for round in 0..ROUNDS {
                            let mut batch: Vec<_> = (0..4).map(|n| of(thread, round * 4 + n)).collect();
                            batch.push(event(0));
                            for _ in 0..2 {
                                let indexes = log.append(&batch, at(1)).unwrap();
                                assert!(
                                    indexes.iter().all(|index| *index < log.size()),
                                    "told before durable"
                                );
                                told.extend(batch.iter().cloned().zip(indexes));
                            }
                        }
                        told
                    })
                })
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        let entries = log.entries(0, usize::MAX).unwrap();
        assert_eq!(entries.len() as u64, THREADS * ROUNDS * 4 + 1);
        let ids: BTreeSet<_> = entries.iter().map(|entry| entry.event.facts().id).collect();
        assert_eq!(ids.len(), entries.len());
        for (event, index) in told {
            assert_eq!(entries[index as usize].event, event);
        }
        assert_eq!(log.verify().unwrap().bad, None);
    }
}

/// Refuses batches while told so, as a store does whose disk is full.
struct Failing {
    inner: MemoryRecords,
    fail: AtomicBool,
}

impl Records for Failing {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(key)
    }

    fn scan(&self, from: &[u8], prefix: &[u8], limit: usize) -> Result<Vec<Record>, StoreError> {
        self.inner.scan(from, prefix, limit)
    }

    fn scan_back(
        &self,
        before: Option<&[u8]>,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.inner.scan_back(before, prefix, limit)
    }

    fn snapshot(&self, see: &mut asterism_store::SeeRecord<'_>) -> Result<(), StoreError> {
        self.inner.snapshot(see)
    }

    fn submit(&self, batch: Batch) -> Ticket {
        let batch = if self.fail.load(Ordering::Relaxed) {
            batch.put(*b"too large", vec![0; MAX_VALUE + 1])
        } else {
            batch
        };
        self.inner.submit(batch)
    }

    fn bytes_on_disk(&self) -> Result<u64, StoreError> {
        self.inner.bytes_on_disk()
    }
}

#[test]
fn after_an_append_that_wrote_nothing_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let records = Arc::new(Failing {
        inner: MemoryRecords::new(),
        fail: AtomicBool::new(false),
    });
    let log = Log::open(records.clone(), &dir.path().join("head.json")).unwrap();
    log.append(&[event(0)], at(1)).unwrap();
    records.fail.store(true, Ordering::Relaxed);
    assert!(matches!(
        log.append(&[event(1)], at(1)),
        Err(AuditError::Store(_))
    ));
    assert!(matches!(
        log.append(&[event(1), event(2)], at(1)),
        Err(AuditError::Store(_))
    ));
    assert_eq!(log.append(&[event(0)], at(1)).unwrap(), [0]);
    records.fail.store(false, Ordering::Relaxed);
    assert_eq!(log.append(&[event(1)], at(1)).unwrap(), [1]);
    let report = log.verify().unwrap();
    assert_eq!(
        (report.bad, report.head.size, report.sequence_problems.len()),
        (None, 2, 0)
    );
}

#[test]
fn after_somebody_else_wrote_the_log_is_closed() {
    let Filled { dir, records, log } = Filled::new(memory, 3);
    let other = open(&dir, &records);
    other.append(&[event(3)], at(1)).unwrap();
    assert!(matches!(
        log.append(&[event(4)], at(1)),
        Err(AuditError::Interrupted)
    ));
    for _ in 0..2 {
        let closed = log.append(&[event(4)], at(1));
        assert!(
            matches!(closed, Err(AuditError::Store(StoreError::Closed))),
            "{closed:?}"
        );
        assert!(log.find(&Filter::default(), 0, 1).is_err());
        assert!(log.verify().is_err());
    }
    assert_eq!(other.size(), 4);
    assert_eq!(other.verify().unwrap().bad, None);
}

#[test]
fn what_is_not_durable_is_not_shown() {
    let Filled { dir, records, log } = Filled::new(memory, 3);
    // As another append looks that was applied and not yet fsynced.
    let other = open(&dir, &records);
    other.append(&[event(3)], at(1)).unwrap();
    assert_eq!(log.entries(0, 10).unwrap().len(), 3);
    assert_eq!(log.entries(3, 10).unwrap().len(), 0);
    assert_eq!(log.find(&Filter::default(), 0, 10).unwrap().entries.len(), 3);
    assert!(log.inclusion(3, 4).is_err());
}
