//! Backups while keys are made, rotated and destroyed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

const BACKUPS: usize = 20;

/// Makes, rotates and destroys until told to stop, and counts that.
fn hammer(kms: &Kms, thread: usize, stop: &AtomicBool, rounds: &AtomicUsize) {
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("key-{thread}-{round}");
        kms.create(&name);
        for _ in 0..2 {
            kms.keyring
                .rotate(&id(&name), None, &NO_ID, NOW)
                .expect("rotated");
        }
        kms.destroy(&name, 1);
        kms.schedule(&name, 2);
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}

/// Also when a test fails: who waits for the others would wait for ever.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn every_backup_is_whole_whatever_happens_meanwhile() {
    let dir = tempfile::tempdir().expect("directory");
    let records = SledRecords::open(&dir.path().join("records"), SledOptions::default()).expect("opened");
    let keyring = keyring(dir.path(), Arc::new(records));
    let kms = Kms { dir, keyring };
    kms.create("old");
    let ciphertext = kms.encrypt("old", b"text");
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let key = DecryptionKey::generate().expect("key");
    let scalar = key.to_secret_bytes();
    let recipient_of_all = Recipient::new(key.encryption_key(), None);
    let backups = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                scope.spawn({
                    let (kms, stop, rounds) = (&kms, &stop, &rounds);
                    move || hammer(kms, thread, stop, rounds)
                })
            })
            .collect();
        let stops = Stop(&stop);
        let backups: Vec<_> = (0..BACKUPS)
            .map(|backup| {
                // Each finds more than the one before it, however busy the machine is.
                while rounds.load(Ordering::Relaxed) < backup
                    && !threads.iter().any(std::thread::ScopedJoinHandle::is_finished)
                {
                    std::thread::yield_now();
                }
                kms.backup(&recipient_of_all)
            })
            .collect();
        drop(stops);
        for thread in threads {
            thread.join().expect("thread");
        }
        backups
    });
    let (mut versions, mut gone) = (0, 0);
    for backup in backups {
        let opener = Opener::PrivateKey(DecryptionKey::from_bytes(scalar.expose()).expect("key"));
        let place = Place::new(opener);
        place.restore(&backup).expect("restored");
        let restored = place.start();
        for key in restored.list(None, usize::MAX).expect("list") {
            for version in &key.versions {
                match version.state(NOW) {
                    State::Destroyed => {
                        gone += 1;
                        assert!(restored.raw_material(&key, version.number).is_err());
                    }
                    // Its wrapping key may be gone already.
                    State::DestroyScheduled => {}
                    _ => {
                        versions += 1;
                        restored.material(&key, version.number).expect("material");
                    }
                }
            }
            // No half of a change is there that would stand in the way of the next.
            restored.rotate(&key.id, None, &NO_ID, NOW).expect("rotated");
        }
        let old = restored.get(&id("old")).expect("there");
        let opened = restored.decrypt(&old, &ciphertext, b"", NOW).expect("decrypted");
        assert_eq!(opened.0.expose(), b"text");
    }
    assert!(versions > BACKUPS && gone > 0, "{versions} {gone}");
}
