//! One rule at a time: states, windows, schedules, etags, sweeps, upgrades.

use asterism_crypto::{KeyRef, envelope};
use asterism_store::Batch;

use super::*;

fn refused_in(result: Result<impl Sized, KmsError>) -> State {
    match result.map(drop) {
        Err(KmsError::VersionState { state, .. }) => state,
        other => panic!("not refused for its state: {other:?}"),
    }
}

fn set(keyring: &Keyring, key: &Key, version: u32, to: State, now_ms: u64) -> Result<Arc<Key>, KmsError> {
    keyring.set_state(&key.id, version, to, &NO_ID, now_ms)
}

fn sweep(keyring: &Keyring, now_ms: u64) -> Vec<String> {
    let mut events = Vec::new();
    for due in keyring.due(now_ms).expect("looked") {
        match due {
            Due::Destroy { key, version } => {
                let report = || {
                    events.push(format!("destroy {key} {version}"));
                    Ok(())
                };
                keyring
                    .destroy_due(&key, version, now_ms, report)
                    .expect("destroyed");
            }
            Due::Rotate { key } => {
                let report = |version| {
                    events.push(format!("rotate {key} {version}"));
                    Ok(())
                };
                keyring.rotate_due(&key, now_ms, report).expect("rotated");
            }
        }
    }
    events
}

#[test]
fn each_state_allows_what_its_table_says() {
    let (keyring, _) = keyring();
    let aes = create(&keyring, "aes", KeyType::Aes256Gcm);
    let sign = create(&keyring, "sign", KeyType::EcSignP256Sha256);
    let (ciphertext, _) = keyring.encrypt(&aes, b"text", b"", NOW).expect("encrypted");
    let digest = Digest::of(b"message");
    let (signature, _) = keyring.sign(&sign, &digest, NOW).expect("signed");
    for state in [
        State::Suspended,
        State::Active,
        State::Deactivated,
        State::Compromised,
    ] {
        let aes = set(&keyring, &aes, 1, state, NOW).expect("a step");
        let sign = set(&keyring, &sign, 1, state, NOW).expect("a step");
        let processes = state != State::Suspended;
        assert_eq!(
            keyring.decrypt(&aes, &ciphertext, b"", NOW).is_ok(),
            processes,
            "{state}"
        );
        assert_eq!(
            keyring.verify(&sign, &digest, &signature, 1, NOW).is_ok(),
            processes,
            "{state}"
        );
        let any = keyring.verify(&sign, &digest, &signature, 0, NOW).expect("asked");
        assert_eq!(any, processes.then_some(1), "{state}");
        assert_eq!(keyring.public_key(&sign, 1, NOW).is_ok(), processes, "{state}");
        if state == State::Active {
            keyring.encrypt(&aes, b"", b"", NOW).expect("encrypted");
            keyring.sign(&sign, &digest, NOW).expect("signed");
        } else {
            assert_eq!(refused_in(keyring.encrypt(&aes, b"", b"", NOW)), state);
            assert_eq!(refused_in(keyring.sign(&sign, &digest, NOW)), state);
        }
        assert_eq!(aes.is_compromised(1, NOW), state == State::Compromised);
    }
    assert_eq!(
        refused_in(set(&keyring, &aes, 1, State::Active, NOW)),
        State::Compromised
    );
    assert!(matches!(
        set(&keyring, &aes, 2, State::Active, NOW).map(drop),
        Err(KmsError::VersionNotFound { version: 2, .. })
    ));
}

