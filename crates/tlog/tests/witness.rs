//! What a log and its witness say to each other.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use asterism_crypto::SecretKey;
use asterism_tlog::{
    Checkpoint, ConsistencyProof, Cosigner, Frontier, MemoryNodes, NoteSigner, ProofError, SignedCheckpoint,
    empty_root, leaf_hash,
    witness::{AddCheckpoint, WitnessError, parse_response},
};

#[test]
fn the_examples_of_the_specification_are_read() {
    let request = "old 20852014\nPlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\njrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\nexample.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n";
    let read = AddCheckpoint::parse(request.as_bytes()).unwrap();
    assert_eq!((read.old_size, read.hashes.len()), (20_852_014, 4));
    assert_eq!(read.checkpoint.note().signatures().len(), 2);
    assert_eq!(read.to_string(), request);
    let response = "— witness.example/w1 CMp+6LWBU0anHGH5aNDTJkH/gj79sG+T6+iP2ThYN5krrDJbR1HDnucjL39QsZTSvVjyQLrdk3DXDqI5G2HgLatVs0pWh6Up69HVOw==\n— witness.example/w2 AWui8Sk55XjYLOijihBjhqEH6nS1ndDymE0a+6idX7pLcnoB+dhnz0854aLZgrrKbYKA7nC3HNJhm/kWl7oJlqU3rXXvpysAdyP3wQ==\n";
    let lines = parse_response(response.as_bytes()).unwrap();
    assert_eq!(
        lines.iter().map(|line| format!("{line}\n")).collect::<String>(),
        response
    );
    for bad in ["", "\n", "— a b\n", response.trim_end()] {
        assert!(parse_response(bad.as_bytes()).is_err(), "{bad:?}");
    }
    for (good, bad) in [
        ("old 2", "new 2"),
        ("old 2", "old 02"),
        ("PlR", "!lR"),
        ("\n\nexample", "\nexample"),
        ("PlRN", ""),
    ] {
        let changed = request.replacen(good, bad, 1);
        assert_ne!(changed, request);
        assert!(AddCheckpoint::parse(changed.as_bytes()).is_err(), "{bad:?}");
    }
}

#[test]
fn a_witness_cosigns_what_only_grew_and_nothing_else() {
    let log = NoteSigner::new("log.example".parse().unwrap(), &SecretKey::from_bytes([1; 32]));
    let witness = Cosigner::new(
        "witness.example".parse().unwrap(),
        &SecretKey::from_bytes([2; 32]),
    );
    let mut nodes = MemoryNodes::default();
    let mut frontier = Frontier::new();
    for at in 0..20_u8 {
        frontier.append_with(leaf_hash(&[at]), |id, hash| nodes.push(id, hash));
    }
    let ask = |old_size, new_size| {
        let root = nodes.root_at(new_size).unwrap();
        let checkpoint = Checkpoint::new(log.verifier().name(), new_size, root);
        let hashes = ConsistencyProof::make(&nodes, old_size, new_size).unwrap().hashes;
        let checkpoint = SignedCheckpoint::new(&checkpoint, vec![log.sign(&checkpoint.to_string())]).unwrap();
        AddCheckpoint {
            old_size,
            hashes,
            checkpoint,
        }
    };
    let keys = [log.verifier().clone(), witness.verifier().clone()];
    let old_root = nodes.root_at(7).unwrap();
    for (request, old_root) in [
        (ask(0, 7), empty_root()),
        (ask(7, 20), old_root),
        (ask(7, 7), old_root),
    ] {
        let request = AddCheckpoint::parse(request.to_string().as_bytes()).unwrap();
        let line = request.cosign(&keys, &old_root, &witness, 1_700_000_000).unwrap();
        let mut signed = request.checkpoint;
        signed
            .push(parse_response(format!("{line}\n").as_bytes()).unwrap().remove(0))
            .unwrap();
        assert_eq!(signed.verify(&keys).unwrap().witnesses.len(), 1);
    }
    let refused =
        |request: AddCheckpoint, keys: &_, root| request.cosign(keys, &root, &witness, 1).unwrap_err();
    let rewritten = refused(ask(7, 20), &keys, leaf_hash(b"another"));
    assert!(
        matches!(rewritten, WitnessError::Proof(ProofError::RootMismatch { .. })),
        "{rewritten}"
    );
    let mut smaller = ask(7, 20);
    smaller.old_size = 21;
    assert!(matches!(
        refused(smaller, &keys, old_root),
        WitnessError::Proof(ProofError::SizesReversed { .. })
    ));
    let unknown = [witness.verifier().clone(), witness.verifier().clone()];
    assert!(matches!(
        refused(ask(7, 20), &unknown, old_root),
        WitnessError::Checkpoint(_)
    ));
}
