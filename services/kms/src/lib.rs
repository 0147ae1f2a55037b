//! Key management: issues, wraps, rotates and uses keys that never leave the service in the clear.
//!
//! Key material lies on the disk only wrapped by a [`root`] key; the root key lies in a file of mode 0600, or comes from
//! a passphrase. [`keys::Keyring`] is the domain: synchronous, and free of gRPC. `service.rs` translates.

mod config;
mod error;
pub mod keys;
pub mod root;
mod service;
mod wire;

use std::sync::Arc;

use asterism_chassis::{
    Foundation, StartError, off_runtime,
    server::{Listeners, Running},
};
use asterism_proto::kms::key_management_service_server::KeyManagementServiceServer;

pub use config::{Config, RootKeyConfig};
pub use error::KmsError;

use crate::{
    keys::{Keyring, evaluation::EvaluationKeys},
    service::Adapter,
};

/// Starts the service on listeners that are bound already.
///
/// # Errors
/// When the store, the root key or the listener cannot be used; the text tells the next step.
pub async fn start(config: Config, listeners: impl Into<Listeners>) -> Result<Running, StartError> {
    let (common, root_key) = (config.common.clone(), config.root_key.clone());
    let (foundation, root) = off_runtime(move || {
        let foundation = Foundation::open("kms", &common)?;
        let root = root::open(&common.data_dir, &root_key, &*foundation.records)?;
        Ok((foundation, root))
    })
    .await?;
    let keyring = Arc::new(Keyring::new(foundation.records.clone(), root));
    let evaluation_keys = Arc::new(EvaluationKeys::new(foundation.records.clone()));
    let adapter = Adapter::new(foundation.gate.clone(), keyring, evaluation_keys);
    let max = config.common.limits.max_message_bytes;
    let service = KeyManagementServiceServer::new(adapter)
        .max_decoding_message_size(max)
        .max_encoding_message_size(max);
    Ok(foundation.server(&config.common).add(service).spawn(listeners)?)
}

/// The whole process.
pub fn main() -> std::process::ExitCode {
    asterism_chassis::run_service("kms", start)
}
