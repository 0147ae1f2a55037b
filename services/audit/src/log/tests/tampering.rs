//! Whatever is changed in the store, verification finds it and names the first entry that does not fit.

use asterism_store::{Batch, Records};

use super::{BACKENDS, Filled, at, event, facts, id, memory, open};
use crate::{
    error::AuditError,
    log::{
        Event, Facts, Log, Source,
        entry::{chain, encode, encode_event},
        head::Head,
        keys,
    },
};

const SIZE: u64 = 40;

fn stored(records: &dyn Records, index: u64) -> Vec<u8> {
    records.get(&keys::entry(index)).unwrap().unwrap()
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
    for index in [0, 17, SIZE - 1] {
        let whole = stored(&*filled.records, index);
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 1 << (at % 8);
            filled
                .records
                .commit(Batch::new().put(keys::entry(index), altered))
                .unwrap();
            assert_eq!(filled.log.verify().unwrap().bad.unwrap().0, index, "byte {at}");
        }
        filled
            .records
            .commit(Batch::new().put(keys::entry(index), whole))
            .unwrap();
    }
    assert_eq!(filled.log.verify().unwrap().bad, None);
}

#[test]
fn an_altered_dropped_or_swapped_entry() {
    for backend in BACKENDS {
        for index in [0, 17, SIZE - 2] {
            let altered = Filled::new(backend, SIZE);
            let mut bytes = stored(&*altered.records, index);
            bytes[100] ^= 1;
            altered
                .records
                .commit(Batch::new().put(keys::entry(index), bytes))
                .unwrap();
            assert_found(altered, index);

            let dropped = Filled::new(backend, SIZE);
            dropped
                .records
                .commit(Batch::new().delete(keys::entry(index)))
                .unwrap();
            assert_found(dropped, index);

            let swapped = Filled::new(backend, SIZE);
            let (one, other) = (
                stored(&*swapped.records, index),
                stored(&*swapped.records, index + 1),
            );
            let batch = Batch::new()
                .put(keys::entry(index), other)
                .put(keys::entry(index + 1), one);
            swapped.records.commit(batch).unwrap();
            assert_found(swapped, index);
        }
    }
}

#[test]
fn a_dropped_end() {
    let filled = Filled::new(memory, SIZE);
    filled
        .records
        .commit(Batch::new().delete(keys::entry(SIZE - 1)))
        .unwrap();
    assert_found(filled, SIZE - 1);
}

#[test]
fn an_entry_that_was_dropped_and_the_rest_moved_up() {
    let filled = Filled::new(memory, SIZE);
    let moved = (17..SIZE - 1).fold(Batch::new(), |batch, index| {
        batch.put(keys::entry(index), stored(&*filled.records, index + 1))
    });
    filled
        .records
        .commit(moved.delete(keys::entry(SIZE - 1)))
        .unwrap();
    assert_eq!(filled.log.verify().unwrap().bad.unwrap().0, 17);
    // A start sees that the end is missing, and looks no further.
    let Filled { dir, records, log } = filled;
    drop(log);
    let opened = Log::open(records, &dir.path().join("head.json"));
    assert!(matches!(opened, Err(AuditError::Damaged(_))));
}

/// The forger knows the format, and writes entry, chain, ids, indexes and head anew from there on.
#[test]
fn a_chain_that_was_forged_throughout_does_not_fit_what_is_known_of_it() {
    let forge = |Filled { records, log, .. }: &Filled, index: u64| {
        let mut head = Head {
            size: index,
            chain: log.entries(index - 1, 1).unwrap()[0].chain,
        };
        let mut batch = Batch::new();
        for at in index..SIZE {
            let entry = &log.entries(at, 1).unwrap()[0];
            let mut facts = entry.event.facts().clone();
            facts.key_version += u32::from(at == index);
            let bytes = encode(entry.appended_at, &encode_event(&Event::new(facts).unwrap()));
            head = Head {
                size: at + 1,
                chain: chain(&head.chain, &bytes),
            };
            batch = batch.put(
                keys::entry(at),
                [head.chain.as_bytes().as_slice(), &bytes].concat(),
            );
        }
        records.commit(batch.put([keys::HEAD], head.to_bytes())).unwrap();
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

#[test]
fn event_ids_that_lead_astray() {
    let elsewhere = Filled::new(memory, SIZE);
    elsewhere
        .records
        .commit(Batch::new().put(keys::id(&id(9)), 8_u64.to_be_bytes()))
        .unwrap();
    assert_found(elsewhere, 9);

    let nowhere = Filled::new(memory, SIZE);
    nowhere
        .records
        .commit(Batch::new().delete(keys::id(&id(9))))
        .unwrap();
    assert_found(nowhere, 9);

    // An id that was never seen: its event would be taken for one that is there.
    let planted = Filled::new(memory, SIZE);
    planted
        .records
        .commit(Batch::new().put(keys::id(&id(999)), 12_u64.to_be_bytes()))
        .unwrap();
    assert!(matches!(
        planted.log.append(&[event(999)], at(1)),
        Err(AuditError::EventIdReused(_))
    ));
    assert_found(planted, 12);

    let beyond = Filled::new(memory, SIZE);
    beyond
        .records
        .commit(Batch::new().put(keys::id(&id(999)), 400_u64.to_be_bytes()))
        .unwrap();
    assert_found(beyond, SIZE);
}

#[test]
fn indexes_that_hide_or_invent() {
    let hidden = Filled::new(memory, SIZE);
    let prefix = keys::facets(event(9).facts()).nth(1).unwrap();
    hidden
        .records
        .commit(Batch::new().delete(keys::facet(&prefix, 9)))
        .unwrap();
    assert_found(hidden, 9);

    let invented = Filled::new(memory, SIZE);
    invented
        .records
        .commit(Batch::new().put(keys::facet(&prefix, 11), []))
        .unwrap();
    assert_found(invented, 11);
}

#[test]
fn another_head_and_entries_beyond_it() {
    let filled = Filled::new(memory, SIZE);
    let head = Head {
        size: SIZE - 1,
        chain: filled.log.entries(SIZE - 2, 1).unwrap()[0].chain,
    };
    filled
        .records
        .commit(Batch::new().put([keys::HEAD], head.to_bytes()))
        .unwrap();
    assert_found(filled, SIZE - 1);

    let filled = Filled::new(memory, SIZE);
    let last = stored(&*filled.records, SIZE - 1);
    filled
        .records
        .commit(Batch::new().put(keys::entry(SIZE), last))
        .unwrap();
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
    records
        .commit(Batch::new().put(keys::source(Source::Kms), 9_u64.to_be_bytes()))
        .unwrap();
    let report = log.verify().unwrap();
    assert!(
        report
            .sequence_problems
            .contains(&"kms: 9 is recorded as the last number, and the log has 5".into())
    );
}

/// Appends go on while the log is verified: nothing is found, and each report is of a head that was.
#[test]
fn verification_does_not_mind_appends() {
    for backend in BACKENDS {
        let Filled { log, .. } = Filled::new(backend, SIZE);
        std::thread::scope(|scope| {
            let appending = scope.spawn(|| {
                for number in SIZE..SIZE + 300 {
                    log.append(&[event(number)], at(1)).unwrap();
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
