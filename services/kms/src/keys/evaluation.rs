//! Records of evaluation keys for encrypted prediction: which there are, whose, and their digests.
//!
//! The keys themselves are large, not secret, and lie with inference. What it may take for somebody's key is decided by the
//! record here, so that a file or a record that was swapped there is refused.

use std::sync::Arc;

use asterism_crypto::{Context, Digest};
use asterism_store::{Batch, Records, StoreError};
use serde::{Deserialize, Serialize};

use crate::{
    error::KmsError,
    keys::record::{decode, encode},
};

/// Records: this byte and a digest of owner and key digest -> [`EvaluationKeyRecord`].
const EVALUATION_KEY: u8 = b'e';
const MAX_PARAMS_BYTES: usize = 64;

/// What is known of an evaluation key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationKeyRecord {
    /// Principal that registered it.
    pub owner: String,
    /// SHA-256 of the whole key.
    pub sha256: Digest,
    /// Parameter set, by name.
    pub params: String,
    /// Its size.
    pub total_bytes: u64,
}

/// All records of evaluation keys.
pub struct EvaluationKeys {
    records: Arc<dyn Records>,
}

impl EvaluationKeys {
    /// Over the records of the service.
    pub fn new(records: Arc<dyn Records>) -> Self {
        Self { records }
    }

    /// Records a key: durable when this returns. The same record may be made again.
    ///
    /// # Errors
    /// [`KmsError::Field`]; [`KmsError::EvaluationKeyDiffers`] when the owner has a key of this digest on record that is
    /// otherwise another.
    pub fn record(&self, record: &EvaluationKeyRecord) -> Result<(), KmsError> {
        let params = &record.params;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if params.is_empty() || params.len() > MAX_PARAMS_BYTES || !params.bytes().all(plain) {
            return Err(KmsError::field("params", "must be 1 to 64 of a-z, 0-9 and -"));
        }
        if record.total_bytes == 0 {
            return Err(KmsError::field("total_bytes", "must be above 0"));
        }
        let at = at(&record.owner, &record.sha256);
        let batch = Batch::new().expect_absent(at.clone()).put(at, encode(record));
        match self.records.commit(batch) {
            Err(StoreError::Conflict) if self.get(&record.owner, &record.sha256)? == *record => Ok(()),
            Err(StoreError::Conflict) => Err(KmsError::EvaluationKeyDiffers(name(&record.sha256))),
            other => Ok(other?),
        }
    }

    /// The record of a key of `owner`'s.
    ///
    /// # Errors
    /// [`KmsError::EvaluationKeyNotFound`]
    pub fn get(&self, owner: &str, sha256: &Digest) -> Result<EvaluationKeyRecord, KmsError> {
        let stored = self
            .records
            .get(&at(owner, sha256))?
            .ok_or_else(|| KmsError::EvaluationKeyNotFound(name(sha256)))?;
        decode(&stored)
    }

    /// Deletes the record of a key of `owner`'s.
    ///
    /// # Errors
    /// [`KmsError::EvaluationKeyNotFound`]
    pub fn delete(&self, owner: &str, sha256: &Digest) -> Result<(), KmsError> {
        self.get(owner, sha256)?;
        Ok(self.records.commit(Batch::new().delete(at(owner, sha256)))?)
    }
}

/// `evaluationKeys/{sha256 in hex}`.
pub fn name(sha256: &Digest) -> String {
    format!("evaluationKeys/{sha256}")
}

fn at(owner: &str, sha256: &Digest) -> Vec<u8> {
    let context = Context::new("asterism/evaluation-key/v1")
        .field("owner", owner)
        .field("sha256", &sha256.to_string());
    [
        &[EVALUATION_KEY],
        Digest::of(&context.encode()).as_bytes().as_slice(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use asterism_store::MemoryRecords;

    use super::*;

    fn sample(owner: &str) -> EvaluationKeyRecord {
        EvaluationKeyRecord {
            owner: owner.to_owned(),
            sha256: Digest::of(b"key"),
            params: "paths-n1024-k2".to_owned(),
            total_bytes: 7,
        }
    }

    #[test]
    fn a_record_belongs_to_its_owner_and_cannot_be_altered() {
        let keys = EvaluationKeys::new(Arc::new(MemoryRecords::default()));
        let record = sample("user/alice");
        keys.record(&record).expect("recorded");
        keys.record(&record).expect("recorded again");
        assert_eq!(keys.get("user/alice", &record.sha256).expect("there"), record);
        assert!(matches!(
            keys.get("user/bob", &record.sha256),
            Err(KmsError::EvaluationKeyNotFound(_))
        ));
        let other = EvaluationKeyRecord {
            total_bytes: 8,
            ..record.clone()
        };
        assert!(matches!(
            keys.record(&other),
            Err(KmsError::EvaluationKeyDiffers(_))
        ));
        // Whatever bob does with his own record of the same bytes, alice's stays.
        keys.record(&sample("user/bob")).expect("recorded");
        keys.delete("user/bob", &record.sha256).expect("deleted");
        keys.get("user/alice", &record.sha256).expect("still there");
        keys.delete("user/alice", &record.sha256).expect("deleted");
        assert!(keys.delete("user/alice", &record.sha256).is_err());
    }

    #[test]
    fn bad_fields_are_named() {
        let keys = EvaluationKeys::new(Arc::new(MemoryRecords::default()));
        for params in ["", "Upper", "with space", &"x".repeat(65)] {
            let record = EvaluationKeyRecord {
                params: params.to_owned(),
                ..sample("user/alice")
            };
            assert!(matches!(
                keys.record(&record),
                Err(KmsError::Field { field: "params", .. })
            ));
        }
        let record = EvaluationKeyRecord {
            total_bytes: 0,
            ..sample("user/alice")
        };
        assert!(matches!(
            keys.record(&record),
            Err(KmsError::Field {
                field: "total_bytes",
                ..
            })
        ));
    }
}
