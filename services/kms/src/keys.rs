//! Keys, their versions, and what is done with them.

mod agenda;
mod changes;
pub mod evaluation;
mod id;
mod key;
mod keyring;
mod lifecycle;
mod material;
mod operations;
pub(crate) mod record;
mod requests;
mod rewrap;
mod sweep;
#[cfg(test)]
mod tests;
mod transfer;
mod upgrade;
mod version_keys;
mod wrapping;

pub use changes::{KeyUpdate, MAX_WINDOW_MS, MIN_WINDOW_MS};
pub use id::KeyId;
pub use key::{Key, Version};
pub(crate) use keyring::key_at;
pub use keyring::{Keyring, NewKey};
pub use lifecycle::State;
pub use material::KeyType;
pub use operations::{DataKey, MAX_INPUT_BYTES, Processor, Protector, PublicKey, Purpose, ReEncrypted};
pub use requests::RequestId;
pub use rewrap::Rewrapped;
pub use sweep::Due;
pub use transfer::{Import, ImportJob};
#[cfg(test)]
pub(crate) use version_keys::MemoryVersionKeys;
pub use version_keys::{FileVersionKeys, VersionKeys};
