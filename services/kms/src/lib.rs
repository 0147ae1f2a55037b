//! Key management: issues, wraps, rotates and uses keys that never leave the service in the clear.
//!
//! Key material lies on the disk only wrapped by a [`root`] key, which itself lies there sealed. Whatever needs the root key lies
//! behind the `vault`, which may be closed. [`keys::Keyring`] is the domain: synchronous, and free of gRPC. `service.rs` translates.
#![cfg_attr(test, allow(clippy::panic))]

pub mod backup;
mod config;
pub mod directory;
mod error;
pub mod founding;
mod identity;
pub mod keys;
pub mod policy;
pub mod root;
mod service;
mod sweeper;
mod vault;
mod wire;

use std::{path::Path, sync::Arc, time::Duration};

use asterism_chassis::{
    Foundation, StartError, off_runtime,
    server::{Listeners, Running},
};
use asterism_proto::{
    identity::identity_service_server::IdentityServiceServer,
    kms::{
        backup_service_server::BackupServiceServer,
        key_management_service_server::KeyManagementServiceServer,
        system_service_server::SystemServiceServer,
    },
    policy::policy_service_server::PolicyServiceServer,
};

use asterism_store::{SledOptions, SledRecords, exchange};

pub use config::{Config, LifecycleConfig, Pkcs11Config, RootKeyConfig};
pub use error::KmsError;

use crate::{
    identity::IdentityAdapter,
    keys::{FileVersionKeys, Keyring},
    policy::PolicyAdapter,
    service::Adapter,
    vault::Vault,
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
/// When the store, its seal or a listener cannot be used; the text tells the next step. A seal that only a secret from outside opens
/// is no error: the service then starts sealed.
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
    let (mut foundation, vault) = off_runtime(move || open(&settings, &now)).await?;
    foundation.gate = foundation.gate.sealed_unless(vault.watch(), service::EXEMPT);
    let gate = &foundation.gate;
    let server = foundation.server(&config.common).serving(vault.watch());
    let max = config.common.limits.max_message_bytes;

    let keys = Adapter::new(gate.clone(), vault.clone(), clock.clone());
    let keys = KeyManagementServiceServer::new(keys)
        .max_decoding_message_size(max)
        .max_encoding_message_size(max + service::BATCH_HEADROOM_BYTES);
    let identity = IdentityAdapter::new(
        gate.clone(),
        vault.clone(),
        foundation.trust.clone(),
        clock.clone(),
        server.draining(),
    );
    let identity = IdentityServiceServer::new(identity)
        .max_decoding_message_size(max)
        .max_encoding_message_size(max.max(MAX_TRUST_BYTES));
    let policy = PolicyAdapter::new(gate.clone(), vault.clone(), clock.clone());
    let policy = PolicyServiceServer::new(policy)
        .max_decoding_message_size(max)
        .max_encoding_message_size(max);
    let data_dir = config.common.data_dir.clone();
    let backups = service::Backups::new(gate.clone(), vault.clone(), data_dir, clock.clone());
    let system = service::SystemAdapter::new(gate.clone(), vault.clone());
    let running = server
        .add(keys)
        .add(identity)
        .add(policy)
        .add(BackupServiceServer::new(backups))
        .add(SystemServiceServer::new(system).max_decoding_message_size(max))
        .spawn(listeners)?;
    tokio::spawn(sweeper::run(
        Arc::downgrade(&vault),
        gate.tracker(),
        running.draining(),
        gate.outbox().clone(),
        clock,
        Duration::from_secs(config.lifecycle.sweep_seconds),
    ));
    Ok(running)
}

/// Opens the store, and its seal where the settings name what opens it; that failing, the service does not start.
fn open(config: &Config, clock: &Clock) -> Result<(Foundation, Arc<Vault>), StartError> {
    let data_dir = &config.common.data_dir;
    exchange::settle(data_dir)?;
    let (mut foundation, mut vault) = open_store(config, clock)?;
    if !vault.status().facts.automatic {
        tracing::warn!("kms is sealed, and serves once it was unsealed with `asterism kms unseal`");
        return Ok((foundation, Arc::new(vault)));
    }
    let opened = vault.turn().unseal(None);
    match opened {
        Err(KmsError::UpgradeAtStart) => {
            copy_upgraded(data_dir, &vault.keyring_of_format_1()?)?;
            drop((foundation, vault));
            exchange::exchange(data_dir)?;
            (foundation, vault) = open_store(config, clock)?;
            vault.turn().unseal(None)?;
            tracing::info!("wrapped all key material anew, each version under a key of its own");
        }
        opened => {
            opened?;
        }
    }
    Ok((foundation, Arc::new(vault)))
}

fn open_store(config: &Config, clock: &Clock) -> Result<(Foundation, Vault), StartError> {
    let foundation = Foundation::open("kms", &config.common)?;
    let vault = Vault::new(config, &foundation, clock.clone())?;
    Ok((foundation, vault))
}

/// Copies the store of `keyring` beside it, upgraded.
fn copy_upgraded(data_dir: &Path, keyring: &Keyring) -> Result<(), StartError> {
    let copy = SledRecords::open(&exchange::copy_dir(data_dir), SledOptions::default())?;
    Ok(keyring.copy_into(&copy)?)
}

/// The keyring of a data directory that no service has open, for tools that work on it.
///
/// # Errors
/// As [`start`].
pub fn open_keyring(data_dir: &std::path::Path) -> Result<Keyring, StartError> {
    let records: Arc<dyn asterism_store::Records> = Arc::new(
        SledRecords::open(&data_dir.join(RECORDS_DIR), SledOptions::default()).map_err(StartError::Store)?,
    );
    let now_ms = system_clock()();
    let seal = root::Seal::open(data_dir, &RootKeyConfig::default(), &*records, now_ms)?;
    let roots = seal.unseal(&[], &*records, now_ms)?;
    let version_keys = FileVersionKeys::open(&data_dir.join(VERSION_KEYS_DIR))?;
    Ok(Keyring::new(
        records,
        Arc::new(version_keys),
        roots,
        keys::MIN_WINDOW_MS,
    ))
}

/// The whole process.
pub fn main() -> std::process::ExitCode {
    asterism_chassis::run_service("kms", start)
}
