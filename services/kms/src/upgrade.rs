//! Puts a copy of the store in the store's place.
//!
//! Copy in `records.new`; then `records` to `records.old`; then `records.new` to `records`; then `records.old` is shredded. What a
//! crash leaves says how far it came: while there is `records` without `records.old`, the copy may be half and is thrown away.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use asterism_chassis::StartError;
use asterism_store::{SledOptions, SledRecords, StoreError, files};

use crate::keys::Keyring;

struct Places {
    records: PathBuf,
    new: PathBuf,
    old: PathBuf,
}

fn places(data_dir: &Path) -> Places {
    Places {
        records: data_dir.join("records"),
        new: data_dir.join("records.new"),
        old: data_dir.join("records.old"),
    }
}

/// Ends an exchange that a crash interrupted. Before the store is opened.
///
/// # Errors
/// [`StartError::Store`]
pub(crate) fn settle(data_dir: &Path) -> Result<(), StartError> {
    let Places { records, new, old } = places(data_dir);
    if old.exists() {
        if !records.exists() {
            rename(&new, &records)?;
        }
        shred_all(&old)?;
    }
    if new.exists() {
        shred_all(&new)?;
    }
    Ok(())
}

/// Copies the store of `keyring` beside it, upgraded.
///
/// # Errors
/// [`StartError::Store`]; [`StartError::Other`] when a record cannot be read.
pub(crate) fn copy(data_dir: &Path, keyring: &Keyring) -> Result<(), StartError> {
    let copy = SledRecords::open(&places(data_dir).new, SledOptions::default())?;
    keyring
        .copy_into(&copy)
        .map_err(|error| StartError::Other(error.to_string()))
}

/// Puts the copy in the store's place, once the store is closed.
///
/// # Errors
/// [`StartError::Store`]
pub(crate) fn exchange(data_dir: &Path) -> Result<(), StartError> {
    let Places { records, new, old } = places(data_dir);
    rename(&records, &old)?;
    rename(&new, &records)?;
    settle(data_dir)
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to)?;
    let dir = to.parent().unwrap_or(Path::new("."));
    Ok(fs::File::open(dir)?.sync_all()?)
}

pub(crate) fn shred_all(dir: &Path) -> Result<(), StoreError> {
    fn walk(dir: &Path) -> Result<(), StoreError> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                walk(&entry.path())?;
            } else {
                files::shred(&entry.path())?;
            }
        }
        Ok(fs::remove_dir(dir)?)
    }
    match walk(dir) {
        Err(StoreError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