#[test]
fn a_version_waits_for_its_activation_time_and_is_then_primary() {
    let (keyring, _) = keyring();
    let new = NewKey {
        id: Some("later".parse().expect("id")),
        key_type: KeyType::EcSignP256Sha256,
        labels: BTreeMap::new(),
        active_from_ms: Some(100),
        exportable: false,
        required_approvals: 0,
    };
    let key = keyring.create(new, &NO_ID, NOW).expect("created");
    assert_eq!((key.primary(99), key.primary(100)), (0, 1));
    assert_eq!(key.versions[0].state(99), State::PreActive);
    assert_eq!(key.versions[0].state(100), State::Active);
    let digest = Digest::of(b"m");
    assert!(matches!(
        keyring.sign(&key, &digest, 99).map(drop),
        Err(KmsError::NoActiveVersion(_))
    ));
    keyring
        .public_key(&key, 1, 99)
        .expect("verifiers may have it beforehand");
    keyring.sign(&key, &digest, 100).expect("signed");

    let key = keyring.rotate(&key.id, Some(300), &NO_ID, 200).expect("rotated");
    assert_eq!((key.primary(299), key.primary(300)), (1, 2));
    // Marked compromised before its time, it never becomes primary.
    let key = set(&keyring, &key, 2, State::Compromised, 250).expect("a step");
    assert_eq!(
        (key.primary(300), key.versions[1].state(300)),
        (1, State::Compromised)
    );
    let far = keyring.rotate(&key.id, Some(11 * 366 * DAY_MS), &NO_ID, 200);
    assert!(matches!(
        far.map(drop),
        Err(KmsError::Field {
            field: "activation_time",
            ..
        })
    ));
}

#[test]
fn a_destruction_can_be_undone_until_its_window_is_over() {
    let (keyring, disk) = keyring();
    let aes = create(&keyring, "aes", KeyType::Aes256Gcm);
    let (ciphertext, _) = keyring.encrypt(&aes, b"text", b"", NOW).expect("encrypted");
    for window in [0, MIN_WINDOW_MS - 1, MAX_WINDOW_MS + 1] {
        let refused = keyring.schedule_destruction(&aes.id, 1, window, &NO_ID, NOW);
        assert!(matches!(
            refused.map(drop),
            Err(KmsError::Field { field: "window", .. })
        ));
    }
    let scheduled = keyring
        .schedule_destruction(&aes.id, 1, MIN_WINDOW_MS, &NO_ID, NOW)
        .expect("scheduled");
    let due = NOW + MIN_WINDOW_MS;
    assert_eq!(scheduled.versions[0].destroy_at_ms(), Some(due));
    assert_eq!(
        refused_in(keyring.decrypt(&scheduled, &ciphertext, b"", NOW)),
        State::DestroyScheduled
    );
    assert_eq!(
        refused_in(keyring.encrypt(&scheduled, b"", b"", NOW)),
        State::DestroyScheduled
    );
    assert_eq!(
        refused_in(set(&keyring, &aes, 1, State::Active, NOW)),
        State::DestroyScheduled
    );
    assert!(sweep(&keyring, due - 1).is_empty());

    let restored = keyring.restore(&aes.id, 1, &NO_ID, due - 1).expect("restored");
    assert_eq!(restored.versions[0].state(due), State::Active);
    assert_eq!(restored.versions[0].destroy_at_ms(), None);
    keyring
        .decrypt(&restored, &ciphertext, b"", due)
        .expect("decrypted");
    assert!(sweep(&keyring, due).is_empty(), "no longer due");

    let at = due + MIN_WINDOW_MS;
    keyring
        .schedule_destruction(&aes.id, 1, MIN_WINDOW_MS, &NO_ID, due)
        .expect("scheduled");
    assert_eq!(
        refused_in(keyring.restore(&aes.id, 1, &NO_ID, at)),
        State::DestroyScheduled
    );
    assert_eq!(sweep(&keyring, at), ["destroy aes 1"]);
    assert!(sweep(&keyring, at).is_empty(), "once");
    assert!(disk.version_keys.0.lock().expect("lock").is_empty());
    let gone = disk.start().get(&aes.id).expect("there");
    assert_eq!(gone.versions[0].state(at), State::Destroyed);
    assert_eq!(
        refused_in(keyring.decrypt(&gone, &ciphertext, b"", at)),
        State::Destroyed
    );
    assert_eq!(
        refused_in(keyring.restore(&aes.id, 1, &NO_ID, at)),
        State::Destroyed
    );
    // A snapshot from before, without the material in memory, learns it too.
    let stale = disk.start().get(&aes.id).expect("there");
    assert_eq!(
        refused_in(disk.start().material(&stale, 1).map(drop)),
        State::Destroyed
    );
    assert_eq!(
        keyring
            .rotate(&aes.id, None, &NO_ID, at)
            .expect("rotated")
            .primary(at),
        2
    );
}

