//! Events a second into a log on this disk, with every acknowledgement after an fsync.
//!
//! `cargo run --release -p asterism-audit --example append_throughput [seconds [batch [writers]]]`
//! appends straight into the log, and then over gRPC on loopback.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use asterism_audit::log::{Event, EventId, Facts, Log, Outcome, Source, Timestamp};
use asterism_chassis::{
    config::Common,
    identity::{Authority, PrincipalId, Role},
};
use asterism_crypto::Digest;
use asterism_proto::audit::{self as pb, audit_service_client::AuditServiceClient};
use asterism_store::{Records as _, SledOptions, SledRecords};
use tonic::{Request, transport::Channel};

struct Plan {
    length: Duration,
    batch: u64,
    writers: u64,
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<u64>().unwrap());
    let length = Duration::from_secs(arguments.next().unwrap_or(5));
    let plan = Plan {
        length,
        batch: arguments.next().unwrap_or(500),
        writers: arguments.next().unwrap_or(4),
    };
    println!(
        "{} writers, batches of {}, {:?} each",
        plan.writers, plan.batch, plan.length
    );
    direct(&plan);
    over_grpc(&plan).await;
}

fn direct(plan: &Plan) {
    let dir = tempfile::tempdir().unwrap();
    let opened = Instant::now();
    let records = Arc::new(SledRecords::open(&dir.path().join("records"), SledOptions::default()).unwrap());
    let log = Log::open(records.clone(), &dir.path().join("head.json")).unwrap();
    let opened = opened.elapsed();
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..plan.writers {
            scope.spawn(|| {
                while begun.elapsed() < plan.length {
                    let first = next.fetch_add(plan.batch, Ordering::Relaxed);
                    let events: Vec<_> = (first..first + plan.batch).map(event).collect();
                    log.append(&events, SystemTime::now().into()).unwrap();
                }
            });
        }
    });
    tell("log", log.size(), begun.elapsed());
    let bytes = records.bytes_on_disk().unwrap() / log.size();
    let begun = Instant::now();
    let report = log.verify().unwrap();
    assert_eq!(report.bad, None);
    tell("verify", report.head.size, begun.elapsed());
    let head = dir.path().join("head.json");
    drop((log, records));
    let begun = Instant::now();
    let records = Arc::new(SledRecords::open(&dir.path().join("records"), SledOptions::default()).unwrap());
    let store = begun.elapsed();
    Log::open(records, &head).unwrap();
    println!(
        "opening: empty {opened:?}, then store {store:?} and log {:?}; {bytes} bytes an event on the disk",
        begun.elapsed() - store
    );
}

async fn over_grpc(plan: &Plan) {
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let config = asterism_audit::Config {
        common: Common::embedded("audit", dir.path()),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = asterism_audit::start(config, listener).await.unwrap();
    println!("service started in {:?}", begun.elapsed());
    let authority = Authority::load_or_create(&dir.path().join("credentials")).unwrap();
    let id = PrincipalId::service("kms");
    let token = authority.mint(&id, &[Role::Service], Duration::from_secs(600), SystemTime::now());
    let next = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let (length, batch) = (plan.length, plan.batch);
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..plan.writers {
        let channel = Channel::from_shared(running.url())
            .unwrap()
            .connect()
            .await
            .unwrap();
        let mut client = AuditServiceClient::new(channel);
        let (token, next) = (token.clone(), next.clone());
        writers.spawn(async move {
            while begun.elapsed() < length {
                let first = next.fetch_add(batch, Ordering::Relaxed);
                let events = (first..first + batch)
                    .map(|number| wire(event(number).facts()))
                    .collect();
                let mut request = Request::new(pb::AppendEventsRequest {
                    events,
                    receipts: false,
                });
                request
                    .metadata_mut()
                    .insert("authorization", format!("Bearer {token}").parse().unwrap());
                client.append_events(request).await.unwrap();
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    tell("gRPC", next.load(Ordering::Relaxed), begun.elapsed());
    running.shutdown().await;
}

fn tell(what: &str, events: u64, took: Duration) {
    println!(
        "{what}: {events} events in {took:.2?}, {:.0} events/s",
        events as f64 / took.as_secs_f64()
    );
}

/// As kms reports an Encrypt.
fn event(number: u64) -> Event {
    let mut id = [0x70; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    let request = Digest::of(&number.to_be_bytes());
    Event::new(Facts {
        id: EventId::from_bytes(id),
        source: Source::Kms,
        source_sequence: number + 1,
        occurred_at: Timestamp::from(SystemTime::now()),
        outcome: Outcome::Succeeded,
        key_version: 1,
        input: Some(request),
        output: Some(request),
        principal: format!("user/person{}", number % 50),
        on_behalf_of: String::new(),
        operation: "kms.Encrypt".to_owned(),
        resource: format!("keys/key{}", number % 1000),
        reason: String::new(),
        request_id: request.to_string()[..36].to_owned(),
        trace_id: request.to_string()[..32].to_owned(),
        token_id: String::new(),
        network: String::new(),
    })
    .unwrap()
}

fn wire(facts: &Facts) -> pb::Event {
    pb::Event {
        event_id: facts.id.to_string(),
        source: facts.source.to_string(),
        source_sequence: facts.source_sequence,
        occurred_at: Some(SystemTime::now().into()),
        principal: facts.principal.clone(),
        operation: facts.operation.clone(),
        resource: facts.resource.clone(),
        key_version: facts.key_version,
        outcome: pb::Outcome::Succeeded.into(),
        request_id: facts.request_id.clone(),
        trace_id: facts.trace_id.clone(),
        input_sha256: facts.input.unwrap().as_bytes().to_vec(),
        output_sha256: facts.output.unwrap().as_bytes().to_vec(),
        ..Default::default()
    }
}
