//! Seals the directory's secrets.
//!
//! They lie under a random key of the directory's own, which lies in one record under a key derived from the root key: another root key needs to wrap
//! that record anew, and nothing else.

use asterism_crypto::{Context, KeyRef, SecretBytes, SecretKey, envelope, kdf};
use asterism_store::{Batch, Records, StoreError};

use super::error::DirectoryError;

/// Record: the directory's key, wrapped.
pub const RECORD: &[u8] = b"ik";
const LABEL: &str = "asterism/directory/v1";
const AAD: &[u8] = b"asterism/directory-key/v1";

/// Seals and opens secrets of the directory.
pub struct Vault(SecretKey);

impl Vault {
    /// Opens the vault, or makes it at the first start.
    ///
    /// # Errors
    /// [`DirectoryError::Damaged`] under another root key than it was made with.
    pub fn open(root: &SecretKey, records: &dyn Records) -> Result<Self, DirectoryError> {
        if let Some(wrapped) = records.get(RECORD)? {
            return unwrap(root, &wrapped).map(Self);
        }
        let key = SecretKey::generate()?;
        let wrapped = wrap(root, &key)?;
        match records.commit(Batch::new().expect_absent(RECORD).put(RECORD, wrapped)) {
            Ok(()) => Ok(Self(key)),
            Err(StoreError::Conflict) => Self::open(root, records),
            Err(error) => Err(error.into()),
        }
    }

    /// Seals a secret, bound to what it is and whose.
    pub(super) fn seal(&self, what: &str, whose: &str, secret: &[u8]) -> Result<Vec<u8>, DirectoryError> {
        Ok(envelope::seal(
            &self.0,
            &key_ref(),
            secret,
            &bound_to(what, whose),
        )?)
    }

    /// Opens what [`Vault::seal`] made of the same thing.
    pub(super) fn open_sealed(
        &self,
        what: &'static str,
        whose: &str,
        sealed: &[u8],
    ) -> Result<SecretBytes, DirectoryError> {
        envelope::open(&self.0, sealed, &bound_to(what, whose)).map_err(|_| DirectoryError::Damaged(what))
    }
}

/// The record of the vault under another root key.
///
/// # Errors
/// [`DirectoryError::Damaged`] when `from` is not the root key that it is under.
pub fn rewrap(record: &[u8], from: &SecretKey, to: &SecretKey) -> Result<Vec<u8>, DirectoryError> {
    wrap(to, &unwrap(from, record)?)
}

fn wrap(root: &SecretKey, key: &SecretKey) -> Result<Vec<u8>, DirectoryError> {
    Ok(envelope::seal(
        &wrapping_key(root),
        &key_ref(),
        key.expose(),
        AAD,
    )?)
}

fn unwrap(root: &SecretKey, wrapped: &[u8]) -> Result<SecretKey, DirectoryError> {
    let damaged = |_| DirectoryError::Damaged("directory key");
    let key = envelope::open(&wrapping_key(root), wrapped, AAD).map_err(damaged)?;
    SecretKey::try_from_slice(key.expose()).map_err(damaged)
}

fn wrapping_key(root: &SecretKey) -> SecretKey {
    kdf::derive(root, b"", LABEL, b"")
}

fn key_ref() -> KeyRef {
    KeyRef {
        key: "directory".to_owned(),
        version: 1,
    }
}

fn bound_to(what: &str, whose: &str) -> Vec<u8> {
    Context::new("asterism/directory-secret/v1")
        .field("what", what)
        .field("whose", whose)
        .encode()
}

#[cfg(test)]
mod tests {
    use asterism_store::MemoryRecords;

    use super::*;

    #[test]
    fn a_secret_opens_as_what_it_was_sealed_under_the_same_root() {
        let (root, other) = (SecretKey::from_bytes([1; 32]), SecretKey::from_bytes([2; 32]));
        let records = MemoryRecords::new();
        let sealed = Vault::open(&root, &records)
            .and_then(|vault| vault.seal("factor", "user/alice", b"secret"))
            .expect("sealed");
        let vault = Vault::open(&root, &records).expect("opens again");
        let opened = vault
            .open_sealed("factor", "user/alice", &sealed)
            .expect("opened");
        assert_eq!(opened.expose(), b"secret");
        assert!(vault.open_sealed("factor", "user/bob", &sealed).is_err());
        assert!(vault.open_sealed("password", "user/alice", &sealed).is_err());
        assert!(Vault::open(&other, &records).is_err());

        let record = records.get(RECORD).expect("read").expect("there");
        let again = rewrap(&record, &root, &other).expect("wrapped anew");
        assert!(rewrap(&record, &other, &root).is_err());
        records.commit(Batch::new().put(RECORD, again)).expect("written");
        let vault = Vault::open(&other, &records).expect("opens under the other root");
        assert!(vault.open_sealed("factor", "user/alice", &sealed).is_ok());
        assert!(Vault::open(&root, &records).is_err());
    }
}
