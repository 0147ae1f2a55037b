mod forwarding;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use asterism_store::{FileSpool, SpoolOptions};

use super::*;

/// A predecessor may still be letting go of the spool.
const PATIENT: SpoolOptions = SpoolOptions {
    segment_bytes: 64 << 10,
    min_free_bytes: 1 << 20,
    lock_patience: Duration::from_secs(20),
};
const LIMITS: OutboxLimits = OutboxLimits { max_events: 10_000 };

fn open(dir: &Path, limits: OutboxLimits, sink: Sink) -> Outbox {
    let spool = FileSpool::open(dir, PATIENT).expect("spool");
    Outbox::new(Arc::new(spool), "kms", limits, sink)
}

fn event(resource: &str) -> AuditEvent {
    AuditEvent {
        occurred_at: SystemTime::now(),
        principal: "user/alice".into(),
        on_behalf_of: String::new(),
        operation: "kms.Encrypt",
        resource: resource.into(),
        key_version: 1,
        outcome: Outcome::Succeeded,
        reason: "".into(),
        request_id: "r".into(),
        trace_id: String::new(),
        token_id: String::new(),
        network: String::new(),
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

/// On a single-threaded runtime nothing runs while the successor blocks on the spool's lock: a forwarder that was only told to
/// end would never do so.
#[tokio::test]
async fn a_closed_outbox_lets_go_of_the_spool_and_the_log() {
    let dir = tempfile::tempdir().expect("directory");
    let log = Log::default();
    let outbox = open(dir.path(), LIMITS, log.sink());
    outbox.record_async(event("keys/k")).await.expect("recorded");
    assert!(outbox.close(Duration::from_secs(10)).await);
    drop(outbox);
    FileSpool::open(dir.path(), PATIENT).expect("nobody holds the spool");
    assert_eq!(Arc::strong_count(&log.events), 1, "nobody holds the log");
    assert_eq!(log.sequences(), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_many_threads_arrive_without_holes() {
    let dir = tempfile::tempdir().expect("directory");
    let log = Log::default();
    let outbox = open(dir.path(), LIMITS, log.sink());
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
        let outbox = open(dir.path(), LIMITS, log.sink());
        let recorded = tokio::task::spawn_blocking(move || {
            for _ in 0..5 {
                outbox.record(event("keys/k")).expect("recorded");
            }
        });
        recorded.await.expect("recorded");
    }
    log.down.store(false, Ordering::SeqCst);
    let outbox = open(dir.path(), LIMITS, log.sink());
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
    let dir = tempfile::tempdir().expect("directory");
    let outbox = open(dir.path(), OutboxLimits { max_events: 3 }, log.sink());
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
    let dir = tempfile::tempdir().expect("directory");
    let log = Log::default();
    for round in 1..=3 {
        let outbox = open(dir.path(), LIMITS, log.sink());
        outbox.record(event("keys/k")).expect("recorded");
        assert!(outbox.flush(Duration::from_secs(10)).await);
        assert_eq!(log.sequences(), (1..=round).collect::<Vec<_>>());
        assert!(outbox.shared().spool.is_empty());
    }
}

#[tokio::test]
async fn an_outbox_that_nobody_holds_gives_its_store_back() {
    let dir = tempfile::tempdir().expect("directory");
    // An outbox without a sink waits for ever to deliver: it must not hold on to its store meanwhile.
    for _ in 0..2 {
        let spool = Arc::new(FileSpool::open(dir.path(), PATIENT).expect("spool"));
        let kept = Arc::downgrade(&spool);
        let outbox = Outbox::new(spool, "kms", LIMITS, Sink::Hold);
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
    let dir = tempfile::tempdir().expect("directory");
    let outbox = open(dir.path(), limits, Sink::Hold);
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
    let dir = tempfile::tempdir().expect("directory");
    let outbox = open(dir.path(), limits, Sink::Hold);
    drop(outbox.reserve().expect("room"));
    outbox.record(event("keys/a")).expect("room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_fill_half_of_the_outbox_at_most() {
    let limits = OutboxLimits { max_events: 10 };
    let log = Log::default();
    log.down.store(true, Ordering::SeqCst);
    let dir = tempfile::tempdir().expect("directory");
    let outbox = open(dir.path(), limits, log.sink());
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

/// A spool whose writes fail, when told.
struct Failing {
    inner: FileSpool,
    failing: AtomicBool,
}

impl Spool for Failing {
    fn next(&self) -> u64 {
        self.inner.next()
    }

    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn append(&self, sequence: u64, entry: Vec<u8>) -> Ticket {
        if self.failing.load(Ordering::SeqCst) {
            return Ticket::failed(StoreError::Closed);
        }
        self.inner.append(sequence, entry)
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.inner.read(from, limit)
    }

    fn trim(&self, below: u64) {
        self.inner.trim(below);
    }

    fn settle(&self) -> Ticket {
        self.inner.settle()
    }
}

#[tokio::test]
async fn after_a_failed_write_everything_is_refused() {
    let dir = tempfile::tempdir().expect("directory");
    let spool = Arc::new(Failing {
        inner: FileSpool::open(dir.path(), PATIENT).expect("spool"),
        failing: AtomicBool::new(false),
    });
    let outbox = Outbox::new(spool.clone(), "kms", LIMITS, Sink::Hold);
    outbox.record(event("keys/a")).expect("recorded");
    let promised = outbox.reserve().expect("room");
    spool.failing.store(true, Ordering::SeqCst);
    assert_eq!(
        outbox.record(event("keys/b")).expect_err("failed").reason(),
        "AUDIT_UNAVAILABLE"
    );
    // What is on the disk is unknown now, also when later writes would work.
    spool.failing.store(false, Ordering::SeqCst);
    assert!(promised.record(event("keys/c")).is_err());
    assert!(outbox.record(event("keys/d")).is_err());
    assert!(!*outbox.serving().borrow());
    assert_eq!(outbox.depth(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_events_and_still_lets_delivered_ones_go() {
    let dir = tempfile::tempdir().expect("directory");
    let log = Log::default();
    log.down.store(true, Ordering::SeqCst);
    let full = SpoolOptions {
        // No disk has a pebibyte free: once the first segment is full, there is no other.
        min_free_bytes: 1 << 50,
        ..PATIENT
    };
    let spool = Arc::new(FileSpool::open(dir.path(), full).expect("spool"));
    let outbox = Outbox::new(spool.clone(), "kms", LIMITS, log.sink());
    let mut recorded = 0;
    let refused = loop {
        match outbox.record_async(event("keys/k")).await {
            Ok(()) => recorded += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.reason(), "AUDIT_UNAVAILABLE");
    assert_eq!(outbox.depth(), recorded);
    assert!(
        outbox.check().is_ok(),
        "a disk that has room again needs no restart"
    );
    log.down.store(false, Ordering::SeqCst);
    assert!(outbox.flush(Duration::from_secs(20)).await);
    assert_eq!(log.sequences(), (1..=recorded).collect::<Vec<_>>());
    assert!(spool.is_empty());
}

#[test]
fn the_largest_event_fits_in_the_spool() {
    let long = "é".repeat(10_000);
    let event = AuditEvent {
        principal: long.clone(),
        on_behalf_of: long.clone(),
        resource: long.clone(),
        request_id: long.clone(),
        trace_id: long.clone(),
        token_id: long.clone(),
        network: long,
        input: Some(asterism_crypto::Digest::of(b"i")),
        output: Some(asterism_crypto::Digest::of(b"o")),
        ..event("")
    };
    let mut event = event.into_wire("inference");
    event.source_sequence = u64::MAX;
    assert!(event.encode_to_vec().len() <= MAX_ENTRY);
    assert!(event.resource.starts_with('é') && event.resource.len() <= 256);
}
