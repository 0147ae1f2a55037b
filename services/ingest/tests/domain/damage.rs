//! What was changed on the disk behind the service's back.

use std::fs;

use asterism_client::manifest::DATASET_MANIFEST_DOMAIN;
use asterism_crypto::{Signed, stream::HEADER_BYTES};
use asterism_ingest::{
    datasets::{DatasetId, Report},
    keys::Keys as _,
};
use proptest::prelude::*;

use crate::support::{CHUNK_BYTES, SIGNER, TestKeys, World, csv, reason};

/// Ciphertext bytes of a full chunk.
const SEALED: usize = CHUNK_BYTES as usize + 16;

fn change(world: &World, id: DatasetId, kind: &str, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let path = world.blob(id, kind);
    let original = fs::read(&path).unwrap();
    let mut bytes = original.clone();
    edit(&mut bytes);
    fs::write(&path, bytes).unwrap();
    original
}

fn failed(report: &Report) -> Vec<&'static str> {
    report
        .checks
        .iter()
        .filter(|check| !check.ok)
        .map(|check| check.name)
        .collect()
}

#[track_caller]
fn is_refused(world: &World, id: DatasetId) {
    assert_eq!(reason(world.plaintext(id)), "DATASET_DAMAGED");
    assert_eq!(reason(world.rows(id, 0, None)), "DATASET_DAMAGED");
}

#[test]
fn a_flipped_byte_of_any_chunk_is_named() {
    let world = World::new();
    let bytes = csv(2000);
    let id = world.upload(&bytes).unwrap().id;
    let chunks = bytes.len().div_ceil(CHUNK_BYTES as usize);
    assert!(chunks >= 4);
    for chunk in [0, 1, chunks / 2, chunks - 1] {
        // The first byte, and the last one of the tag.
        let end = (HEADER_BYTES + (chunk + 1) * SEALED).min(HEADER_BYTES + bytes.len() + chunks * 16);
        for at in [HEADER_BYTES + chunk * SEALED, end - 1] {
            let original = change(&world, id, "data", |blob| blob[at] ^= 1);
            let report = world.verify(id);
            assert_eq!(report.first_damaged_chunk, Some(chunk as u64), "byte {at}");
            assert_eq!(failed(&report), ["chunks", "digest", "hmac"]);
            assert!(
                report.checks[3]
                    .detail
                    .contains(&format!("chunk {chunk} is not the one in the chunk table"))
            );
            is_refused(&world, id);
            fs::write(world.blob(id, "data"), original).unwrap();
        }
    }
    assert!(world.verify(id).verified());
}

#[test]
fn damage_that_the_table_was_made_to_fit_is_found_all_the_same() {
    let world = World::new();
    let id = world.upload(csv(2000)).unwrap().id;
    change(&world, id, "data", |blob| blob[HEADER_BYTES + 2 * SEALED] ^= 1);
    let blob = fs::read(world.blob(id, "data")).unwrap();
    let chunk = &blob[HEADER_BYTES + 2 * SEALED..HEADER_BYTES + 3 * SEALED];
    let digest = asterism_crypto::Digest::of(chunk);
    change(&world, id, "table", |table| {
        table[64..96].copy_from_slice(digest.as_bytes());
    });
    let report = world.verify(id);
    // The table is not the signed one, and without it the chunk itself does not authenticate.
    assert_eq!(failed(&report), ["chunk table", "chunks", "digest", "hmac"]);
    assert_eq!(report.first_damaged_chunk, Some(2));
    assert!(report.checks[3].detail.contains("chunk 2 does not authenticate"));
    is_refused(&world, id);
}

#[test]
fn a_damaged_header_or_table_is_told_from_damaged_chunks() {
    let world = World::new();
    let id = world.upload(csv(2000)).unwrap().id;
    for at in 0..HEADER_BYTES {
        let original = change(&world, id, "data", |blob| blob[at] ^= 1);
        let report = world.verify(id);
        assert_eq!(failed(&report), ["chunks", "digest", "hmac"], "byte {at}");
        assert_eq!(report.first_damaged_chunk, None, "byte {at}");
        assert!(report.checks[3].detail.contains("header"), "{report:?}");
        is_refused(&world, id);
        fs::write(world.blob(id, "data"), original).unwrap();
    }
    let original = change(&world, id, "table", |table| table[40] ^= 1);
    let report = world.verify(id);
    assert_eq!(failed(&report), ["chunk table"]);
    assert_eq!(report.first_damaged_chunk, None);
    is_refused(&world, id);
    fs::write(world.blob(id, "table"), original).unwrap();
    assert!(world.verify(id).verified());
}

