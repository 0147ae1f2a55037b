//! Notes, keys, checkpoints, cosignatures, receipts, tiles: published examples, what is refused, and laws.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use asterism_crypto::{Digest, SecretKey, SigningKey};
use asterism_tlog::{
    Checkpoint, CheckpointError, Cosigner, Frontier, InclusionProof, KeyError, KeyName, MemoryNodes, NodeId,
    Nodes, Note, NoteError, NoteSignature, NoteSigner, Receipt, ReceiptError, SignedCheckpoint, TileId,
    TileKind, TileNodes, Tiles, VerifierKey, cosignature, empty_root, leaf_hash,
    note::{MAX_NOTE, MAX_SIGNATURES},
    parse_keys,
    tile::{
        BundleError, decode_bundle, decode_hashes, encode_hashes, index_path, new_tiles, parse_index_path,
        push_entry, subtree, tiles_of,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;

/// The example of the documentation and tests of golang.org/x/mod/sumdb/note, from which the specification comes.
const GO_TEXT: &str = "If you think cryptography is the answer to your problem,\n\
                       then you don't know what your problem is.\n";
const GO_SEED: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const GO_LINE: &str = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
const ENOCH_KEY: &str = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
const ENOCH_LINE: &str = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=";

#[test]
fn the_example_of_go_is_signed_byte_for_byte_and_verified() {
    let seed: [u8; 33] = STANDARD.decode(GO_SEED).unwrap().try_into().unwrap();
    let seed = SecretKey::try_from_slice(&seed[1..]).unwrap();
    let signer = NoteSigner::new(name("PeterNeumann"), &seed);
    assert_eq!(signer.verifier().to_string(), GO_KEY);
    assert_eq!(signer.sign(GO_TEXT).to_string(), GO_LINE);

    let note = Note::parse(format!("{GO_TEXT}\n{GO_LINE}\n{ENOCH_LINE}\n").as_bytes()).unwrap();
    assert_eq!(note.text(), GO_TEXT);
    let both = [key(ENOCH_KEY), key(GO_KEY)];
    assert_eq!(note.verify(&both).unwrap().keys, [1, 0]);
    let one = note.verify(&both[1..]).unwrap();
    assert_eq!(one.keys, [0]);
    assert_eq!(
        one.unknown,
        [(name("EnochRoot"), both[0].id())],
        "ignored, but told"
    );
    assert_eq!(note.verify(&[]), Err(NoteError::NoKnownSigner));
}

#[test]
fn checkpoints_of_public_logs_signed_with_ecdsa_verify() {
    // transparency-dev/formats, note/note_verifier_test.go: Rekor and the Pixel 6 log.
    let logs = [
        (
            "rekor.sigstore.dev+c0d23d6a+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNhtmPtrWm3U1eQXBogSMdGvXwBcK5AW5i0hrZLOC96l+smGNM7nwZ4QvFK/4sueRoVj//QP22Ni4Qt9DPfkWLc=",
            "Rekor\n798034\nf+7CoKgXKE/tNys9TTXcr/ad6U/K3xvznmzew9y6SP0=\n\n— rekor.sigstore.dev wNI9ajBEAiARInWIWyCdyG27CO6LPnPekyw20qO0YJfoaPaowGp/XgIgc+qEHS3+GKVClgqq20uDLet7MCoTURUCRdxwWBHHufk=\n",
        ),
        (
            "pixel6_transparency_log+91c16e30+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABN+4x0Jk1yTwvLFI9A4NDdGZcX0aiWVdWM5XJVy0M4VWD3AvyW5Q6Hs9A0mcDkpUoYgn+KKPNzFC0H3nN3q6JQ8=",
            "DEFAULT\n10\nbsWRucJU5xJPHb5eBdOm6+DM+VelCZBuvtI3sHERJ9Y=\n\n— pixel6_transparency_log kcFuMDBFAiEAhqMAP8P6qf6QxtUJhzMhbN+MbZ9dwfUHzGQJmffJHtoCIGD0cNe47dHWBoPwYdgBCepB06/+g5O1FmYjXl06owL4\n",
        ),
    ];
    for (text, note) in logs {
        assert_eq!(key(text).to_string(), text);
        let signed = SignedCheckpoint::parse(note.as_bytes()).unwrap();
        assert_eq!(signed.note().verify(&[key(text)]).unwrap().keys, [0]);
        assert_eq!(signed.to_string(), note);
        let other_log = signed.checkpoint().origin.clone();
        assert_eq!(
            signed.verify(&[key(text)]),
            Err(CheckpointError::NotByTheLog(other_log))
        );
    }
    let timestamped = "rekor.sigstore.dev - 2605736670972794746\n21428036\nrxnoKyFZlJ7/R6bMh/d3lcqwKqAy5CL1LcNBJP17kgQ=\nTimestamp: 1688058656037355364\n\n— rekor.sigstore.dev wNI9ajBFAiEAuDk7uu5Ae8Own/MjhSZNuVzbLuYH2jBMxbSA0WaNDNACIDV4reKpYiOpkwtvazCClnpUuduF2o/th2xR3gRZAUU4\n";
    let signed = SignedCheckpoint::parse(timestamped.as_bytes()).unwrap();
    assert_eq!(signed.checkpoint().extensions, ["Timestamp: 1688058656037355364"]);
    assert_eq!(signed.note().verify(&[key(logs[0].0)]).unwrap().keys, [0]);
}

#[test]
fn the_examples_of_the_c2sp_texts_are_read() {
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
    let signed = SignedCheckpoint::parse(text.as_bytes()).unwrap();
    assert_eq!(signed.to_string(), text);
    assert_eq!(signed.checkpoint().origin, "example.com/behind-the-sofa");
    assert_eq!(signed.checkpoint().size, 20_852_163);
    let witness = &signed.note().signatures()[1];
    assert_eq!(
        cosignature::time(&witness.bytes),
        Some(1_679_315_147),
        "the time the text shows"
    );
    assert_eq!(cosignature::time(&signed.note().signatures()[0].bytes), None);

    let poem = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
    let note = Note::parse(poem.as_bytes()).unwrap();
    assert!(
        note.text().ends_with("sole:\n\ned è subito sera.\n"),
        "the last blank line ends the text"
    );
    assert_eq!(note.to_string(), poem);
}

#[test]
fn keys_of_the_wrong_form_name_or_hash_are_refused() {
    let refused = |text: &str| text.parse::<VerifierKey>().unwrap_err();
    assert_eq!(refused("PeterNeumann"), KeyError::Form);
    assert_eq!(refused("PeterNeumann+c74f20a3"), KeyError::Form);
    assert_eq!(refused(&GO_KEY.replace("c74f20a3", "+74f20a3")), KeyError::Form);
    assert_eq!(refused(&GO_KEY.replace("c74f20a3", "C74F20A3")), KeyError::Form);
    assert!(matches!(
        refused(&GO_KEY.replace("c74f20a3", "c74f20a4")),
        KeyError::Id { .. }
    ));
    assert!(matches!(
        refused(&GO_KEY.replace("Peter", "Xeter")),
        KeyError::Id { .. }
    ));
    assert_eq!(
        refused(&GO_KEY.replace("PeterNeumann", "Peter Neumann")),
        KeyError::Name
    );
    assert_eq!(refused(&GO_KEY.replace("PeterNeumann", "")), KeyError::Name);
    assert_eq!(refused(&format!("{GO_KEY}BADKEY==")), KeyError::Form);
    assert_eq!(
        refused("PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"),
        KeyError::Type(0x65)
    );
    assert_eq!(refused("a+00000000+ARpc2QcUPDhMQegwxbzhKqiBfsU="), KeyError::Key);
    for bad in ["", "a b", "a+b", "a\u{a0}b", "a\nb", &"x".repeat(256)] {
        assert_eq!(bad.parse::<KeyName>(), Err(KeyError::Name), "{bad:?}");
    }
}

#[test]
fn a_file_of_keys_has_one_a_line_and_comments() {
    let keys = parse_keys(&format!("# the log\n{GO_KEY}\n\n  {ENOCH_KEY}\n")).unwrap();
    assert_eq!(keys, [key(GO_KEY), key(ENOCH_KEY)]);
    assert_eq!(
        parse_keys(&format!("{GO_KEY}\nnonsense\n")),
        Err((2, KeyError::Form))
    );
}

#[test]
fn a_wrong_signature_by_a_known_key_refuses_the_whole_note() {
    let signer = NoteSigner::new(name("log.example"), &SecretKey::from_bytes([1; 32]));
    let mut wrong = signer.sign("other text\n");
    let other = NoteSigner::new(name("other.example"), &SecretKey::from_bytes([2; 32]));
    let note = Note::new("text\n", vec![other.sign("text\n"), wrong.clone()]).unwrap();
    let keys = [signer.verifier().clone(), other.verifier().clone()];
    let refused = NoteError::BadSignature(name("log.example"), signer.verifier().id());
    assert_eq!(note.verify(&keys), Err(refused));
    assert_eq!(note.verify(&keys[1..]).unwrap().keys, [0], "unknown, so ignored");
    wrong.bytes.push(0);
    let note = Note::new("text\n", vec![wrong]).unwrap();
    assert!(
        matches!(note.verify(&keys), Err(NoteError::BadSignature(..))),
        "65 bytes are no Ed25519 signature"
    );
}

#[test]
fn notes_of_the_wrong_form_are_refused_by_name() {
    let refused = |note: &str| Note::parse(note.as_bytes()).unwrap_err();
    assert_eq!(refused("text\n"), NoteError::Unsigned);
    assert_eq!(refused("text\n\n"), NoteError::Unsigned);
    assert_eq!(
        refused(&format!("text\n\n{GO_LINE}")),
        NoteError::Unsigned,
        "no newline at the end"
    );
    assert_eq!(refused(&format!("text\n{GO_LINE}\n")), NoteError::Unsigned);
    assert_eq!(refused(&format!("te\txt\n\n{GO_LINE}\n")), NoteError::NotText);
    assert_eq!(refused(&format!("text\r\n\n{GO_LINE}\n")), NoteError::NotText);
    assert_eq!(Note::parse(b"te\xfft\n\n").unwrap_err(), NoteError::NotText);
    for line in [
        "- a AAAAAAA=",
        "— a",
        "— a AAAAAA==",
        "— a AAAAAAA",
        "— a  AAAAAAA=",
        "— a AAAAAAB=",
        "— a+b AAAAAAA=",
    ] {
        assert_eq!(
            refused(&format!("text\n\n{GO_LINE}\n{line}\n")),
            NoteError::MalformedSignature(2),
            "{line}"
        );
    }
    assert_eq!(
        refused(&"x".repeat(MAX_NOTE + 1)),
        NoteError::TooLarge(MAX_NOTE + 1)
    );
    let lines = |count: usize| format!("text\n\n{}", format!("{GO_LINE}\n").repeat(count));
    assert_eq!(
        Note::parse(lines(MAX_SIGNATURES).as_bytes())
            .unwrap()
            .signatures()
            .len(),
        MAX_SIGNATURES
    );
    assert_eq!(refused(&lines(MAX_SIGNATURES + 1)), NoteError::TooManySignatures);
    let line: NoteSignature = GO_LINE.parse().unwrap();
    assert_eq!(
        Note::new("text", vec![line.clone()]),
        Err(NoteError::UnfinishedText)
    );
    assert_eq!(Note::new("te\u{0}xt\n", vec![line]), Err(NoteError::NotText));
    assert_eq!(Note::new("text\n", vec![]), Err(NoteError::Unsigned));
}

#[test]
fn checkpoints_of_the_wrong_form_are_refused_by_name() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    let refused = |text: &str| Checkpoint::parse(text).unwrap_err();
    for lines in [
        "",
        "o\n",
        "o\n1\n",
        &format!("\n1\n{root}\n"),
        &format!("o\n1\n{root}"),
        &format!("o\n1\n{root}\n\nx\n"),
    ] {
        assert_eq!(refused(lines), CheckpointError::Lines, "{lines:?}");
    }
    for size in [
        "01",
        "+1",
        "1 ",
        "-1",
        "x",
        "0x1",
        "4611686018427387905",
        "99999999999999999999",
    ] {
        assert_eq!(
            refused(&format!("o\n{size}\n{root}\n")),
            CheckpointError::Size,
            "{size}"
        );
    }
    for root in [
        "AAAA",
        &root[..43],
        &root.replace("I=", "J="),
        &format!("{root} "),
    ] {
        assert_eq!(
            refused(&format!("o\n1\n{root}\n")),
            CheckpointError::Root,
            "{root}"
        );
    }
    let text = format!("o\n0\n{root}\next 1\next 2\n");
    assert_eq!(Checkpoint::parse(&text).unwrap().to_string(), text);
}

#[test]
fn the_log_and_its_witnesses_stand_behind_a_checkpoint() {
    let log = NoteSigner::new(name("log.example/a"), &SecretKey::from_bytes([1; 32]));
    let kms = SigningKey::from_bytes(&[3; 32]).unwrap();
    let kms_key = VerifierKey::ecdsa(name("log.example/a"), kms.verifying_key());
    let witness = Cosigner::new(name("witness.example"), &SecretKey::from_bytes([2; 32]));
    let checkpoint = Checkpoint::new(&name("log.example/a"), 5, leaf_hash(b"x"));
    let text = checkpoint.to_string();

    let by_kms = kms_key
        .signature(&text, kms.sign(text.as_bytes()).to_der())
        .unwrap();
    assert_eq!(kms_key.signature("another text\n", by_kms.bytes.clone()), None);
    let mut signed = SignedCheckpoint::new(&checkpoint, vec![log.sign(&text), by_kms]).unwrap();
    signed
        .push(witness.cosign(&text, 1_700_000_000).unwrap())
        .unwrap();
    assert!(witness.cosign(&text, u64::MAX).is_err());

    let keys = [
        witness.verifier().clone(),
        kms_key.clone(),
        log.verifier().clone(),
    ];
    let read = SignedCheckpoint::parse(signed.to_string().as_bytes()).unwrap();
    let endorsement = read.verify(&keys).unwrap();
    assert_eq!(endorsement.witnesses, [(name("witness.example"), 1_700_000_000)]);
    assert_eq!(endorsement.signers.keys, [2, 1, 0]);
    assert_eq!(
        read.verify(&keys[..1]),
        Err(CheckpointError::NotByTheLog("log.example/a".into()))
    );
    for key in &keys {
        assert_eq!(key.to_string().parse::<VerifierKey>().as_ref(), Ok(key));
    }
}

#[test]
fn no_byte_of_a_signed_checkpoint_or_receipt_can_be_changed_unnoticed() {
    let (receipt, keys) = receipt(11, 6);
    let leaf = leaf_hash(b"event 6");
    let text = receipt.to_string();
    let endorsement = Receipt::parse(text.as_bytes())
        .unwrap()
        .verify(&leaf, &keys)
        .unwrap();
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1 << (at % 8);
        // A signature under another name is by a stranger, which C2SP has verifiers ignore: then fewer stand behind it.
        let verified = Receipt::parse(&bytes).and_then(|receipt| receipt.verify(&leaf, &keys));
        assert_ne!(verified, Ok(endorsement.clone()), "byte {at}");
    }
}

