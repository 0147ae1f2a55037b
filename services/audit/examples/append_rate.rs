//! How fast the log takes events, what they cost, and how soon they are found.
//!
//! ```text
//! cargo run --release -p asterism-audit --example append_rate -- [EVENTS] [BATCH] [DIRECTORY]
//! ```
//! Appends realistic events in batches, each durable before the next is made, to a store on the disk. Prints one line of JSON.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use asterism_audit::log::{Event, EventId, Facts, Filter, Log, Outcome, Source};
use asterism_crypto::Digest;
use asterism_store::{SledOptions, SledRecords};
use serde_json::json;

fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = |default| args.next().map_or(default, |text| text.parse::<u64>().unwrap());
    let (events, batch) = (number(500_000), number(500).max(1));
    let kept = args.next().map(PathBuf::from);
    let scratch = tempfile::tempdir().unwrap();
    let dir = kept.as_deref().unwrap_or(scratch.path());
    let log = open(dir);
    let mut spent = Duration::ZERO;
    let (mut bytes, mut cpu, mut slowest) = (0, 0.0, Duration::ZERO);
    let first = log.size();
    for start in (first..first + events).step_by(batch as usize) {
        let made: Vec<Event> = (start..start + batch).map(event).collect();
        bytes += made.iter().map(own_bytes).sum::<usize>();
        let (begun, cpu_before) = (Instant::now(), cpu_seconds());
        log.append(&made, SystemTime::now().into()).unwrap();
        spent += begun.elapsed();
        slowest = slowest.max(begun.elapsed());
        cpu += cpu_seconds() - cpu_before;
    }
    let size = log.size();
    let by = |change: fn(&mut Filter)| {
        let mut filter = Filter::default();
        change(&mut filter);
        filter
    };
    let queries = [
        ("principal", by(|f| f.principal = "user/u17@example.org".into())),
        ("resource", by(|f| f.resource = "keys/dataset-kek-123".into())),
        ("denied", by(|f| f.outcome = Some(Outcome::Denied))),
        ("trace_id", by(|f| f.trace_id = trace(4711))),
        ("absent", by(|f| f.trace_id = "0".repeat(32))),
    ];
    let mut query_ms = serde_json::Map::new();
    for (name, filter) in queries {
        let begun = Instant::now();
        let found = log.find(&filter, 0, 100).unwrap().entries.len();
        let first = millis(begun);
        let begun = Instant::now();
        assert_eq!(log.find(&filter, 0, 100).unwrap().entries.len(), found);
        query_ms.insert(
            name.into(),
            json!({ "found": found, "first": first, "again": millis(begun) }),
        );
    }
    let proofs = 200;
    let begun = Instant::now();
    for number in 0..proofs {
        let index = u64::from_be_bytes(random(number, 9)[..8].try_into().unwrap()) % size;
        log.inclusion(index, size).unwrap();
    }
    let inclusion_us = millis(begun) * 1e3 / proofs as f64;
    let begun = Instant::now();
    for number in 0..proofs {
        let old = u64::from_be_bytes(random(number, 10)[..8].try_into().unwrap()) % size;
        log.consistency(old, size).unwrap();
    }
    let consistency_us = millis(begun) * 1e3 / proofs as f64;
    drop(log);
    let begun = Instant::now();
    let log = open(dir);
    let open_ms = millis(begun);
    let begun = Instant::now();
    let verified = log.verify().unwrap();
    let verify_s = begun.elapsed().as_secs_f64();
    println!(
        "{}",
        json!({
            "events": events, "size": size, "batch": batch,
            "events_per_s": (events as f64 / spent.as_secs_f64()).round(),
            "cpu_us_per_event": cpu * 1e6 / events as f64,
            "slowest_batch_ms": slowest.as_secs_f64() * 1e3,
            "own_bytes_per_event": bytes as f64 / events as f64,
            "disk_bytes_per_event": disk_bytes(&dir.join("records/sled")) as f64 / size as f64,
            "query_ms": query_ms, "inclusion_us": inclusion_us, "consistency_us": consistency_us, "open_ms": open_ms,
            "verified": verified.bad.is_none(), "verify_events_per_s": (size as f64 / verify_s).round(),
        })
    );
}

