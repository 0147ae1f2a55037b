//! A new root key while keys are used, made, rotated and destroyed.

use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use asterism_crypto::{Digest, envelope};
use asterism_store::Batch;
use zeroize::Zeroizing;

use super::*;
use crate::{
    keys::{
        record::{VERSION, VersionRecord, decode, version_record},
        version_keys::{Fresh, IsNamed},
    },
    root::Roots,
};

mod life;

fn root(version: u32) -> SecretKey {
    SecretKey::from_bytes([version as u8 + 8; 32])
}

fn begin(roots: &Roots) -> Roots {
    let version = roots.newest_version() + 1;
    roots.clone().with(version, root(version))
}

fn rewrap(keyring: &Keyring) -> Rewrapped {
    keyring.rewrap(&AtomicU64::new(0), &|| false).expect("wrapped")
}

/// To the end, as a service does it; gives how many versions that were.
fn rotate_root(keyring: &Keyring) -> u64 {
    keyring.adopt(begin(&keyring.roots()));
    let done = AtomicU64::new(0);
    match keyring.rewrap(&done, &|| false).expect("wrapped") {
        Rewrapped::All(all) => keyring.adopt(all.roots),
        _ => panic!("something was left"),
    }
    done.into_inner()
}

impl Disk {
    fn start_with(&self, roots: impl Into<Roots>) -> Keyring {
        let keyring = Keyring::new(
            self.records.clone(),
            self.version_keys.clone(),
            roots,
            MIN_WINDOW_MS,
        );
        keyring.settle_pending().expect("settled");
        keyring
    }

    fn versions(&self) -> Vec<(Vec<u8>, VersionRecord)> {
        let page = self.records.scan(&[VERSION], &[VERSION], 10_000).expect("read");
        page.into_iter()
            .map(|(at, stored)| (at, decode(&stored).expect("a record")))
            .collect()
    }
}

/// One of each type, three versions each; with something that only the right material answers.
fn filled(keyring: &Keyring) -> Vec<Arc<Key>> {
    let keys = KeyType::all().into_iter().enumerate().map(|(at, key_type)| {
        let id = format!("key{at}");
        create(keyring, &id, key_type);
        let id: KeyId = id.parse().expect("id");
        keyring.rotate(&id, None, &NO_ID, 2).expect("rotated");
        keyring.rotate(&id, None, &NO_ID, 3).expect("rotated")
    });
    keys.collect()
}

/// The material of every version, by name.
fn materials(keyring: &Keyring, keys: &[Arc<Key>]) -> Vec<Vec<u8>> {
    let of = |key: &Key| {
        let key = keyring.get(&key.id).expect("there");
        (1..=key.versions.len() as u32)
            .map(|version| {
                let bytes = keyring.raw_material(&key, version).expect("unwrapped");
                bytes.expose().to_vec()
            })
            .collect::<Vec<_>>()
    };
    keys.iter().flat_map(|key| of(key)).collect()
}