#[test]
fn receipts_of_the_wrong_form_are_refused_by_name() {
    let (good, keys) = receipt(11, 6);
    let text = good.to_string();
    let refused = |text: &str| Receipt::parse(text.as_bytes()).unwrap_err();
    let form = |text: &str| match refused(text) {
        ReceiptError::Form(what) => what,
        other => panic!("{other}"),
    };
    assert_eq!(form(""), "no empty line stands before the checkpoint");
    assert_eq!(
        form(&text.replace("@v1", "@v2")),
        "it does not begin with c2sp.org/tlog-proof@v1"
    );
    assert_eq!(form(&text.replace("index 6", "index 06")), "it has no index");
    assert_eq!(
        form(&text.replace("index 6", "extra !\nindex 6")),
        "its extra data is not base64"
    );
    let hash = text.lines().nth(2).unwrap();
    assert_eq!(
        form(&text.replace(hash, &hash[1..])),
        "a hash is not 32 bytes in base64"
    );
    assert_eq!(
        form(&text.replace(hash, &[hash; 65].join("\n"))),
        "it has more hashes than any proof"
    );
    let long = STANDARD.encode(vec![0; asterism_tlog::receipt::MAX_EXTRA + 3]);
    assert_eq!(
        refused(&text.replace("index 6", &format!("extra {long}\nindex 6"))),
        ReceiptError::TooLarge
    );
    let extra = text.replace("index 6", "extra aGVsbG8=\nindex 6");
    let with_extra = Receipt::parse(extra.as_bytes()).unwrap();
    assert_eq!(with_extra.extra.as_deref(), Some(b"hello".as_slice()));
    assert_eq!(with_extra.to_string(), extra);
    let moved = Receipt {
        index: 7,
        ..good.clone()
    };
    assert!(matches!(
        moved.verify(&leaf_hash(b"event 6"), &keys),
        Err(ReceiptError::Proof(_))
    ));
    assert!(matches!(
        good.verify(&leaf_hash(b"event 6"), &[]),
        Err(ReceiptError::Checkpoint(_))
    ));
}

