//! The offline verifier: what is whole passes, and whatever is changed is found and named.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{collections::BTreeMap, convert::Infallible, fs, io};

use asterism_crypto::{Digest, SecretKey};
use asterism_tlog::{
    Checkpoint, Cosigner, Directory, Exporter, Frontier, NoteSigner, SignedCheckpoint, Source, TileId,
    TileKind, VerifierKey,
    export::{CHECKPOINT, checkpoint_path},
    leaf_hash,
    source::Listed,
    tile::{decode_bundle, push_entry},
    verify::{MAX_PROBLEMS, Options, Problem, ProblemKind, Report, verify},
};
use proptest::prelude::*;

const NAME: &str = "audit.example/log";

#[test]
fn a_log_of_any_size_verifies() {
    for size in [
        0, 1, 2, 255, 256, 257, 511, 512, 700, 65_535, 65_536, 65_537, 66_000,
    ] {
        let sizes = [0, 1, 100, 256, 300, 512, 65_536, 65_700, size];
        let log = Files::of(size, &sizes);
        let report = check(&log);
        assert!(report.ok, "{size}: {:?}", report.problems);
        assert_eq!(report.size, size);
        assert_eq!(report.origin, NAME);
        assert_eq!(report.root, Some(frontier(size).root().to_string()));
        let kept: std::collections::BTreeSet<_> = sizes.iter().filter(|kept| **kept <= size).collect();
        assert_eq!(
            report.checkpoints,
            kept.len() + 1,
            "those kept, and the newest in its own place"
        );
    }
}

#[test]
fn no_byte_of_any_file_can_be_changed_unnoticed() {
    let log = Files::of(530, &[1, 256, 400, 530]);
    assert!(check(&log).ok);
    for (path, bytes) in &log.0 {
        // Signatures are slow to check without optimisation.
        for at in (0..bytes.len()).step_by(if path.starts_with("check") { 3 } else { 11 }) {
            let mut changed = log.clone();
            changed.0.get_mut(path).unwrap()[at] ^= 1 << (at % 8);
            assert!(!check(&changed).ok, "{path}, byte {at}");
        }
        let mut cut = log.clone();
        cut.0.get_mut(path).unwrap().pop();
        assert!(!check(&cut).ok, "{path} without its last byte");
        let mut longer = log.clone();
        longer.0.get_mut(path).unwrap().push(0);
        assert!(!check(&longer).ok, "{path} with one byte more");
        let mut without = log.clone();
        without.0.remove(path);
        assert!(
            path.starts_with("checkpoints/") || !check(&without).ok,
            "without {path}"
        );
    }
}

#[test]
fn a_changed_tile_is_named_and_the_entries_are_not_blamed() {
    let log = Files::of(70_000, &[70_000]);
    for (path, index) in [
        ("tile/0/001", 256 + 5),
        ("tile/1/000", 5 * 256),
        ("tile/1/001.p/17", 65_536 + 5 * 256),
    ] {
        let mut changed = log.clone();
        changed.0.get_mut(path).unwrap()[5 * 32] ^= 1;
        let report = check(&changed);
        assert_eq!(
            told(&report),
            [(ProblemKind::Tile, Some(index))],
            "{:?}",
            report.problems
        );
        assert_eq!(report.problems[0].path.as_deref(), Some(path));
        assert_eq!(report.root, Some(frontier(70_000).root().to_string()));
    }
}

#[test]
fn entries_changed_together_with_every_tile_are_found_by_the_checkpoints() {
    let mut log = Files::of(700, &[100, 300, 600, 700]);
    let mut entries: Vec<_> = (0..700).map(entry).collect();
    entries[450] = b"as if nothing had happened".to_vec();
    log.put_entries(&entries);
    let report = check(&log);
    assert_eq!(told(&report), [(ProblemKind::Inconsistent, Some(300))]);
    assert_eq!(
        report.problems[0].detail,
        "the entries from 300 to 600 are not those that the log signed: checkpoints/600 has another root"
    );
    assert_eq!(report.checkpoints, 2);
}

