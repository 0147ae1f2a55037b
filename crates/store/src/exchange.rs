//! Puts a copy of a store in the store's place.
//!
//! Copy in `records.new`; then `records` to `records.old`; then `records.new` to `records`; then `records.old` is shredded. What a
//! crash leaves says how far it came: while there is `records` without `records.old`, the copy may be half and is thrown away.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{StoreError, files};

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
/// The file system's own.
pub fn settle(data_dir: &Path) -> Result<(), StoreError> {
    let Places { records, new, old } = places(data_dir);
    if old.exists() {
        if !records.exists() {
            files::rename(&new, &records)?;
        }
        shred_all(&old)?;
    }
    if new.exists() {
        shred_all(&new)?;
    }
    Ok(())
}

/// Where the copy is made. Nothing is there after [`settle`].
pub fn copy_dir(data_dir: &Path) -> PathBuf {
    places(data_dir).new
}

/// Puts the copy in the store's place, once both are closed.
///
/// # Errors
/// The file system's own.
pub fn exchange(data_dir: &Path) -> Result<(), StoreError> {
    let Places { records, new, old } = places(data_dir);
    files::rename(&records, &old)?;
    files::rename(&new, &records)?;
    settle(data_dir)
}

/// Overwrites and deletes a directory and all files in it; one that is not there is done already.
///
/// # Errors
/// The file system's own.
pub fn shred_all(dir: &Path) -> Result<(), StoreError> {
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
