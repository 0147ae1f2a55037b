//! Keys, their versions, and what is done with them.

pub mod evaluation;
mod id;
mod keyring;
mod material;
mod record;
#[cfg(test)]
mod tests;

pub use id::KeyId;
pub use keyring::{DataKey, Key, Keyring, MAX_INPUT_BYTES, NewKey, RequestId};
pub use material::KeyType;
