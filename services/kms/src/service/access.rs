//! Who may use which key.

use std::sync::Arc;

use asterism_chassis::{call::Caller, error::Failure};

use crate::{
    error::KmsError,
    keys::{Key, KeyId, Keyring},
};

/// The key, if the caller may use it; to others it does not exist.
pub(super) fn usable(keyring: &Keyring, caller: &Caller, id: &KeyId) -> Result<Arc<Key>, Failure> {
    let key = keyring.get(id)?;
    // A service makes keys for itself, also while it acts for somebody.
    let own = caller.principal.id.as_str() == key.owner;
    if own || caller.may_access(&key.owner) {
        Ok(key)
    } else {
        Err(KmsError::KeyNotFound(id.name()).into())
    }
}
