mod forwarding;

use std::{
    collections::BTreeMap,
    sync::atomic::AtomicBool,
    time::{Duration, SystemTime},
};

use asterism_store::{MemoryRecords, SledOptions, SledRecords, records::Record};

use super::*;

/// A predecessor may still be letting go of the store.
const PATIENT: SledOptions = SledOptions {
    cache_bytes: 4 << 20,
    min_free_bytes: 1 << 20,
    lock_patience: Duration::from_secs(20),
};
const LIMITS: OutboxLimits = OutboxLimits { max_events: 10_000 };

fn event(resource: &str) -> AuditEvent {
    AuditEvent {
        occurred_at: SystemTime::now(),
        principal: "user/alice".into(),
        on_behalf_of: String::new(),
        operation: "kms.Encrypt",
        resource: resource.into(),
        key_version: 1,
        outcome: Outcome::Succeeded,
        reason: "",
        request_id: "r".into(),
        trace_id: String::new(),
        input: None,
        output: None,
    }
}

/// A log that keeps what it is given, by sequence number, and may be down.
#[derive(Clone, Default)]
struct Log {
    events: Arc<Mutex<BTreeMap<u64, Event>>>,
    down: Arc<AtomicBool>,
}

impl Log {
    fn sink(&self) -> Sink {
        let log = self.clone();
        Sink::Local(Arc::new(move |events| {
            if log.down.load(Ordering::SeqCst) {
                return Err(unavailable());
            }
            let mut held = log.events.lock().expect("log");
            held.extend(events.into_iter().map(|event| (event.source_sequence, event)));
            Ok(())
        }))
    }

