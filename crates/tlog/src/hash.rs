//! The hashes of RFC 6962, section 2.1, over SHA-256.
//!
//! ```text
//! leaf  = SHA-256(0x00 || entry)
//! node  = SHA-256(0x01 || left || right)
//! empty = SHA-256("")
//! ```
//!
//! The first byte keeps a leaf from passing for a node.

use asterism_crypto::{Digest, DigestWriter};

/// The hash of an entry as a leaf.
pub fn leaf_hash(entry: &[u8]) -> Digest {
    let mut writer = DigestWriter::new();
    writer.update(&[0x00]);
    writer.update(entry);
    writer.finish()
}

/// The hash of a node over its two children.
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut input = [0x01; 65];
    input[1..33].copy_from_slice(left.as_bytes());
    input[33..].copy_from_slice(right.as_bytes());
    Digest::of(&input)
}

/// The root of the tree without leaves.
pub fn empty_root() -> Digest {
    Digest::of(&[])
}
