//! Where things are in the records: one leading byte for each kind.
//!
//! ```text
//! 'e' index                          -> chain value, entry        (see entry.rs)
//! 'i' event id                       -> index
//! 'h'                                -> size, chain value
//! 's' source                         -> last sequence number
//! 'x' facet, SHA-256(value)[..16], index -> nothing
//! ```
//! Indexes, sizes and numbers are 8 bytes, big-endian. `m` and `c` are kept for a Merkle tree's nodes and its
//! checkpoints.

use asterism_crypto::Digest;

use super::event::{Facts, Outcome, Source};

pub(super) const ENTRY: u8 = b'e';
pub(super) const ID: u8 = b'i';
pub(super) const HEAD: u8 = b'h';
pub(super) const SOURCE: u8 = b's';
pub(super) const FACET: u8 = b'x';

/// `x`, the facet, and the digest of its value.
pub(super) type FacetPrefix = [u8; 18];

pub(super) fn entry(index: u64) -> [u8; 9] {
    let mut key = [ENTRY; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

pub(super) fn id(id: &super::event::EventId) -> [u8; 17] {
    let mut key = [ID; 17];
    key[1..].copy_from_slice(id.as_bytes());
    key
}

pub(super) fn source(source: Source) -> Vec<u8> {
    [&[SOURCE], source.as_str().as_bytes()].concat()
}

pub(super) fn facet(prefix: &FacetPrefix, index: u64) -> [u8; 26] {
    let mut key = [0; 26];
    key[..18].copy_from_slice(prefix);
    key[18..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The index at the end of a key or of a value.
pub(super) fn trailing_index(bytes: &[u8]) -> Option<u64> {
    bytes.last_chunk::<8>().map(|index| u64::from_be_bytes(*index))
}

pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// What an entry is found by. Empty texts are not indexed, and neither is success: nearly everything succeeds, so that looking
/// at every entry finds it as quickly.
pub(super) fn facets(facts: &Facts) -> impl Iterator<Item = FacetPrefix> + '_ {
    wanted(
        [
            &facts.trace_id,
            &facts.resource,
            &facts.principal,
            &facts.operation,
        ],
        Some(facts.source),
        Some(facts.outcome),
    )
}

/// Prefixes for trace id, resource, principal and operation, in this order, and for source and outcome.
pub(super) fn wanted(
    texts: [&str; 4],
    source: Option<Source>,
    outcome: Option<Outcome>,
) -> impl Iterator<Item = FacetPrefix> + '_ {
    let outcome = outcome.and_then(|outcome| match outcome {
        Outcome::Succeeded => None,
        Outcome::Denied => Some("denied"),
        Outcome::Failed => Some("failed"),
    });
    let texts = [b't', b'r', b'p', b'o']
        .into_iter()
        .zip(texts)
        .filter(|(_, text)| !text.is_empty());
    let source = source.map(|source| (b's', source.as_str()));
    texts
        .chain(source)
        .chain(outcome.map(|outcome| (b'u', outcome)))
        .map(|(kind, value)| {
            let mut prefix = [0; 18];
            prefix[0] = FACET;
            prefix[1] = kind;
            prefix[2..].copy_from_slice(&Digest::of(value.as_bytes()).as_bytes()[..16]);
            prefix
        })
}
