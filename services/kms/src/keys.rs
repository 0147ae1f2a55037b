//! Keys, their versions, and what is done with them.

mod changes;
pub mod evaluation;
mod id;
mod key;
mod keyring;
mod lifecycle;
mod material;
mod operations;
mod record;
mod sweep;
#[cfg(test)]
mod tests;
mod upgrade;
mod version_keys;

pub use changes::{KeyUpdate, MAX_WINDOW_MS, MIN_WINDOW_MS};
pub use id::KeyId;
pub use key::{Key, Version};
pub use keyring::{Keyring, NewKey, RequestId};
pub use lifecycle::State;
pub use material::KeyType;
pub use operations::{DataKey, MAX_INPUT_BYTES, ReEncrypted};
pub use sweep::Due;
pub use version_keys::{FileVersionKeys, VersionKeys};
