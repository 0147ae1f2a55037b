//! Key management: issues, wraps, rotates and uses keys that never leave the service in the clear.
//!
//! Key material lies on the disk only wrapped by a [`root`] key; the root key lies in a file of mode 0600, or comes from
//! a passphrase. [`keys::Keyring`] is the domain: synchronous, and free of gRPC. `service.rs` translates.
#![cfg_attr(test, allow(clippy::panic))]

pub mod backup;
mod config;
pub mod directory;
mod error;
mod identity;
pub mod keys;
pub mod policy;
pub mod root;
mod service;
mod sweeper;
mod wire;

use std::{path::Path, sync::Arc, time::Duration};

use asterism_chassis::{
    Foundation, StartError, off_runtime,
    server::{Listeners, Running},
};
use asterism_proto::{
    identity::identity_service_server::IdentityServiceServer,
    kms::{
        backup_service_server::BackupServiceServer, key_management_service_server::KeyManagementServiceServer,
    },
    policy::policy_service_server::PolicyServiceServer,
};

use asterism_store::{SledOptions, SledRecords, exchange};

pub use config::{Config, LifecycleConfig, RootKeyConfig};
pub use error::KmsError;

use crate::{
    directory::Directory,
    identity::IdentityAdapter,
    keys::{FileVersionKeys, Keyring, evaluation::EvaluationKeys},
    policy::{Policy, PolicyAdapter},
    service::Adapter,
};

/// Directory of the versions' wrapping keys, beside the records.
const VERSION_KEYS_DIR: &str = "version-keys";
/// Directory of the records.
const RECORDS_DIR: &str = "records";

/// What watchers of revocations are told at once may be larger than other messages.
const MAX_TRUST_BYTES: usize = 16 << 20;

/// Milliseconds since 1970, asked anew for every request.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The time of this machine.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        std::time::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_millis() as u64)
    })
}

/// Starts the service on listeners that are bound already.
///
/// # Errors
/// When the store, the root key or a listener cannot be used; the text tells the next step.
pub async fn start(config: Config, listeners: impl Into<Listeners>) -> Result<Running, StartError> {
    start_with_clock(config, listeners, system_clock()).await
}

/// As [`start`], by another clock than the machine's.
///
/// # Errors
/// As [`start`].
pub async fn start_with_clock(
    config: Config,
    listeners: impl Into<Listeners>,
    clock: Clock,
) -> Result<Running, StartError> {
    let (settings, now) = (config.clone(), clock.clone());
    let (foundation, keyring, directory) = off_runtime(move || open(&settings, &now)).await?;
    let evaluation_keys = Arc::new(EvaluationKeys::new(foundation.records.clone()));
    let policy = Policy::open(&foundation.records, keyring.clone())
        .map_err(|error| StartError::Other(error.to_string()))?;
    let adapter = Adapter::new(
        foundation.gate.clone(),
        keyring.clone(),
        evaluation_keys,
        policy.clone(),
        clock.clone(),
    );
    let max = config.common.limits.max_message_bytes;
    let service = KeyManagementServiceServer::new(adapter)
        .max_decoding_message_size(max)
        .max_encoding_message_size(max + service::BATCH_HEADROOM_BYTES);
    let server = foundation.server(&config.common);
    let identity = IdentityAdapter::new(
        foundation.gate.clone(),
        directory.clone(),
        foundation.trust.clone(),
        clock.clone(),
        server.draining(),
    );
    let identity = IdentityServiceServer::new(identity)
        .max_decoding_message_size(max)
        .max_encoding_message_size(max.max(MAX_TRUST_BYTES));
    let policy = PolicyAdapter::new(foundation.gate.clone(), policy, clock.clone());
    let policy = PolicyServiceServer::new(policy)
        .max_decoding_message_size(max)
        .max_encoding_message_size(max);
    let backups = service::Backups::new(
        foundation.gate.clone(),
        keyring.clone(),
        config.common.data_dir.clone(),
        clock.clone(),
    );
    let running = server
        .add(service)
        .add(identity)
        .add(policy)
        .add(BackupServiceServer::new(backups))
        .spawn(listeners)?;
    let every = Duration::from_secs(config.lifecycle.sweep_seconds);
    let (outbox, draining) = (foundation.gate.outbox().clone(), running.draining());
    tokio::spawn(async move {
        let sweeping = sweeper::run(Arc::downgrade(&keyring), outbox, clock.clone(), every);
        let forgetting = sweeper::run_directory(Arc::downgrade(&directory), clock, every);
        drop((keyring, directory));
        tokio::select! {
            () = draining.cancelled() => {}
            () = sweeping => {}
            () = forgetting => {}
        }
    });
    Ok(running)
}

