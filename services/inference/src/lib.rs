//! Inference: trains on verified datasets, keeps models encrypted and signed, and predicts.
//!
//! Plaintext (rows, models) exists in this process's memory only. [`flow`] holds the use cases that need kms and ingest,
//! [`training`] the synchronous learning, [`models`] the models at rest, [`encrypted`] prediction on encrypted rows.
//! `service.rs` translates.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod config;
pub mod encrypted;
mod error;
pub mod flow;
pub mod models;
mod service;
pub mod training;
mod wire;

use std::sync::Arc;

use asterism_chassis::{Foundation, StartError, error::Classify as _, off_runtime, server::Running};
use asterism_client::{Connection, Credentials};
use asterism_proto::inference::inference_service_server::InferenceServiceServer;
use asterism_store::FsBlobs;
use tokio::net::TcpListener;

pub use config::Config;
pub use error::InferenceError;

use crate::{flow::Flow, models::Registry, service::Adapter};

/// Starts the service on a listener that is bound already.
///
/// # Errors
/// When the store, the listener or a peer's address cannot be used; the text tells the next step.
pub async fn start(config: Config, listener: TcpListener) -> Result<Running, StartError> {
    let common = config.common.clone();
    let (foundation, registry) = off_runtime(move || {
        let foundation = Foundation::open("inference", &common)?;
        let blobs = Arc::new(FsBlobs::open(&common.data_dir.join("blobs"))?);
        let registry = Registry::open(foundation.records.clone(), blobs)
            .map_err(|error| StartError::Other(format!("{error} ({})", error.reason())))?;
        Ok((foundation, registry))
    })
    .await?;
    let common = &config.common;
    let token = foundation.token();
    let credentials = Credentials::source(move || Ok(token()));
    let connect = |key: &str, endpoint: &Option<String>| {
        let endpoint = endpoint
            .as_deref()
            .ok_or_else(|| StartError::Other(format!("{key} is not set")))?;
        Connection::lazy(endpoint, credentials.clone()).map_err(|error| StartError::Other(error.to_string()))
    };
    let flow = Arc::new(Flow::new(
        Arc::new(registry),
        config.cached_models,
        connect("kms_addr", &common.kms_addr)?,
        connect("ingest_addr", &common.ingest_addr)?,
        config.max_table_bytes,
    ));
    let max = common.limits.max_message_bytes;
    let service = InferenceServiceServer::new(Adapter::new(foundation.gate.clone(), flow))
        .max_decoding_message_size(max)
        .max_encoding_message_size(max);
    Ok(foundation.server(common).add(service).spawn(listener)?)
}

/// The whole process.
pub fn main() -> std::process::ExitCode {
    asterism_chassis::run_service("inference", start)
}
