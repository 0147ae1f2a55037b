//! Rotation, encryption and destruction at once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

/// Rotations, each followed by the destruction of the version before the one that it replaced.
const ROUNDS: u32 = 60;

#[test]
fn what_is_encrypted_while_keys_rotate_and_go_decrypts_or_says_why_not() {
    let (keyring, disk) = keyring();
    let id = create(&keyring, "key", KeyType::Aes256Gcm).id.clone();
    let (now, done) = (AtomicU64::new(NOW), AtomicBool::new(false));
    let made = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut made = Vec::new();
                    while !done.load(Ordering::Acquire) {
                        let key = keyring.get(&id).expect("there");
                        let at = now.load(Ordering::Acquire);
                        match keyring.encrypt(&key, b"text", b"", at) {
                            Ok((ciphertext, version)) => made.push((version, ciphertext)),
                            // It was replaced and destroyed since the key was read.
                            Err(KmsError::VersionState { version, .. }) => {
                                let primary = keyring.get(&id).expect("there").primary(u64::MAX);
                                assert!(version < primary, "the primary version was refused");
                            }
                            Err(error) => panic!("{error}"),
                        }
                    }
                    made
                })
            })
            .collect();
        for round in 1..=ROUNDS {
            let at = now.fetch_add(MIN_WINDOW_MS, Ordering::AcqRel) + MIN_WINDOW_MS;
            keyring.rotate(&id, None, &NO_ID, at).expect("rotated");
            if round % 2 == 0 {
                keyring
                    .schedule_destruction(&id, round - 1, MIN_WINDOW_MS, &NO_ID, at)
                    .expect("scheduled");
            }
            for due in keyring.due(at).expect("looked") {
                let Due::Destroy { key, version } = due else {
                    panic!("no rotation is scheduled")
                };
                assert!(
                    keyring
                        .destroy_due(&key, version, at, || Ok(()))
                        .expect("destroyed")
                );
            }
        }
        done.store(true, Ordering::Release);
        writers
            .into_iter()
            .flat_map(|writer| writer.join().expect("joined"))
            .collect::<Vec<_>>()
    });
    assert!(!made.is_empty());
    let now = now.load(Ordering::Acquire);
    for keyring in [&keyring, &disk.start()] {
        let key = keyring.get(&id).expect("there");
        assert_eq!(key.primary(now), ROUNDS + 1);
        for (version, ciphertext) in &made {
            let decrypted = keyring.decrypt(&key, ciphertext, b"", now);
            let gone = version % 2 == 1 && *version < ROUNDS;
            assert_eq!(decrypted.is_err(), gone, "version {version}");
        }
    }
}

#[test]
fn the_same_key_made_at_once_is_made_once_and_leaves_no_orphan() {
    let (keyring, disk) = keyring();
    let made = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let new = NewKey {
                        id: Some("key".parse().expect("id")),
                        key_type: KeyType::Aes256Gcm,
                        labels: BTreeMap::new(),
                        active_from_ms: None,
                        exportable: false,
                        required_approvals: 0,
                    };
                    keyring.create(new, &NO_ID, NOW).is_ok()
                })
            })
            .collect();
        let made = makers.into_iter().filter_map(|maker| maker.join().ok());
        made.filter(|made| *made).count()
    });
    assert_eq!(made, 1);
    assert_eq!(disk.version_keys.0.lock().expect("lock").len(), 1);
    let keyring = disk.start();
    assert_eq!(keyring.sweep_orphans().expect("swept"), 0);
    let key = keyring.get(&"key".parse().expect("id")).expect("there");
    keyring
        .encrypt(&key, b"", b"", NOW)
        .expect("the one that was made works");
}