#[test]
fn a_log_that_was_rolled_back_is_found_by_any_later_checkpoint() {
    let later = Files::of(700, &[]).checkpoint();
    let old = Files::of(600, &[]);
    assert!(check(&old).ok, "nothing of it tells");
    let seen = |seen| Options {
        seen: vec![seen],
        ..options()
    };
    let report = verify(&old, &seen(later.clone()), &|_, _| Ok(())).unwrap();
    assert_eq!(told(&report), [(ProblemKind::RolledBack, Some(600))]);
    let mut kept = old.clone();
    kept.0
        .insert(checkpoint_path(700), later.to_string().into_bytes());
    assert_eq!(told(&check(&kept)), [(ProblemKind::RolledBack, Some(600))]);

    let grown = Files::of(900, &[]);
    let report = verify(&grown, &seen(later), &|_, _| Ok(())).unwrap();
    assert!(report.ok);
    let mut rewritten = Files::of(900, &[]);
    let mut entries: Vec<_> = (0..900).map(entry).collect();
    entries[3].push(b'!');
    rewritten.put_entries(&entries);
    rewritten.0.insert(
        CHECKPOINT.into(),
        signed(900, frontier_of(&entries).root()).to_string().into_bytes(),
    );
    assert!(check(&rewritten).ok, "a log that is another from the start");
    let report = verify(
        &rewritten,
        &seen(Files::of(700, &[]).checkpoint()),
        &|_, _| Ok(()),
    )
    .unwrap();
    assert_eq!(told(&report), [(ProblemKind::Inconsistent, Some(0))]);
}

#[test]
fn two_roots_for_one_size_are_found() {
    let mut log = Files::of(300, &[200]);
    log.0.insert(
        checkpoint_path(300),
        signed(300, leaf_hash(b"another")).to_string().into_bytes(),
    );
    assert_eq!(told(&check(&log)), [(ProblemKind::Inconsistent, None)]);
}

#[test]
fn checkpoints_by_others_or_of_another_log_or_place_are_refused() {
    let log = Files::of(300, &[200]);
    let with = |path: String, signed: &SignedCheckpoint| {
        let mut log = log.clone();
        log.0.insert(path, signed.to_string().into_bytes());
        check(&log)
    };
    let checkpoint = Checkpoint::new(&NAME.parse().unwrap(), 300, frontier(300).root());
    let stranger = NoteSigner::new(
        "stranger.example".parse().unwrap(),
        &SecretKey::from_bytes([9; 32]),
    );
    let by_stranger =
        SignedCheckpoint::new(&checkpoint, vec![stranger.sign(&checkpoint.to_string())]).unwrap();
    assert_eq!(
        told(&with(CHECKPOINT.into(), &by_stranger)),
        [(ProblemKind::Checkpoint, None)]
    );
    let other = Checkpoint::new(&"other.example".parse().unwrap(), 200, frontier(200).root());
    let of_another = SignedCheckpoint::new(&other, vec![log_signer().sign(&other.to_string())]).unwrap();
    assert_eq!(
        told(&with(checkpoint_path(200), &of_another)),
        [(ProblemKind::Checkpoint, None)]
    );
    let misplaced = signed(200, frontier(200).root());
    assert_eq!(
        told(&with(checkpoint_path(201), &misplaced)),
        [(ProblemKind::Checkpoint, None)]
    );

    let mut also_by_stranger = log.checkpoint();
    also_by_stranger
        .push(stranger.sign(&checkpoint.to_string()))
        .unwrap();
    assert_eq!(
        told(&with(CHECKPOINT.into(), &also_by_stranger)),
        [(ProblemKind::UnknownSignature, None)]
    );
    let mut lenient = log.clone();
    lenient
        .0
        .insert(CHECKPOINT.into(), also_by_stranger.to_string().into_bytes());
    let ignoring = Options {
        ignore_unknown_signatures: true,
        ..options()
    };
    assert!(verify(&lenient, &ignoring, &|_, _| Ok(())).unwrap().ok);
}