#[test]
fn a_log_of_70_000_entries_has_the_tiles_of_the_specification() {
    let count = |kind, full| {
        tiles_of(70_000)
            .filter(|tile| tile.kind() == kind && tile.is_full() == full)
            .count()
    };
    let partial = |kind| tiles_of(70_000).find(|tile| tile.kind() == kind && !tile.is_full());
    assert_eq!(
        (count(TileKind::Hashes(0), true), count(TileKind::Entries, true)),
        (273, 273)
    );
    assert_eq!(count(TileKind::Hashes(1), true), 1);
    assert_eq!(partial(TileKind::Hashes(0)).unwrap().width(), 112);
    assert_eq!(partial(TileKind::Hashes(1)).unwrap().width(), 17);
    assert_eq!(
        partial(TileKind::Hashes(2)).unwrap().to_string(),
        "tile/2/000.p/1"
    );
    assert_eq!(tiles_of(70_000).count(), 2 * 274 + 2 + 1);
    let of_256: Vec<_> = tiles_of(256).map(|tile| tile.to_string()).collect();
    assert_eq!(of_256, ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]);
    assert_eq!(tiles_of(0).count(), 0);
    assert!(tiles_of(asterism_tlog::MAX_SIZE).next().is_some());
}

#[test]
fn paths_have_one_form_each() {
    assert_eq!(index_path(1_234_067), "x001/x234/067");
    for index in [0, 7, 999, 1000, 999_999, 1_000_000, u64::MAX] {
        assert_eq!(parse_index_path(&index_path(index)), Some(index));
    }
    let tile: TileId = "tile/0/x001/x234/067.p/8".parse().unwrap();
    assert_eq!(
        (tile.kind(), tile.index(), tile.width()),
        (TileKind::Hashes(0), 1_234_067, 8)
    );
    assert_eq!(tile.to_string(), "tile/0/x001/x234/067.p/8");
    for bad in [
        "",
        "tile/0",
        "tile/0/",
        "tile/0/1",
        "tile/0/0001",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001",
        "tile/00/001",
        "tile/8/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/data/000",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        "tile/0/..",
    ] {
        assert!(bad.parse::<TileId>().is_err(), "{bad}");
    }
}

