//! Against other people's code: ct-merkle for trees, Cloudflare's tlog_tiles and signed_note for the rest.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use asterism_crypto::{Digest, SecretKey};
use asterism_tlog::{
    Checkpoint, ConsistencyProof, Frontier, InclusionProof, MemoryNodes, NodeId, Nodes as _, Note,
    NoteSigner, SignedCheckpoint, TileId, TileKind, leaf_hash,
    tile::{decode_hashes, encode_hashes, new_tiles},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use sha2::Sha256;
use signed_note::{Signer as _, StandardSigner, StandardVerifier, VerifierList};
use tlog_tiles::{Hash, HashReader, Tile};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn ct_merkle_has_the_same_roots_and_proofs(size in 1_usize..600, index: prop::sample::Index, old: prop::sample::Index) {
        let (nodes, theirs) = trees(size);
        let (index, old) = (index.index(size), old.index(size) + 1);
        let root = theirs.root();
        let our_root = nodes.root_at(size as u64).unwrap();
        prop_assert_eq!(our_root.as_bytes().as_slice(), root.as_bytes().as_slice());

        let ours = InclusionProof::make(&nodes, index as u64, size as u64).unwrap();
        let proof = theirs.prove_inclusion(index);
        prop_assert_eq!(encode_hashes(&ours.hashes), proof.as_bytes());
        prop_assert!(root.verify_inclusion(&entry(index), index as u64, &proof).is_ok());

        if old < size {
            let ours = ConsistencyProof::make(&nodes, old as u64, size as u64).unwrap();
            let proof = theirs.prove_consistency(size - old);
            prop_assert_eq!(encode_hashes(&ours.hashes), proof.as_bytes());
        }
    }

    #[test]
    fn tlog_tiles_checks_our_proofs_and_we_check_its(size in 1_u64..600, index: prop::sample::Index, old: prop::sample::Index) {
        let (nodes, _) = trees(size as usize);
        let stored = Stored(&nodes);
        let (index, old) = (index.index(size as usize) as u64, old.index(size as usize) as u64 + 1);
        let (root, old_root) = (nodes.root_at(size).unwrap(), nodes.root_at(old).unwrap());
        let leaf = leaf_hash(&entry(index as usize));
        prop_assert_eq!(tlog_tiles::tree_hash(size, &stored).unwrap(), theirs(&root));

        let ours = InclusionProof::make(&nodes, index, size).unwrap();
        let path = ours.hashes.iter().map(theirs).collect();
        prop_assert!(tlog_tiles::check_record(&path, size, theirs(&root), index, theirs(&leaf)).is_ok());
        let path = tlog_tiles::prove_record(size, index, &stored).unwrap();
        prop_assert_eq!(path.iter().map(hash).collect::<Vec<_>>(), ours.hashes);

        let ours = ConsistencyProof::make(&nodes, old, size).unwrap();
        let proof = ours.hashes.iter().map(theirs).collect();
        prop_assert!(tlog_tiles::check_tree(&proof, size, theirs(&root), old, theirs(&old_root)).is_ok());
        let proof = tlog_tiles::prove_tree(size, old, &stored).unwrap();
        prop_assert_eq!(proof.iter().map(hash).collect::<Vec<_>>(), ours.hashes);
    }

    #[test]
    fn tlog_tiles_has_the_same_tiles_with_the_same_bytes(old in 0_u64..1500, more in 0_u64..1500) {
        let new = old + more;
        let (nodes, _) = trees(new as usize);
        let ours: Vec<_> = new_tiles(old, new).filter(|tile| tile.kind() != TileKind::Entries).collect();
        let published = Tile::new_tiles(8, old, new);
        // Theirs begin with the height, which is always 8 here.
        let paths: Vec<_> = published.iter().map(|tile| tile.path().replacen("tile/8/", "tile/", 1)).collect();
        prop_assert_eq!(ours.iter().map(ToString::to_string).collect::<Vec<_>>(), paths);
        for (ours, published) in ours.iter().zip(&published) {
            let bytes = published.read_data(&Stored(&nodes)).unwrap();
            let hashes: Vec<_> = ours.nodes().map(|id| nodes.node(id).unwrap()).collect();
            prop_assert_eq!(decode_hashes(&bytes, ours.width()).unwrap(), hashes);
        }
    }

    #[test]
    fn tile_paths_of_any_index_are_the_same(index in 0_u64..1 << 40, level in 0_u8..3, width in 1_u64..=256) {
        let size = (index * 256 + width) << (8 * level);
        prop_assume!(size <= asterism_tlog::MAX_SIZE);
        let ours = TileId::at(TileKind::Hashes(level), index, size).unwrap();
        let published = Tile::new(8, level, index, width as u32, false);
        prop_assert_eq!(ours.to_string(), published.path().replacen("tile/8/", "tile/", 1));
    }

    #[test]
    fn signed_note_verifies_our_notes_and_we_verify_its(seed in any::<[u8; 32]>(), text in "[ -~é\n]{0,80}") {
        let text = format!("{text}\n");
        let ours = NoteSigner::new("log.example/a".parse().unwrap(), &SecretKey::from_bytes(seed));
        let key = ours.verifier().to_string();
        let skey = [[1].as_slice(), &seed].concat();
        let skey = format!("PRIVATE+KEY+log.example/a+{}+{}", ours.verifier().id(), STANDARD.encode(skey));
        let theirs = StandardSigner::new(&skey).unwrap();
        prop_assert_eq!(theirs.key_id().to_be_bytes(), *ours.verifier().id().as_bytes());
        let verifiers = VerifierList::new(vec![Box::new(StandardVerifier::new(&key).unwrap())]);

        let note = Note::new(text.clone(), vec![ours.sign(&text)]).unwrap().to_string();
        let read = signed_note::Note::from_bytes(note.as_bytes()).unwrap();
        prop_assert_eq!(read.verify(&verifiers).unwrap().0.len(), 1);

        let mut written = signed_note::Note::new(text.as_bytes(), &[]).unwrap();
        written.add_sigs(&[&theirs]).unwrap();
        prop_assert_eq!(String::from_utf8(written.to_bytes()).unwrap(), note, "Ed25519 is deterministic");
        let read = Note::parse(&written.to_bytes()).unwrap();
        prop_assert_eq!(read.verify(&[key.parse().unwrap()]).unwrap().keys, [0]);
    }

    #[test]
    fn tlog_tiles_reads_our_checkpoints(size in 0..=asterism_tlog::MAX_SIZE, root in any::<[u8; 32]>()) {
        let checkpoint = Checkpoint::new(&"log.example/a".parse().unwrap(), size, Digest::from_bytes(root));
        let read = tlog_tiles::Checkpoint::from_bytes(checkpoint.to_string().as_bytes()).unwrap();
        prop_assert_eq!((read.origin(), read.size(), read.hash().0), ("log.example/a", size, root));
        prop_assert_eq!(read.to_bytes(), checkpoint.to_string().into_bytes());
    }

    #[test]
    fn what_we_read_as_a_note_or_checkpoint_they_read_as_well(bytes in notes()) {
        if let Ok(note) = Note::parse(&bytes) {
            let read = signed_note::Note::from_bytes(&bytes).unwrap();
            prop_assert_eq!(read.text(), note.text().as_bytes());
            prop_assert_eq!(read.to_bytes(), note.to_string().into_bytes());
        }
        if let Ok(signed) = SignedCheckpoint::parse(&bytes) {
            let read = tlog_tiles::Checkpoint::from_bytes(signed.note().text().as_bytes()).unwrap();
            prop_assert_eq!(read.size(), signed.checkpoint().size);
        }
    }
}

