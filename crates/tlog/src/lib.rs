//! Merkle logs that outsiders can verify, as RFC 6962 and C2SP have them: pure, no I/O.
//!
//! [`hash`] and [`frontier`] build the tree; [`proof`] proves that an entry is in it and that it only ever grew. [`note`],
//! [`key`], [`checkpoint`] and [`cosignature`] say who stands behind a root; a [`receipt`] joins all of that into one text, and [`witness`] is how others come to stand behind it.
//! [`tile`] and [`export`] lay a log out as plain files, and [`mod@verify`] checks all of that offline, trusting nothing but
//! public keys; it reads through a [`source`], the only module that knows of a file system.

pub mod checkpoint;
pub mod cosignature;
pub mod export;
pub mod frontier;
pub mod hash;
pub mod key;
pub mod node;
pub mod note;
pub mod proof;
pub mod receipt;
pub mod source;
pub mod tile;
pub mod verify;
pub mod witness;

pub use checkpoint::{Checkpoint, CheckpointError, Endorsement, SignedCheckpoint};
pub use export::{ExportError, Exporter};
pub use frontier::Frontier;
pub use hash::{empty_root, leaf_hash, node_hash};
pub use key::{Cosigner, KeyError, KeyId, KeyName, NoteSigner, VerifierKey, parse_keys};
pub use node::{MAX_SIZE, MemoryNodes, NodeId, Nodes};
pub use note::{Note, NoteError, NoteSignature, Signers};
pub use proof::{ConsistencyProof, InclusionProof, ProofError};
pub use receipt::{Receipt, ReceiptError};
pub use source::{Directory, Source};
pub use tile::{TileId, TileKind, TileNodes, Tiles};