#[test]
fn bundles_of_the_wrong_form_are_refused_by_name() {
    let mut bytes = Vec::new();
    for entry in [b"one".as_slice(), b"", &[7; 65_535]] {
        push_entry(&mut bytes, entry).unwrap();
    }
    assert!(push_entry(&mut bytes.clone(), &[0; 65_536]).is_err());
    assert_eq!(
        decode_bundle(&bytes, 3).unwrap(),
        [b"one".as_slice(), b"", &[7; 65_535]]
    );
    assert_eq!(
        decode_bundle(&bytes, 4),
        Err(BundleError::TooFew { width: 4, found: 3 })
    );
    assert_eq!(
        decode_bundle(&bytes, 2),
        Err(BundleError::TooMany {
            width: 2,
            bytes: 65_537
        })
    );
    assert_eq!(
        decode_bundle(&bytes[..bytes.len() - 1], 3),
        Err(BundleError::CutOff(2))
    );
    assert_eq!(decode_bundle(&bytes[..6], 3), Err(BundleError::CutOff(1)));
    assert!(decode_hashes(&[0; 64], 2).is_ok());
    assert!(decode_hashes(&[0; 63], 2).is_err());
    assert!(decode_hashes(&[0; 64], 1).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn tiles_hold_the_tree_and_give_back_its_nodes(size in 1_u64..2000) {
        let nodes = tree(size);
        let tiles = Stored(&nodes);
        for tile in tiles_of(size).filter(|tile| tile.kind() != TileKind::Entries) {
            prop_assert_eq!(tile.to_string().parse::<TileId>(), Ok(tile));
            let hashes = tiles.tile(tile).unwrap();
            prop_assert_eq!(decode_hashes(&encode_hashes(&hashes), tile.width()).unwrap(), hashes);
        }
        let from_tiles = TileNodes::new(tiles, size);
        for level in 0..11 {
            for index in 0..size >> level {
                let id = NodeId { level, index };
                prop_assert_eq!(from_tiles.node(id).unwrap(), nodes.node(id).unwrap());
            }
            let id = NodeId { level, index: size >> level };
            prop_assert!(from_tiles.node(id).is_err(), "{id:?} is not full");
        }
        let absurd = NodeId { level: 200, index: u64::MAX };
        prop_assert!(from_tiles.node(absurd).is_err());
    }

    #[test]
    fn growing_writes_exactly_what_is_new(old in 0_u64..140_000, more in 0_u64..2000) {
        let before: std::collections::BTreeSet<_> = tiles_of(old).collect();
        let after: Vec<_> = tiles_of(old + more).filter(|tile| !before.contains(tile)).collect();
        prop_assert_eq!(new_tiles(old, old + more).collect::<Vec<_>>(), after);
    }

    #[test]
    fn the_hash_over_some_nodes_is_as_the_tree_has_it(count in 1_u64..300) {
        let nodes = tree(count);
        let leaves: Vec<_> = (0..count).map(|index| nodes.node(NodeId::leaf(index)).unwrap()).collect();
        prop_assert_eq!(subtree(&leaves), nodes.root_at(count).unwrap());
    }

    #[test]
    fn whatever_is_read_is_written_the_same(text in "[a-zé\n]{0,40}", bytes in prop::collection::vec(any::<u8>(), 1..100)) {
        let line = NoteSignature { name: name("a.example"), id: key(GO_KEY).id(), bytes };
        prop_assert_eq!(line.to_string().parse::<NoteSignature>(), Ok(line.clone()));
        let note = Note::new(format!("{text}\n"), vec![line]).unwrap();
        prop_assert_eq!(Note::parse(note.to_string().as_bytes()), Ok(note));
    }

    #[test]
    fn bundles_give_back_their_entries(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
        let mut bytes = Vec::new();
        for entry in &entries {
            push_entry(&mut bytes, entry).unwrap();
        }
        prop_assert_eq!(decode_bundle(&bytes, entries.len() as u64).unwrap(), entries);
    }
}

/// The tiles of a tree in memory.
struct Stored<'a>(&'a MemoryNodes);