#[test]
fn a_compromised_version_is_restored_as_compromised() {
    let (keyring, _) = keyring();
    let aes = create(&keyring, "aes", KeyType::Aes256Gcm);
    set(&keyring, &aes, 1, State::Compromised, NOW).expect("a step");
    keyring
        .schedule_destruction(&aes.id, 1, MIN_WINDOW_MS, &NO_ID, NOW)
        .expect("scheduled");
    let key = keyring.restore(&aes.id, 1, &NO_ID, NOW).expect("restored");
    assert_eq!(key.versions[0].state(NOW), State::Compromised);
}

#[test]
fn a_destruction_interrupted_anywhere_is_finished_by_the_next_sweep() {
    let (keyring, disk) = keyring();
    let aes = create(&keyring, "aes", KeyType::Aes256Gcm);
    keyring
        .schedule_destruction(&aes.id, 1, MIN_WINDOW_MS, &NO_ID, NOW)
        .expect("scheduled");
    let at = NOW + MIN_WINDOW_MS;
    // The event cannot be recorded: as a crash between the shredding and the event.
    let refused = keyring.destroy_due(&aes.id, 1, at, || Err(KmsError::Unrecorded("full".to_owned())));
    assert!(matches!(refused, Err(KmsError::Unrecorded(_))));
    let keyring = disk.start();
    let key = keyring.get(&aes.id).expect("there");
    assert_eq!(key.versions[0].state(at), State::DestroyScheduled);
    assert_eq!(
        refused_in(keyring.restore(&aes.id, 1, &NO_ID, at)),
        State::DestroyScheduled
    );
    assert_eq!(sweep(&keyring, at), ["destroy aes 1"]);
    assert_eq!(
        keyring.get(&aes.id).expect("there").versions[0].state(at),
        State::Destroyed
    );
}

#[test]
fn scheduled_rotation_happens_once_a_period_and_is_always_reported() {
    let (keyring, disk) = keyring();
    let aes = create(&keyring, "aes", KeyType::Aes256Gcm);
    let update = |period| KeyUpdate {
        rotation_period_ms: Some(period),
        ..KeyUpdate::default()
    };
    for period in [1, DAY_MS - 1, 40_000 * DAY_MS] {
        let refused = keyring.update(&aes.id, &update(Some(period)), &NO_ID, NOW);
        assert!(
            matches!(refused.map(drop), Err(KmsError::Field { .. })),
            "{period}"
        );
    }
    let key = keyring
        .update(&aes.id, &update(Some(DAY_MS)), &NO_ID, NOW)
        .expect("updated");
    assert_eq!(key.next_rotation_ms, Some(NOW + DAY_MS));
    assert!(sweep(&keyring, NOW + DAY_MS - 1).is_empty());
    // A crash between the rotation and its event.
    let at = NOW + 3 * DAY_MS;
    keyring
        .rotate_due(&aes.id, at, |_| Err(KmsError::Unrecorded("full".to_owned())))
        .expect_err("unrecorded");
    let keyring = disk.start();
    assert_eq!(keyring.get(&aes.id).expect("there").primary(at), 2);
    assert_eq!(
        sweep(&keyring, at),
        ["rotate aes 2"],
        "reported, not rotated again"
    );
    assert!(sweep(&keyring, at + DAY_MS - 1).is_empty());
    assert_eq!(sweep(&keyring, at + DAY_MS), ["rotate aes 3"]);
    // By hand: the schedule starts anew.
    let key = keyring
        .rotate(&aes.id, None, &NO_ID, at + DAY_MS + 7)
        .expect("rotated");
    assert_eq!(key.next_rotation_ms, Some(at + 2 * DAY_MS + 7));
    keyring
        .update(&aes.id, &update(None), &NO_ID, at)
        .expect("updated");
    assert!(sweep(&keyring, at + 99 * DAY_MS).is_empty());
}

