//! The append-only log of every crypto event, under a Merkle tree (RFC 6962).
//!
//! [`log::Log`] is the domain: synchronous, and free of gRPC. It appends, finds, and verifies; its own documentation has the
//! rules that are never broken, `log/entry.rs` the bytes that are hashed, `log/pack.rs` those that are stored, `log/keys.rs` where.
//! `service.rs` translates.
//!
//! What is appended comes from the outboxes of the services, at least once: an event id that was seen before is acknowledged
//! again, and stored once. A service appends events of its own only. This service's own events (who verified the log, who was
//! refused) go through an outbox of its own into the same log; appends that succeed, and reads, make none.
//!
//! What is acknowledged is durable. What was changed afterwards, [`log::Log::verify`] finds; a store that was replaced by an
//! older copy of itself is refused at the start, as long as `head.json` beside it is the newer one.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod checkpoint;
mod config;
mod error;
pub mod log;
mod service;
mod wire;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use asterism_chassis::{
    Foundation, StartError,
    config::Common,
    foundation::open_records,
    identity::Authority,
    off_runtime,
    outbox::Sink,
    server::{Listeners, Running},
};
use asterism_proto::audit::audit_service_server::AuditServiceServer;
use asterism_store::{Records, SledOptions, SledRecords, exchange};
use tokio::sync::watch;

pub use config::Config;
pub use error::AuditError;

use crate::{
    checkpoint::Checkpoints,
    log::{Log, layout1},
    service::Adapter,
};

/// How often the head is noted beside the store, and a checkpoint signed, if the log has grown.
const NOTE_HEAD: Duration = Duration::from_secs(1);

/// Starts the service on listeners that are bound already.
///
/// # Errors
/// When the store or the listener cannot be used, or the log was rolled back; the text tells the next step.
pub async fn start(config: Config, listeners: impl Into<Listeners>) -> Result<Running, StartError> {
    let common = &config.common;
    let settings = common.clone();
    let Opened {
        records,
        authority,
        log,
        checkpoints,
    } = off_runtime(move || open(&settings)).await?;
    let (size, _) = watch::channel(log.size());
    let size = Arc::new(size);
    let own = Sink::Local(wire::own_events(log.clone(), size.clone()));
    let settings = common.clone();
    let foundation =
        off_runtime(move || Foundation::with("audit", &settings, records, authority, own)).await?;
    let max = common.limits.max_message_bytes;
    foundation.follow_trust(common.kms_addr.as_deref())?;
    let server = foundation.server(common);
    let adapter = Adapter::new(
        foundation.gate.clone(),
        log.clone(),
        checkpoints.clone(),
        size,
        server.draining(),
    );
    let service = AuditServiceServer::new(adapter)
        .max_decoding_message_size(max)
        .max_encoding_message_size(max);
    tokio::spawn(note_head(Arc::downgrade(&log), Arc::downgrade(&checkpoints)));
    let server = server.add(service).on_shutdown(move || async move {
        let noted = tokio::task::spawn_blocking(move || note(&log, &checkpoints)).await;
        if let Ok(Err(error)) = noted {
            tracing::warn!(%error, "the head of the log could not be noted");
        }
    });
    Ok(server.spawn(listeners)?)
}

/// What the service keeps on the disk.
struct Opened {
    records: Arc<dyn Records>,
    authority: Arc<Authority>,
    log: Arc<Log>,
    checkpoints: Arc<Checkpoints>,
}

fn open(common: &Common) -> Result<Opened, StartError> {
    exchange::settle(&common.data_dir)?;
    let mut records = open_records(common)?;
    if layout1::is_layout_1(&*records)? {
        convert(common, &*records)?;
        drop(records);
        exchange::exchange(&common.data_dir)?;
        records = open_records(common)?;
        tracing::info!("the log was given a Merkle tree in place of its hash chain");
    }
    let authority = Authority::load_or_create(&common.credentials_dir)?;
    let log = Arc::new(Log::open(records.clone(), &common.data_dir.join("head.json"))?);
    let checkpoints = Checkpoints::open(&common.data_dir, log.clone())?;
    Ok(Opened {
        records,
        authority: Arc::new(authority),
        log,
        checkpoints: Arc::new(checkpoints),
    })
}

/// Copies the log of a store of layout 1 beside it, as layout 2.
fn convert(common: &Common, records: &dyn Records) -> Result<(), StartError> {
    let copy = SledRecords::open(&exchange::copy_dir(&common.data_dir), SledOptions::default())?;
    let copy: Arc<dyn Records> = Arc::new(copy);
    Ok(layout1::convert(
        records,
        &copy,
        &common.data_dir.join("head.json"),
    )?)
}

/// The whole process.
pub fn main() -> std::process::ExitCode {
    asterism_chassis::run_service("audit", start)
}

/// Notes the head and signs a checkpoint from time to time, as long as the log is there.
async fn note_head(log: Weak<Log>, checkpoints: Weak<Checkpoints>) {
    let mut every = tokio::time::interval(NOTE_HEAD);
    loop {
        every.tick().await;
        let Some((log, checkpoints)) = log.upgrade().zip(checkpoints.upgrade()) else {
            return;
        };
        let noted = tokio::task::spawn_blocking(move || note(&log, &checkpoints)).await;
        if let Ok(Err(error)) = noted {
            tracing::warn!(%error, "the head of the log could not be noted");
        }
    }
}

fn note(log: &Log, checkpoints: &Checkpoints) -> Result<(), AuditError> {
    log.note_head()?;
    checkpoints.publish().map(drop)
}