impl Tiles for Stored<'_> {
    type Error = <MemoryNodes as Nodes>::Error;

    fn tile(&self, id: TileId) -> Result<Vec<Digest>, Self::Error> {
        id.nodes().map(|id| self.0.node(id)).collect()
    }
}

/// A receipt for an event of a log that two keys have signed and one witness, and their keys.
fn receipt(size: u64, index: u64) -> (Receipt, Vec<VerifierKey>) {
    let nodes = tree(size);
    let log = NoteSigner::new(name("log.example"), &SecretKey::from_bytes([1; 32]));
    let kms = SigningKey::from_bytes(&[3; 32]).unwrap();
    let kms_key = VerifierKey::ecdsa(name("log.example"), kms.verifying_key());
    let witness = Cosigner::new(name("witness.example"), &SecretKey::from_bytes([2; 32]));
    let checkpoint = Checkpoint::new(&name("log.example"), size, nodes.root_at(size).unwrap());
    let text = checkpoint.to_string();
    let lines = vec![
        log.sign(&text),
        kms_key
            .signature(&text, kms.sign(text.as_bytes()).to_der())
            .unwrap(),
        witness.cosign(&text, 1_700_000_000).unwrap(),
    ];
    let signed = SignedCheckpoint::new(&checkpoint, lines).unwrap();
    let proof = InclusionProof::make(&nodes, index, size).unwrap();
    let keys = vec![log.verifier().clone(), kms_key, witness.verifier().clone()];
    (Receipt::new(proof, signed).unwrap(), keys)
}

fn tree(size: u64) -> MemoryNodes {
    let mut nodes = MemoryNodes::default();
    let mut frontier = Frontier::new();
    for index in 0..size {
        frontier.append_with(leaf_hash(format!("event {index}").as_bytes()), |id, hash| {
            nodes.push(id, hash);
        });
    }
    assert_ne!(frontier.root(), empty_root());
    nodes
}

fn name(text: &str) -> KeyName {
    text.parse().unwrap()
}

fn key(text: &str) -> VerifierKey {
    text.parse().unwrap()
}