/// Notes with a change somewhere.
fn notes() -> impl Strategy<Value = Vec<u8>> {
    (any::<prop::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(|(at, byte, insert)| {
        let signer = NoteSigner::new("log.example/a".parse().unwrap(), &SecretKey::from_bytes([1; 32]));
        let checkpoint = Checkpoint::new(signer.verifier().name(), 7, leaf_hash(b"x")).to_string();
        let mut bytes = Note::new(checkpoint.clone(), vec![signer.sign(&checkpoint)])
            .unwrap()
            .to_string()
            .into_bytes();
        let at = at.index(bytes.len());
        if insert {
            bytes.insert(at, byte);
        } else {
            bytes[at] = byte;
        }
        bytes
    })
}

/// Our nodes, numbered as they number them.
struct Stored<'a>(&'a MemoryNodes);

impl HashReader for Stored<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        let node = |at: &u64| {
            let (level, index) = tlog_tiles::tlog::split_stored_hash_index(*at);
            theirs(&self.0.node(NodeId { level, index }).unwrap())
        };
        Ok(indexes.iter().map(node).collect())
    }
}

fn trees(size: usize) -> (MemoryNodes, MemoryBackedTree<Sha256, Vec<u8>>) {
    let mut nodes = MemoryNodes::default();
    let mut frontier = Frontier::new();
    let mut theirs = MemoryBackedTree::new();
    for at in 0..size {
        frontier.append_with(leaf_hash(&entry(at)), |id, hash| nodes.push(id, hash));
        theirs.push(entry(at));
    }
    (nodes, theirs)
}

fn entry(at: usize) -> Vec<u8> {
    format!("event {at}").into_bytes()
}

fn theirs(hash: &Digest) -> Hash {
    Hash(*hash.as_bytes())
}

fn hash(theirs: &Hash) -> Digest {
    Digest::from_bytes(theirs.0)
}
