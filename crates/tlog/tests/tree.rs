//! The tree and its proofs: published vectors, every small tree, and random larger ones.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use asterism_crypto::Digest;
use asterism_tlog::{
    ConsistencyProof, Frontier, InclusionProof, MAX_SIZE, MemoryNodes, ProofError, empty_root,
    frontier::MalformedFrontier, leaf_hash, node::root_at, node_hash, proof::MakeProofError,
};
use proptest::prelude::*;

/// Leaves, roots and proofs of the reference implementation of RFC 6962 (certificate-transparency,
/// `merkletree/merkle_tree_test.cc`), which Trillian and sigstore use as well.
mod vectors {
    pub const LEAVES: [&str; 8] = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];
    pub const ROOTS: [&str; 8] = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    /// Index, size, hashes.
    pub const INCLUSION: [(u64, u64, &[&str]); 5] = [
        (0, 1, &[]),
        (
            0,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            5,
            8,
            &[
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (
            2,
            3,
            &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
        ),
        (
            1,
            5,
            &[
                "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
    ];
    /// Old size, new size, hashes.
    pub const CONSISTENCY: [(u64, u64, &[&str]); 4] = [
        (1, 1, &[]),
        (
            1,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            6,
            8,
            &[
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (
            2,
            5,
            &[
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
    ];
}

#[test]
fn published_roots_and_proofs_are_met() {
    assert_eq!(
        empty_root().to_string(),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    let leaves: Vec<_> = vectors::LEAVES
        .iter()
        .map(|leaf| leaf_hash(&hex::decode(leaf).unwrap()))
        .collect();
    let nodes = tree(&leaves);
    for (size, root) in (1..).zip(vectors::ROOTS) {
        assert_eq!(nodes.root_at(size).unwrap().to_string(), root);
        assert_eq!(Frontier::load(&nodes, size).unwrap().root().to_string(), root);
    }
    for (index, size, hashes) in vectors::INCLUSION {
        let proof = InclusionProof::make(&nodes, index, size).unwrap();
        assert_eq!(texts(&proof.hashes), hashes, "{index} of {size}");
        proof
            .verify(&leaves[index as usize], &nodes.root_at(size).unwrap())
            .unwrap();
    }
    for (old, new, hashes) in vectors::CONSISTENCY {
        let proof = ConsistencyProof::make(&nodes, old, new).unwrap();
        assert_eq!(texts(&proof.hashes), hashes, "{old} to {new}");
        proof
            .verify(&nodes.root_at(old).unwrap(), &nodes.root_at(new).unwrap())
            .unwrap();
    }
}

#[test]
fn every_proof_of_every_small_tree_is_as_the_rfc_defines_it() {
    let leaves = leaves(70);
    let nodes = tree(&leaves);
    for size in 0..=leaves.len() {
        let root = defined::root(&leaves[..size]);
        assert_eq!(root_at(&nodes, size as u64), Ok(root));
        for index in 0..size {
            let proof = InclusionProof::make(&nodes, index as u64, size as u64).unwrap();
            assert_eq!(proof.hashes, defined::path(index, &leaves[..size]));
            assert_eq!(proof.verify(&leaves[index], &root), Ok(()));
        }
        for old in 0..=size {
            let proof = ConsistencyProof::make(&nodes, old as u64, size as u64).unwrap();
            if old > 0 {
                assert_eq!(
                    proof.hashes,
                    defined::subproof(old, &leaves[..size], true),
                    "{old} {size}"
                );
            }
            assert_eq!(proof.verify(&defined::root(&leaves[..old]), &root), Ok(()));
        }
    }
}

#[test]
fn appending_completes_every_full_node_once() {
    let mut frontier = Frontier::new();
    let mut seen = std::collections::BTreeMap::new();
    for (at, leaf) in (0..).zip(leaves(64)) {
        let index = frontier.append_with(leaf, |id, hash| {
            assert!(seen.insert(id, hash).is_none(), "{id:?} came twice");
        });
        assert_eq!(index, at);
    }
    assert_eq!(seen.len(), 127);
    for (id, hash) in &seen {
        if let Some((left, right)) = id.children() {
            assert_eq!(*hash, node_hash(&seen[&left], &seen[&right]));
        }
    }
}

#[test]
fn impossible_sizes_are_refused_by_name() {
    let nodes = tree(&leaves(5));
    let inclusion = |index, size| InclusionProof::make(&nodes, index, size).unwrap_err();
    let consistency = |old, new| ConsistencyProof::make(&nodes, old, new).unwrap_err();
    let out_of_range = |index, size| MakeProofError::Impossible(ProofError::IndexOutOfRange { index, size });
    let too_large = MakeProofError::Impossible(ProofError::SizeTooLarge(MAX_SIZE + 1));
    assert_eq!(inclusion(0, 0), out_of_range(0, 0));
    assert_eq!(inclusion(5, 5), out_of_range(5, 5));
    assert_eq!(inclusion(u64::MAX, 5), out_of_range(u64::MAX, 5));
    assert_eq!(inclusion(0, MAX_SIZE + 1), too_large);
    assert_eq!(consistency(3, MAX_SIZE + 1), too_large);
    assert_eq!(
        consistency(5, 4),
        MakeProofError::Impossible(ProofError::SizesReversed { old: 5, new: 4 })
    );
    assert!(
        matches!(inclusion(2, 9), MakeProofError::Nodes(_)),
        "no such nodes"
    );
}

#[test]
fn a_proof_with_another_number_of_hashes_is_refused() {
    let nodes = tree(&leaves(6));
    let root = nodes.root_at(6).unwrap();
    let mut proof = InclusionProof::make(&nodes, 4, 6).unwrap();
    proof.hashes.push(root);
    let wrong = ProofError::WrongLength {
        expected: 2,
        found: 3,
    };
    assert_eq!(proof.verify(&leaves(6)[4], &root), Err(wrong));
    let mut proof = ConsistencyProof::make(&nodes, 3, 6).unwrap();
    proof.hashes.pop();
    let wrong = ProofError::WrongLength {
        expected: 4,
        found: 3,
    };
    assert_eq!(proof.verify(&nodes.root_at(3).unwrap(), &root), Err(wrong));
}

#[test]
fn proofs_of_the_largest_log_do_not_overflow() {
    let proof = InclusionProof {
        index: MAX_SIZE - 1,
        size: MAX_SIZE,
        hashes: vec![empty_root(); 62],
    };
    assert!(proof.root(&empty_root()).is_ok());
    let proof = ConsistencyProof {
        old_size: MAX_SIZE - 1,
        new_size: MAX_SIZE,
        hashes: vec![empty_root(); 63],
    };
    let mismatch = ProofError::RootMismatch { size: MAX_SIZE - 1 };
    assert_eq!(proof.verify(&empty_root(), &empty_root()), Err(mismatch));
}

#[test]
fn a_frontier_whose_size_does_not_fit_its_hashes_is_refused() {
    let mut frontier = Frontier::new();
    for leaf in leaves(6) {
        frontier.append(leaf);
    }
    let bytes = frontier.encode();
    assert_eq!(Frontier::decode(&bytes), Ok(frontier));
    assert_eq!(
        Frontier::decode(&bytes[..bytes.len() - 1]),
        Err(MalformedFrontier)
    );
    assert_eq!(Frontier::decode(&bytes[..7]), Err(MalformedFrontier));
    let mut other = bytes.clone();
    other[7] = 7;
    assert_eq!(Frontier::decode(&other), Err(MalformedFrontier));
    other[..8].copy_from_slice(&(MAX_SIZE + 1).to_be_bytes());
    assert_eq!(
        Frontier::decode(&other),
        Err(MalformedFrontier),
        "too large, with the right count"
    );
}

proptest! {
    #[test]
    fn whatever_is_changed_in_an_inclusion_proof_is_found(
        size in 1_u64..600, index: prop::sample::Index, at: prop::sample::Index, bit in 0_usize..256, other: prop::sample::Index,
    ) {
        let leaves = leaves(size as usize);
        let nodes = tree(&leaves);
        let index = index.index(size as usize);
        let root = nodes.root_at(size).unwrap();
        let proof = InclusionProof::make(&nodes, index as u64, size).unwrap();
        prop_assert_eq!(proof.verify(&leaves[index], &root), Ok(()));
        prop_assert!(proof.verify(&flipped(&leaves[index], bit), &root).is_err());
        prop_assert!(proof.verify(&leaves[index], &flipped(&root, bit)).is_err());
        if !proof.hashes.is_empty() {
            let mut changed = proof.clone();
            let at = at.index(changed.hashes.len());
            changed.hashes[at] = flipped(&changed.hashes[at], bit);
            prop_assert!(changed.verify(&leaves[index], &root).is_err());
        }
        let other = other.index(size as usize);
        if other != index {
            let moved = InclusionProof { index: other as u64, ..proof.clone() };
            prop_assert!(moved.verify(&leaves[index], &root).is_err());
            prop_assert!(proof.verify(&leaves[other], &root).is_err());
        }
    }

    #[test]
    fn whatever_is_changed_in_a_consistency_proof_is_found(
        new in 1_u64..600, old: prop::sample::Index, at: prop::sample::Index, bit in 0_usize..256,
    ) {
        let nodes = tree(&leaves(new as usize));
        let old = old.index(new as usize) as u64 + 1;
        let (old_root, new_root) = (nodes.root_at(old).unwrap(), nodes.root_at(new).unwrap());
        let proof = ConsistencyProof::make(&nodes, old, new).unwrap();
        prop_assert_eq!(proof.verify(&old_root, &new_root), Ok(()));
        prop_assert!(proof.verify(&flipped(&old_root, bit), &new_root).is_err());
        prop_assert!(proof.verify(&old_root, &flipped(&new_root, bit)).is_err());
        if !proof.hashes.is_empty() {
            let mut changed = proof.clone();
            let at = at.index(changed.hashes.len());
            changed.hashes[at] = flipped(&changed.hashes[at], bit);
            prop_assert!(changed.verify(&old_root, &new_root).is_err());
        }
    }

    #[test]
    fn a_frontier_goes_on_from_its_bytes(before in 0_usize..300, after in 0_usize..300) {
        let leaves = leaves(before + after);
        let mut frontier = Frontier::new();
        leaves[..before].iter().for_each(|leaf| { frontier.append(*leaf); });
        let mut frontier = Frontier::decode(&frontier.encode()).unwrap();
        leaves[before..].iter().for_each(|leaf| { frontier.append(*leaf); });
        prop_assert_eq!(frontier.root(), defined::root(&leaves));
        prop_assert_eq!(frontier.size(), leaves.len() as u64);
    }
}

/// RFC 6962, section 2.1, as it is written.
mod defined {
    use super::*;

    pub fn root(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(k(leaves));
                node_hash(&root(left), &root(right))
            }
        }
    }

    pub fn path(m: usize, leaves: &[Digest]) -> Vec<Digest> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let (left, right) = leaves.split_at(k(leaves));
        let (mut path, sibling) = if m < left.len() {
            (path(m, left), root(right))
        } else {
            (path(m - left.len(), right), root(left))
        };
        path.push(sibling);
        path
    }

    pub fn subproof(m: usize, leaves: &[Digest], whole: bool) -> Vec<Digest> {
        if m == leaves.len() {
            return if whole { Vec::new() } else { vec![root(leaves)] };
        }
        let (left, right) = leaves.split_at(k(leaves));
        let (mut proof, sibling) = if m <= left.len() {
            (subproof(m, left, whole), root(right))
        } else {
            (subproof(m - left.len(), right, false), root(left))
        };
        proof.push(sibling);
        proof
    }

    fn k(leaves: &[Digest]) -> usize {
        leaves.len().next_power_of_two() / 2
    }
}

fn leaves(count: usize) -> Vec<Digest> {
    (0..count)
        .map(|at| leaf_hash(format!("event {at}").as_bytes()))
        .collect()
}

fn tree(leaves: &[Digest]) -> MemoryNodes {
    let mut nodes = MemoryNodes::default();
    let mut frontier = Frontier::new();
    for leaf in leaves {
        frontier.append_with(*leaf, |id, hash| nodes.push(id, hash));
    }
    nodes
}

fn flipped(digest: &Digest, bit: usize) -> Digest {
    let mut bytes = *digest.as_bytes();
    bytes[bit / 8] ^= 1 << (bit % 8);
    Digest::from_bytes(bytes)
}

fn texts(hashes: &[Digest]) -> Vec<String> {
    hashes.iter().map(ToString::to_string).collect()
}
