//! The root key, under which all key material is wrapped, and the seal, under which the root key is.
//!
//! The root key is random, and lies in `seal.json` wrapped under an *unseal key*: the bytes of a key file, what Argon2id makes of a passphrase, what shares
//! give when they are put together, or what a PKCS #11 token decrypts. So another seal changes nothing but that file, and another root key needs no
//! other secret.
//!
//! A check value, sealed under the root key and kept with the keys, tells the right root key from a wrong one at start:
//! a store is never opened, and no key ever made, under another root key than its own.

mod check;
mod error;
mod file;
mod key_file;
mod legacy;
mod roots;
mod seal;
mod secrets;
#[cfg(test)]
mod tests;
mod token;

pub use error::{RootError, TokenError};
pub use roots::Roots;
pub use seal::{AllWrapped, Seal, SealFacts, init, is_sealed, missing_key_file};
pub use secrets::{GivenShares, MAX_PASSPHRASE_BYTES, MIN_PASSPHRASE_BYTES, NewSeal, SealKind, Secret};

use secrets::secret_file;
