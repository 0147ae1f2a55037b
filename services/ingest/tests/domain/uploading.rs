//! From bytes to a dataset.

use std::{sync::atomic::Ordering, time::Duration};

use asterism_chassis::error::Classify as _;
use asterism_client::manifest::{DatasetManifest, chunk_table_digest};
use asterism_crypto::{Digest, crc32c, stream};
use asterism_ingest::{IngestError, uploads::Begun};
use proptest::prelude::*;

use crate::support::{ALICE, World, csv, limits, new_upload, reason};

#[test]
fn what_goes_in_comes_out_described_signed_and_verified() {
    let world = World::new();
    let bytes = csv(5000);
    let made = world.upload(&bytes).unwrap();
    assert_eq!((made.record.rows, made.record.bytes), (5000, bytes.len() as u64));
    let kinds: Vec<_> = made
        .columns
        .iter()
        .map(|c| (c.name.as_str(), c.kind.as_str()))
        .collect();
    assert_eq!(kinds, [("id", "integer"), ("value", "float"), ("label", "text")]);
    assert_eq!(
        (made.columns[0].min, made.columns[0].max),
        (Some(0.0), Some(4999.0))
    );
    assert_eq!(
        (made.columns[2].distinct, made.columns[2].distinct_exact),
        (2, true)
    );

    let report = world.verify(made.id);
    assert!(report.verified(), "{report:?}");
    assert_eq!(report.chunks, (bytes.len() as u64).div_ceil(4096));
    assert_eq!(world.plaintext(made.id).unwrap(), bytes);
    assert_eq!(world.datasets.describe(&world.granted(made.id)).unwrap(), made);
    assert_eq!(world.files().len(), 3);
}

#[test]
fn the_manifest_says_what_is_stored() {
    let world = World::new();
    let made = world.upload(csv(3000)).unwrap();
    let signed = world.datasets.signed_manifest(&world.granted(made.id)).unwrap();
    let manifest = DatasetManifest::parse(&signed.payload).unwrap();
    let blob = std::fs::read(world.blob(made.id, "data")).unwrap();
    let table = std::fs::read(world.blob(made.id, "table")).unwrap();
    let committed = [&blob[..stream::HEADER_BYTES], &table].concat();
    assert_eq!(manifest.ciphertext_sha256, Digest::of(&committed));
    assert_eq!(manifest.chunk_table_sha256, Digest::of(&table));
    let digests: Vec<Digest> = table
        .as_chunks::<32>()
        .0
        .iter()
        .map(|d| Digest::from_bytes(*d))
        .collect();
    assert_eq!(manifest.chunk_table_sha256, chunk_table_digest(&digests));
    assert_eq!(
        (manifest.dataset, manifest.owner.as_str()),
        (made.id.to_string(), ALICE)
    );
    assert_eq!(made.record.manifest_sha256, Digest::of(&signed.payload));
}

#[test]
fn sizes_around_a_chunk_boundary_survive() {
    let world = World::new();
    for size in [4095, 4096, 4097, 8191, 8192, 8193] {
        let mut bytes = b"a\n".to_vec();
        bytes.resize(size - 1, b'7');
        // Cells of any length up to the limit are cells.
        bytes.push(b'\n');
        let made = world.upload(&bytes).unwrap();
        assert!(world.verify(made.id).verified(), "{size}");
        assert_eq!(world.plaintext(made.id).unwrap(), bytes, "{size}");
    }
}