fn open(dir: &Path) -> Log {
    let options = SledOptions {
        lock_patience: Duration::from_secs(10),
        ..SledOptions::default()
    };
    let records = Arc::new(SledRecords::open(&dir.join("records"), options).unwrap());
    Log::open(records, &dir.join("head.json")).unwrap()
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    fields[11..13]
        .iter()
        .map(|ticks| ticks.parse::<f64>().unwrap())
        .sum::<f64>()
        / 100.0
}

fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                disk_bytes(&entry.path())
            } else {
                meta.blocks() * 512
            }
        })
        .sum()
}

/// Bytes of an entry as it is hashed: its fixed part, its digests, its texts and their lengths.
fn own_bytes(event: &Event) -> usize {
    let facts = event.facts();
    let texts = [
        &facts.principal,
        &facts.on_behalf_of,
        &facts.operation,
        &facts.resource,
        &facts.reason,
        &facts.request_id,
        &facts.trace_id,
        &facts.token_id,
        &facts.network,
    ];
    let texts: usize = texts.iter().map(|text| 2 + text.len()).sum();
    let digests = usize::from(facts.input.is_some()) + usize::from(facts.output.is_some());
    13 + 43 + 32 * digests + texts
}

/// Random as digests are, and the same for the same number.
fn random(number: u64, kind: u8) -> [u8; 32] {
    *Digest::of(&[&number.to_be_bytes()[..], &[kind]].concat()).as_bytes()
}

fn trace(number: u64) -> String {
    format!(
        "{:032x}",
        u128::from_be_bytes(random(number, 1)[..16].try_into().unwrap())
    )
}

/// As kms reports: 200 people, 500 keys, a dozen operations, one event a request; one in fifty is refused.
fn event(number: u64) -> Event {
    let dice = random(number, 0);
    let die = |at: usize, sides: u16| u16::from_be_bytes([dice[at], dice[at + 1]]) % sides;
    let (person, key) = (die(0, 200), die(2, 500));
    let operations = [
        "kms.Encrypt",
        "kms.Decrypt",
        "kms.Sign",
        "kms.Verify",
        "kms.GenerateDataKey",
        "kms.WrapKey",
        "kms.UnwrapKey",
        "kms.GetKey",
        "kms.ReEncrypt",
        "kms.Mac",
        "kms.VerifyMac",
        "kms.GetPublicKey",
    ];
    let denied = die(4, 50) == 0;
    let text = |kind| {
        let id = random(number, kind);
        let hex = format!("{:032x}", u128::from_be_bytes(id[..16].try_into().unwrap()));
        format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    };
    // UUIDv7: milliseconds, then random bits; 50 events a millisecond.
    let millis = 1_790_000_000_000 + number / 50;
    let mut id = [0; 16];
    id[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    id[6..].copy_from_slice(&random(number, 2)[..10]);
    id[6] = id[6] & 15 | 0x70;
    id[8] = id[8] & 63 | 0x80;
    let digests = !dice[8].is_multiple_of(5);
    Event::new(Facts {
        id: EventId::from_bytes(id),
        source: Source::Kms,
        source_sequence: number + 1,
        occurred_at: (SystemTime::UNIX_EPOCH
            + Duration::from_millis(millis)
            + Duration::from_nanos(number % 50 * 20_011))
        .into(),
        outcome: if denied {
            Outcome::Denied
        } else {
            Outcome::Succeeded
        },
        key_version: u32::from(key % 7),
        input: digests.then(|| Digest::from_bytes(random(number, 3))),
        output: digests.then(|| Digest::from_bytes(random(number, 4))),
        principal: format!("user/u{person}@example.org"),
        on_behalf_of: String::new(),
        operation: operations[usize::from(die(6, 12))].to_owned(),
        resource: format!("keys/dataset-kek-{key}"),
        reason: if denied { "POLICY_DENIED" } else { "" }.to_owned(),
        request_id: text(5),
        trace_id: trace(number),
        token_id: format!("tok-{:016x}", u64::from(person) * 0x9e37_79b9_7f4a_7c15),
        network: format!("10.1.{}.{}", person % 7, person),
    })
    .unwrap()
}
