use asterism_store::{MemoryRecords, SledOptions, SledRecords};
use proptest::prelude::*;

use super::*;

fn open(records: Arc<dyn Records>) -> Log {
    let dir = std::env::temp_dir().join("asterism-audit-no-such-directory");
    Log::open(records, &dir.join("head.json")).expect("opened")
}

/// An event whose facts are its number; the body is what the tests' `identify` reads back.
fn event(number: u64) -> NewEvent {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    let facts = facts(number);
    NewEvent {
        id,
        facts,
        body: number.to_be_bytes().to_vec(),
    }
}

fn facts(number: u64) -> Facts {
    Facts {
        source: "kms".into(),
        source_sequence: number + 1,
        occurred_at_ms: number * 10,
        principal: format!("user/{}", number % 3),
        operation: if number.is_multiple_of(2) {
            "kms.Encrypt".into()
        } else {
            "kms.Decrypt".into()
        },
        resource: format!("keys/{}", number % 5),
        outcome: 1 + (number % 7 == 0) as i32,
        trace_id: format!("{:032x}", number / 4),
    }
}

fn number(entry: &Entry) -> Result<u64, AuditError> {
    be_u64(&entry.body).ok_or(AuditError::Damaged("number"))
}

fn facts_of(entry: &Entry) -> Result<Facts, AuditError> {
    Ok(facts(number(entry)?))
}

fn identify(entry: &Entry) -> Result<([u8; 16], Facts), AuditError> {
    let event = event(number(entry)?);
    Ok((event.id, event.facts))
}

fn filled(count: u64) -> (Log, Arc<MemoryRecords>) {
    let records = Arc::new(MemoryRecords::new());
    let log = open(records.clone());
    let events: Vec<_> = (0..count).map(event).collect();
    for batch in events.chunks(7) {
        log.append(batch, 1000).expect("appended");
    }
    (log, records)
}

#[test]
fn a_repeated_event_keeps_its_index_and_a_changed_one_is_refused() {
    let (log, _) = filled(10);
    assert_eq!(
        log.append(&[event(3), event(10), event(10)], 2000)
            .expect("appended"),
        [3, 10, 10]
    );
    assert_eq!(log.size(), 11);
    let changed = NewEvent {
        body: 99_u64.to_be_bytes().to_vec(),
        ..event(4)
    };
    assert!(matches!(
        log.append(&[event(11), changed], 2000),
        Err(AuditError::EventIdReused)
    ));
    assert_eq!(log.size(), 11);
    assert!(log.verify(identify).expect("verified").bad.is_none());
}

#[test]
fn any_altered_dropped_or_swapped_entry_is_found_and_named() {
    for index in [0, 4, 9] {
        let (log, records) = filled(10);
        let key = entry_key(index);
        let stored = records.get(&key).expect("read").expect("there");
        for at in 0..stored.len() {
            let mut altered = stored.clone();
            altered[at] ^= 1;
            records
                .commit(Batch::new().put(key.clone(), altered))
                .expect("written");
            let bad = log.verify(identify).expect("verified").bad.expect("found");
            assert_eq!(bad.0, index, "byte {at}");
        }
        records.commit(Batch::new().delete(key.clone())).expect("written");
        assert_eq!(
            log.verify(identify).expect("verified").bad.expect("found").0,
            index
        );

        let other = entry_key((index + 1) % 10);
        let others = records.get(&other).expect("read").expect("there");
        records
            .commit(Batch::new().put(key, others).put(other, stored))
            .expect("written");
        let bad = log.verify(identify).expect("verified").bad.expect("found");
        assert_eq!(bad.0, index.min((index + 1) % 10));
    }
}

#[test]
fn a_chain_recomputed_by_a_forger_does_not_fit_the_head() {
    let (log, records) = filled(3);
    let forged = entry::encode(1000, &7_u64.to_be_bytes());
    let before = log.entry(1).expect("there").chain;
    let value = [chain(&before, &forged).as_bytes().as_slice(), &forged].concat();
    let batch = Batch::new()
        .put(entry_key(2), value)
        .put(id_key(&event(7).id), 2_u64.to_be_bytes());
    records.commit(batch).expect("written");
    assert_eq!(log.verify(identify).expect("verified").bad.expect("found").0, 2);
}

