//! The wrapping key of each version: what destruction destroys.
//!
//! The store keeps old segments, so a deleted record may lie in its files for long. Therefore material is wrapped under a key that
//! follows from the root key *and* from 32 random bytes of this one version, which lie in a file of their own beside the store,
//! mode 0600. To destroy a version is to overwrite and unlink that file: whatever a copy of the store taken afterwards still holds
//! of the wrapped material, nobody can unwrap it, not even with the root key. Re-keying the root instead would rewrite every other
//! version for the sake of one, and cannot be done at all while a passphrase is the root.
//!
//! A name is random, and never used twice: two requests that race for the same version do not meet. A file is made in `pending/`, and
//! moves up once a record names it, so that a start looks through few files to find the orphans of a crash. It holds the 32 bytes and
//! then `KEY/VERSION`, whose record would name it. Copies made *before* the destruction hold the file: backups have to expire within the window.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use asterism_crypto::{Context, SecretKey, kdf, random_array};
use asterism_store::{StoreError, files};
use zeroize::Zeroizing;

use crate::{error::KmsError, keys::KeyId};

const SUFFIX: &str = ".key";
const PENDING: &str = "pending";
const HALF_BYTES: usize = 32;

/// Whether the record of this version names this wrapping key.
pub type IsNamed<'a> = &'a dyn Fn(&str, &KeyId, u32) -> Result<bool, KmsError>;

/// A new half of a wrapping key.
pub struct Fresh<'a> {
    /// Under which name.
    pub name: String,
    /// For which version of which key.
    pub of: (&'a KeyId, u32),
    /// The half.
    pub half: Zeroizing<[u8; HALF_BYTES]>,
}