#[test]
fn nothing_of_the_plaintext_is_staged_or_stored() {
    let world = World::new();
    let marker = "SECRET-MARKER-OF-THIS-TEST";
    let bytes = format!("name,{marker}\n{}", format!("x,{marker}\n").repeat(2000)).into_bytes();
    let id = world.begin("");
    world.put(id, 0, &bytes).unwrap();
    let look = || {
        for file in world.files() {
            // A staged file may have gone meanwhile.
            let Ok(stored) = std::fs::read(world.blob_dir().join(&file)) else {
                continue;
            };
            let found = stored
                .windows(marker.len())
                .any(|window| window == marker.as_bytes());
            // Column names are part of the manifest.
            assert!(!found || file.ends_with(".manifest"), "{file}");
        }
    };
    look();
    let made = world.commit(id, bytes.len()).unwrap();
    look();
    let manifest = std::fs::read(world.blob(made.id, "manifest")).unwrap();
    assert!(!manifest.windows(2000).any(|w| w == &bytes[40..2040]));
}

#[test]
fn repeated_overlapping_and_early_chunks() {
    let world = World::new();
    let bytes = csv(100);
    let id = world.begin("");
    assert_eq!(world.put(id, 0, &bytes[..300]).unwrap(), 300);
    // Again, a part of it, and one that overlaps what has arrived.
    assert_eq!(world.put(id, 0, &bytes[..300]).unwrap(), 300);
    assert_eq!(world.put(id, 100, &bytes[100..200]).unwrap(), 300);
    assert_eq!(world.put(id, 200, &bytes[200..400]).unwrap(), 400);
    let gap = world.put(id, 401, &bytes[401..500]).unwrap_err();
    assert_eq!(gap.reason(), "OFFSET_MISMATCH");
    assert_eq!(gap.metadata(), [("expected_offset".to_owned(), "400".to_owned())]);
    assert_eq!(world.put(id, 400, &[]).unwrap(), 400);
    world.put(id, 400, &bytes[400..]).unwrap();
    let made = world.commit(id, bytes.len()).unwrap();
    assert_eq!(world.plaintext(made.id).unwrap(), bytes);
}

#[test]
fn a_damaged_chunk_is_not_taken_and_can_be_sent_again() {
    let world = World::new();
    let bytes = csv(10);
    let id = world.begin("");
    let put = |crc| {
        world
            .uploads
            .put(id, ALICE, 0, bytes.clone().into(), Some(crc), world.now)
    };
    assert_eq!(reason(put(crc32c(&bytes) ^ 1)), "CHECKSUM_MISMATCH");
    assert_eq!(world.uploads.progress(id, ALICE, world.now).unwrap().offset, 0);
    assert_eq!(put(crc32c(&bytes)).unwrap(), bytes.len() as u64);
    assert_eq!(world.commit(id, bytes.len()).unwrap().record.rows, 10);
}

#[test]
fn chunks_and_uploads_over_their_limit_are_refused() {
    let world = World::with(asterism_ingest::uploads::UploadLimits {
        max_bytes: 1000,
        ..limits()
    });
    let id = world.begin("");
    assert_eq!(
        reason(world.put(id, 0, &vec![b'1'; (1 << 20) + 1])),
        "INVALID_FIELD"
    );
    world.put(id, 0, &csv(10)).unwrap();
    let much = world.put(id, csv(10).len() as u64, &[b'1'; 1000]);
    assert_eq!(reason(much), "UPLOAD_TOO_LARGE");
    world.wait_for_files(0);
}

#[test]
fn a_truncated_upload_becomes_no_dataset_and_can_go_on() {
    let world = World::new();
    let bytes = csv(100);
    let id = world.begin("r1");
    world.put(id, 0, &bytes[..500]).unwrap();
    let early = world.commit(id, bytes.len()).unwrap_err();
    assert_eq!(early.reason(), "SIZE_MISMATCH");
    assert!(world.no_dataset());
    let again = world
        .uploads
        .begin(new_upload(ALICE, "test", "r1"), &world.keys, world.now)
        .unwrap();
    assert_eq!(again, Begun::Upload { id, offset: 500 });
    world.put(id, 500, &bytes[500..]).unwrap();
    assert_eq!(world.commit(id, bytes.len()).unwrap().record.rows, 100);
}