#[test]
fn everything_opens_under_the_new_root_and_nothing_under_the_old_one() {
    let disk = Disk::default();
    let keyring = disk.start_with(root(1));
    let keys = filled(&keyring);
    let before = materials(&keyring, &keys);
    let old = disk.versions();
    let old_halves = disk.version_keys.0.lock().expect("lock").clone();
    let (ciphertext, _) = keyring.encrypt(&keys[0], b"text", b"", NOW).expect("encrypted");

    assert_eq!(rotate_root(&keyring), 3 * keys.len() as u64);
    assert_eq!(keyring.roots().versions().collect::<Vec<_>>(), [2]);
    assert_eq!(materials(&keyring, &keys), before);
    let restarted = disk.start_with(Roots::single(2, root(2)));
    assert_eq!(materials(&restarted, &keys), before);
    let decrypted = restarted.decrypt(&restarted.get(&keys[0].id).expect("there"), &ciphertext, b"", NOW);
    assert_eq!(decrypted.expect("decrypted").0.expose(), b"text");

    // Nobody's wrapping key is left, and no half serves twice.
    let halves = disk.version_keys.0.lock().expect("lock").clone();
    assert_eq!(halves.len(), old.len());
    assert!(halves.keys().all(|name| !old_halves.contains_key(name)));
    assert!(
        halves
            .values()
            .all(|half| !old_halves.values().any(|old| old == half))
    );
    // A thief with the old root, a copy of the new store, and the old records that lie in its segments.
    let thief = disk.start_with(Roots::single(1, root(1)));
    let both = disk.start_with(Roots::single(1, root(1)).with(2, root(2)));
    for ((at, old), (_, new)) in old.iter().zip(disk.versions()) {
        let (id, version) = crate::keys::record::version_at(at).expect("a name");
        let key_type = keyring.get(&id).expect("there").key_type;
        assert!(thief.unwrap(&id, version, key_type, &new).is_err());
        assert!(matches!(both.unwrap(&id, version, key_type, old), Ok(None)));
        // Not even with every half that there is.
        for (name, half) in &halves {
            let wrapping = crate::keys::version_keys::wrapping_key(&root(1), half, name);
            let context = crate::keys::record::wrap_context(&id, version, key_type);
            for wrapped in [&old.wrapped, &new.wrapped] {
                assert!(envelope::open(&wrapping, wrapped, &context).is_err());
            }
        }
    }
}

#[test]
fn a_key_that_is_made_meanwhile_comes_under_the_new_root() {
    let disk = Disk::default();
    let keyring = disk.start_with(root(1));
    filled(&keyring);
    keyring.adopt(begin(&keyring.roots()));
    let roots = keyring.roots();
    let done = AtomicU64::new(0);
    let next = keyring
        .rewrap_page(&roots, (&[VERSION], 5), &done)
        .expect("wrapped");
    let made = create(&keyring, "a-first-one", KeyType::Aes256Gcm);
    keyring.rotate(&made.id, None, &NO_ID, 2).expect("rotated");
    for version in [1, 2] {
        let stored = disk
            .records
            .get(&version_record(&made.id, version))
            .expect("read");
        let record: VersionRecord = decode(&stored.expect("there")).expect("a record");
        let header = envelope::parse_header(&record.wrapped).expect("an envelope");
        assert_eq!(header.key_ref.version, 2);
    }
    assert!(next.is_some());
    assert!(matches!(rewrap(&keyring), Rewrapped::All(_)));
}

#[test]
fn what_is_told_to_stop_goes_on_where_it_was_after_a_restart() {
    let disk = Disk::default();
    let keyring = disk.start_with(root(1));
    let keys = filled(&keyring);
    let before = materials(&keyring, &keys);
    keyring.adopt(begin(&keyring.roots()));
    let done = AtomicU64::new(0);
    assert!(matches!(keyring.rewrap(&done, &|| true), Ok(Rewrapped::Stopped)));
    assert_eq!(done.into_inner(), 0);
    let roots = keyring.roots();
    let done = AtomicU64::new(0);
    keyring
        .rewrap_page(&roots, (&[VERSION], 5), &done)
        .expect("wrapped");
    drop(keyring);
    let keyring = disk.start_with(roots);
    assert_eq!(materials(&keyring, &keys), before);
    assert!(matches!(rewrap(&keyring), Rewrapped::All(_)));
    assert_eq!(materials(&keyring, &keys), before);
    // Again finds nothing to do.
    let done = AtomicU64::new(0);
    assert!(matches!(keyring.rewrap(&done, &|| false), Ok(Rewrapped::All(_))));
    assert_eq!(done.into_inner(), 0);
}