/// Where the random half of each version's wrapping key lies.
pub trait VersionKeys: Send + Sync {
    /// Keeps 32 bytes under a fresh name, pending, for a version of a key: durable when this returns.
    fn put(&self, name: &str, of: (&KeyId, u32), bytes: &[u8; 32]) -> Result<(), KmsError>;
    /// As [`VersionKeys::put`] for many, sooner than one by one.
    fn put_all(&self, fresh: &[Fresh<'_>]) -> Result<(), KmsError>;
    /// A durable record names it now. What a crash undoes of this, [`VersionKeys::settle`] does again.
    fn keep(&self, name: &str) -> Result<(), KmsError>;
    /// Keeps of the pending those that `is_named` and shreds the others; gives how many. Only while nothing else runs.
    fn settle(&self, is_named: IsNamed<'_>) -> Result<usize, KmsError>;
    /// The bytes, `None` when there are none of that name.
    fn get(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KmsError>;
    /// Makes the bytes unreadable for ever: durable when this returns. May be repeated.
    fn shred(&self, name: &str) -> Result<(), KmsError>;
    /// As [`VersionKeys::shred`] for many, sooner than one by one.
    fn shred_all(&self, names: &[String]) -> Result<(), KmsError>;
    /// The names of those that are there and not pending: a durable record named each once.
    fn kept(&self) -> Result<Vec<String>, KmsError>;
    /// Shreds all but `kept` and the pending; only while nothing else runs.
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
        files::create_private_dir(&dir.join(PENDING))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Where it lies when it is kept, and while it is pending.
    fn paths(&self, name: &str) -> Result<(PathBuf, PathBuf), KmsError> {
        // Names come from records: one that is not ours leads nowhere.
        if name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let file = format!("{name}{SUFFIX}");
            Ok((self.dir.join(&file), self.dir.join(PENDING).join(file)))
        } else {
            Err(KmsError::Damaged("name of a wrapping key"))
        }
    }
}

impl VersionKeys for FileVersionKeys {
    fn put(&self, name: &str, (id, version): (&KeyId, u32), bytes: &[u8; 32]) -> Result<(), KmsError> {
        let (_, pending) = self.paths(name)?;
        Ok(files::write_atomic(
            &pending,
            &content(bytes, id, version),
            0o600,
        )?)
    }

    fn put_all(&self, fresh: &[Fresh<'_>]) -> Result<(), KmsError> {
        for Fresh { name, of, half } in fresh {
            let (_, pending) = self.paths(name)?;
            files::write_new(&pending, &content(half, of.0, of.1))?;
        }
        Ok(files::sync_file_system(&self.dir)?)
    }

    fn keep(&self, name: &str) -> Result<(), KmsError> {
        let (kept, pending) = self.paths(name)?;
        match fs::rename(pending, kept) {
            // It was destroyed meanwhile, or is kept already.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            done => Ok(done.map_err(StoreError::from)?),
        }
    }

    fn settle(&self, is_named: IsNamed<'_>) -> Result<usize, KmsError> {
        let mut shredded = 0;
        for entry in fs::read_dir(self.dir.join(PENDING)).map_err(StoreError::from)? {
            let path = entry.map_err(StoreError::from)?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_suffix(SUFFIX));
            let named = match (name, read_version(&path)?) {
                (Some(name), Some((id, version))) => is_named(name, &id, version)?,
                _ => false,
            };
            match name {
                Some(name) if named => self.keep(name)?,
                _ => {
                    files::shred(&path)?;
                    shredded += 1;
                }
            }
        }
        Ok(shredded)
    }

    fn get(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KmsError> {
        let (kept, pending) = self.paths(name)?;
        // The last look is for one that was kept between the first two.
        for path in [&kept, &pending, &kept] {
            match files::read_private(path) {
                Ok(mut bytes) => {
                    bytes.truncate(HALF_BYTES);
                    return Ok(Some(Zeroizing::new(bytes)));
                }
                Err(StoreError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    fn shred(&self, name: &str) -> Result<(), KmsError> {
        let (kept, pending) = self.paths(name)?;
        // In this order one that is kept in between is met all the same.
        if pending.exists() {
            files::shred(&pending)?;
        }
        Ok(files::shred(&kept)?)
    }

    fn shred_all(&self, names: &[String]) -> Result<(), KmsError> {
        let mut paths = Vec::with_capacity(names.len());
        for name in names {
            let (kept, pending) = self.paths(name)?;
            // As in `shred`: one that is kept in between is met all the same.
            paths.extend([pending, kept]);
        }
        Ok(files::shred_all(&self.dir, &paths)?)
    }

    fn kept(&self) -> Result<Vec<String>, KmsError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(StoreError::from)? {
            let file = entry.map_err(StoreError::from)?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(SUFFIX));
            names.extend(name.filter(|name| self.paths(name).is_ok()).map(str::to_owned));
        }
        Ok(names)
    }

    fn sweep(&self, kept: &HashSet<String>) -> Result<usize, KmsError> {
        let mut swept = 0;
        for entry in fs::read_dir(&self.dir).map_err(StoreError::from)? {
            let path = entry.map_err(StoreError::from)?.path();
            if path.is_dir() {
                continue;
            }
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

/// What a file holds.
fn content(half: &[u8; HALF_BYTES], id: &KeyId, version: u32) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([half.as_slice(), format!("{id}/{version}").as_bytes()].concat())
}

/// Which version a pending file is for; `None` when it was not written to its end.
fn read_version(path: &Path) -> Result<Option<(KeyId, u32)>, KmsError> {
    let bytes = Zeroizing::new(fs::read(path).map_err(StoreError::from)?);
    let text = bytes.get(HALF_BYTES..).and_then(|text| str::from_utf8(text).ok());
    let parts = text.and_then(|text| text.split_once('/'));
    Ok(parts.and_then(|(id, version)| Some((id.parse().ok()?, version.parse().ok()?))))
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
    fn put(&self, name: &str, _: (&KeyId, u32), bytes: &[u8; 32]) -> Result<(), KmsError> {
        self.0.lock().expect("lock").insert(name.to_owned(), *bytes);
        Ok(())
    }

    fn put_all(&self, fresh: &[Fresh<'_>]) -> Result<(), KmsError> {
        let one = |fresh: &Fresh<'_>| self.put(&fresh.name, fresh.of, &fresh.half);
        fresh.iter().try_for_each(one)
    }

    fn keep(&self, _: &str) -> Result<(), KmsError> {
        Ok(())
    }

    fn shred_all(&self, names: &[String]) -> Result<(), KmsError> {
        names.iter().try_for_each(|name| self.shred(name))
    }

    fn kept(&self) -> Result<Vec<String>, KmsError> {
        Ok(self.0.lock().expect("lock").keys().cloned().collect())
    }

    fn settle(&self, _: IsNamed<'_>) -> Result<usize, KmsError> {
        Ok(0)
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

    fn of() -> KeyId {
        "a-key".parse().expect("id")
    }

    #[test]
    fn a_shredded_file_is_gone_and_a_sweep_keeps_what_is_known() {
        let dir = tempfile::tempdir().expect("directory");
        let keys = FileVersionKeys::open(dir.path()).expect("opened");
        let (one, bytes) = fresh().expect("fresh");
        let (two, other) = fresh().expect("fresh");
        for (name, bytes) in [(&one, &bytes), (&two, &other)] {
            keys.put(name, (&of(), 1), bytes).expect("put");
            assert!(!keys.kept().expect("listed").contains(name), "still pending");
            keys.keep(name).expect("kept");
            keys.keep(name).expect("again");
        }
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
        assert!(keys.get("../root").is_err());
    }

    #[test]
    fn many_are_put_and_shredded_as_one_is() {
        let dir = tempfile::tempdir().expect("directory");
        let keys = FileVersionKeys::open(dir.path()).expect("opened");
        let of = of();
        let made: Vec<Fresh<'_>> = (1..=5)
            .map(|version| {
                let (name, half) = fresh().expect("fresh");
                let of = (&of, version);
                Fresh { name, of, half }
            })
            .collect();
        keys.put_all(&made).expect("put");
        keys.keep(&made[0].name).expect("kept");
        assert_eq!(keys.kept().expect("listed"), [made[0].name.clone()]);
        for Fresh { name, half, .. } in &made {
            let read = keys.get(name).expect("read").expect("there");
            assert_eq!(read.as_slice(), half.as_slice());
        }
        let settled = keys
            .settle(&|name, _, _| Ok(name != made[1].name))
            .expect("settled");
        assert_eq!((settled, keys.kept().expect("listed").len()), (1, 4));
        let witness = dir.path().join("witness");
        fs::hard_link(dir.path().join(format!("{}{SUFFIX}", made[2].name)), &witness).expect("linked");
        let names: Vec<String> = made[1..].iter().map(|fresh| fresh.name.clone()).collect();
        keys.shred_all(&names).expect("shredded");
        keys.shred_all(&names).expect("again");
        assert_eq!(keys.kept().expect("listed"), [made[0].name.clone()]);
        let left = fs::read(&witness).expect("read");
        assert!(left.iter().all(|byte| *byte == 0) && left.len() > HALF_BYTES);
    }

    #[test]
    fn what_a_crash_left_pending_is_kept_or_shredded() {
        let dir = tempfile::tempdir().expect("directory");
        let keys = FileVersionKeys::open(dir.path()).expect("opened");
        let (named, bytes) = fresh().expect("fresh");
        let (orphan, other) = fresh().expect("fresh");
        keys.put(&named, (&of(), 7), &bytes).expect("put");
        keys.put(&orphan, (&of(), 8), &other).expect("put");
        let read = keys.get(&named).expect("read").expect("there while pending");
        assert_eq!(read.as_slice(), bytes.as_slice());
        fs::write(dir.path().join(PENDING).join(".staged-left"), [1; 9]).expect("written");
        let is_named = |name: &str, id: &KeyId, version| {
            let expected = if name == named { 7 } else { 8 };
            assert_eq!((id, version), (&of(), expected));
            Ok(name == named)
        };
        assert_eq!(keys.settle(&is_named).expect("settled"), 2);
        assert!(keys.get(&orphan).expect("read").is_none());
        let read = keys.get(&named).expect("read").expect("kept");
        assert_eq!(read.as_slice(), bytes.as_slice());
        assert_eq!(fs::read_dir(dir.path().join(PENDING)).expect("read").count(), 0);
        // A file of an earlier release has no more than the bytes.
        let (old, _) = fresh().expect("fresh");
        let path = dir.path().join(format!("{old}{SUFFIX}"));
        files::write_atomic(&path, bytes.as_slice(), 0o600).expect("written");
        let read = keys.get(&old).expect("read").expect("there");
        assert_eq!(read.as_slice(), bytes.as_slice());
    }
}
