//! Ingest: encrypts, signs, stores and verifies datasets.
//!
//! A CSV comes in chunks ([`uploads`]); it is parsed, profiled, digested and encrypted on the way, under a data key from
//! kms that is bound to dataset and owner. The manifest (schema, sizes, digests, wrapped data key) is signed by kms. What
//! is stored ([`datasets`]) is ciphertext, a chunk table, the signed manifest and one small record; all of it is checked
//! before any of it is used. The domain is synchronous and free of gRPC; `service.rs` and `wire.rs` translate,
//! `flow.rs` asks kms for keys, and `access.rs` who may do what.

mod access;
mod config;
pub mod datasets;
mod error;
mod flow;
pub mod keys;
mod service;
pub mod uploads;
mod wire;

use std::{sync::Arc, time::Duration};

use asterism_chassis::{
    Foundation, StartError, off_runtime,
    server::{Listeners, Running},
};
use asterism_client::{Connection, Credentials};
use asterism_proto::ingest::ingest_service_server::IngestServiceServer;
use asterism_store::FsBlobs;
use tokio::{runtime::Handle, time::MissedTickBehavior};

pub use config::{Config, CsvConfig, KeyConfig, UploadConfig};
pub use error::IngestError;

use crate::{
    access::Access,
    datasets::Datasets,
    flow::KeySource,
    service::{Adapter, Domain},
    uploads::{UploadLimits, Uploads},
};

/// Where kms is unless told otherwise.
const KMS_ADDR: &str = "http://127.0.0.1:7001";
/// A manifest with as many columns as there may be is larger than other messages.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Starts the service on listeners that are bound already. kms need not be there yet.
///
/// # Errors
/// When the store or the listener cannot be used; the text tells the next step.
pub async fn start(config: Config, listeners: impl Into<Listeners>) -> Result<Running, StartError> {
    let common = config.common.clone();
    let (foundation, datasets) = off_runtime(move || {
        let foundation = Foundation::open("ingest", &common)?;
        let blobs = Arc::new(FsBlobs::open(&common.data_dir.join("blobs"))?);
        let datasets = Datasets::open(foundation.records.clone(), blobs)
            .map_err(|error| StartError::Other(error.to_string()))?;
        Ok((foundation, Arc::new(datasets)))
    })
    .await?;
    let uploads = Arc::new(Uploads::new(datasets.clone(), limits(&config)));
    let kms = kms(&config, &foundation)?;
    let domain = Domain {
        datasets,
        uploads: uploads.clone(),
        access: Access::new(kms.clone()),
        keys: KeySource::new(kms, config.keys.clone(), Handle::current()),
        runtime: Handle::current(),
        csv: config.csv.limits(),
    };
    let max = config.common.limits.max_message_bytes;
    let service = IngestServiceServer::new(Adapter::new(foundation.gate.clone(), Arc::new(domain)))
        .max_decoding_message_size(max)
        .max_encoding_message_size(max.max(MAX_ANSWER_BYTES));
    foundation.follow_trust(Some(config.common.kms_addr.as_deref().unwrap_or(KMS_ADDR)))?;
    let running = foundation.server(&config.common).add(service).spawn(listeners)?;
    tokio::spawn(expire(
        uploads,
        Duration::from_secs(config.uploads.idle_seconds),
        running.draining(),
    ));
    Ok(running)
}

/// The whole process.
pub fn main() -> std::process::ExitCode {
    asterism_chassis::run_service("ingest", start)
}

fn kms(config: &Config, foundation: &Foundation) -> Result<Connection, StartError> {
    let endpoint = config.common.kms_addr.as_deref().unwrap_or(KMS_ADDR);
    let (pin, token) = (foundation.pin(endpoint, "kms")?, foundation.token());
    Connection::pinned(endpoint, pin, Credentials::source(move || Ok(token())))
        .map_err(|error| StartError::Other(error.to_string()))
}

fn limits(config: &Config) -> UploadLimits {
    UploadLimits {
        chunk_bytes: config.chunk_bytes,
        max_bytes: config.max_upload_bytes,
        max_open: config.uploads.max_open,
        max_open_per_owner: config.uploads.max_open_per_owner,
        idle: Duration::from_secs(config.uploads.idle_seconds),
        csv: config.csv.limits(),
    }
}

/// Drops idle uploads until the drain.
async fn expire(uploads: Arc<Uploads>, idle: Duration, draining: tokio_util::sync::CancellationToken) {
    let mut ticks = tokio::time::interval((idle / 4).clamp(Duration::from_secs(1), Duration::from_secs(30)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = draining.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let dropped = uploads.expire(std::time::Instant::now());
        if dropped > 0 {
            tracing::info!(count = dropped, "dropped uploads that nobody went on with");
        }
    }
}
