//! Root keys by version.

use std::{collections::BTreeMap, sync::Arc};

use asterism_crypto::{KeyRef, SecretKey};

/// How envelopes under a root key name it.
const NAME: &str = "root";

/// The root keys of a store: the newest wraps, the one that an envelope's header names opens it. One, but while the root is rotated.
/// A copy is of pointers: the keys lie in memory once, and are wiped with the last.
#[derive(Clone)]
pub struct Roots {
    newest: (u32, Arc<SecretKey>),
    older: BTreeMap<u32, Arc<SecretKey>>,
}

impl Roots {
    /// One root key; versions are from 1.
    pub fn single(version: u32, key: SecretKey) -> Self {
        Self {
            newest: (version, Arc::new(key)),
            older: BTreeMap::new(),
        }
    }

    /// As they are with one more. The greatest version is the newest.
    #[must_use]
    pub(crate) fn with(mut self, version: u32, key: SecretKey) -> Self {
        let mut added = (version, Arc::new(key));
        if added.0 > self.newest.0 {
            std::mem::swap(&mut added, &mut self.newest);
        }
        self.older.insert(added.0, added.1);
        self
    }

    /// The newest alone.
    #[must_use]
    pub(crate) fn newest_only(&self) -> Self {
        Self {
            newest: self.newest.clone(),
            older: BTreeMap::new(),
        }
    }

    /// What wraps, and what the check record and the directory's key are under.
    pub fn newest(&self) -> &SecretKey {
        &self.newest.1
    }

    /// The version of [`Roots::newest`].
    pub fn newest_version(&self) -> u32 {
        self.newest.0
    }

    /// The key of a version, if it is known (any more).
    pub fn get(&self, version: u32) -> Option<&SecretKey> {
        if version == self.newest.0 {
            return Some(&self.newest.1);
        }
        self.older.get(&version).map(|key| &**key)
    }

    /// Whether material may be under an older one: a rotation is under way.
    pub fn is_rotating(&self) -> bool {
        !self.older.is_empty()
    }

    /// The versions, ascending.
    pub fn versions(&self) -> impl Iterator<Item = u32> {
        self.older.keys().copied().chain([self.newest.0])
    }

    /// How envelopes name the newest.
    pub(crate) fn reference(&self) -> KeyRef {
        reference(self.newest.0)
    }
}

/// The only root key that there ever was.
impl From<SecretKey> for Roots {
    fn from(key: SecretKey) -> Self {
        Self::single(1, key)
    }
}

/// How envelopes name a root key.
pub(crate) fn reference(version: u32) -> KeyRef {
    KeyRef {
        key: NAME.to_owned(),
        version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_version_is_the_newest_in_whichever_order_they_come() {
        let key = |byte| SecretKey::from_bytes([byte; 32]);
        for roots in [
            Roots::single(1, key(1)).with(2, key(2)),
            Roots::single(2, key(2)).with(1, key(1)),
        ] {
            assert!(roots.is_rotating());
            assert_eq!(roots.newest_version(), 2);
            assert_eq!(roots.versions().collect::<Vec<_>>(), [1, 2]);
            assert_eq!(roots.newest().expose(), &[2; 32]);
            assert_eq!(roots.get(1).expect("known").expose(), &[1; 32]);
            assert!(roots.get(3).is_none());
            let only = roots.newest_only();
            assert!(!only.is_rotating() && only.get(1).is_none());
            assert_eq!(only.reference(), reference(2));
        }
    }
}