#[test]
fn a_wrapping_key_that_no_record_names_any_more_goes_with_the_last_look() {
    let disk = Disk::default();
    let keyring = disk.start_with(root(1));
    filled(&keyring);
    // A crash after the records were written, before the old wrapping keys were shredded.
    let old = disk.version_keys.0.lock().expect("lock").clone();
    rotate_root(&keyring);
    disk.version_keys.0.lock().expect("lock").extend(old.clone());
    let keyring = disk.start_with(Roots::single(1, root(1)).with(2, root(2)));
    assert!(matches!(rewrap(&keyring), Rewrapped::All(_)));
    let left = disk.version_keys.0.lock().expect("lock").clone();
    assert_eq!(left.len(), old.len());
    assert!(left.keys().all(|name| !old.contains_key(name)));
}

/// The last look must not take a version whose destruction was interrupted for a loss, nor a loss for that.
#[test]
fn what_cannot_be_unwrapped_keeps_the_old_root_unless_it_is_being_destroyed() {
    let disk = Disk::default();
    let keyring = disk.start_with(root(1));
    let keys = filled(&keyring);
    let shred = |id: &KeyId, version| {
        let stored = disk
            .records
            .get(&version_record(id, version))
            .expect("read")
            .expect("there");
        let record: VersionRecord = decode(&stored).expect("a record");
        let name = record.wrapping_key.expect("a name");
        let half = disk
            .version_keys
            .0
            .lock()
            .expect("lock")
            .remove(&name)
            .expect("there");
        (name, half)
    };
    let (doomed, lost) = (&keys[0].id, &keys[1].id);
    keyring
        .schedule_destruction(doomed, 1, MIN_WINDOW_MS, &NO_ID, NOW)
        .expect("scheduled");
    shred(doomed, 1);
    let (name, half) = shred(lost, 2);
    keyring.adopt(begin(&keyring.roots()));
    assert!(matches!(rewrap(&keyring), Rewrapped::Damaged(1)));
    assert!(matches!(rewrap(&keyring), Rewrapped::Damaged(1)), "again");
    // It comes back from a backup.
    disk.version_keys.0.lock().expect("lock").insert(name, half);
    assert!(matches!(rewrap(&keyring), Rewrapped::All(_)));
    let key = keyring.get(lost).expect("there");
    assert!(keyring.raw_material(&key, 2).is_ok());
    let destroyed = keyring.destroy_due(doomed, 1, NOW + MIN_WINDOW_MS, || Ok(()));
    assert!(destroyed.expect("destroyed"));
}

#[test]
fn a_version_whose_destruction_is_scheduled_can_be_restored_after_a_rotation_of_the_root() {
    let disk = Disk::default();
    let keyring = disk.start_with(root(1));
    let aes = create(&keyring, "aes", KeyType::Aes256Gcm);
    let (ciphertext, _) = keyring.encrypt(&aes, b"text", b"", NOW).expect("encrypted");
    keyring
        .schedule_destruction(&aes.id, 1, MIN_WINDOW_MS, &NO_ID, NOW)
        .expect("scheduled");
    assert_eq!(rotate_root(&keyring), 1);
    let aes = keyring.restore(&aes.id, 1, &NO_ID, NOW + 1).expect("restored");
    let keyring = disk.start_with(keyring.roots());
    let decrypted = keyring.decrypt(&aes, &ciphertext, b"", NOW + 2);
    assert_eq!(decrypted.expect("decrypted").0.expose(), b"text");
}

