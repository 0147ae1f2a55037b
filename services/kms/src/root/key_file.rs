//! The file that opens a seal of that kind.
//!
//! A new one is written as `NAME.new`, and gets its name when `seal.json` has it: so a crash leaves no key file that nobody knows, and what is not the
//! seal's is shredded only if it has that ending, never a file that somebody put there.

use std::{fs, path::Path};

use asterism_crypto::SecretKey;
use asterism_store::{StoreError, files};

use super::{
    RootError,
    file::{KeyFileName, read_capped},
};

const ENDING_OF_NEW: &str = ".new";

/// Makes a key file that [`settle`] gives its name.
pub(crate) fn prepare(data_dir: &Path, name: &KeyFileName, key: &SecretKey) -> Result<(), RootError> {
    let path = data_dir.join(format!("{}{ENDING_OF_NEW}", name.as_str()));
    files::shred(&path)?;
    files::write_new(&path, key.expose())?;
    Ok(files::sync_file_system(data_dir)?)
}

/// Gives the new file of the seal its name, and shreds every other new one.
pub(crate) fn settle(data_dir: &Path, ours: Option<&KeyFileName>) -> Result<(), RootError> {
    for entry in fs::read_dir(data_dir).map_err(StoreError::from)? {
        let path = entry.map_err(StoreError::from)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.and_then(|name| name.strip_suffix(ENDING_OF_NEW));
        let Some(name) = name.and_then(|name| KeyFileName::try_from(name.to_owned()).ok()) else {
            continue;
        };
        let settled = data_dir.join(name.as_str());
        if ours == Some(&name) && !settled.exists() {
            files::rename(&path, &settled)?;
        } else {
            files::shred(&path)?;
        }
    }
    Ok(())
}

/// Reads a key file.
pub(crate) fn read(data_dir: &Path, name: &KeyFileName) -> Result<SecretKey, RootError> {
    let path = data_dir.join(name.as_str());
    let shown = || path.display().to_string();
    let bytes = read_capped(&path)?.ok_or_else(|| RootError::KeyFileMissing(shown()))?;
    SecretKey::try_from_slice(&bytes).map_err(|_| RootError::KeyFileDamaged(shown()))
}

/// Makes the key file of a former seal worthless.
pub(crate) fn shred(data_dir: &Path, name: &KeyFileName) -> Result<(), RootError> {
    Ok(files::shred(&data_dir.join(name.as_str()))?)
}
