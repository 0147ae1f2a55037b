//! Stores of releases that had no `seal.json`: `root.key` *was* the root key, or `root.json` says how a passphrase became it.
//!
//! They are converted when they are opened: what opened them becomes what opens the seal, and the root key stays as version 1.

use std::path::Path;

use asterism_crypto::{Argon2Params, SecretKey};
use asterism_store::{Records, files};
use serde::Deserialize;

use super::{
    RootError, check,
    file::{KeyFileName, Kind, Salt, read_capped},
    secrets::Surroundings,
};
use crate::{config::RootKeyConfig, keys::record::VERSION};

const PARAMETERS_FILE: &str = "root.json";
/// What such a store had, one of them.
pub(crate) const FILES: [&str; 2] = ["root.key", PARAMETERS_FILE];

/// The key file of such a store, and of the first seal of a new one.
pub(crate) fn key_file() -> KeyFileName {
    KeyFileName::first()
}

/// How a passphrase became the root key.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    format: u32,
    argon2id: Argon2Params,
    salt: Salt,
}

/// What opens a store that has no seal yet; `None` for a new store.
///
/// # Errors
/// [`RootError::Damaged`]
pub(crate) fn find(
    data_dir: &Path,
    config: &RootKeyConfig,
    records: &dyn Records,
) -> Result<Option<Kind>, RootError> {
    let in_use = check::is_there(records)? || !records.scan(&[VERSION], &[VERSION], 1)?.is_empty();
    if !in_use {
        return Ok(None);
    }
    let key_file = key_file();
    let parameters = data_dir.join(PARAMETERS_FILE);
    let by_file = config.passphrase_file.is_none() && data_dir.join(key_file.as_str()).exists();
    let Some(bytes) = read_capped(&parameters)?.filter(|_| !by_file) else {
        return Ok(Some(Kind::KeyFile { file: key_file }));
    };
    let damaged = || RootError::Damaged(parameters.display().to_string());
    let read: Parameters = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
    if read.format != 1 {
        return Err(damaged());
    }
    Ok(Some(Kind::Passphrase {
        argon2id: read.argon2id,
        salt: read.salt,
    }))
}

/// Whether `key`, which the secret gives, is the root key of the store.
///
/// # Errors
/// [`RootError::WrongKeyFile`], [`RootError::WrongPassphrase`].
pub(crate) fn check(
    around: &Surroundings<'_>,
    kind: &Kind,
    records: &dyn Records,
    key: &SecretKey,
) -> Result<(), RootError> {
    if check::fits(records, key)? {
        Ok(())
    } else {
        Err(around.wrong_key(kind))
    }
}

/// Takes away what `seal.json` stands for now.
///
/// # Errors
/// The store's own.
pub(crate) fn forget(data_dir: &Path) -> Result<(), RootError> {
    let parameters = data_dir.join(PARAMETERS_FILE);
    if parameters.exists() {
        files::shred(&parameters)?;
    }
    Ok(())
}
