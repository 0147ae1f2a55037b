//! Changes that are made once, however often they are asked for.

use asterism_crypto::Digest;
use asterism_store::{Batch, StoreError};

use crate::{
    error::KmsError,
    keys::{
        KeyId, Keyring,
        record::{RequestRecord, decode, encode, request_record},
    },
};

/// Who asks for a change, and on which terms; makes it idempotent: the principal who asked and the id that it gave.
pub struct RequestId<'a> {
    /// Who asked.
    pub principal: &'a str,
    /// Empty for none.
    pub id: &'a str,
    /// The change is made only while the key has this etag; empty for whatever it has.
    pub etag: &'a str,
}

/// What came of a commit.
pub(crate) enum Committed {
    Now,
    /// The same request did it already, to this key.
    Before(KeyId),
    /// A precondition did not hold.
    Not,
}

impl Keyring {
    /// What the request id already did, if anything.
    pub(crate) fn done_before(
        &self,
        request: &RequestId<'_>,
        parameters: &Digest,
    ) -> Result<Option<KeyId>, KmsError> {
        if request.id.is_empty() {
            return Ok(None);
        }
        let Some(stored) = self.records.get(&request_record(request.principal, request.id))? else {
            return Ok(None);
        };
        let record: RequestRecord = decode(&stored)?;
        if record.parameters != *parameters {
            return Err(KmsError::RequestIdReused);
        }
        Ok(Some(record.key.parse()?))
    }

    /// Commits a change together with its request id.
    pub(crate) fn commit(
        &self,
        mut batch: Batch,
        request: &RequestId<'_>,
        parameters: &Digest,
        id: &KeyId,
    ) -> Result<Committed, KmsError> {
        if !request.id.is_empty() {
            let at = request_record(request.principal, request.id);
            let record = RequestRecord {
                parameters: *parameters,
                key: id.to_string(),
            };
            batch = batch.expect_absent(at.clone()).put(at, encode(&record));
        }
        match self.records.commit(batch) {
            Ok(()) => Ok(Committed::Now),
            // This very request, made twice at once, or else something else was there.
            Err(StoreError::Conflict) => Ok(self
                .done_before(request, parameters)?
                .map_or(Committed::Not, Committed::Before)),
            Err(error) => Err(error.into()),
        }
    }
}
