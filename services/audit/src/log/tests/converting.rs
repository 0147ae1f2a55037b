//! A store of layout 1, as its code wrote it, becomes one of layout 2.

use std::{fs, sync::Arc};

use asterism_store::{Batch, MemoryRecords, Records};
use tempfile::TempDir;

use super::{at, event, facts};
use crate::{
    error::AuditError,
    log::{
        Filter, Log, Source,
        entry::{encode, encode_event},
        layout1::{self, Chained},
    },
};

const SIZE: u64 = 90;

fn entry_key(index: u64) -> Vec<u8> {
    [&b"e"[..], &index.to_be_bytes()].concat()
}

/// What layout 1 wrote for the events of `super::event`, seven an append, beside records of others.
fn layout_1(size: u64) -> MemoryRecords {
    let records = MemoryRecords::new();
    let mut chain = Chained::empty();
    let mut batch = Batch::new().put(*b"other", *b"kept").put(*b"zebra", *b"kept too");
    for index in 0..size {
        let bytes = encode(at((index / 7) as i64), &encode_event(&event(index)));
        chain = chain.after(&bytes);
        let id = [&b"i"[..], facts(index).id.as_bytes()].concat();
        let facet = [&b"x"[..], &[b's'; 17], &index.to_be_bytes()].concat();
        batch = batch
            .put(entry_key(index), [chain.chain.as_bytes(), &bytes[..]].concat())
            .put(id, index.to_be_bytes())
            .put(facet, []);
    }
    let head = [&size.to_be_bytes()[..], chain.chain.as_bytes()].concat();
    records
        .commit(batch.put(*b"h", head).put(*b"skms", size.to_be_bytes()))
        .unwrap();
    records
}

fn note(dir: &TempDir, size: u64, records: &MemoryRecords) {
    let entry = records.get(&entry_key(size - 1)).unwrap().unwrap();
    let chain: String = entry[..32].iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("{{\"size\":{size},\"chain\":\"{chain}\"}}");
    fs::write(dir.path().join("head.json"), text).unwrap();
}

fn convert(dir: &TempDir, old: &MemoryRecords) -> Result<Arc<dyn Records>, AuditError> {
    let copy: Arc<dyn Records> = Arc::new(MemoryRecords::new());
    layout1::convert(old, &copy, &dir.path().join("head.json"))?;
    Ok(copy)
}

#[test]
fn a_chained_log_is_converted_with_all_that_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let old = layout_1(SIZE);
    assert!(layout1::is_layout_1(&old).unwrap());
    note(&dir, SIZE - 5, &old);
    let first = convert(&dir, &old).unwrap();
    assert!(!layout1::is_layout_1(&*first).unwrap());
    // A crash before the exchange: it is made again, to the same end.
    let copy = convert(&dir, &old).unwrap();
    assert_eq!(
        copy.scan(&[], &[], 1000).unwrap(),
        first.scan(&[], &[], 1000).unwrap()
    );
    let log = Log::open(copy.clone(), &dir.path().join("head.json")).unwrap();
    let entries = log.entries(0, 1000).unwrap();
    assert_eq!(entries.len() as u64, SIZE);
    for (index, entry) in (0..).zip(&entries) {
        assert_eq!(entry.event, event(index));
        assert_eq!(entry.appended_at, at((index / 7) as i64));
    }
    let report = log.verify().unwrap();
    assert_eq!((report.bad, report.sequence_problems), (None, vec![]));
    assert_eq!(copy.get(b"other").unwrap().unwrap(), b"kept");
    assert_eq!(copy.get(b"zebra").unwrap().unwrap(), b"kept too");
    for kind in [b'e', b'i', b'h', b's', b'x'] {
        assert!(copy.scan(&[], &[kind], 1).unwrap().is_empty());
    }
    let kms = Filter {
        source: Some(Source::Kms),
        ..Filter::default()
    };
    assert_eq!(log.find(&kms, 0, 1000).unwrap().entries.len() as u64, SIZE);
    assert_eq!(log.append(&[event(4), event(SIZE)], at(99)).unwrap(), [4, SIZE]);
    // From now on only the tree is noted.
    log.note_head().unwrap();
    let noted = fs::read_to_string(dir.path().join("head.json")).unwrap();
    assert!(noted.contains("root") && !noted.contains("chain"), "{noted}");
}

#[test]
fn an_empty_chained_log_is_an_empty_log() {
    let dir = tempfile::tempdir().unwrap();
    let old = MemoryRecords::new();
    assert!(!layout1::is_layout_1(&old).unwrap());
    let log = Log::open(convert(&dir, &old).unwrap(), &dir.path().join("head.json")).unwrap();
    assert_eq!((log.size(), log.verify().unwrap().bad), (0, None));
}

type Damage = fn(&MemoryRecords);

#[test]
fn what_does_not_fit_its_chain_is_not_converted() {
    let damages: [(&str, Damage); 6] = [
        ("entry 20", |old| {
            let mut entry = old.get(&entry_key(20)).unwrap().unwrap();
            *entry.last_mut().unwrap() ^= 1;
            old.commit(Batch::new().put(entry_key(20), entry)).unwrap();
        }),
        ("entry 20", |old| {
            old.commit(Batch::new().delete(entry_key(20))).unwrap();
        }),
        ("entry 20", |old| {
            let [one, other] = [20, 31].map(|index| old.get(&entry_key(index)).unwrap().unwrap());
            let swapped = Batch::new().put(entry_key(20), other).put(entry_key(31), one);
            old.commit(swapped).unwrap();
        }),
        ("entry 89", |old| {
            old.commit(Batch::new().delete(entry_key(89))).unwrap();
        }),
        ("head", |old| {
            let mut head = old.get(b"h").unwrap().unwrap();
            head[20] ^= 1;
            old.commit(Batch::new().put(*b"h", head)).unwrap();
        }),
        ("kms", |old| {
            old.commit(Batch::new().put(*b"skms", [0; 8])).unwrap();
        }),
    ];
    for (named, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let old = layout_1(SIZE);
        damage(&old);
        let error = convert(&dir, &old).err().unwrap();
        assert!(
            matches!(&error, AuditError::Damaged(text) if text.contains(named)),
            "{named}: {error}"
        );
        assert!(!dir.path().join("head.json").exists());
    }
}

#[test]
fn a_chained_log_that_was_rolled_back_is_not_converted() {
    let dir = tempfile::tempdir().unwrap();
    note(&dir, SIZE, &layout_1(SIZE));
    assert!(matches!(
        convert(&dir, &layout_1(SIZE - 1)),
        Err(AuditError::RolledBack(_))
    ));
    // As long, but another.
    let noted = fs::read_to_string(dir.path().join("head.json")).unwrap();
    let other = noted.replace(&noted[25..35], "0123456789");
    assert_ne!(noted, other);
    fs::write(dir.path().join("head.json"), other).unwrap();
    assert!(matches!(
        convert(&dir, &layout_1(SIZE)),
        Err(AuditError::RolledBack(_))
    ));
}