#[test]
fn another_digest_than_the_senders_ends_the_upload() {
    let world = World::new();
    let bytes = csv(20);
    let digest = |of: &[u8]| Some(Digest::of(of));
    let id = world.begin_with_sha256("r1");
    world.put(id, 0, &bytes).unwrap();
    let wrong = world.uploads.commit(
        id,
        ALICE,
        bytes.len() as u64,
        digest(b"other"),
        &world.keys,
        world.now,
    );
    assert_eq!(reason(wrong), "DIGEST_MISMATCH");
    assert!(world.no_dataset());
    world.wait_for_files(0);
    // The request id is free for the right bytes.
    let id = world.begin_with_sha256("r1");
    world.put(id, 0, &bytes).unwrap();
    assert_eq!(reason(world.commit(id, bytes.len())), "INVALID_FIELD");
    world
        .uploads
        .commit(
            id,
            ALICE,
            bytes.len() as u64,
            digest(&bytes),
            &world.keys,
            world.now,
        )
        .unwrap();
}

#[test]
fn one_request_id_is_one_upload_and_one_dataset() {
    let world = World::new();
    let bytes = csv(50);
    let id = world.begin("same");
    assert_eq!(world.begin("same"), id);
    assert_eq!(world.keys.made.load(Ordering::SeqCst), 1);
    world.put(id, 0, &bytes).unwrap();
    let made = world.commit(id, bytes.len()).unwrap();
    // A commit whose answer was lost, and a begin after it.
    assert_eq!(world.commit(id, bytes.len()).unwrap(), made);
    let begun = |world: &World| {
        world
            .uploads
            .begin(new_upload(ALICE, "test", "same"), &world.keys, world.now)
            .unwrap()
    };
    assert_eq!(begun(&world), Begun::Dataset(made.id));
    assert_eq!(world.keys.made.load(Ordering::SeqCst), 1);
    // Another owner's request id is another one.
    let other = world
        .uploads
        .begin(new_upload("user/bob", "test", "same"), &world.keys, world.now)
        .unwrap();
    assert!(matches!(other, Begun::Upload { offset: 0, .. }));
    let world = world.reopen();
    assert_eq!(begun(&world), Begun::Dataset(made.id));
    assert_eq!(world.datasets.page(None, None, 10).unwrap().len(), 1);
}

#[test]
fn racing_begins_with_one_request_id_share_one_upload() {
    let world = World::new();
    let ids: Vec<_> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..8).map(|_| scope.spawn(|| world.begin("race"))).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(world.keys.made.load(Ordering::SeqCst), 1);
}

#[test]
fn a_deleted_dataset_frees_its_request_id() {
    let world = World::new();
    let id = world.begin("again");
    let bytes = csv(5);
    world.put(id, 0, &bytes).unwrap();
    let made = world.commit(id, bytes.len()).unwrap();
    world.datasets.delete(world.granted(made.id)).unwrap();
    assert_eq!(reason(world.commit(id, bytes.len())), "DATASET_NOT_FOUND");
    assert_ne!(world.begin("again"), id);
    // Only what the new upload stages is left.
    assert_eq!(world.files().len(), 1);
}

#[test]
fn when_kms_is_away_a_commit_can_be_repeated_and_nothing_is_done_twice() {
    let world = World::new();
    let bytes = csv(500);
    let id = world.begin("r1");
    world.put(id, 0, &bytes).unwrap();
    world.keys.away.store(true, Ordering::SeqCst);
    assert_eq!(reason(world.commit(id, bytes.len())), "KMS_FAILED");
    assert_eq!(
        reason(
            world
                .uploads
                .begin(new_upload(ALICE, "test", "r2"), &world.keys, world.now)
        ),
        "KMS_FAILED"
    );
    assert!(world.no_dataset());
    assert_eq!(
        reason(world.put(id, bytes.len() as u64, b"1,2,3\n")),
        "UPLOAD_CLOSED"
    );
    world.keys.away.store(false, Ordering::SeqCst);
    let made = world.commit(id, bytes.len()).unwrap();
    assert!(world.verify(made.id).verified());
    // The begin that failed left nothing in the way.
    world.begin("r2");
}