/// Tells others that it is over when it goes.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Does something just before a half is read.
struct Before {
    keys: Arc<MemoryVersionKeys>,
    hook: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl VersionKeys for Before {
    fn get(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, KmsError> {
        let hook = self.hook.lock().expect("lock").take();
        if let Some(hook) = hook {
            hook();
        }
        self.keys.get(name)
    }

    fn put(&self, name: &str, of: (&KeyId, u32), bytes: &[u8; 32]) -> Result<(), KmsError> {
        self.keys.put(name, of, bytes)
    }

    fn put_all(&self, fresh: &[Fresh<'_>]) -> Result<(), KmsError> {
        self.keys.put_all(fresh)
    }

    fn keep(&self, name: &str) -> Result<(), KmsError> {
        self.keys.keep(name)
    }

    fn settle(&self, is_named: IsNamed<'_>) -> Result<usize, KmsError> {
        self.keys.settle(is_named)
    }

    fn shred(&self, name: &str) -> Result<(), KmsError> {
        self.keys.shred(name)
    }

    fn shred_all(&self, names: &[String]) -> Result<(), KmsError> {
        self.keys.shred_all(names)
    }

    fn kept(&self) -> Result<Vec<String>, KmsError> {
        self.keys.kept()
    }

    fn sweep(&self, kept: &HashSet<String>) -> Result<usize, KmsError> {
        self.keys.sweep(kept)
    }
}

#[test]
fn whoever_read_a_record_just_before_it_was_wrapped_anew_reads_it_again() {
    let disk = Disk::default();
    let keys = Arc::new(Before {
        keys: disk.version_keys.clone(),
        hook: Mutex::default(),
    });
    let keyring = Keyring::new(disk.records.clone(), keys.clone(), root(1), MIN_WINDOW_MS);
    let keyring = Arc::new(keyring);
    let aes = create(&keyring, "aes", KeyType::Aes256Gcm);
    let before = keyring.raw_material(&aes, 1).expect("unwrapped");
    for _ in 0..2 {
        let rotating = keyring.clone();
        let hook = move || {
            rotate_root(&rotating);
        };
        *keys.hook.lock().expect("lock") = Some(Box::new(hook));
        let after = keyring.raw_material(&aes, 1).expect("unwrapped");
        assert_eq!(after.expose(), before.expose());
    }
    assert_eq!(keyring.roots().newest_version(), 3);
}

#[test]
fn keys_are_used_and_made_by_many_while_the_root_is_rotated_again_and_again() {
    let dir = tempfile::tempdir().expect("directory");
    let files = || Arc::new(FileVersionKeys::open(dir.path()).expect("opened"));
    let records = Arc::new(MemoryRecords::new());
    let keyring = Keyring::new(records.clone(), files(), root(1), MIN_WINDOW_MS);
    let aes = create(&keyring, "aes", KeyType::Aes256Gcm);
    let (ciphertext, _) = keyring.encrypt(&aes, b"text", b"", NOW).expect("encrypted");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (keyring, over, ciphertext) = (&keyring, &over, &ciphertext);
            scope.spawn(move || {
                let mut made = 0;
                while !over.load(Ordering::Acquire) || made < 10 {
                    made += 1;
                    create(keyring, &format!("key-{worker}-{made}"), KeyType::Aes256Gcm);
                    let id: KeyId = "aes".parse().expect("id");
                    let key = keyring.get(&id).expect("there");
                    if key.versions.len() < 100 {
                        // Also empties the cache, so that material is unwrapped anew.
                        keyring.rotate(&id, None, &NO_ID, 2).expect("rotated");
                    }
                    let key = keyring.get(&id).expect("there");
                    let decrypted = keyring.decrypt(&key, ciphertext, b"", NOW);
                    assert_eq!(decrypted.expect("decrypted").0.expose(), b"text");
                }
            });
        }
        // Also when this fails: the others would go on for ever.
        let _over = Over(&over);
        for _ in 0..10 {
            rotate_root(&keyring);
        }
    });
    assert_eq!(keyring.roots().versions().collect::<Vec<_>>(), [11]);
    let restarted = Keyring::new(
        records.clone(),
        files(),
        Roots::single(11, root(11)),
        MIN_WINDOW_MS,
    );
    assert_eq!(restarted.settle_pending().expect("settled"), 0);
    let mut count = 0;
    restarted
        .each(&[VERSION], |at, _| {
            let (id, version) = crate::keys::record::version_at(at)?;
            restarted.raw_material(&*restarted.get(&id)?, version)?;
            count += 1;
            Ok(())
        })
        .expect("everything is there");
    assert_eq!(restarted.version_keys.kept().expect("listed").len(), count);
}

