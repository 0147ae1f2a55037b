//! Where things are in the records: one leading byte for each kind.
//!
//! ```text
//! 'H'                               -> where the log stands                          (see head.rs)
//! 'E' first index                   -> entries of one append, from this index on     (see pack.rs)
//! 'I' first event id                -> event ids from this one on, and their indexes (see ids.rs)
//! 'M' level 1, tile                 -> 128 nodes of the tree                         (see tree.rs)
//! 'X' first index of the run, term 5, offset 4 -> what is found by terms from this one on (see index.rs)
//! ```
//! Indexes and numbers are 8 bytes, big-endian, unless said otherwise. Small letters are those of layout 1 (see layout1.rs).

use asterism_crypto::Digest;

use super::event::{EventId, Facts, Outcome, Source};

pub(super) const HEAD: u8 = b'H';
pub(super) const ENTRIES: u8 = b'E';
pub(super) const IDS: u8 = b'I';
pub(super) const TILE: u8 = b'M';
pub(super) const INDEX: u8 = b'X';

/// What an entry is found by: the first 5 bytes of a digest of the facet and its value. Two values may have the same: whoever
/// finds an entry by a term looks at the entry.
pub(super) type Term = u64;

pub(super) fn entries(first: u64) -> [u8; 9] {
    numbered(ENTRIES, first)
}

pub(super) fn ids(first: &EventId) -> [u8; 17] {
    let mut key = [IDS; 17];
    key[1..].copy_from_slice(first.as_bytes());
    key
}

pub(super) fn tile(level: u8, tile: u64) -> [u8; 10] {
    let mut key = [TILE; 10];
    key[1] = level;
    key[2..].copy_from_slice(&tile.to_be_bytes());
    key
}

/// What all keys of a run of the index begin with.
pub(super) fn run(start: u64) -> [u8; 9] {
    numbered(INDEX, start)
}

pub(super) fn postings(run_start: u64, term: Term, offset: u32) -> [u8; 18] {
    let mut key = [0; 18];
    key[..9].copy_from_slice(&run(run_start));
    key[9..14].copy_from_slice(&term.to_be_bytes()[3..]);
    key[14..].copy_from_slice(&offset.to_be_bytes());
    key
}

/// The key right after `key`.
pub(super) fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The number after the leading byte of a key.
pub(super) fn number(key: &[u8]) -> Option<u64> {
    key.get(1..)?
        .first_chunk::<8>()
        .map(|number| u64::from_be_bytes(*number))
}

fn numbered(kind: u8, number: u64) -> [u8; 9] {
    let mut key = [kind; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

/// What an entry is found by. Empty texts are not indexed, and neither is success: nearly everything succeeds, so that looking
/// at every entry finds it as quickly.
pub(super) fn terms(facts: &Facts) -> impl Iterator<Item = Term> + '_ {
    let texts = [
        &*facts.trace_id,
        &*facts.resource,
        &*facts.principal,
        &*facts.operation,
    ];
    wanted(texts, Some(facts.source), Some(facts.outcome))
}

/// Terms for trace id, resource, principal and operation, in this order, and for source and outcome.
pub(super) fn wanted(
    texts: [&str; 4],
    source: Option<Source>,
    outcome: Option<Outcome>,
) -> impl Iterator<Item = Term> + '_ {
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
        .map(|(facet, value)| term(facet, value))
}

fn term(facet: u8, value: &str) -> Term {
    let digest = Digest::of(&[&[facet], value.as_bytes()].concat());
    let [a, b, c, d, e, ..] = *digest.as_bytes();
    u64::from_be_bytes([0, 0, 0, a, b, c, d, e])
}
