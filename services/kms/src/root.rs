//! The root key, under which all key material is wrapped.
//!
//! A check value, sealed under the root key and kept with the keys, tells the right root key from a wrong one at start:
//! a store is never opened, and no key ever made, under another root key than its own.

mod check;
mod error;
mod file;
mod key_file;
mod legacy;
mod roots;
mod seal;
mod secrets;
mod token;

pub use error::{RootError, TokenError};
pub use roots::Roots;
pub use seal::{AllWrapped, Seal, SealFacts, init};
pub use secrets::{GivenShares, MAX_PASSPHRASE_BYTES, MIN_PASSPHRASE_BYTES, NewSeal, SealKind, Secret};

use secrets::secret_file;

use std::path::Path;

use asterism_chassis::StartError;
use asterism_crypto::{Argon2Params, KeyRef, SecretKey, envelope, password, random_array};
use asterism_store::{Batch, Records, StoreError, files};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::config::RootKeyConfig;

const KEY_FILE: &str = "root.key";
const PASSPHRASE_FILE: &str = "root.json";
/// Record: this byte -> the check value.
const CHECK: &[u8] = b"c";
const CHECK_TEXT: &[u8] = b"asterism root key check";
const CHECK_AAD: &[u8] = b"asterism/root-check/v1";

/// How a passphrase becomes the root key. Nothing of it is secret.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PassphraseParameters {
    format: u32,
    argon2id: Argon2Params,
    /// Hex.
    salt: String,
}

/// Opens, or at the very first start makes, the root key of the store.
///
/// # Errors
/// [`StartError::Other`] when the key is missing, or is not the one that the store was made with.
pub fn open(data_dir: &Path, config: &RootKeyConfig, records: &dyn Records) -> Result<SecretKey, StartError> {
    let check = records.get(CHECK)?;
    let root = match &config.passphrase_file {
        Some(file) => from_passphrase(data_dir, file, check.is_some())?,
        None => from_key_file(data_dir, check.is_some())?,
    };
    match check {
        Some(check) => match envelope::open(&root, &check, CHECK_AAD) {
            Ok(text) if text.expose() == CHECK_TEXT => Ok(root),
            _ => Err(StartError::Other(
                "the root key is not the one that this store was made with; give the right key file or passphrase"
                    .to_owned(),
            )),
        },
        None => {
            let key = KeyRef { key: "root".to_owned(), version: 1 };
            let sealed = envelope::seal(&root, &key, CHECK_TEXT, CHECK_AAD).map_err(other)?;
            records.commit(Batch::new().expect_absent(CHECK).put(CHECK, sealed))?;
            Ok(root)
        }
    }
}

fn from_key_file(data_dir: &Path, in_use: bool) -> Result<SecretKey, StartError> {
    let path = data_dir.join(KEY_FILE);
    let shown = path.display();
    if path.exists() {
        let bytes = Zeroizing::new(files::read_private(&path)?);
        return SecretKey::try_from_slice(&bytes).map_err(|_| {
            StartError::Other(format!(
                "{shown} is not a root key of 32 bytes; restore it from a backup"
            ))
        });
    }
    if in_use {
        let text =
            format!("{shown} is missing, and nothing in this store can be read without it; restore the file");
        return Err(StartError::Other(text));
    }
    let root = SecretKey::generate().map_err(other)?;
    files::write_atomic(&path, root.expose(), 0o600)?;
    tracing::warn!(
        file = %shown,
        "made a root key; back it up, apart from backups of the data, or seal with a passphrase"
    );
    Ok(root)
}

fn from_passphrase(data_dir: &Path, file: &Path, in_use: bool) -> Result<SecretKey, StartError> {
    let text = Zeroizing::new(files::read_private(file)?);
    let passphrase = text.trim_ascii_end();
    if passphrase.len() < MIN_PASSPHRASE_BYTES {
        return Err(StartError::Other(format!(
            "the passphrase needs at least {MIN_PASSPHRASE_BYTES} bytes"
        )));
    }
    let path = data_dir.join(PASSPHRASE_FILE);
    if !path.exists() {
        if in_use {
            let shown = path.display();
            let text = format!("{shown} is missing: this store has a key file, or the file must be restored");
            return Err(StartError::Other(text));
        }
        let salt: [u8; 16] = random_array().map_err(other)?;
        let parameters = PassphraseParameters {
            format: 1,
            argon2id: Argon2Params::default(),
            salt: hex(&salt),
        };
        files::write_atomic(
            &path,
            &serde_json::to_vec_pretty(&parameters).map_err(other)?,
            0o600,
        )?;
    }
    let damaged = || {
        StartError::Other(format!(
            "{} cannot be read; restore it from a backup",
            path.display()
        ))
    };
    let stored = std::fs::read(&path).map_err(StoreError::from)?;
    let parameters: PassphraseParameters = serde_json::from_slice(&stored).map_err(|_| damaged())?;
    let salt = unhex(&parameters.salt)
        .filter(|_| parameters.format == 1)
        .ok_or_else(damaged)?;
    password::derive_key(passphrase, &salt, &parameters.argon2id).map_err(other)
}

fn other(error: impl std::fmt::Display) -> StartError {
    StartError::Other(error.to_string())
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let plain = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    plain
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
        .map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use asterism_store::MemoryRecords;

    use super::*;

    #[test]
    fn the_key_file_is_private_kept_and_missed() {
        let dir = tempfile::tempdir().expect("directory");
        let records = MemoryRecords::new();
        let config = RootKeyConfig::default();
        let first = open(dir.path(), &config, &records).expect("made");
        let path = dir.path().join(KEY_FILE);
        assert_eq!(
            fs::metadata(&path).expect("file").permissions().mode() & 0o777,
            0o600
        );
        let second = open(dir.path(), &config, &records).expect("kept");
        assert_eq!(first.expose(), second.expose());

        let elsewhere = tempfile::tempdir().expect("directory");
        let missing = open(elsewhere.path(), &config, &records)
            .err()
            .expect("refused")
            .to_string();
        assert!(missing.contains("missing"), "{missing}");
        assert!(
            !elsewhere.path().join(KEY_FILE).exists(),
            "a second root key was made"
        );

        files::write_atomic(&path, &[7; 32], 0o600).expect("replaced");
        let wrong = open(dir.path(), &config, &records)
            .err()
            .expect("refused")
            .to_string();
        assert!(wrong.contains("not the one"), "{wrong}");
    }

    #[test]
    fn a_passphrase_opens_what_it_sealed_and_no_other_does() {
        let dir = tempfile::tempdir().expect("directory");
        let records = MemoryRecords::new();
        let file = dir.path().join("passphrase");
        let config = RootKeyConfig {
            passphrase_file: Some(file.clone()),
            ..RootKeyConfig::default()
        };
        files::write_atomic(&file, b"short\n", 0o600).expect("written");
        assert!(open(dir.path(), &config, &records).is_err());
        files::write_atomic(&file, b"correct horse battery\n", 0o600).expect("written");
        let first = open(dir.path(), &config, &records).expect("sealed");
        let second = open(dir.path(), &config, &records).expect("opened");
        assert_eq!(first.expose(), second.expose());
        files::write_atomic(&file, b"correct horse batterY\n", 0o600).expect("written");
        assert!(open(dir.path(), &config, &records).is_err());
        assert!(!dir.path().join(KEY_FILE).exists());
    }
}