#[test]
fn cut_extended_swapped_and_missing_parts_are_found() {
    let world = World::new();
    let bytes = csv(2000);
    let id = world.upload(&bytes).unwrap().id;
    let last = bytes.len().div_ceil(CHUNK_BYTES as usize) as u64 - 1;

    let original = change(&world, id, "data", |blob| blob.truncate(blob.len() - 1));
    assert_eq!(world.verify(id).first_damaged_chunk, Some(last));
    is_refused(&world, id);
    fs::write(world.blob(id, "data"), &original[..HEADER_BYTES + SEALED]).unwrap();
    assert_eq!(world.verify(id).first_damaged_chunk, Some(1));
    fs::write(world.blob(id, "data"), &original[..10]).unwrap();
    assert_eq!(failed(&world.verify(id)), ["chunks", "digest", "hmac"]);
    is_refused(&world, id);
    fs::write(world.blob(id, "data"), [original.as_slice(), b"more"].concat()).unwrap();
    let report = world.verify(id);
    assert_eq!(failed(&report), ["chunks"]);
    assert!(report.checks[3].detail.contains("4 bytes follow"));

    // Two chunks exchanged.
    let mut swapped = original.clone();
    swapped[HEADER_BYTES..HEADER_BYTES + 2 * SEALED].rotate_left(SEALED);
    fs::write(world.blob(id, "data"), swapped).unwrap();
    assert_eq!(world.verify(id).first_damaged_chunk, Some(0));
    is_refused(&world, id);

    fs::remove_file(world.blob(id, "data")).unwrap();
    assert_eq!(failed(&world.verify(id)), ["chunks", "digest", "hmac"]);
    is_refused(&world, id);
    fs::write(world.blob(id, "data"), &original).unwrap();

    let table = change(&world, id, "table", |table| table.truncate(32));
    assert_eq!(failed(&world.verify(id)), ["chunk table"]);
    fs::remove_file(world.blob(id, "table")).unwrap();
    assert_eq!(failed(&world.verify(id)), ["chunk table"]);
    is_refused(&world, id);
    fs::write(world.blob(id, "table"), table).unwrap();

    fs::remove_file(world.blob(id, "manifest")).unwrap();
    assert_eq!(failed(&world.verify(id)).len(), 6);
    is_refused(&world, id);
}

#[test]
fn parts_of_another_dataset_of_the_same_owner_do_not_fit() {
    let world = World::new();
    let (one, two) = (
        world.upload(csv(2000)).unwrap().id,
        world.upload(csv(2000)).unwrap().id,
    );
    for kind in ["data", "table", "manifest"] {
        let original = change(&world, one, kind, |bytes| {
            *bytes = fs::read(world.blob(two, kind)).unwrap();
        });
        assert!(!world.verify(one).verified(), "{kind}");
        is_refused(&world, one);
        fs::write(world.blob(one, kind), original).unwrap();
    }
    // All of them together: signed by the right key, whole, and still another dataset.
    for kind in ["data", "table", "manifest"] {
        fs::copy(world.blob(two, kind), world.blob(one, kind)).unwrap();
    }
    let report = world.verify(one);
    assert_eq!(failed(&report).first(), Some(&"signature"));
    is_refused(&world, one);
}

#[test]
fn a_manifest_that_another_key_signed_is_refused() {
    let world = World::new();
    let id = world.upload(csv(200)).unwrap().id;
    let stored = fs::read(world.blob(id, "manifest")).unwrap();
    let signed: Signed = serde_json::from_slice(&stored).unwrap();
    let rogue = TestKeys::new();
    // Under the signer's name, and under its own.
    let forged = rogue
        .sign(DATASET_MANIFEST_DOMAIN, signed.payload.clone())
        .unwrap();
    let named = Signed {
        key: "rogue".to_owned(),
        ..forged.clone()
    };
    let versioned = |key_version| Signed {
        key_version,
        ..signed.clone()
    };
    for statement in [forged, named, versioned(0), versioned(2)] {
        fs::write(
            world.blob(id, "manifest"),
            serde_json::to_vec(&statement).unwrap(),
        )
        .unwrap();
        let report = world.verify(id);
        assert_eq!(failed(&report).len(), 6, "{report:?}");
        assert!(report.checks[0].detail.contains(SIGNER) || report.checks[0].detail.contains("signature"));
        is_refused(&world, id);
    }
    // The right signature, for another purpose.
    let elsewhere = world
        .keys
        .sign("asterism/model-manifest/v1", signed.payload.clone())
        .unwrap();
    fs::write(
        world.blob(id, "manifest"),
        serde_json::to_vec(&elsewhere).unwrap(),
    )
    .unwrap();
    assert_eq!(failed(&world.verify(id)).len(), 6);
    // Signed by the right key for the right purpose, but not what was recorded.
    let mut payload = signed.payload;
    let name = payload.windows(4).position(|w| w == b"test").unwrap();
    payload[name] = b'b';
    let altered = world.keys.sign(DATASET_MANIFEST_DOMAIN, payload).unwrap();
    fs::write(world.blob(id, "manifest"), serde_json::to_vec(&altered).unwrap()).unwrap();
    assert!(world.verify(id).checks[0].detail.contains("recorded"));
    is_refused(&world, id);
    assert_eq!(
        reason(world.datasets.describe(&world.granted(id))),
        "DATASET_DAMAGED"
    );
}

#[test]
fn a_data_key_that_kms_refuses_is_told_from_damage() {
    let mut world = World::new();
    let id = world.upload(csv(200)).unwrap().id;
    let signed: Signed = serde_json::from_slice(&fs::read(world.blob(id, "manifest")).unwrap()).unwrap();
    // As after the loss of the wrapping key: the signature is good, the key is gone.
    let other = TestKeys::new();
    let resigned = other.sign(DATASET_MANIFEST_DOMAIN, signed.payload).unwrap();
    fs::write(world.blob(id, "manifest"), serde_json::to_vec(&resigned).unwrap()).unwrap();
    world.keys = other;
    let report = world.verify(id);
    assert_eq!(failed(&report), ["data key", "chunks", "hmac"]);
    assert_eq!(report.first_damaged_chunk, None);
    is_refused(&world, id);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_flipped_bit_goes_unnoticed(kind in 0usize..3, at: prop::sample::Index, bit in 0u32..8) {
        let world = World::new();
        let id = world.upload(csv(600)).unwrap().id;
        let kind = ["data", "table", "manifest"][kind];
        change(&world, id, kind, |bytes| {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        });
        let report = world.verify(id);
        prop_assert!(!report.verified());
        prop_assert!(report.checks.iter().all(|check| !check.detail.is_empty()));
        prop_assert_eq!(report.checks.len(), 6);
        prop_assert_eq!(reason(world.plaintext(id)), "DATASET_DAMAGED");
    }
}
