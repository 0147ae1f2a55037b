//! The wrapping key of each version: what destruction destroys.
//!
//! The store keeps old segments, so a deleted record may lie in its files for long. Therefore material is wrapped under a key that
//! follows from the root key *and* from 32 random bytes of this one version, which lie in a file of their own beside the store,
//! mode 0600. To destroy a version is to overwrite and unlink that file: whatever a copy of the store taken afterwards still holds
//! of the wrapped material, nobody can unwrap it, not even with the root key. Re-keying the root instead would rewrite every other
//! version for the sake of one, and cannot be done at all while a passphrase is the root.
//!
//! A name is random, and never used twice: two requests that race for the same version do not meet, and the loser's file is an
//! orphan that the next start sweeps. Copies made *before* the destruction hold the file: backups have to expire within the window.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use asterism_crypto::{Context, SecretKey, kdf, random_array};
use asterism_store::{StoreError, files};
use zeroize::Zeroizing;

use crate::error::KmsError;

const SUFFIX: &str = ".key";

/// Where the random half of each version's wrapping key lies.
pub trait VersionKeys: Send + Sync {
    /// Keeps 32 bytes under a fresh name: durable when this returns.
    fn put(&self, name: &str, bytes: &[u8; 32]) -> Result<(), KmsError>;
    /// The bytes, `None` when there are none of that name.
    fn get(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KmsError>;
    /// Makes the bytes unreadable for ever: durable when this returns. May be repeated.
    fn shred(&self, name: &str) -> Result<(), KmsError>;
    /// Shreds all but `kept`; only while nothing else runs.
    fn sweep(&self, kept: &HashSet<String>) -> Result<usize, KmsError>;
}

/// Files in a directory, one a version.
pub struct FileVersionKeys {
    dir: PathBuf,
}

impl FileVersionKeys {
    /// Over a directory, made if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        files::create_private_dir(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    fn path(&self, name: &str) -> Result<PathBuf, KmsError> {
        // Names come from records: one that is not ours leads nowhere.
        if name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(self.dir.join(format!("{name}{SUFFIX}")))
        } else {
            Err(KmsError::Damaged("name of a wrapping key"))
        }
    }
}

impl VersionKeys for FileVersionKeys {
    fn put(&self, name: &str, bytes: &[u8; 32]) -> Result<(), KmsError> {
        Ok(files::write_atomic(&self.path(name)?, bytes, 0o600)?)
    }

    fn get(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KmsError> {
        match files::read_private(&self.path(name)?) {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(StoreError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn shred(&self, name: &str) -> Result<(), KmsError> {
        Ok(files::shred(&self.path(name)?)?)
    }

    fn sweep(&self, kept: &HashSet<String>) -> Result<usize, KmsError> {
        let mut swept = 0;
        for entry in fs::read_dir(&self.dir).map_err(StoreError::from)? {
            let path = entry.map_err(StoreError::from)?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if !name.strip_suffix(SUFFIX).is_some_and(|name| kept.contains(name)) {
                files::shred(&path)?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}

/// A fresh name and its bytes.
pub(crate) fn fresh() -> Result<(String, Zeroizing<[u8; 32]>), KmsError> {
    let name: [u8; 16] = random_array()?;
    Ok((
        format!("{:032x}", u128::from_be_bytes(name)),
        Zeroizing::new(random_array()?),
    ))
}

/// The key that wraps a version's material: neither the root key nor the version's bytes give it alone.
pub(crate) fn wrapping_key(root: &SecretKey, bytes: &[u8], name: &str) -> SecretKey {
    let context = Context::new("asterism/version-wrapping-key/v1").field("name", name);
    kdf::derive(root, bytes, "asterism/version-wrapping-key/v1", &context.encode())
}

/// In memory, for tests of what is built on it.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct MemoryVersionKeys(pub(crate) std::sync::Mutex<std::collections::HashMap<String, [u8; 32]>>);

#[cfg(test)]
impl VersionKeys for MemoryVersionKeys {
    fn put(&self, name: &str, bytes: &[u8; 32]) -> Result<(), KmsError> {
        self.0.lock().expect("lock").insert(name.to_owned(), *bytes);
        Ok(())
    }

    fn get(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KmsError> {
        let found = self.0.lock().expect("lock").get(name).map(|bytes| bytes.to_vec());
        Ok(found.map(Zeroizing::new))
    }

    fn shred(&self, name: &str) -> Result<(), KmsError> {
        self.0.lock().expect("lock").remove(name);
        Ok(())
    }

    fn sweep(&self, kept: &HashSet<String>) -> Result<usize, KmsError> {
        let mut all = self.0.lock().expect("lock");
        let before = all.len();
        all.retain(|name, _| kept.contains(name));
        Ok(before - all.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shredded_file_is_gone_and_a_sweep_keeps_what_is_known() {
        let dir = tempfile::tempdir().expect("directory");
        let keys = FileVersionKeys::open(dir.path()).expect("opened");
        let (one, bytes) = fresh().expect("fresh");
        let (two, other) = fresh().expect("fresh");
        keys.put(&one, &bytes).expect("kept");
        keys.put(&two, &other).expect("kept");
        fs::write(dir.path().join(".staged-left-by-a-crash"), [1; 32]).expect("written");
        assert_eq!(
            keys.get(&one).expect("read").expect("there").as_slice(),
            bytes.as_slice()
        );
        assert_eq!(keys.sweep(&HashSet::from([one.clone()])).expect("swept"), 2);
        assert!(keys.get(&two).expect("read").is_none());
        keys.shred(&one).expect("shredded");
        keys.shred(&one).expect("again");
        assert!(keys.get(&one).expect("read").is_none());
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 0);
        assert!(keys.get("../root").is_err());
    }
}
