//! The log over records in memory and on the disk.

mod appending;
mod codec;
mod converting;
mod finding;
mod killed;
mod opening;
mod proofs;
mod tampering;

use std::{path::Path, sync::Arc, time::Duration};

use asterism_crypto::Digest;
use asterism_store::{MemoryRecords, Records, SledOptions, SledRecords};
use tempfile::TempDir;

use super::{Event, EventId, Facts, Log, Outcome, Source, Timestamp};

fn sled(dir: &Path) -> Arc<dyn Records> {
    let options = SledOptions {
        lock_patience: Duration::from_secs(10),
        ..SledOptions::default()
    };
    Arc::new(SledRecords::open(&dir.join("records"), options).unwrap())
}

fn memory(_: &Path) -> Arc<dyn Records> {
    Arc::new(MemoryRecords::new())
}

type Backend = fn(&Path) -> Arc<dyn Records>;
const BACKENDS: [Backend; 2] = [memory, sled];

/// A log of `count` events, and what it is made of.
struct Filled {
    dir: TempDir,
    records: Arc<dyn Records>,
    log: Log,
}

impl Filled {
    fn new(backend: Backend, count: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let records = backend(dir.path());
        let log = open(&dir, &records);
        let events: Vec<_> = (0..count).map(event).collect();
        for batch in events.chunks(7) {
            log.append(batch, at(1000)).unwrap();
        }
        Self { dir, records, log }
    }
}

fn open(dir: &TempDir, records: &Arc<dyn Records>) -> Log {
    Log::open(records.clone(), &dir.path().join("head.json")).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::new(seconds, 5).unwrap()
}

fn id(number: u64) -> EventId {
    let mut id = [7; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    EventId::from_bytes(id)
}

fn event(number: u64) -> Event {
    Event::new(facts(number)).unwrap()
}

/// The same event for the same number; few values of each facet.
fn facts(number: u64) -> Facts {
    Facts {
        id: id(number),
        source: Source::Kms,
        source_sequence: number + 1,
        occurred_at: at(number as i64 * 10),
        outcome: Outcome::ALL[(number % 7 / 5) as usize],
        key_version: number as u32,
        input: Some(Digest::of(&number.to_be_bytes())),
        output: number.is_multiple_of(2).then(|| Digest::of(b"out")),
        principal: format!("user/{}", number % 3),
        on_behalf_of: String::new(),
        operation: if number.is_multiple_of(2) {
            "kms.Encrypt"
        } else {
            "kms.Decrypt"
        }
        .to_owned(),
        resource: format!("keys/{}", number % 5),
        reason: String::new(),
        request_id: format!("r{number}"),
        trace_id: format!("{:032x}", number / 4),
        token_id: String::new(),
        network: String::new(),
    }
}