#[test]
fn an_etag_names_one_state_of_a_key() {
    let (keyring, disk) = keyring();
    let aes = create(&keyring, "aes", KeyType::Aes256Gcm);
    let labelled = |etag: &str, team: &str| KeyUpdate {
        etag: etag.to_owned(),
        labels: Some(BTreeMap::from([("team".to_owned(), team.to_owned())])),
        ..KeyUpdate::default()
    };
    let update = labelled(&aes.etag, "blue");
    let id = RequestId {
        principal: "user/alice",
        id: "r1",
        etag: "",
    };
    let blue = keyring.update(&aes.id, &update, &id, NOW).expect("updated");
    assert_eq!(blue.labels["team"], "blue");
    assert_ne!(blue.etag, aes.etag);
    assert_eq!(disk.start().get(&aes.id).expect("there").etag, blue.etag);
    let again = keyring
        .update(&aes.id, &update, &id, NOW)
        .expect("the same request");
    assert_eq!(again.etag, blue.etag);
    assert!(matches!(
        keyring
            .update(&aes.id, &labelled(&aes.etag, "red"), &NO_ID, NOW)
            .map(drop),
        Err(KmsError::EtagMismatch(_))
    ));
    keyring
        .update(&aes.id, &labelled("", "red"), &NO_ID, NOW)
        .expect("none is asked for");
    let before = keyring.get(&aes.id).expect("there").etag.clone();
    let after = set(&keyring, &aes, 1, State::Suspended, NOW).expect("a step");
    assert_ne!(after.etag, before, "a version's state is part of it");
}

#[test]
fn versions_below_the_minimum_neither_decrypt_nor_verify() {
    let (keyring, _) = keyring();
    let mac = create(&keyring, "mac", KeyType::HmacSha256);
    let (tag, _) = keyring.mac(&mac, b"data", NOW).expect("mac");
    keyring.rotate(&mac.id, None, &NO_ID, NOW).expect("rotated");
    let minimum = |version| KeyUpdate {
        min_version: Some(version),
        ..KeyUpdate::default()
    };
    for version in [0, 3] {
        let refused = keyring.update(&mac.id, &minimum(version), &NO_ID, NOW);
        assert!(
            matches!(refused.map(drop), Err(KmsError::Field { .. })),
            "{version}"
        );
    }
    let key = keyring
        .update(&mac.id, &minimum(2), &NO_ID, NOW)
        .expect("updated");
    assert!(matches!(
        keyring.verify_mac(&key, b"data", &tag, 1, NOW),
        Err(KmsError::VersionTooOld {
            version: 1,
            minimum: 2,
            ..
        })
    ));
    assert_eq!(
        keyring.verify_mac(&key, b"data", &tag, 0, NOW).expect("asked"),
        None
    );
    let key = keyring
        .update(&mac.id, &minimum(1), &NO_ID, NOW)
        .expect("updated");
    assert_eq!(
        keyring.verify_mac(&key, b"data", &tag, 0, NOW).expect("asked"),
        Some(1)
    );
}

#[test]
fn a_ciphertext_is_brought_under_another_version_and_another_key() {
    let (keyring, _) = keyring();
    let one = create(&keyring, "one", KeyType::Aes256Gcm);
    let two = create(&keyring, "two", KeyType::Aes256Gcm);
    let (old, _) = keyring.encrypt(&one, b"text", b"aad", NOW).expect("encrypted");
    let one = keyring.rotate(&one.id, None, &NO_ID, NOW).expect("rotated");
    let same = keyring
        .re_encrypt((&one, &old, b"aad"), (&one, b"aad"), NOW)
        .expect("re-encrypted");
    assert_eq!((same.source_version, same.version), (1, 2));
    let (text, version) = keyring
        .decrypt(&one, &same.ciphertext, b"aad", NOW)
        .expect("decrypted");
    assert_eq!((text.expose(), version), (b"text".as_slice(), 2));
    let other = keyring
        .re_encrypt((&one, &old, b"aad"), (&two, b"new"), NOW)
        .expect("re-encrypted");
    let (text, _) = keyring
        .decrypt(&two, &other.ciphertext, b"new", NOW)
        .expect("decrypted");
    assert_eq!(text.expose(), b"text");
    assert!(matches!(
        keyring
            .re_encrypt((&one, &old, b"bad"), (&two, b"bad"), NOW)
            .map(drop),
        Err(KmsError::DecryptionFailed)
    ));
    let two = set(&keyring, &two, 1, State::Deactivated, NOW).expect("a step");
    assert_eq!(
        refused_in(keyring.re_encrypt((&one, &old, b"aad"), (&two, b""), NOW)),
        State::Deactivated
    );
}

