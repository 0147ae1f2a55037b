//! Proofs of any entry and any two sizes, held against a tree that is kept in memory.

use asterism_crypto::Digest;
use asterism_tlog::{Frontier, MemoryNodes};
use proptest::prelude::*;

use super::{Filled, at, event, id, memory, open};
use crate::{error::AuditError, log::Log};

/// Reaches into the second tile of every level that tests can afford.
const SIZE: u64 = 128 * 128 + 1000;

/// A log, and the tree of its leaves by plain hashing.
fn grown() -> (Filled, MemoryNodes) {
    let filled = Filled::new(memory, 0);
    for start in (0..SIZE).step_by(1000) {
        let events: Vec<_> = (start..SIZE.min(start + 1000)).map(event).collect();
        filled.log.append(&events, at(1)).unwrap();
    }
    let mut nodes = MemoryNodes::default();
    let mut frontier = Frontier::new();
    for entry in filled.log.entries(0, usize::MAX).unwrap() {
        frontier.append_with(entry.leaf, |id, hash| nodes.push(id, hash));
    }
    (filled, nodes)
}

fn check(log: &Log, root: impl Fn(u64) -> Digest, index: u64, size: u64, old: u64) {
    let inclusion = log.inclusion(index, size).unwrap();
    assert_eq!(inclusion.head.root, root(size));
    let leaf = asterism_tlog::leaf_hash(&inclusion.bytes);
    assert_eq!((inclusion.entry.index, inclusion.entry.leaf), (index, leaf));
    inclusion.proof.verify(&leaf, &root(size)).unwrap();
    let consistency = log.consistency(old, size).unwrap();
    assert_eq!(
        (consistency.old.root, consistency.new.root),
        (root(old), root(size))
    );
    consistency.proof.verify(&root(old), &root(size)).unwrap();
}

#[test]
fn proofs_lead_to_the_roots_of_a_tree_that_was_made_by_hand() {
    let (filled, nodes) = grown();
    let root = |size| nodes.root_at(size).unwrap();
    assert_eq!(filled.log.head().root, root(SIZE));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(200));
    runner
        .run(&(0..SIZE, 0..SIZE, 0..=SIZE), |(one, other, old)| {
            let (index, size) = (one.min(other), one.max(other) + 1);
            check(&filled.log, root, index, size, old.min(size));
            Ok(())
        })
        .unwrap();
    for size in [1, 2, 127, 128, 129, 128 * 128 - 1, 128 * 128, 128 * 128 + 1, SIZE] {
        check(&filled.log, root, size - 1, size, size / 2);
        check(&filled.log, root, 0, size, size);
    }
    // A log that was just opened has the same tree.
    let Filled { dir, records, log } = filled;
    drop(log);
    check(&open(&dir, &records), root, 5, SIZE, 128 * 128 + 3);
}

#[test]
fn what_cannot_be_proved_is_refused() {
    let Filled { log, .. } = Filled::new(memory, 10);
    let refused = |result: Result<(), AuditError>| match result {
        Err(AuditError::Field { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let inclusion = |index, size| refused(log.inclusion(index, size).map(drop));
    assert_eq!(inclusion(10, 10), "index");
    assert_eq!(inclusion(0, 0), "index");
    assert_eq!(inclusion(u64::MAX, 10), "index");
    assert_eq!(inclusion(0, 11), "tree_size");
    assert_eq!(inclusion(0, u64::MAX), "tree_size");
    let consistency = |old, new| refused(log.consistency(old, new).map(drop));
    assert_eq!(consistency(5, 4), "from_size");
    assert_eq!(consistency(0, 11), "to_size");
    assert!(log.consistency(0, 10).unwrap().proof.hashes.is_empty());
    assert_eq!(log.index_of_event(&id(7)).unwrap(), 7);
    assert!(matches!(
        log.index_of_event(&id(10)),
        Err(AuditError::UnknownEvent(_))
    ));
}
