//! Merkle logs that outsiders can verify, as RFC 6962 and C2SP have them: pure, no I/O.
//!
//! [`hash`] and [`frontier`] build the tree; [`proof`] proves that an entry is in it and that it only ever grew.

pub mod frontier;
pub mod hash;
pub mod node;
pub mod proof;

pub use frontier::Frontier;
pub use hash::{empty_root, leaf_hash, node_hash};
pub use node::{MAX_SIZE, MemoryNodes, NodeId, Nodes};
pub use proof::{ConsistencyProof, InclusionProof, ProofError};
