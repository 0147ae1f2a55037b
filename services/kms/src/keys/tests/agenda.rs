//! What is due is found by its notes, also in stores from before there were any.

use asterism_store::Batch;

use super::*;

fn notes(disk: &Disk) -> Vec<Vec<u8>> {
    let found = disk.records.scan(b"d", b"d", 100).expect("read");
    found.into_iter().map(|(at, _)| at).collect()
}

/// A key with a destruction and a rotation to come, both after `WINDOW` days.
fn with_plans(keyring: &Keyring) -> Arc<Key> {
    let key = create(keyring, "planned", KeyType::Aes256Gcm);
    keyring.rotate(&key.id, None, &NO_ID, NOW).expect("rotated");
    keyring
        .schedule_destruction(&key.id, 1, MIN_WINDOW_MS, &NO_ID, NOW)
        .expect("scheduled");
    let update = KeyUpdate {
        rotation_period_ms: Some(Some(MIN_WINDOW_MS)),
        ..KeyUpdate::default()
    };
    keyring.update(&key.id, &update, &NO_ID, NOW).expect("updated")
}

const DUE: u64 = NOW + MIN_WINDOW_MS;

#[test]
fn only_what_is_due_is_read_and_stale_notes_go() {
    let (keyring, disk) = keyring();
    create(&keyring, "idle", KeyType::Aes256Gcm);
    let key = with_plans(&keyring);
    assert_eq!(keyring.due(DUE - 1).expect("looked"), []);
    let due = keyring.due(DUE).expect("looked");
    let (destroy, rotate) = (
        Due::Destroy {
            key: key.id.clone(),
            version: 1,
        },
        Due::Rotate { key: key.id.clone() },
    );
    assert_eq!(due, [destroy, rotate.clone()]);
    // What was not done is due again.
    assert_eq!(keyring.due(DUE).expect("looked"), due);
    keyring.restore(&key.id, 1, &NO_ID, NOW).expect("restored");
    assert_eq!(keyring.due(DUE).expect("looked"), [rotate]);
    let failed = keyring.rotate_due(&key.id, DUE, |_| Err(KmsError::Unrecorded(String::new())));
    assert!(failed.is_err());
    assert_eq!(keyring.due(DUE).expect("looked").len(), 1, "its event is missing");
    assert_eq!(
        keyring.rotate_due(&key.id, DUE, |_| Ok(())).expect("reported"),
        Some(3)
    );
    assert_eq!(keyring.due(DUE).expect("looked"), []);
    assert_eq!(notes(&disk).len(), 1, "the next rotation's is left");
    assert_eq!(keyring.due(DUE + MIN_WINDOW_MS).expect("looked").len(), 1);
}

#[test]
fn a_store_from_before_is_read_once() {
    let (keyring, disk) = keyring();
    let key = with_plans(&keyring);
    let expected = keyring.due(DUE).expect("looked");
    let without = notes(&disk).into_iter().fold(Batch::new(), Batch::delete);
    disk.records.commit(without).expect("deleted");
    let keyring = disk.start();
    assert!(!keyring.is_current().expect("looked"));
    assert_eq!(keyring.due(DUE).expect("looked"), []);
    keyring.make_current().expect("read");
    assert!(keyring.is_current().expect("looked"));
    assert_eq!(keyring.due(DUE).expect("looked"), expected);
    assert_eq!(expected.len(), 2, "{key:?}", key = key.id);
    let later = Batch::new().put(*b"m", *b"2");
    disk.records.commit(later).expect("written");
    assert!(keyring.is_current().is_err(), "a later layout");
}
