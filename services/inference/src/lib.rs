//! Inference: trains on verified datasets, keeps models encrypted and signed, and predicts.
//!
//! Plaintext (rows, models) exists in this process's memory only. [`flow`] holds the use cases that need kms and ingest,
//! [`training`] the synchronous learning, [`models`] the models at rest, [`encrypted`] prediction on encrypted rows.
//! `service.rs` translates.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod access;
mod config;
pub mod encrypted;
mod error;
pub mod flow;
pub mod models;
mod service;
mod store;
pub mod training;
mod wire;

use std::sync::Arc;

use asterism_chassis::{
    Foundation, StartError,
    error::Classify as _,
    off_runtime,
    server::{Listeners, Running},
};
use asterism_client::{Connection, Credentials};
use asterism_proto::{
    inference::{
        encrypted_inference_service_server::EncryptedInferenceServiceServer,
        inference_service_server::InferenceServiceServer,
    },
    open_inference::grpc_inference_service_server::GrpcInferenceServiceServer,
};
use asterism_store::FsBlobs;

pub use config::Config;
pub use error::InferenceError;

use crate::{
    encrypted::{EncryptedFlow, Engine, EvaluationKeys, KeyLimits, LoadedKeys, Programs},
    flow::Flow,
    models::Registry,
    service::{Adapter, EncryptedAdapter, OpenInferenceAdapter},
};

/// What a message has besides an encrypted query.
const MESSAGE_OVERHEAD: usize = 1024;

/// Starts the service on listeners that are bound already.
///
/// # Errors
/// When the store, the listener or a peer's address cannot be used; the text tells the next step.
pub async fn start(config: Config, listeners: impl Into<Listeners>) -> Result<Running, StartError> {
    let common = config.common.clone();
    let key_limits = KeyLimits {
        per_owner: config.max_evaluation_keys,
        bytes: config.max_evaluation_key_bytes,
    };
    let (foundation, registry, keys) = off_runtime(move || {
        let foundation = Foundation::open("inference", &common)?;
        let blobs = Arc::new(FsBlobs::open(&common.data_dir.join("blobs"))?);
        let refused = |error: InferenceError| StartError::Other(format!("{error} ({})", error.reason()));
        let keys = EvaluationKeys::new(foundation.records.clone(), blobs.clone(), key_limits);
        let others = keys.blob_names().map_err(refused)?;
        let registry = Registry::open(foundation.records.clone(), blobs, others).map_err(refused)?;
        Ok((foundation, registry, keys))
    })
    .await?;
    let common = &config.common;
    let token = foundation.token();
    let credentials = Credentials::source(move || Ok(token()));
    let connect = |service: &str, endpoint: &Option<String>| {
        let endpoint = endpoint
            .as_deref()
            .ok_or_else(|| StartError::Other(format!("{service}_addr is not set")))?;
        let pin = foundation.pin(endpoint, service)?;
        Connection::pinned(endpoint, pin, credentials.clone())
            .map_err(|error| StartError::Other(error.to_string()))
    };
    let flow = Arc::new(Flow::new(
        Arc::new(registry),
        config.cached_models,
        connect("kms", &common.kms_addr)?,
        connect("ingest", &common.ingest_addr)?,
        config.max_table_bytes,
    ));
    let max = common.limits.max_message_bytes;
    let encrypted = Arc::new(EncryptedFlow::new(
        flow.clone(),
        Programs::new(config.cached_programs),
        Arc::new(keys),
        LoadedKeys::new(config.evaluation_key_memory),
        Engine::new(config.fhe_threads, config.fhe_queue).map_err(StartError::Other)?,
        max.saturating_sub(MESSAGE_OVERHEAD),
    ));
    let gate = &foundation.gate;
    let open = OpenInferenceAdapter::new(gate.clone(), flow.clone(), encrypted.clone());
    let open = GrpcInferenceServiceServer::new(open)
        .max_decoding_message_size(max)
        .max_encoding_message_size(max);
    let service = InferenceServiceServer::new(Adapter::new(gate.clone(), flow, encrypted.clone()))
        .max_decoding_message_size(max)
        .max_encoding_message_size(max);
    let encrypted = EncryptedInferenceServiceServer::new(EncryptedAdapter::new(gate.clone(), encrypted))
        .max_decoding_message_size(max)
        .max_encoding_message_size(max);
    foundation.follow_trust(common.kms_addr.as_deref())?;
    Ok(foundation
        .server(common)
        .add(service)
        .add(encrypted)
        .add(open)
        .spawn(listeners)?)
}

/// The whole process.
pub fn main() -> std::process::ExitCode {
    asterism_chassis::run_service("inference", start)
}
