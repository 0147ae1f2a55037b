//! The files: keys of one's own, and the directory of the public keys of others.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use asterism_channel::{KeyError, PublicKey, StaticKey};

use super::ChannelSetupError;
use crate::identity::PrincipalId;

/// The ending of a file with a public key.
pub(super) const SUFFIX: &str = ".pub";
/// Stands before the number of a principal's further key: `kms+2.pub`. No name of a principal has it.
const FURTHER: char = '+';
/// Keys that a directory may hold.
const MAX_PEERS: usize = 10_000;
const MAX_FILE_BYTES: u64 = 256;

/// Whose key it is, and the how many-th.
#[derive(PartialEq)]
struct Owner {
    principal: PrincipalId,
    number: u32,
}

/// The public keys by principal.
#[derive(Default)]
pub(super) struct Peers {
    owners: HashMap<PublicKey, Owner>,
    problems: Vec<ChannelSetupError>,
}

impl PartialEq for Peers {
    fn eq(&self, other: &Self) -> bool {
        self.owners == other.owners
    }
}

impl Peers {
    /// Reads `KIND/NAME.pub` and `KIND/NAME+N.pub` below `dir`; other files are left alone.
    ///
    /// # Errors
    /// [`ChannelSetupError::Peer`] when the directory cannot be read or is too large; what is wrong with single files is in
    /// [`Peers::problems`].
    pub(super) fn read(dir: &Path) -> Result<Self, ChannelSetupError> {
        let mut peers = Self::default();
        let mut twice = vec![];
        for kind in entries(dir)?.into_iter().filter(|kind| kind.is_dir()) {
            for path in entries(&kind)? {
                match read_entry(&kind, &path) {
                    Ok(Some((key, owner))) => {
                        if peers.owners.insert(key, owner).is_some() {
                            twice.push(key);
                            peers
                                .problems
                                .push(wrong(&path, "another principal has the same key"));
                        }
                    }
                    Ok(None) => {}
                    Err(problem) => peers.problems.push(problem),
                }
                if peers.owners.len() > MAX_PEERS {
                    return Err(wrong(dir, "there are more than 10000 keys"));
                }
            }
        }
        // Nobody knows whose such a key is.
        for key in twice {
            peers.owners.remove(&key);
        }
        Ok(peers)
    }

    /// Refuses a directory of which anything cannot be used.
    ///
    /// # Errors
    /// The first problem.
    pub(super) fn strict(mut self) -> Result<Self, ChannelSetupError> {
        match self.problems.pop() {
            Some(problem) => Err(problem),
            None => Ok(self),
        }
    }

    pub(super) fn problems(&self) -> &[ChannelSetupError] {
        &self.problems
    }

    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    pub(super) fn contains(&self, key: &PublicKey) -> bool {
        self.owners.contains_key(key)
    }

    pub(super) fn principal(&self, key: &PublicKey) -> Option<&PrincipalId> {
        self.owners.get(key).map(|owner| &owner.principal)
    }

    /// The keys of a principal, the newest first.
    pub(super) fn keys_of(&self, id: &PrincipalId) -> Vec<PublicKey> {
        let own = self.owners.iter().filter(|(_, owner)| owner.principal == *id);
        let mut keys: Vec<_> = own.map(|(key, owner)| (owner.number, *key)).collect();
        keys.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        keys.into_iter().map(|(_, key)| key).collect()
    }

    /// The number of the newest key of a principal.
    pub(super) fn newest(&self, id: &PrincipalId) -> u32 {
        let own = self.owners.values().filter(|owner| owner.principal == *id);
        own.map(|owner| owner.number).max().unwrap_or(0)
    }
}

/// Where the `number`-th public key of a principal lies, counted from 1.
pub(super) fn public_file(dir: &Path, principal: &PrincipalId, number: u32) -> PathBuf {
    match number {
        0 | 1 => dir.join(format!("{principal}{SUFFIX}")),
        number => dir.join(format!("{principal}{FURTHER}{number}{SUFFIX}")),
    }
}