#[test]
fn as_many_witnesses_as_asked_for_must_stand_behind_the_newest_checkpoint() {
    let witness = Cosigner::new(
        "witness.example".parse().unwrap(),
        &SecretKey::from_bytes([2; 32]),
    );
    let mut log = Files::of(10, &[]);
    let mut newest = log.checkpoint();
    newest
        .push(witness.cosign(newest.note().text(), 1_700_000_000).unwrap())
        .unwrap();
    log.0.insert(CHECKPOINT.into(), newest.to_string().into_bytes());
    let mut asked = options();
    asked.keys.push(witness.verifier().clone());
    asked.witnesses = 1;
    let report = verify(&log, &asked, &|_, _| Ok(())).unwrap();
    assert_eq!(
        (report.ok, report.witnesses.as_slice()),
        (true, ["witness.example".to_owned()].as_slice())
    );
    asked.witnesses = 2;
    let report = verify(&log, &asked, &|_, _| Ok(())).unwrap();
    assert_eq!(told(&report), [(ProblemKind::Witnesses, None)]);
}

#[test]
fn an_archived_beginning_is_not_needed() {
    let size = 140_000;
    let whole = Files::of(size, &[100, 70_000, 100_000]);
    for first in [256, 65_536, 70_000, 131_072, size] {
        let mut log = whole.clone();
        let floor = first / 256 * 256;
        log.0.retain(|path, _| match path.parse::<TileId>() {
            Ok(tile) => {
                let height = match tile.kind() {
                    TileKind::Entries => 0,
                    TileKind::Hashes(level) => u32::from(level),
                };
                !tile.is_full() || (tile.index() + 1) * 256_u64.pow(height + 1) > floor
            }
            Err(_) => true,
        });
        assert!(log.0.len() < whole.0.len() || first < 256);
        let asked = Options { first, ..options() };
        let report = verify(&log, &asked, &|_, _| Ok(())).unwrap();
        assert!(report.ok, "{first}: {:?}", report.problems);
        assert_eq!(
            (report.first, report.root),
            (floor, Some(frontier(size).root().to_string()))
        );
        let kept = [100, 70_000, 100_000, size]
            .iter()
            .filter(|size| **size < floor)
            .count();
        assert_eq!(
            (report.checkpoints, report.checkpoints_before_first),
            (4 - kept, kept)
        );
        assert!(
            verify(&whole, &asked, &|_, _| Ok(())).unwrap().ok,
            "whether it is there or not"
        );
        assert!(!check(&log).ok, "unless nobody said so");

        // What is left of the beginning is the path to the root, and no hash of it can be changed.
        if let Some(bytes) = log.0.get_mut("tile/1/000").or(None) {
            bytes[0] ^= 1;
            assert!(!verify(&log, &asked, &|_, _| Ok(())).unwrap().ok);
        }
    }
}

#[test]
fn the_meaning_of_entries_is_looked_at_too() {
    let log = Files::of(600, &[]);
    let no_sevens = |index, bytes: &[u8]| {
        assert_eq!(bytes, entry(index));
        if index % 300 == 7 {
            Err("a seven".to_owned())
        } else {
            Ok(())
        }
    };
    let report = verify(&log, &options(), &no_sevens).unwrap();
    assert_eq!(
        told(&report),
        [(ProblemKind::Invalid, Some(7)), (ProblemKind::Invalid, Some(307))]
    );
}

