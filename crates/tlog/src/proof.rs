//! Proofs that an entry is in a tree, and that one tree is a prefix of another (RFC 9162, sections 2.1.3 and 2.1.4; those of
//! RFC 6962 are the same).
//!
//! A proof is checked against roots and sizes that are known to be right, from signed checkpoints. The sizes matter: a tree
//! of another size may have a path of the same shape, and only the checkpoint binds size and root to each other.

use asterism_crypto::Digest;

use crate::{
    hash::{empty_root, node_hash},
    node::{MAX_SIZE, Nodes, range_hash},
};

/// The most hashes that a proof in a tree of up to [`MAX_SIZE`] leaves can have.
pub const MAX_HASHES: usize = 63;

/// Why a proof was refused or cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Larger than any log.
    #[error("a log cannot have {0} entries; the most is {MAX_SIZE}")]
    SizeTooLarge(u64),
    /// The index is not below the size.
    #[error("entry {index} is not among the {size} entries of the log; ask for an index below {size}")]
    IndexOutOfRange {
        /// The index asked for.
        index: u64,
        /// The size of the tree.
        size: u64,
    },
    /// A log cannot shrink.
    #[error("a log of {old} entries cannot have become one of {new}; ask with the smaller size first")]
    SizesReversed {
        /// The size that should have been the smaller.
        old: u64,
        /// The size that should have been the larger.
        new: u64,
    },
    /// Another number of hashes than the sizes call for.
    #[error("the proof has {found} hashes where the sizes call for {expected}")]
    WrongLength {
        /// What the sizes call for.
        expected: usize,
        /// What the proof has.
        found: usize,
    },
    /// The proof leads to another root.
    #[error("the proof leads to another root than that of the log of {size} entries")]
    RootMismatch {
        /// The size of the tree whose root was not met.
        size: u64,
    },
}

/// Why a proof could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MakeProofError<E> {
    /// There is no such proof.
    #[error(transparent)]
    Impossible(ProofError),
    /// A node could not be had.
    #[error("a node of the tree could not be read: {0}")]
    Nodes(E),
}

impl<E> From<ProofError> for MakeProofError<E> {
    fn from(error: ProofError) -> Self {
        Self::Impossible(error)
    }
}

/// Proof that a leaf stands at an index of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof {
    /// Where the leaf stands.
    pub index: u64,
    /// The number of leaves of the tree.
    pub size: u64,
    /// The siblings on the way from the leaf up to the root.
    pub hashes: Vec<Digest>,
}

impl InclusionProof {
    /// Proves the leaf at `index` of the first `size` leaves.
    ///
    /// # Errors
    /// [`ProofError::IndexOutOfRange`], [`ProofError::SizeTooLarge`], and those of `nodes`.
    pub fn make<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Self, MakeProofError<N::Error>> {
        check_index(index, size)?;
        let mut hashes = Vec::with_capacity(inclusion_length(index, size));
        let (mut start, mut end) = (0, size);
        while end - start > 1 {
            let middle = start + split(end - start);
            let sibling = if index < middle {
                let sibling = (middle, end);
                end = middle;
                sibling
            } else {
                let sibling = (start, middle);
                start = middle;
                sibling
            };
            hashes.push(range_hash(nodes, sibling.0, sibling.1).map_err(MakeProofError::Nodes)?);
        }
        hashes.reverse();
        Ok(Self { index, size, hashes })
    }

    /// Checks that `leaf` stands at the index of the tree with that root.
    ///
    /// # Errors
    /// [`ProofError`]
    pub fn verify(&self, leaf: &Digest, root: &Digest) -> Result<(), ProofError> {
        if self.root(leaf)? == *root {
            Ok(())
        } else {
            Err(ProofError::RootMismatch { size: self.size })
        }
    }

    /// The root that the proof leads to from `leaf` (RFC 9162, section 2.1.3.2).
    ///
    /// # Errors
    /// [`ProofError::IndexOutOfRange`], [`ProofError::SizeTooLarge`], [`ProofError::WrongLength`]
    pub fn root(&self, leaf: &Digest) -> Result<Digest, ProofError> {
        check_index(self.index, self.size)?;
        check_length(inclusion_length(self.index, self.size), &self.hashes)?;
        let mut at = self.index;
        let mut last = self.size - 1;
        let mut hash = *leaf;
        for sibling in &self.hashes {
            if at & 1 == 1 || at == last {
                hash = node_hash(sibling, &hash);
                skip_missing_siblings(&mut at, &mut last);
            } else {
                hash = node_hash(&hash, sibling);
            }
            at >>= 1;
            last >>= 1;
        }
        debug_assert_eq!(last, 0, "the length was checked");
        Ok(hash)
    }
}

/// Proof that the tree of `old_size` leaves is a prefix of that of `new_size`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistencyProof {
    /// The number of leaves of the smaller tree.
    pub old_size: u64,
    /// The number of leaves of the larger tree.
    pub new_size: u64,
    /// As RFC 6962, section 2.1.2 orders them; none when a size is 0 or both are the same.
    pub hashes: Vec<Digest>,
}

