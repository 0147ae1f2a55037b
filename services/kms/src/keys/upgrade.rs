//! From stores of format 1, whose material is wrapped by the root key alone.
//!
//! Such material could not be destroyed: its wrapped bytes stay in the store's old segments, and the root key opens them. So the
//! whole store is copied once, with its material wrapped anew, and the old files are shredded.

use asterism_store::{Batch, Records};

use crate::{
    error::KmsError,
    keys::{
        Keyring,
        record::{KeyRecord, VERSION, VersionRecord, decode, encode, key_record, version_at},
    },
};

impl Keyring {
    /// Whether any material is wrapped as in format 1.
    ///
    /// # Errors
    /// The store's own, and [`KmsError::Damaged`].
    pub fn needs_upgrade(&self) -> Result<bool, KmsError> {
        let mut found = false;
        self.each(&[VERSION], |_, stored| {
            found |= decode::<VersionRecord>(stored)?.wrapping_key.is_none();
            Ok(())
        })?;
        Ok(found)
    }

    /// Copies every record into an empty store, material of format 1 wrapped anew.
    ///
    /// # Errors
    /// The stores' own, and [`KmsError::Damaged`].
    pub fn copy_into(&self, copy: &dyn Records) -> Result<(), KmsError> {
        let mut batch = Batch::new();
        let mut waiting = 0;
        self.each(&[], |at, stored| {
            let value = self.upgraded(at, stored)?;
            batch = std::mem::take(&mut batch).put(at, value);
            waiting += 1;
            if waiting == super::keyring::PAGE {
                waiting = 0;
                copy.commit(std::mem::take(&mut batch))?;
            }
            Ok(())
        })?;
        Ok(copy.commit(batch)?)
    }

    fn upgraded(&self, at: &[u8], stored: &[u8]) -> Result<Vec<u8>, KmsError> {
        if at.first() != Some(&VERSION) {
            return Ok(stored.to_vec());
        }
        let record: VersionRecord = decode(stored)?;
        if record.wrapping_key.is_some() {
            return Ok(stored.to_vec());
        }
        let (id, version) = version_at(at)?;
        let key = self
            .records
            .get(&key_record(id.as_str()))?
            .ok_or(KmsError::Damaged("a version without its key"))?;
        let key_type = KeyRecord::read(&key)?.key_type;
        let bytes = self
            .unwrap(&id, version, key_type, &record)?
            .ok_or(KmsError::Damaged("a version is missing"))?;
        let (record, _) = self.wrap(&self.roots(), &id, version, key_type, &bytes)?;
        Ok(encode(&record))
    }
}