/// What a crash between two steps of a page leaves, in files.
#[test]
fn a_crash_between_the_steps_of_a_page_loses_nothing_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("directory");
    let start = |dir: &std::path::Path, records: &Arc<MemoryRecords>, roots: Roots| {
        let files = Arc::new(FileVersionKeys::open(dir).expect("opened"));
        Keyring::new(records.clone(), files, roots, MIN_WINDOW_MS)
    };
    let records = Arc::new(MemoryRecords::new());
    let keyring = start(dir.path(), &records, Roots::single(1, root(1)));
    let keys = filled(&keyring);
    let before = materials(&keyring, &keys);
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        for entry in std::fs::read_dir(from).expect("directory") {
            let path = entry.expect("entry").path();
            if path.is_file() {
                std::fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
            }
        }
    };
    let snapshot = |records: &MemoryRecords| {
        let mut batch = Batch::new();
        let mut see = |at: &[u8], value: &[u8]| {
            batch = std::mem::take(&mut batch).put(at, value);
            Ok(())
        };
        records.snapshot(&mut see).expect("read");
        let copy = Arc::new(MemoryRecords::new());
        copy.commit(batch).expect("written");
        copy
    };
    let old_files = tempfile::tempdir().expect("directory");
    copy(dir.path(), old_files.path());
    let old_records = snapshot(&records);
    keyring.adopt(begin(&keyring.roots()));
    let roots = keyring.roots();
    assert!(matches!(rewrap(&keyring), Rewrapped::All(_)));
    let count = before.len();
    // Where the new halves are, whether the records are written, and whether the old halves are there.
    for (pending, written, old_left) in [
        (true, false, true),
        (true, true, true),
        (false, true, true),
        (false, true, false),
    ] {
        let crashed = tempfile::tempdir().expect("directory");
        std::fs::create_dir(crashed.path().join("pending")).expect("made");
        let place = if pending {
            crashed.path().join("pending")
        } else {
            crashed.path().to_owned()
        };
        copy(dir.path(), &place);
        if old_left {
            copy(old_files.path(), crashed.path());
        }
        let records = snapshot(if written { &records } else { &old_records });
        let keyring = start(crashed.path(), &records, roots.clone());
        let shredded = keyring.settle_pending().expect("settled");
        assert_eq!(shredded, if written { 0 } else { count });
        assert_eq!(materials(&keyring, &keys), before);
        assert!(matches!(rewrap(&keyring), Rewrapped::All(_)));
        assert_eq!(materials(&keyring, &keys), before);
        assert_eq!(keyring.version_keys.kept().expect("listed").len(), count);
    }
}

#[test]
fn signatures_and_tags_verify_after_a_rotation_of_the_root() {
    let disk = Disk::default();
    let keyring = disk.start_with(root(1));
    let sign = create(&keyring, "sign", KeyType::EcSignP256Sha256);
    let mac = create(&keyring, "mac", KeyType::HmacSha256);
    let digest = Digest::of(b"message");
    let (signature, _) = keyring.sign(&sign, &digest, NOW).expect("signed");
    let (tag, _) = keyring.mac(&mac, b"data", NOW).expect("mac");
    rotate_root(&keyring);
    let keyring = disk.start_with(keyring.roots());
    let get = |id: &KeyId| keyring.get(id).expect("there");
    let verified = keyring.verify(&get(&sign.id), &digest, &signature, 0, NOW);
    assert_eq!(verified.expect("checked"), Some(1));
    let verified = keyring.verify_mac(&get(&mac.id), b"data", &tag, 0, NOW);
    assert_eq!(verified.expect("checked"), Some(1));
}