/// Opens the store and the root key, and does what became due while the service was down.
fn open(config: &Config, clock: &Clock) -> Result<(Foundation, Arc<Keyring>, Arc<Directory>), StartError> {
    let data_dir = &config.common.data_dir;
    exchange::settle(data_dir)?;
    let (mut foundation, mut keyring, mut directory) = open_store(config, clock)?;
    let mut swept = 0;
    if !keyring.is_current().map_err(other)? {
        if keyring.needs_upgrade().map_err(other)? {
            copy_upgraded(data_dir, &keyring)?;
            drop((foundation, keyring, directory));
            exchange::exchange(data_dir)?;
            (foundation, keyring, directory) = open_store(config, clock)?;
            tracing::info!("wrapped all key material anew, each version under a key of its own");
        }
        swept += keyring.sweep_orphans().map_err(other)?;
        keyring.make_current().map_err(other)?;
    }
    backup::report(data_dir, foundation.gate.outbox())?;
    swept += keyring.settle_pending().map_err(other)?;
    if swept > 0 {
        tracing::info!(
            count = swept,
            "shredded wrapping keys of versions that were never made"
        );
    }
    sweeper::sweep(&keyring, foundation.gate.outbox(), clock());
    Ok((foundation, Arc::new(keyring), Arc::new(directory)))
}

/// Copies the store of `keyring` beside it, upgraded.
fn copy_upgraded(data_dir: &Path, keyring: &Keyring) -> Result<(), StartError> {
    let copy = SledRecords::open(&exchange::copy_dir(data_dir), SledOptions::default())?;
    keyring.copy_into(&copy).map_err(other)
}

/// The keyring of a data directory that no service has open, for tools that work on it.
///
/// # Errors
/// As [`start`].
pub fn open_keyring(data_dir: &std::path::Path) -> Result<Keyring, StartError> {
    let records: Arc<dyn asterism_store::Records> = Arc::new(
        SledRecords::open(&data_dir.join(RECORDS_DIR), SledOptions::default()).map_err(StartError::Store)?,
    );
    let root = root::open(data_dir, &RootKeyConfig::default(), &*records)?;
    let version_keys = FileVersionKeys::open(&data_dir.join(VERSION_KEYS_DIR))?;
    Ok(Keyring::new(
        records,
        Arc::new(version_keys),
        root,
        keys::MIN_WINDOW_MS,
    ))
}

fn open_store(config: &Config, clock: &Clock) -> Result<(Foundation, Keyring, Directory), StartError> {
    let data_dir = &config.common.data_dir;
    let foundation = Foundation::open("kms", &config.common)?;
    let root = root::open(data_dir, &config.root_key, &*foundation.records)?;
    let version_keys = FileVersionKeys::open(&data_dir.join(VERSION_KEYS_DIR))?;
    let min_window_ms = config.lifecycle.min_destroy_window_seconds.saturating_mul(1000);
    let records = foundation.records.clone();
    foundation.trust.govern(clock.clone());
    let directory = Directory::open(records.clone(), &root, foundation.trust.clone(), clock())
        .map_err(|error| StartError::Other(error.to_string()))?;
    let keyring = Keyring::new(records, Arc::new(version_keys), root, min_window_ms);
    Ok((foundation, keyring, directory))
}

fn other(error: KmsError) -> StartError {
    StartError::Other(error.to_string())
}

/// The whole process.
pub fn main() -> std::process::ExitCode {
    asterism_chassis::run_service("kms", start)
}
