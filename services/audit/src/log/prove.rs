//! Proofs that outsiders can check: that an entry is in the log, and that the log only ever grew.

use asterism_crypto::Digest;
use asterism_tlog::{
    ConsistencyProof, InclusionProof,
    node::root_at,
    proof::{MakeProofError, ProofError},
};

use super::{
    Entry, EventId, Head, Log,
    entry::{encode, encode_event},
    ids,
};
use crate::error::AuditError;

/// Proof that an entry is among the first entries of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inclusion {
    /// The entry, as it was read back for this proof.
    pub entry: Entry,
    /// Its bytes, of which the leaf is the hash.
    pub bytes: Vec<u8>,
    /// The way from the leaf to the root.
    pub proof: InclusionProof,
    /// The size of the tree, and its root.
    pub head: Head,
}

/// Proof that the log of one size is the beginning of the log of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consistency {
    /// The smaller tree.
    pub old: Head,
    /// The larger tree.
    pub new: Head,
    /// What leads from the one to the other.
    pub proof: ConsistencyProof,
}

impl Log {
    /// Proves that entry `index` is among the first `size`, which must be durable.
    ///
    /// # Errors
    /// [`AuditError::Field`] for sizes and indexes beyond the log, [`AuditError::Damaged`].
    pub fn inclusion(&self, index: u64, size: u64) -> Result<Inclusion, AuditError> {
        let end = self.end_at_least("tree_size", size)?;
        let nodes = end.tree.nodes(&*self.records);
        let proof = InclusionProof::make(&nodes, index, size).map_err(impossible)?;
        let entry = self.entry(index)?;
        let bytes = encode(entry.appended_at, &encode_event(&entry.event));
        let root = root_at(&nodes, size)?;
        // Nothing is proved that does not lead to the root: the store may have changed under the log.
        proof
            .verify(&entry.leaf, &root)
            .map_err(|_| AuditError::Damaged(format!("entry {index} does not fit the tree")))?;
        Ok(Inclusion {
            entry,
            bytes,
            proof,
            head: Head { size, root },
        })
    }

    /// Proves that the first `old` entries are the beginning of the first `new`, which must be durable.
    ///
    /// # Errors
    /// As [`Log::inclusion`].
    pub fn consistency(&self, old: u64, new: u64) -> Result<Consistency, AuditError> {
        let end = self.end_at_least("to_size", new)?;
        let nodes = end.tree.nodes(&*self.records);
        let proof = ConsistencyProof::make(&nodes, old, new).map_err(impossible)?;
        let head = |size| {
            Ok::<_, AuditError>(Head {
                size,
                root: root_at(&nodes, size)?,
            })
        };
        let (old, new) = (head(old)?, head(new)?);
        proof
            .verify(&old.root, &new.root)
            .map_err(|_| AuditError::damaged("its tree does not fit itself"))?;
        Ok(Consistency { old, new, proof })
    }

    /// The index of the durable entry that has this event id.
    ///
    /// # Errors
    /// [`AuditError::UnknownEvent`], [`AuditError::Damaged`].
    pub fn index_of_event(&self, id: &EventId) -> Result<u64, AuditError> {
        let size = self.open_size()?;
        let lookup = ids::UnderWay::default().lookup(&*self.records, &[*id])?;
        let index = lookup.index_of(id).filter(|index| *index < size);
        index.ok_or(AuditError::UnknownEvent(*id))
    }

    /// The bytes of durable entries from `from` on, of which the leaves are the hashes; at most `limit`.
    ///
    /// # Errors
    /// [`AuditError::Damaged`]
    pub fn entry_bytes(&self, from: u64, limit: usize) -> Result<Vec<Vec<u8>>, AuditError> {
        let entries = self.entries(from, limit)?;
        let bytes = entries
            .iter()
            .map(|entry| encode(entry.appended_at, &encode_event(&entry.event)));
        Ok(bytes.collect())
    }

    /// The root of the tree over the first `size` entries, which must be durable.
    ///
    /// # Errors
    /// As [`Log::inclusion`].
    pub fn root_at(&self, size: u64) -> Result<Digest, AuditError> {
        let end = self.end_at_least("tree_size", size)?;
        root_at(&end.tree.nodes(&*self.records), size)
    }

    fn end_at_least(&self, field: &str, size: u64) -> Result<super::append::End, AuditError> {
        self.open_size()?;
        let end = self.end();
        if size > end.size() {
            let text = format!("the log has {} entries, and not {size}", end.size());
            return Err(AuditError::field(field, text));
        }
        Ok(end)
    }
}

fn impossible(error: MakeProofError<AuditError>) -> AuditError {
    match error {
        MakeProofError::Impossible(error) => {
            let field = match error {
                ProofError::IndexOutOfRange { .. } => "index",
                // The larger size is one that the log has.
                _ => "from_size",
            };
            AuditError::field(field, error.to_string())
        }
        MakeProofError::Nodes(error) => error,
    }
}