impl ConsistencyProof {
    /// Proves that the first `old_size` leaves are the beginning of the first `new_size`.
    ///
    /// # Errors
    /// [`ProofError::SizesReversed`], [`ProofError::SizeTooLarge`], and those of `nodes`.
    pub fn make<N: Nodes>(nodes: &N, old_size: u64, new_size: u64) -> Result<Self, MakeProofError<N::Error>> {
        check_sizes(old_size, new_size)?;
        let mut hashes = Vec::with_capacity(consistency_length(old_size, new_size));
        if old_size > 0 {
            for (start, end) in consistency_ranges(old_size, new_size) {
                hashes.push(range_hash(nodes, start, end).map_err(MakeProofError::Nodes)?);
            }
        }
        Ok(Self {
            old_size,
            new_size,
            hashes,
        })
    }

    /// Checks that the trees with these roots are consistent (RFC 9162, section 2.1.4.2). From the empty tree, as in C2SP
    /// `tlog-witness`, the proof is empty, and the old root must be that of the empty tree.
    ///
    /// # Errors
    /// [`ProofError`]
    pub fn verify(&self, old_root: &Digest, new_root: &Digest) -> Result<(), ProofError> {
        check_sizes(self.old_size, self.new_size)?;
        check_length(consistency_length(self.old_size, self.new_size), &self.hashes)?;
        let old_mismatch = ProofError::RootMismatch { size: self.old_size };
        let new_mismatch = ProofError::RootMismatch { size: self.new_size };
        if self.old_size == 0 && *old_root != empty_root() {
            return Err(old_mismatch);
        }
        if self.old_size == self.new_size && old_root != new_root {
            return Err(new_mismatch);
        }
        if self.old_size == 0 || self.old_size == self.new_size {
            return Ok(());
        }
        let (old, new) = self.roots(old_root);
        if old != *old_root {
            Err(old_mismatch)
        } else if new != *new_root {
            Err(new_mismatch)
        } else {
            Ok(())
        }
    }

    /// The roots that the proof leads to; sizes and length are checked, and `0 < old_size < new_size`.
    fn roots(&self, old_root: &Digest) -> (Digest, Digest) {
        let shift = self.old_size.trailing_zeros();
        let mut at = (self.old_size - 1) >> shift;
        let mut last = (self.new_size - 1) >> shift;
        let (first, rest) = if self.old_size.is_power_of_two() {
            (*old_root, self.hashes.as_slice())
        } else {
            let (first, rest) = self.hashes.split_first().expect("the length was checked");
            (*first, rest)
        };
        let (mut old, mut new) = (first, first);
        for hash in rest {
            if at & 1 == 1 || at == last {
                old = node_hash(hash, &old);
                new = node_hash(hash, &new);
                skip_missing_siblings(&mut at, &mut last);
            } else {
                new = node_hash(&new, hash);
            }
            at >>= 1;
            last >>= 1;
        }
        debug_assert_eq!(last, 0, "the length was checked");
        (old, new)
    }
}

/// SUBPROOF of RFC 6962, section 2.1.2: the ranges of leaves whose hashes make the proof, in its order.
fn consistency_ranges(old_size: u64, new_size: u64) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    let (mut start, mut end) = (0, new_size);
    while end != old_size {
        let middle = start + split(end - start);
        if old_size <= middle {
            ranges.push((middle, end));
            end = middle;
        } else {
            ranges.push((start, middle));
            start = middle;
        }
    }
    // The old tree itself is known to whoever asks; a part of it is not.
    if start > 0 {
        ranges.push((start, end));
    }
    ranges.reverse();
    ranges
}

/// At the right edge, a node without a sibling goes up unchanged.
fn skip_missing_siblings(at: &mut u64, last: &mut u64) {
    while *at & 1 == 0 && *at != 0 {
        *at >>= 1;
        *last >>= 1;
    }
}

/// The largest power of two below `n`, which is at least 2.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// The number of hashes of an inclusion proof: up to where the paths of the leaf and of the last leaf meet, every level has
/// one; above, only those where the leaf's path turns right.
fn inclusion_length(index: u64, size: u64) -> usize {
    let inner = u64::BITS - (index ^ (size - 1)).leading_zeros();
    (inner + (index >> inner).count_ones()) as usize
}

/// The number of hashes of a consistency proof: those of an inclusion proof for the last full node of the old tree, and
/// that node unless it is the whole old tree.
fn consistency_length(old_size: u64, new_size: u64) -> usize {
    if old_size == 0 || old_size == new_size {
        return 0;
    }
    let shift = old_size.trailing_zeros();
    let path = inclusion_length((old_size - 1) >> shift, ((new_size - 1) >> shift) + 1);
    path + usize::from(!old_size.is_power_of_two())
}

fn check_index(index: u64, size: u64) -> Result<(), ProofError> {
    check_size(size)?;
    if index < size {
        Ok(())
    } else {
        Err(ProofError::IndexOutOfRange { index, size })
    }
}

fn check_sizes(old: u64, new: u64) -> Result<(), ProofError> {
    check_size(old)?;
    check_size(new)?;
    if old <= new {
        Ok(())
    } else {
        Err(ProofError::SizesReversed { old, new })
    }
}

fn check_size(size: u64) -> Result<(), ProofError> {
    if size <= MAX_SIZE {
        Ok(())
    } else {
        Err(ProofError::SizeTooLarge(size))
    }
}

fn check_length(expected: usize, hashes: &[Digest]) -> Result<(), ProofError> {
    if hashes.len() == expected {
        Ok(())
    } else {
        Err(ProofError::WrongLength {
            expected,
            found: hashes.len(),
        })
    }
}