#[test]
fn a_request_id_makes_a_change_once() {
    let (keyring, _) = keyring();
    let aes = create(&keyring, "aes", KeyType::Aes256Gcm);
    let by = |id| RequestId {
        principal: "user/alice",
        id,
        etag: "",
    };
    for _ in 0..2 {
        keyring
            .schedule_destruction(&aes.id, 1, MIN_WINDOW_MS, &by("d"), NOW)
            .expect("scheduled");
    }
    for _ in 0..2 {
        keyring.restore(&aes.id, 1, &by("u"), NOW).expect("restored");
    }
    for _ in 0..2 {
        keyring
            .set_state(&aes.id, 1, State::Suspended, &by("s"), NOW)
            .expect("suspended");
    }
    assert_eq!(
        refused_in(set(&keyring, &aes, 1, State::Suspended, NOW)),
        State::Suspended
    );
    assert!(matches!(
        keyring
            .set_state(&aes.id, 1, State::Active, &by("s"), NOW)
            .map(drop),
        Err(KmsError::RequestIdReused)
    ));
}

#[test]
fn a_store_of_format_1_is_read_and_upgraded() {
    let disk = Disk::default();
    let id: KeyId = "old".parse().expect("id");
    let root = SecretKey::from_bytes([9; 32]);
    let root_ref = KeyRef {
        key: "root".to_owned(),
        version: 1,
    };
    let context = record::wrap_context(&id, 1, KeyType::Aes256Gcm);
    let wrapped = envelope::seal(&root, &root_ref, &[7; 32], &context).expect("sealed");
    let version = record::VersionRecord {
        wrapped: wrapped.clone(),
        wrapping_key: None,
    };
    let key = r#"{"key_type":"aes256_gcm","owner":"user/alice","labels":{},"created_at_ms":[5]}"#;
    let batch = Batch::new()
        .put(record::key_record("old"), key.as_bytes())
        .put(record::version_record(&id, 1), record::encode(&version));
    disk.records.commit(batch).expect("written");
    let keyring = disk.start();
    let old = keyring.get(&id).expect("read");
    assert_eq!((old.primary(NOW), old.versions[0].state(NOW)), (1, State::Active));
    let (ciphertext, _) = keyring.encrypt(&old, b"text", b"", NOW).expect("encrypted");
    let sealed_under = SecretKey::from_bytes([7; 32]);
    assert_eq!(
        envelope::open(&sealed_under, &ciphertext, b"")
            .expect("that key")
            .expose(),
        b"text"
    );

    assert!(keyring.needs_upgrade().expect("looked"));
    let upgraded = Disk {
        records: Arc::default(),
        version_keys: disk.version_keys,
    };
    keyring.copy_into(&*upgraded.records).expect("copied");
    let keyring = upgraded.start();
    assert!(!keyring.needs_upgrade().expect("looked"));
    assert_eq!(keyring.sweep_orphans().expect("swept"), 0);
    let key = keyring.get(&id).expect("read");
    assert_eq!(
        keyring
            .decrypt(&key, &ciphertext, b"", NOW)
            .expect("decrypted")
            .0
            .expose(),
        b"text"
    );
    for (_, value) in upgraded.records.scan(&[], &[], 100).expect("read") {
        if let Ok(version) = record::decode::<record::VersionRecord>(&value) {
            assert!(envelope::open(&root, &version.wrapped, &context).is_err());
        }
    }
}