#[test]
fn a_checkpoint_of_an_absurd_size_ends_quickly() {
    for size in [100_000_000, asterism_tlog::MAX_SIZE] {
        let mut log = Files::of(300, &[]);
        log.0.insert(
            CHECKPOINT.into(),
            signed(size, leaf_hash(b"x")).to_string().into_bytes(),
        );
        let report = check(&log);
        assert!(!report.ok && report.root.is_none());
        assert_eq!(report.problems.len(), MAX_PROBLEMS);
        assert!(report.more_problems > 0);
    }
}

#[test]
fn tiles_written_when_the_log_was_smaller_may_stay_and_are_checked() {
    let mut log = Files::of(700, &[]);
    for size in [300, 520] {
        log.0.extend(
            Files::of(size, &[])
                .0
                .into_iter()
                .filter(|(path, _)| path.contains(".p/")),
        );
    }
    assert!(check(&log).ok);
    for path in ["tile/0/001.p/44", "tile/entries/001.p/44", "tile/entries/002.p/8"] {
        let mut changed = log.clone();
        *changed.0.get_mut(path).unwrap().last_mut().unwrap() ^= 1;
        assert_eq!(told(&check(&changed)), [(ProblemKind::Tile, None)], "{path}");
        changed.0.get_mut(path).unwrap().clear();
        assert_eq!(told(&check(&changed)), [(ProblemKind::Tile, None)], "{path}");
    }
    let bigger = Files::of(800, &[]);
    log.0
        .insert("tile/0/003.p/32".into(), bigger.0["tile/0/003.p/32"].clone());
    assert_eq!(
        told(&check(&log)),
        [(ProblemKind::Stray, None)],
        "beyond the newest checkpoint"
    );
}

#[test]
fn a_directory_is_read_and_nothing_but_plain_files_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let log = Files::of(600, &[256]);
    for (path, bytes) in &log.0 {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let source = Directory::new(directory.path());
    let run = || verify(&source, &options(), &|_, _| Ok(())).unwrap();
    assert_eq!(run(), check(&log));

    fs::write(directory.path().join("README"), "hello").unwrap();
    assert_eq!(told(&run()), [(ProblemKind::Stray, None)]);
    let lenient = Options {
        ignore_other_files: true,
        ..options()
    };
    assert!(verify(&source, &lenient, &|_, _| Ok(())).unwrap().ok);
    fs::remove_file(directory.path().join("README")).unwrap();

    let bundle = directory.path().join("tile/entries/000");
    fs::rename(&bundle, directory.path().join("moved")).unwrap();
    std::os::unix::fs::symlink(directory.path().join("moved"), &bundle).unwrap();
    let kinds: Vec<_> = told(&run()).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(
        kinds,
        [ProblemKind::Missing, ProblemKind::Stray, ProblemKind::Stray]
    );
    fs::remove_file(&bundle).unwrap();
    fs::write(&bundle, vec![0; 40_000_000]).unwrap();
    assert_eq!(
        told(&run())[0].0,
        ProblemKind::Unreadable,
        "larger than any bundle"
    );
    assert!(verify(&Directory::new("/no/such/log"), &options(), &|_, _| Ok(())).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_happens_to_one_entry_is_named(size in 2_u64..1200, index: prop::sample::Index, what in 0..5, other: prop::sample::Index) {
        let index = index.index(size as usize) as u64;
        let mut log = Files::of(size, &[size / 2]);
        let id = TileId::at(TileKind::Entries, index / 256, size).unwrap();
        let path = id.to_string();
        let mut entries: Vec<Vec<u8>> = decode_bundle(&log.0[&path], id.width()).unwrap().into_iter().map(<[u8]>::to_vec).collect();
        let at = (index - id.start()) as usize;
        let expected = match what {
            0 => { entries[at].push(0); (ProblemKind::Altered, index) }
            1 => { entries.remove(at); (ProblemKind::Dropped, index) }
            2 => { entries.insert(at + 1, entries[at].clone()); (ProblemKind::Duplicated, index + 1) }
            3 => { entries.insert(at, b"put in".to_vec()); (ProblemKind::Inserted, index) }
            _ => {
                let other = other.index(entries.len());
                prop_assume!(other != at);
                entries.swap(at, other);
                (ProblemKind::Reordered, id.start() + at.min(other) as u64)
            }
        };
        let mut bundle = Vec::new();
        entries.iter().for_each(|entry| push_entry(&mut bundle, entry).unwrap());
        log.0.insert(path, bundle);
        let report = check(&log);
        prop_assert_eq!(told(&report), [(expected.0, Some(expected.1))], "{:?}", report.problems);
    }
}

/// The files of a log in memory.
#[derive(Clone)]
struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    /// A log with signed checkpoints kept of these sizes, where it reaches them.
    fn of(size: u64, kept: &[u64]) -> Self {
        let mut files = Self(BTreeMap::new());
        let entries: Vec<_> = (0..size).map(entry).collect();
        files.put_entries(&entries);
        for size in kept.iter().filter(|kept| **kept <= size) {
            files.0.insert(
                checkpoint_path(*size),
                signed(*size, frontier(*size).root()).to_string().into_bytes(),
            );
        }
        files.0.insert(
            CHECKPOINT.into(),
            signed(size, frontier(size).root()).to_string().into_bytes(),
        );
        files
    }

    fn put_entries(&mut self, entries: &[Vec<u8>]) {
        let mut exporter = Exporter::new(|path: &str, bytes: &[u8]| {
            self.0.insert(path.to_owned(), bytes.to_vec());
            Ok::<_, Infallible>(())
        });
        entries.iter().for_each(|entry| exporter.push(entry).unwrap());
        assert_eq!(exporter.finish().unwrap(), frontier_of(entries));
    }

    fn checkpoint(&self) -> SignedCheckpoint {
        SignedCheckpoint::parse(&self.0[CHECKPOINT]).unwrap()
    }
}