#[test]
fn holes_and_repeats_of_a_source_are_told() {
    let records = Arc::new(MemoryRecords::new());
    let log = open(records);
    log.append(&[event(0), event(1), event(4), event(2)], 1)
        .expect("appended");
    let report = log.verify(identify).expect("verified");
    assert!(report.bad.is_none());
    assert_eq!(
        report.sequence_problems,
        ["kms: 3 missing after 2", "kms: 3 comes after 5"]
    );
}

#[test]
fn a_log_that_was_rolled_back_does_not_open() {
    let dir = tempfile::tempdir().expect("directory");
    let note = dir.path().join("head.json");
    let records = Arc::new(MemoryRecords::new());
    let log = Log::open(records.clone(), &note).expect("opened");
    log.append(&[event(0), event(1)], 1).expect("appended");
    log.note_head().expect("noted");
    drop(log);
    Log::open(records.clone(), &note).expect("as it was");
    assert!(matches!(
        Log::open(Arc::new(MemoryRecords::new()), &note),
        Err(AuditError::RolledBack(_))
    ));
    let (other, others) = filled(5);
    drop(other);
    let stored = others.get(&entry_key(1)).expect("read").expect("there");
    let mut altered = stored;
    altered[0] ^= 1;
    others
        .commit(Batch::new().put(entry_key(1), altered))
        .expect("written");
    assert!(matches!(Log::open(others, &note), Err(AuditError::RolledBack(_))));
}

#[test]
fn everything_is_there_after_a_restart_of_the_store() {
    let dir = tempfile::tempdir().expect("directory");
    let note = dir.path().join("head.json");
    let store =
        || Arc::new(SledRecords::open(&dir.path().join("records"), SledOptions::default()).expect("store"));
    let head = {
        let log = Log::open(store(), &note).expect("opened");
        log.append(&(0..50).map(event).collect::<Vec<_>>(), 1)
            .expect("appended");
        log.note_head().expect("noted");
        log.head()
    };
    let log = Log::open(store(), &note).expect("reopened");
    assert_eq!(log.head(), head);
    assert_eq!(log.append(&[event(7)], 2).expect("known"), [7]);
    assert!(log.verify(identify).expect("verified").bad.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Paging through any filter gives what a plain look at every entry gives.
    #[test]
    fn indexes_find_what_a_scan_finds(
        principal in prop::option::of(0u64..4), operation: bool, resource in prop::option::of(0u64..6),
        outcome in 0i32..3, trace in prop::option::of(0u64..12), from in prop::option::of(0u64..400),
        until in prop::option::of(0u64..400), limit in 1usize..20,
    ) {
        let (log, _) = filled(40);
        let filter = Filter {
            principal: principal.map(|p| format!("user/{p}")).unwrap_or_default(),
            operation: if operation { "kms.Encrypt".into() } else { String::new() },
            resource: resource.map(|r| format!("keys/{r}")).unwrap_or_default(),
            trace_id: trace.map(|t| format!("{t:032x}")).unwrap_or_default(),
            outcome, from_ms: from, until_ms: until, ..Filter::default()
        };
        let expected: Vec<u64> = (0..40).filter(|n| filter.matches(&facts(*n))).collect();
        let mut found = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let page = log.find(&filter, from, limit, facts_of).expect("found");
            prop_assert!(page.entries.len() <= limit);
            found.extend(page.entries.iter().map(|entry| entry.index));
            next = page.next;
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn an_entry_reads_back_and_garbage_does_not_panic(at: u64, body: Vec<u8>, garbage: Vec<u8>) {
        let stored = [[7; 32].as_slice(), &entry::encode(at, &body)].concat();
        let entry = entry::decode(5, &stored).expect("decoded");
        prop_assert_eq!((entry.index, entry.appended_at_ms, entry.body), (5, at, body));
        let _ = entry::decode(0, &garbage);
    }
}