#[test]
fn idle_uploads_are_dropped_with_what_they_staged() {
    let world = World::new();
    let id = world.begin("idle");
    world.put(id, 0, &csv(10)).unwrap();
    assert_eq!(world.files().len(), 1);
    assert_eq!(world.uploads.expire(world.now + Duration::from_secs(899)), 0);
    assert_eq!(world.uploads.expire(world.now + Duration::from_secs(900)), 1);
    world.wait_for_files(0);
    assert_eq!(reason(world.put(id, 0, b"a")), "UPLOAD_UNKNOWN");
    assert_ne!(world.begin("idle"), id);
}

#[test]
fn open_uploads_are_bounded_per_owner_and_in_all() {
    let world = World::new();
    let begin = |owner: &str, request: &str| {
        world
            .uploads
            .begin(new_upload(owner, "t", request), &world.keys, world.now)
    };
    for request in ["1", "2", "3", "4"] {
        begin(ALICE, request).unwrap();
        begin("user/bob", request).unwrap();
    }
    let full = begin("user/carol", "1").unwrap_err();
    assert!(matches!(full, IngestError::TooManyUploads { limit: 8 }));
    assert!(full.retry_after().is_some());
    let Begun::Upload { id, .. } = begin(ALICE, "1").unwrap() else {
        panic!("an upload")
    };
    world.uploads.abort(id, ALICE).unwrap();
    begin("user/carol", "1").unwrap();
    let Begun::Upload { id, .. } = begin("user/bob", "1").unwrap() else {
        panic!("an upload")
    };
    world.uploads.abort(id, "user/bob").unwrap();
    // Bob has three, Alice three, Carol one.
    begin(ALICE, "5").unwrap();
    assert!(begin(ALICE, "6").is_err());
}

#[test]
fn an_aborted_upload_is_gone_and_a_finished_one_is_not() {
    let world = World::new();
    let id = world.begin("");
    world.put(id, 0, &csv(10)).unwrap();
    world.uploads.abort(id, ALICE).unwrap();
    world.wait_for_files(0);
    assert_eq!(reason(world.commit(id, csv(10).len())), "UPLOAD_UNKNOWN");
    let id = world.begin("");
    world.put(id, 0, &csv(10)).unwrap();
    let made = world.commit(id, csv(10).len()).unwrap();
    assert_eq!(reason(world.uploads.abort(id, ALICE)), "UPLOAD_CLOSED");
    assert!(world.verify(made.id).verified());
}

#[test]
fn progress_counts_bytes_and_rows() {
    let world = World::new();
    let bytes = csv(1000);
    let id = world.begin("");
    world.put(id, 0, &bytes).unwrap();
    let begun = std::time::Instant::now();
    loop {
        let progress = world.uploads.progress(id, ALICE, world.now).unwrap();
        assert_eq!(progress.offset, bytes.len() as u64);
        if progress.rows == 1000 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{progress:?}");
        std::thread::yield_now();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_chunking_of_the_same_bytes_gives_the_same_dataset(
        rows in 1usize..800, cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let world = World::new();
        let bytes = csv(rows);
        let whole = world.upload(&bytes).unwrap();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let id = world.begin_with_sha256("");
        for pair in at.windows(2) {
            world.put(id, pair[0] as u64, &bytes[pair[0]..pair[1]]).unwrap();
        }
        let digest = Some(Digest::of(&bytes));
        let cut =
            world.uploads.commit(id, ALICE, bytes.len() as u64, digest, &world.keys, world.now).unwrap();
        prop_assert_eq!(&cut.columns, &whole.columns);
        prop_assert_eq!(cut.record.rows, whole.record.rows);
        prop_assert_eq!(world.plaintext(cut.id).unwrap(), bytes);
        prop_assert!(world.verify(cut.id).verified());
    }
}