    fn sequences(&self) -> Vec<u64> {
        self.events.lock().expect("log").keys().copied().collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_many_threads_arrive_without_holes() {
    let dir = tempfile::tempdir().expect("directory");
    let records = Arc::new(SledRecords::open(dir.path(), PATIENT).expect("store"));
    let log = Log::default();
    let outbox = Outbox::open(records, "kms", LIMITS, log.sink()).expect("outbox");
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let outbox = outbox.clone();
            std::thread::spawn(move || {
                for _ in 0..25 {
                    outbox.record(event("keys/k")).expect("recorded");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("joined");
    }
    assert!(outbox.flush(Duration::from_secs(20)).await);
    assert_eq!(log.sequences(), (1..=400).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_audit_missed_comes_after_a_restart_and_numbers_go_on() {
    let dir = tempfile::tempdir().expect("directory");
    let log = Log::default();
    log.down.store(true, Ordering::SeqCst);
    {
        let records = Arc::new(SledRecords::open(dir.path(), PATIENT).expect("store"));
        let outbox = Outbox::open(records, "kms", LIMITS, log.sink()).expect("outbox");
        let recorded = tokio::task::spawn_blocking(move || {
            for _ in 0..5 {
                outbox.record(event("keys/k")).expect("recorded");
            }
        });
        recorded.await.expect("recorded");
    }
    log.down.store(false, Ordering::SeqCst);
    let records = Arc::new(SledRecords::open(dir.path(), PATIENT).expect("store"));
    let outbox = Outbox::open(records, "kms", LIMITS, log.sink()).expect("outbox");
    outbox.record_async(event("keys/k")).await.expect("recorded");
    assert!(outbox.flush(Duration::from_secs(10)).await);
    assert_eq!(log.sequences(), (1..=6).collect::<Vec<_>>());
    let ids: BTreeSet<String> = log
        .events
        .lock()
        .expect("log")
        .values()
        .map(|e| e.event_id.clone())
        .collect();
    assert_eq!(ids.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_outbox_refuses_until_audit_takes_events_again() {
    let log = Log::default();
    log.down.store(true, Ordering::SeqCst);
    let records = Arc::new(MemoryRecords::new());
    let outbox = Outbox::open(records, "kms", OutboxLimits { max_events: 3 }, log.sink()).expect("outbox");
    for _ in 0..3 {
        outbox.record(event("keys/k")).expect("room");
    }
    assert_eq!(
        outbox.record(event("keys/k")).expect_err("full").reason(),
        "AUDIT_UNAVAILABLE"
    );
    assert!(outbox.check().is_err());
    log.down.store(false, Ordering::SeqCst);
    assert!(outbox.flush(Duration::from_secs(10)).await);
    outbox.record(event("keys/k")).expect("room again");
    assert!(*outbox.serving().borrow());
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_never_repeat_even_when_nothing_is_left() {
    let records = Arc::new(MemoryRecords::new());
    let log = Log::default();
    for round in 1..=3 {
        let outbox = Outbox::open(records.clone(), "kms", LIMITS, log.sink()).expect("outbox");
        outbox.record(event("keys/k")).expect("recorded");
        assert!(outbox.flush(Duration::from_secs(10)).await);
        assert_eq!(log.sequences(), (1..=round).collect::<Vec<_>>());
        assert!(records.scan(&[EVENT], &[EVENT], 10).expect("scan").is_empty());
    }
}

#[tokio::test]
async fn an_outbox_that_nobody_holds_gives_its_store_back() {
    let dir = tempfile::tempdir().expect("directory");
    // An outbox without a sink waits for ever to deliver: it must not hold on to its store meanwhile.
    for _ in 0..2 {
        let records = Arc::new(SledRecords::open(dir.path(), PATIENT).expect("store"));
        let kept = Arc::downgrade(&records);
        let outbox = Outbox::open(records, "kms", LIMITS, Sink::Hold).expect("outbox");
        outbox.record_async(event("keys/k")).await.expect("recorded");
        drop(outbox);
        while kept.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn room_that_was_promised_is_there() {
    let limits = OutboxLimits { max_events: 2 };
    let outbox = Outbox::open(Arc::new(MemoryRecords::new()), "kms", limits, Sink::Hold).expect("outbox");
    let promised = outbox.reserve().expect("room");
    outbox.record(event("keys/a")).expect("room");
    assert!(outbox.record(event("keys/b")).is_err(), "the rest is promised");
    promised.record(event("keys/c")).expect("promised");
    assert!(outbox.reserve().is_err());
    assert_eq!(outbox.depth(), 2);
}

#[tokio::test]
async fn room_that_is_not_used_is_free_again() {
    let limits = OutboxLimits { max_events: 1 };
    let outbox = Outbox::open(Arc::new(MemoryRecords::new()), "kms", limits, Sink::Hold).expect("outbox");
    drop(outbox.reserve().expect("room"));
    outbox.record(event("keys/a")).expect("room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_fill_half_of_the_outbox_at_most() {
    let limits = OutboxLimits { max_events: 10 };
    let log = Log::default();
    log.down.store(true, Ordering::SeqCst);
    let outbox = Outbox::open(Arc::new(MemoryRecords::new()), "kms", limits, log.sink()).expect("outbox");
    for _ in 0..100 {
        outbox.note(event(""));
    }
    assert_eq!(outbox.depth(), 5);
    outbox.record(event("keys/k")).expect("operations go on");
    log.down.store(false, Ordering::SeqCst);
    assert!(
        outbox.flush(Duration::from_secs(10)).await,
        "also what nobody waited for is delivered"
    );
    assert_eq!(log.sequences(), (1..=6).collect::<Vec<_>>());
}

/// Records whose writes fail, when told.
#[derive(Default)]
struct Failing {
    inner: MemoryRecords,
    failing: AtomicBool,
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

    fn submit(&self, batch: Batch) -> Ticket {
        // A precondition that cannot hold: only the store can make a ticket, and so fail one.
        let failing = self.failing.load(Ordering::SeqCst);
        self.inner.submit(if failing {
            batch.expect_value([0], [0])
        } else {
            batch
        })
    }

    fn bytes_on_disk(&self) -> Result<u64, StoreError> {
        self.inner.bytes_on_disk()
    }
}

#[tokio::test]
async fn after_a_failed_write_everything_is_refused() {
    let records = Arc::new(Failing::default());
    let outbox = Outbox::open(records.clone(), "kms", LIMITS, Sink::Hold).expect("outbox");
    outbox.record(event("keys/a")).expect("recorded");
    let promised = outbox.reserve().expect("room");
    records.failing.store(true, Ordering::SeqCst);
    assert_eq!(
        outbox.record(event("keys/b")).expect_err("failed").reason(),
        "AUDIT_UNAVAILABLE"
    );
    // What is on the disk is unknown now, also when later writes would work.
    records.failing.store(false, Ordering::SeqCst);
    assert!(promised.record(event("keys/c")).is_err());
    assert!(outbox.record(event("keys/d")).is_err());
    assert!(!*outbox.serving().borrow());
    assert_eq!(outbox.depth(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_events_and_still_lets_delivered_ones_go() {
    let dir = tempfile::tempdir().expect("directory");
    let log = Log::default();
    let open = |options, sink| {
        let records = Arc::new(SledRecords::open(dir.path(), options).expect("store"));
        Outbox::open(records, "kms", LIMITS, sink).expect("outbox")
    };
    let outbox = open(SledOptions::default(), Sink::Hold);
    outbox.record_async(event("keys/a")).await.expect("recorded");
    drop(outbox);

    // No disk has a pebibyte free: to the store it is full.
    let full = SledOptions {
        min_free_bytes: 1 << 50,
        ..PATIENT
    };
    let outbox = open(full, log.sink());
    assert!(
        outbox.flush(Duration::from_secs(10)).await,
        "what is there goes to audit"
    );
    let records = outbox.shared().records.clone();
    assert!(
        records.scan(&[EVENT], &[EVENT], 10).expect("scan").is_empty(),
        "and makes room"
    );
    let refused = outbox.record_async(event("keys/b")).await.expect_err("full");
    assert_eq!(refused.reason(), "AUDIT_UNAVAILABLE");
    assert_eq!(outbox.depth(), 0);
    assert!(
        outbox.check().is_ok(),
        "a disk that has room again needs no restart"
    );
}

#[tokio::test]
async fn a_head_behind_its_events_is_damage() {
    let records = Arc::new(MemoryRecords::new());
    records
        .commit(
            Batch::new()
                .put(event_key(7), [1])
                .put([NEXT], 7u64.to_be_bytes()),
        )
        .expect("written");
    let opened = Outbox::open(records, "kms", LIMITS, Sink::Hold);
    assert!(matches!(opened.map(|_| ()), Err(StoreError::Damaged(_))));
}

#[test]
fn the_largest_event_fits_in_a_record() {
    let long = "é".repeat(10_000);
    let event = AuditEvent {
        principal: long.clone(),
        on_behalf_of: long.clone(),
        resource: long.clone(),
        request_id: long.clone(),
        trace_id: long,
        input: Some(asterism_crypto::Digest::of(b"i")),
        output: Some(asterism_crypto::Digest::of(b"o")),
        ..event("")
    };
    let mut event = event.into_wire("inference");
    event.source_sequence = u64::MAX;
    assert!(event.encode_to_vec().len() <= MAX_VALUE);
    assert!(event.resource.starts_with('é') && event.resource.len() <= 256);
}