impl Source for Files {
    fn list(&self) -> io::Result<Vec<Listed>> {
        Ok(self
            .0
            .keys()
            .map(|path| Listed {
                path: path.clone(),
                is_file: true,
            })
            .collect())
    }

    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        let bytes = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        if bytes.len() > limit {
            Err(io::ErrorKind::FileTooLarge.into())
        } else {
            Ok(bytes.clone())
        }
    }
}

fn check(log: &Files) -> Report {
    let report = verify(log, &options(), &|_, _| Ok(())).unwrap();
    assert_eq!(report.ok, report.problems.is_empty());
    report
}

fn told(report: &Report) -> Vec<(ProblemKind, Option<u64>)> {
    report
        .problems
        .iter()
        .map(|Problem { kind, index, .. }| (*kind, *index))
        .collect()
}

fn options() -> Options {
    let keys: Vec<VerifierKey> = vec![log_signer().verifier().clone()];
    Options {
        keys,
        ..Options::default()
    }
}

fn signed(size: u64, root: Digest) -> SignedCheckpoint {
    let checkpoint = Checkpoint::new(&NAME.parse().unwrap(), size, root);
    SignedCheckpoint::new(&checkpoint, vec![log_signer().sign(&checkpoint.to_string())]).unwrap()
}

fn log_signer() -> NoteSigner {
    NoteSigner::new(NAME.parse().unwrap(), &SecretKey::from_bytes([1; 32]))
}

fn entry(index: u64) -> Vec<u8> {
    format!("event {index}").into_bytes()
}

fn frontier(size: u64) -> Frontier {
    let mut frontier = Frontier::new();
    (0..size).for_each(|index| {
        frontier.append(leaf_hash(&entry(index)));
    });
    frontier
}

fn frontier_of(entries: &[Vec<u8>]) -> Frontier {
    let mut frontier = Frontier::new();
    entries.iter().for_each(|entry| {
        frontier.append(leaf_hash(entry));
    });
    frontier
}
