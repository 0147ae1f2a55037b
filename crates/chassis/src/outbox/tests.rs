use std::{
    collections::BTreeMap,
    sync::atomic::AtomicBool,
    time::{Duration, SystemTime},
};

use asterism_store::{MemoryRecords, SledOptions, SledRecords};

use super::*;

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
    let records = Arc::new(SledRecords::open(dir.path(), SledOptions::default()).expect("store"));
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
        let records = Arc::new(SledRecords::open(dir.path(), SledOptions::default()).expect("store"));
        let outbox = Outbox::open(records, "kms", LIMITS, log.sink()).expect("outbox");
        let recorded = tokio::task::spawn_blocking(move || {
            for _ in 0..5 {
                outbox.record(event("keys/k")).expect("recorded");
            }
        });
        recorded.await.expect("recorded");
    }
    log.down.store(false, Ordering::SeqCst);
    // The first store closes when its forwarder notices that nobody needs it.
    let records = loop {
        match SledRecords::open(dir.path(), SledOptions::default()) {
            Ok(records) => break Arc::new(records),
            Err(StoreError::Locked) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(other) => panic!("{other}"),
        }
    };
    let outbox = Outbox::open(records, "kms", LIMITS, log.sink()).expect("outbox");
    outbox.record_async(event("keys/k")).await.expect("recorded");
    assert!(outbox.flush(Duration::from_secs(10)).await);
    assert_eq!(log.sequences(), (1..=6).collect::<Vec<_>>());
    let ids: BTreeSet<String> = log.events.lock().expect("log").values().map(|e| e.event_id.clone()).collect();
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
    assert_eq!(outbox.record(event("keys/k")).expect_err("full").reason(), "AUDIT_UNAVAILABLE");
    assert!(outbox.check().is_err());
    log.down.store(false, Ordering::SeqCst);
    assert!(outbox.flush(Duration::from_secs(10)).await);
    outbox.record(event("keys/k")).expect("room again");
    assert!(*outbox.serving().borrow());
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
    assert!(event.encode("inference", u64::MAX).len() <= MAX_VALUE);
}