/// The files of a principal's public keys that say `key`.
pub(super) fn files_of(
    dir: &Path,
    id: &PrincipalId,
    key: &PublicKey,
) -> Result<Vec<PathBuf>, ChannelSetupError> {
    let kind = dir.join(id.as_str().split('/').next().unwrap_or_default());
    let mut files = vec![];
    for path in entries(&kind)? {
        if let Ok(Some((found, owner))) = read_entry(&kind, &path)
            && found == *key
            && owner.principal == *id
        {
            files.push(path);
        }
    }
    Ok(files)
}

/// The name of the next key, and of the one before, beside a key file.
pub(super) fn beside(key_file: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(key_file);
    name.push(ending);
    name.into()
}

pub(super) const NEXT: &str = ".next";
pub(super) const PREVIOUS: &str = ".previous";

/// The service's own keys: the one to call with, then the next and the one before where there are.
pub(super) fn own_keys(key_file: &Path) -> Result<Vec<Arc<StaticKey>>, ChannelSetupError> {
    let mut keys = vec![Arc::new(read_key(key_file)?)];
    for ending in [NEXT, PREVIOUS] {
        let path = beside(key_file, ending);
        match StaticKey::read(&path) {
            Ok(key) => keys.push(Arc::new(key)),
            Err(KeyError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(unusable(&path, source)),
        }
    }
    Ok(keys)
}

/// A sign of change: which files there are, and when they were made.
pub(super) fn fingerprint(key_file: &Path, dir: &Path) -> Vec<(PathBuf, u64, i64, i64, u64)> {
    let kinds = entries(dir).unwrap_or_default();
    let public = kinds.iter().flat_map(|kind| entries(kind).unwrap_or_default());
    let own = ["", NEXT, PREVIOUS].map(|ending| beside(key_file, ending));
    let mut marks: Vec<_> = own
        .into_iter()
        .chain(public)
        .filter_map(|path| {
            let found = fs::metadata(&path).ok()?;
            Some((path, found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
        })
        .collect();
    marks.sort();
    marks
}

fn read_entry(kind: &Path, path: &Path) -> Result<Option<(PublicKey, Owner)>, ChannelSetupError> {
    let Some(name) = name_of(path).and_then(|name| name.strip_suffix(SUFFIX)) else {
        return Ok(None);
    };
    let misnamed = || {
        wrong(
            path,
            "its name is not that of a principal, like service/kms.pub or service/kms+2.pub",
        )
    };
    let (name, number) = match name.split_once(FURTHER) {
        None => (name, 1),
        Some((name, number)) => {
            let parsed = number.parse().ok().filter(|parsed| *parsed >= 2);
            let parsed: u32 = parsed.ok_or_else(misnamed)?;
            // One number has one name.
            if parsed.to_string() != number {
                return Err(misnamed());
            }
            (name, parsed)
        }
    };
    let principal = format!("{}/{name}", name_of(kind).unwrap_or_default());
    let principal = principal.parse().map_err(|_| misnamed())?;
    Ok(Some((read_peer(path)?, Owner { principal, number })))
}

pub(super) fn read_key(path: &Path) -> Result<StaticKey, ChannelSetupError> {
    StaticKey::read(path).map_err(|source| unusable(path, source))
}

pub(super) fn unusable(path: &Path, source: KeyError) -> ChannelSetupError {
    ChannelSetupError::Key {
        path: path.display().to_string(),
        source,
    }
}

pub(super) fn wrong(path: &Path, problem: impl ToString) -> ChannelSetupError {
    ChannelSetupError::Peer {
        path: path.display().to_string(),
        problem: problem.to_string(),
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, ChannelSetupError> {
    let read = || -> io::Result<Vec<PathBuf>> { fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect() };
    read().map_err(|error| wrong(dir, error))
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name().and_then(|name| name.to_str())
}

fn read_peer(path: &Path) -> Result<PublicKey, ChannelSetupError> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text))
        .map_err(|error| wrong(path, error))?;
    text.trim().parse().map_err(|error| wrong(path, error))
}
