//! Backups: what a kms keeps, taken while it serves, sealed to its operator and signed by it; and how they are put back.
//!
//! A backup is one file (`docs/formats.md`, "Backups"). In it are all records as they are at one moment, the wrapping key of every
//! version that these name, and the files that say how the root key is sealed. The root key itself never is: without it a backup gives
//! nothing, even opened. Whoever restores needs the backup, the key or passphrase that it is sealed to, *and* the root key.
//!
//! Why it is consistent: a version's wrapping key is durable before its record is written, and goes only when the version's destruction
//! is due. Records are taken first, in one snapshot, then the wrapping keys that they name; destructions wait from before the one until
//! after the other. So a wrapping key can only be missing for a version whose destruction had begun and was interrupted
//! ([`inventory`]); the restored service ends it.
//!
//! The rule: a directory becomes a store only when every byte of the backup was checked; until then it has another name.

mod capture;
mod entry;
mod error;
mod format;
mod inventory;
mod mark;
mod read;
mod recipient;
mod restore;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use capture::{Capture, SIGNER, Signer, capture, ensure_signer};
pub use entry::Contents;
pub use error::BackupError;
pub use format::{Header, MAX_FORMAT};
pub(crate) use mark::report;
pub use read::{Verified, verify};
pub use recipient::{Derivation, MIN_PASSPHRASE_BYTES, Opener, Recipient};
pub use restore::{Order, restore};
pub(crate) use write::write;

/// Plaintext bytes of a chunk: what a caller gets at a time, and what a restore holds in memory.
const CHUNK_BYTES: u32 = 256 << 10;
