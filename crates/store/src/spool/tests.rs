use std::fs;

use proptest::prelude::*;

use super::*;

const SMALL: SpoolOptions = SpoolOptions {
    segment_bytes: 16 << 10,
    min_free_bytes: 0,
    // A predecessor's last ticket may still be held for a moment.
    lock_patience: Duration::from_secs(5),
};

fn open(dir: &Path) -> FileSpool {
    FileSpool::open(dir, SMALL).expect("spool")
}

fn sequences(spool: &FileSpool) -> Vec<u64> {
    let entries = spool.read(0, usize::MAX).expect("entries");
    entries.into_iter().map(|(sequence, _)| sequence).collect()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .expect("directory")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "spool"))
        .collect();
    paths.sort();
    paths
}

fn put(spool: &FileSpool, sequence: u64, entry: &[u8]) {
    spool.append(sequence, entry.to_vec()).wait().expect("appended");
}

#[test]
fn what_was_appended_is_there_after_a_restart_and_numbers_go_on() {
    let dir = tempfile::tempdir().expect("directory");
    let spool = open(dir.path());
    assert_eq!((spool.next(), spool.is_empty()), (1, true));
    for sequence in 1..=200 {
        put(&spool, sequence, &[sequence as u8; 300]);
    }
    drop(spool);
    assert!(segments(dir.path()).len() > 3, "several segments were needed");
    let spool = open(dir.path());
    assert_eq!((spool.next(), spool.len()), (201, 200));
    let entries = spool.read(150, 3).expect("entries");
    assert_eq!(
        entries,
        (150..153).map(|n| (n, vec![n as u8; 300])).collect::<Vec<_>>()
    );
}

#[test]
fn what_was_trimmed_frees_segments_and_does_not_come_back() {
    let dir = tempfile::tempdir().expect("directory");
    let spool = open(dir.path());
    for sequence in 1..=200 {
        put(&spool, sequence, &[7; 300]);
    }
    spool.trim(150);
    assert_eq!(sequences(&spool), (150..=200).collect::<Vec<_>>());
    let few = segments(dir.path()).len();
    assert!(few < 4, "{few} segments are left");
    spool.settle().wait().expect("settled");
    drop(spool);
    let spool = open(dir.path());
    assert_eq!((spool.next(), sequences(&spool)), (201, (150..=200).collect()));
    spool.trim(201);
    spool.settle().wait().expect("settled");
    drop(spool);
    let spool = open(dir.path());
    assert_eq!((spool.next(), spool.len()), (201, 0));
}

#[test]
fn holes_are_kept() {
    let dir = tempfile::tempdir().expect("directory");
    let spool = open(dir.path());
    for sequence in [1, 5, 6, 100] {
        put(&spool, sequence, b"e");
    }
    drop(spool);
    let spool = open(dir.path());
    assert_eq!((spool.next(), sequences(&spool)), (101, vec![1, 5, 6, 100]));
}

#[test]
fn many_threads_share_flushes_and_all_is_kept_in_order() {
    let dir = tempfile::tempdir().expect("directory");
    let spool = open(dir.path());
    let next = Mutex::new(1);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let ticket = {
                        let mut next = next.lock().expect("number");
                        let ticket = spool.append(*next, next.to_string().into_bytes());
                        *next += 1;
                        ticket
                    };
                    ticket.wait().expect("appended");
                }
            });
        }
    });
    assert_eq!(sequences(&spool), (1..=400).collect::<Vec<_>>());
}

#[test]
fn a_ticket_that_nobody_waits_for_is_committed_all_the_same() {
    let dir = tempfile::tempdir().expect("directory");
    let spool = open(dir.path());
    drop(spool.append(1, b"forgotten".to_vec()));
    drop(spool);
    assert_eq!(sequences(&open(dir.path())), [1]);
}

#[test]
fn a_frame_that_was_cut_off_is_wiped_and_its_number_is_free() {
    let dir = tempfile::tempdir().expect("directory");
    let spool = open(dir.path());
    for sequence in 1..=3 {
        put(&spool, sequence, &[sequence as u8; 100]);
    }
    drop(spool);
    let path = segments(dir.path()).remove(0);
    let original = fs::read(&path).expect("segment");
    // Frames of 100 + 12 + 24 bytes lie at multiples of 144 behind the header.
    for cut in 32 + 2 * 144 + 1..32 + 2 * 144 + 136 {
        let mut torn = original.clone();
        torn[cut..].fill(0);
        fs::write(&path, torn).expect("written");
        let spool = open(dir.path());
        assert_eq!((spool.next(), sequences(&spool)), (3, vec![1, 2]), "cut at {cut}");
        put(&spool, 3, b"again");
        drop(spool);
        assert_eq!(sequences(&open(dir.path())), [1, 2, 3]);
    }
}

#[test]
fn a_flipped_bit_before_the_end_is_damage() {
    let dir = tempfile::tempdir().expect("directory");
    let spool = open(dir.path());
    for sequence in 1..=3 {
        put(&spool, sequence, &[sequence as u8; 100]);
    }
    drop(spool);
    let path = segments(dir.path()).remove(0);
    let original = fs::read(&path).expect("segment");
    for at in (0..20).chain(32..32 + 136) {
        let mut flipped = original.clone();
        flipped[at] ^= 1;
        fs::write(&path, flipped).expect("written");
        let opened = FileSpool::open(dir.path(), SMALL);
        assert!(matches!(opened.err(), Some(StoreError::Damaged(_))), "byte {at}");
    }
}

#[test]
fn a_full_disk_refuses_new_segments_and_closes_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    let full = SpoolOptions {
        // No disk has a pebibyte free.
        min_free_bytes: 1 << 50,
        ..SMALL
    };
    let spool = FileSpool::open(dir.path(), full).expect("spool");
    let mut stored = 0;
    let refused = loop {
        match spool.append(stored + 1, vec![7; 1000]).wait() {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::NoSpace));
    assert_eq!(sequences(&spool), (1..=stored).collect::<Vec<_>>());
    drop(spool);
    let spool = open(dir.path());
    put(&spool, stored + 2, b"room again");
    assert_eq!(spool.len(), stored + 1);
}

#[test]
fn an_entry_over_the_limit_is_refused() {
    let dir = tempfile::tempdir().expect("directory");
    let refused = open(dir.path()).append(1, vec![0; MAX_ENTRY + 1]).wait();
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_entries_come_back_as_they_were(
        entries in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 1..40),
        trim in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().expect("directory");
        let spool = open(dir.path());
        for (entry, sequence) in entries.iter().zip(1..) {
            put(&spool, sequence, entry);
        }
        let below = trim.index(entries.len()) as u64 + 1;
        spool.trim(below);
        spool.settle().wait().expect("settled");
        drop(spool);
        let kept: Vec<_> = (1..).zip(entries).filter(|(sequence, _)| *sequence >= below).collect();
        prop_assert_eq!(open(dir.path()).read(0, usize::MAX).expect("entries"), kept);
    }
}
