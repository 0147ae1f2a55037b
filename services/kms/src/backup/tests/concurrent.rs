//! Backups while keys are made, rotated and destroyed.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const BACKUPS: usize = 20;

/// Makes, rotates and destroys until told to stop; gives how often.
fn hammer(kms: &Kms, thread: usize, stop: &AtomicBool) -> usize {
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let name = format!("key-{thread}-{rounds}");
        kms.create(&name);
        for _ in 0..2 {
            kms.keyring.rotate(&id(&name), None, &NO_ID, NOW).expect("rotated");
        }
        kms.destroy(&name, 1);
        kms.schedule(&name, 2);
        rounds += 1;
    }
    rounds
}

#[test]
fn every_backup_is_whole_whatever_happens_meanwhile() {
    let dir = tempfile::tempdir().expect("directory");
    let records = SledRecords::open(&dir.path().join("records"), SledOptions::default()).expect("opened");
    let keyring = keyring(dir.path(), Arc::new(records));
    let kms = Kms { dir, keyring };
    kms.create("old");
    let ciphertext = kms.encrypt("old", b"text");
    let stop = AtomicBool::new(false);
    let key = DecryptionKey::generate().expect("key");
    let scalar = key.to_secret_bytes();
    let recipient_of_all = Recipient::new(key.encryption_key(), None);
    let (backups, rounds) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| scope.spawn({
                let (kms, stop) = (&kms, &stop);
                move || hammer(kms, thread, stop)
            }))
            .collect();
        let backups: Vec<_> = (0..BACKUPS).map(|_| kms.backup(&recipient_of_all)).collect();
        stop.store(true, Ordering::Relaxed);
        let rounds: usize = threads.into_iter().map(|thread| thread.join().expect("thread")).sum();
        (backups, rounds)
    });
    assert!(rounds >= BACKUPS, "nothing happened meanwhile: {rounds}");
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

/// How long writes wait for a backup: `cargo test -p asterism-kms -- --ignored --nocapture pause` prints it.
#[test]
#[ignore = "a measurement: it takes minutes, and prints a figure"]
#[allow(clippy::print_stdout, reason = "the figure is the point")]
fn pause_of_writes_with_a_hundred_thousand_keys() {
    let dir = tempfile::tempdir().expect("directory");
    let records: Arc<dyn Records> =
        Arc::new(SledRecords::open(&dir.path().join("records"), SledOptions::default()).expect("opened"));
    let mut batch = Batch::new();
    for index in 0..100_000_u32 {
        for kind in [b'k', b's', b'v'] {
            batch = batch.put([&[kind], format!("key-{index:08}").as_bytes()].concat(), vec![index as u8; 250]);
        }
        if index % 500 == 499 {
            records.commit(std::mem::take(&mut batch)).expect("put");
        }
    }
    let begun = std::time::Instant::now();
    let mut spool = std::io::BufWriter::new(tempfile::tempfile_in(dir.path()).expect("file"));
    let mut count = 0;
    records
        .snapshot(&mut |name, value| {
            count += 1;
            std::io::Write::write_all(&mut spool, name)?;
            Ok(std::io::Write::write_all(&mut spool, value)?)
        })
        .expect("snapshot");
    println!("{count} records, writes waited {:?}", begun.elapsed());
    assert_eq!(count, 300_000);
}
