//! Whatever is changed in the store, verification finds it and names the first entry that does not fit.

use asterism_store::{Batch, Records};

use super::{BACKENDS, Filled, at, event, facts, id, memory, open};
use crate::{
    error::AuditError,
    log::{
        Event, EventId, Facts, Head, Log, Source,
        head::Standing,
        ids::{self, Place},
        index, keys,
    },
};

/// Six records of entries, which begin at multiples of 7.
const SIZE: u64 = 40;

fn stored(records: &dyn Records, first: u64) -> Vec<u8> {
    records.get(&keys::entries(first)).unwrap().unwrap()
}

/// The first bad index, in the running log and after a restart; a restart may refuse what it sees at once, naming it too.
#[track_caller]
fn assert_found(Filled { dir, records, log }: Filled, index: u64) {
    let report = log.verify().unwrap();
    assert_eq!(
        report.bad.as_ref().map(|(index, _)| *index),
        Some(index),
        "{report:?}"
    );
    drop(log);
    match Log::open(records, &dir.path().join("head.json")) {
        Ok(log) => assert_eq!(log.verify().unwrap().bad.unwrap().0, index),
        Err(AuditError::Damaged(text)) => {
            assert!(
                text.contains(&format!("entry {index}")) || text.contains("head"),
                "{text}"
            );
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn an_untouched_log_verifies() {
    for backend in BACKENDS {
        let Filled { dir, records, log } = Filled::new(backend, SIZE);
        let report = log.verify().unwrap();
        assert_eq!(
            (report.bad, report.head, report.sequence_problems),
            (None, log.head(), vec![])
        );
        drop(log);
        assert_eq!(open(&dir, &records).verify().unwrap().bad, None);
    }
}

#[test]
fn an_altered_byte() {
    let filled = Filled::new(memory, SIZE);
    for first in [0, 14, 35] {
        let whole = stored(&*filled.records, first);
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 1 << (at % 8);
            put(&filled, &keys::entries(first), altered);
            let (bad, why) = filled.log.verify().unwrap().bad.unwrap();
            assert!((first..first + 7).contains(&bad), "byte {at}: {bad} {why}");
        }
        put(&filled, &keys::entries(first), whole);
    }
    assert_eq!(filled.log.verify().unwrap().bad, None);
}

fn put(filled: &Filled, key: &[u8], value: Vec<u8>) {
    filled.records.commit(Batch::new().put(key, value)).unwrap();
}

fn delete(filled: &Filled, key: &[u8]) {
    filled.records.commit(Batch::new().delete(key)).unwrap();
}

/// Where in a record the digest of the input of an entry is.
fn digest_of(record: &[u8], index: u64) -> usize {
    let digest = facts(index).input.unwrap();
    let mut windows = record.windows(32);
    windows.position(|window| window == digest.as_bytes()).unwrap()
}

#[test]
fn an_altered_entry_is_named_and_no_other() {
    for backend in BACKENDS {
        for (first, index) in [(0, 0), (14, 17), (35, 39)] {
            let altered = Filled::new(backend, SIZE);
            let mut record = stored(&*altered.records, first);
            let place = digest_of(&record, index);
            record[place] ^= 1;
            put(&altered, &keys::entries(first), record);
            assert_found(altered, index);
        }
    }
}

#[test]
fn a_dropped_swapped_cut_doubled_or_merged_record() {
    for backend in BACKENDS {
        for first in [0, 14, 21] {
            let (here, next) = (keys::entries(first), keys::entries(first + 7));
            let dropped = Filled::new(backend, SIZE);
            let (one, other) = (
                stored(&*dropped.records, first),
                stored(&*dropped.records, first + 7),
            );
            delete(&dropped, &here);
            assert_found(dropped, first);

            let swapped = Filled::new(backend, SIZE);
            put(&swapped, &here, other.clone());
            put(&swapped, &next, one.clone());
            assert_found(swapped, first);

            let doubled = Filled::new(backend, SIZE);
            put(&doubled, &next, one.clone());
            assert_found(doubled, first + 7);

            let cut = Filled::new(backend, SIZE);
            put(&cut, &here, one[..digest_of(&one, first + 4)].to_vec());
            assert_found(cut, first + 4);

            // Two records in one are not what was written.
            let merged = Filled::new(backend, SIZE);
            put(&merged, &here, [&one[..], &other[13..]].concat());
            delete(&merged, &next);
            let (bad, _) = merged.log.verify().unwrap().bad.unwrap();
            assert!((first..first + 8).contains(&bad), "{bad}");
        }
    }
}

#[test]
fn a_dropped_end() {
    let filled = Filled::new(memory, SIZE);
    delete(&filled, &keys::entries(35));
    assert_found(filled, 35);
}

#[test]
fn records_that_moved_up_over_a_dropped_one() {
    let filled = Filled::new(memory, SIZE);
    for first in (14..28).step_by(7) {
        put(
            &filled,
            &keys::entries(first),
            stored(&*filled.records, first + 7),
        );
    }
    delete(&filled, &keys::entries(35));
    assert_eq!(filled.log.verify().unwrap().bad.unwrap().0, 14);
    let Filled { dir, records, log } = filled;
    drop(log);
    let opened = Log::open(records, &dir.path().join("head.json"));
    assert!(matches!(opened, Err(AuditError::Damaged(_))));
}

/// The forger knows the format, and writes entries, ids, tree and head anew.
#[test]
fn a_log_that_was_forged_throughout_does_not_fit_what_is_known_of_it() {
    let forge = |filled: &Filled, index: u64| {
        let forged = Filled::new(memory, 0);
        let entries = filled.log.entries(0, 100).unwrap();
        for entries in entries.chunks(7) {
            let events: Vec<_> = entries
                .iter()
                .map(|entry| {
                    let mut facts = entry.event.facts().clone();
                    facts.key_version += u32::from(entry.index == index);
                    Event::new(facts).unwrap()
                })
                .collect();
            forged.log.append(&events, entries[0].appended_at).unwrap();
        }
        for (key, value) in forged.records.scan(&[], &[], usize::MAX).unwrap() {
            put(filled, &key, value);
        }
    };
    // While the service runs: its own head is another.
    let filled = Filled::new(memory, SIZE);
    forge(&filled, 17);
    assert_eq!(filled.log.verify().unwrap().bad.unwrap().0, SIZE - 1);
    // After a restart: what is noted outside of the store is another.
    let filled = Filled::new(memory, SIZE);
    filled.log.note_head().unwrap();
    forge(&filled, 17);
    let Filled { dir, records, log } = filled;
    drop(log);
    let opened = Log::open(records, &dir.path().join("head.json"));
    assert!(matches!(opened, Err(AuditError::RolledBack(_))));
}

/// A log with other ids in the store, all of which are in one block.
fn with_ids(change: impl FnOnce(&mut Vec<Place>)) -> Filled {
    let filled = Filled::new(memory, SIZE);
    let key = keys::ids(&EventId::LEAST);
    let mut places = ids::decode(&filled.records.get(&key).unwrap().unwrap()).unwrap();
    assert_eq!(places.len() as u64, SIZE);
    change(&mut places);
    places.sort_unstable();
    put(&filled, &key, ids::split(&places, usize::MAX).remove(0).1);
    filled
}

#[test]
fn event_ids_that_lead_astray() {
    assert_found(with_ids(|places| places[9].1 = 8), 9);
    let nowhere = with_ids(|places| {
        places.remove(9);
    });
    assert_found(nowhere, 9);

    let planted = with_ids(|places| places.push((id(999), 12)));
    // Whoever relies on it is not deceived: the entry has another id, and so another content.
    assert!(matches!(
        planted.log.append(&[event(999)], at(1)),
        Err(AuditError::EventIdReused(_))
    ));
    assert_found(planted, 12);

    assert_found(with_ids(|places| places.push((id(999), 400))), SIZE);

    let gone = Filled::new(memory, SIZE);
    delete(&gone, &keys::ids(&EventId::LEAST));
    assert_found(gone, 0);
}

/// Bytes of records that are not entries: of ids, of the index, of the tree, of the head.
#[test]
fn an_altered_byte_of_anything_else() {
    const SIZE: u64 = 128 * 128 + 70;
    let filled = Filled::new(memory, 0);
    for start in (0..SIZE).step_by(1000) {
        let events: Vec<_> = (start..SIZE.min(start + 1000)).map(event).collect();
        filled.log.append(&events, at(1)).unwrap();
    }
    let bad = || {
        let report = filled.log.verify().unwrap();
        report.bad.is_some() || !report.sequence_problems.is_empty()
    };
    assert!(!bad());
    for kind in [keys::IDS, keys::INDEX, keys::TILE, keys::HEAD] {
        let stored = filled.records.scan(&[], &[kind], usize::MAX).unwrap();
        let (key, whole) = &stored[stored.len() / 2];
        let kind = kind as char;
        for at in (0..whole.len()).step_by(whole.len() / 4 + 1) {
            let mut altered = whole.clone();
            altered[at] ^= 1 << (at % 8);
            put(&filled, key, altered);
            assert!(bad(), "{kind} byte {at}");
        }
        delete(&filled, key);
        assert!(bad(), "{kind} dropped");
        put(&filled, key, whole.clone());
        let mut planted = key.clone();
        if planted.len() > 1 {
            *planted.last_mut().unwrap() ^= 1;
            put(&filled, &planted, whole.clone());
            assert!(bad(), "{kind} planted");
            delete(&filled, &planted);
        }
    }
    assert!(!bad());
}

/// A log with another index in the store, of one run.
fn with_index(change: impl FnOnce(&mut Vec<index::Posting>)) -> Filled {
    let filled = Filled::new(memory, index::RUN + 6);
    let run = filled.records.scan(&[], &[keys::INDEX], usize::MAX).unwrap();
    assert_eq!(run.len(), 1);
    let mut postings = index::decode(&run[0].1).unwrap();
    change(&mut postings);
    delete(&filled, &run[0].0);
    for (key, value) in index::encode(0, postings) {
        put(&filled, &key, value);
    }
    filled
}

#[test]
fn indexes_that_hide_or_invent() {
    let resource = |number| keys::terms(event(number).facts()).nth(1).unwrap();
    assert_ne!(resource(9), resource(11));
    assert_found(with_index(|all| all.retain(|one| *one != (resource(9), 9))), 9);
    assert_found(with_index(|all| all.push((resource(9), 11))), 11);
}

#[test]
fn another_head_and_entries_beyond_it() {
    let filled = Filled::new(memory, SIZE);
    let standing = Standing {
        head: Head {
            size: SIZE - 1,
            root: filled.log.root_at(SIZE - 1).unwrap(),
        },
        ..Standing::stored(&*filled.records).unwrap()
    };
    put(&filled, &[keys::HEAD], standing.to_bytes());
    assert_eq!(filled.log.verify().unwrap().bad.unwrap().0, SIZE - 1);

    let filled = Filled::new(memory, SIZE);
    put(&filled, &keys::entries(SIZE), stored(&*filled.records, 35));
    assert_found(filled, SIZE);
}

#[test]
fn holes_and_repeats_of_a_source_are_told() {
    let Filled { records, log, .. } = Filled::new(memory, 2);
    let ingest = |number, source_sequence| {
        Event::new(Facts {
            source: Source::Ingest,
            source_sequence,
            ..facts(number)
        })
        .unwrap()
    };
    let events = [
        event(4),
        event(3),
        ingest(100, 1),
        ingest(101, 2),
        ingest(102, 2),
        ingest(103, 4),
    ];
    log.append(&events, at(1)).unwrap();
    let report = log.verify().unwrap();
    assert_eq!(report.bad, None);
    let told = [
        "kms: 3 to 4 missing after 2",
        "kms: 4 comes after 5",
        "ingest: 2 comes after 2",
        "ingest: 3 missing after 2",
    ];
    assert_eq!(report.sequence_problems, told);
    let mut standing = Standing::stored(&*records).unwrap();
    standing.sequences[Source::Kms as usize] = 9;
    records
        .commit(Batch::new().put([keys::HEAD], standing.to_bytes()))
        .unwrap();
    let report = log.verify().unwrap();
    assert!(
        report
            .sequence_problems
            .contains(&"kms: 9 is recorded as the last number, and the log has 5".into())
    );
}

/// An event whose id is among all others: it has blocks of ids split in the middle.
fn anywhere(number: u64) -> Event {
    let [id @ .., _] = *asterism_crypto::Digest::of(&number.to_be_bytes())
        .as_bytes()
        .first_chunk::<17>()
        .unwrap();
    Event::new(Facts {
        id: EventId::from_bytes(id),
        ..facts(number)
    })
    .unwrap()
}

/// Appends go on while the log is verified: nothing is found, and each report is of a head that was.
#[test]
fn verification_does_not_mind_appends() {
    for backend in BACKENDS {
        let Filled { log, .. } = Filled::new(backend, SIZE);
        std::thread::scope(|scope| {
            let appending = scope.spawn(|| {
                for number in SIZE..SIZE + 900 {
                    log.append(&[anywhere(number)], at(1)).unwrap();
                }
            });
            while !appending.is_finished() {
                let report = log.verify().unwrap();
                assert_eq!((report.bad, report.sequence_problems), (None, vec![]));
                assert!(report.head.size >= SIZE);
            }
            appending.join().unwrap();
        });
        assert_eq!(log.verify().unwrap().head, log.head());
    }
}
