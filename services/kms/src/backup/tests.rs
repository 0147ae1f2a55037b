use std::{fs, path::Path, sync::Arc};

use asterism_crypto::{Argon2Params, DecryptionKey, Digest, SecretKey, SigningKey, signed::signing_input};
use asterism_store::{Batch, MemoryRecords, Records, SledOptions, SledRecords};
use tempfile::TempDir;

use super::{
    capture::{DOMAIN, SIGNER},
    format::{Statement, Trailer},
    *,
};
use crate::{
    VERSION_KEYS_DIR,
    keys::{FileVersionKeys, KeyId, KeyType, Keyring, NewKey, RequestId, State},
};

mod concurrent;
mod damage;

const NOW: u64 = 1_000_000;
const WINDOW_MS: u64 = 1_000;
const ROOT: [u8; 32] = [9; 32];
const NO_ID: RequestId<'static> = RequestId {
    principal: "user/alice",
    id: "",
    etag: "",
};

/// A keyring over its directory.
struct Kms {
    dir: TempDir,
    keyring: Keyring,
}

fn keyring(dir: &Path, records: Arc<dyn Records>) -> Keyring {
    let version_keys = Arc::new(FileVersionKeys::open(&dir.join(VERSION_KEYS_DIR)).expect("opened"));
    Keyring::new(records, version_keys, SecretKey::from_bytes(ROOT), WINDOW_MS)
}

fn kms() -> Kms {
    let dir = tempfile::tempdir().expect("directory");
    let keyring = keyring(dir.path(), Arc::new(MemoryRecords::new()));
    Kms { dir, keyring }
}

fn id(text: &str) -> KeyId {
    text.parse().expect("id")
}

impl Kms {
    fn create(&self, name: &str) {
        let new = NewKey {
            id: Some(id(name)),
            key_type: KeyType::Aes256Gcm,
            labels: [].into(),
            active_from_ms: None,
            exportable: false,
            required_approvals: 0,
        };
        self.keyring.create(new, &NO_ID, NOW).expect("created");
    }

    fn encrypt(&self, name: &str, text: &[u8]) -> Vec<u8> {
        let key = self.keyring.get(&id(name)).expect("key");
        self.keyring.encrypt(&key, text, b"", NOW).expect("encrypted").0
    }

    fn backup(&self, recipient: &Recipient) -> Vec<u8> {
        let key = ensure_signer(&self.keyring, NOW, || Ok(())).expect("signer");
        let mut captured = capture(&self.keyring, self.dir.path(), NOW).expect("captured");
        let signer = Signer::new(&self.keyring, &key, NOW).expect("signer");
        let mut bytes = Vec::new();
        let (sha256, size) = write(&mut captured, recipient, &signer, &mut |part| {
            assert!(part.len() <= 1 << 20, "a part is too large for a message");
            bytes.extend_from_slice(part);
            Ok(())
        })
        .expect("written");
        assert_eq!((sha256, size), (Digest::of(&bytes), bytes.len() as u64));
        bytes
    }

    fn destroy(&self, name: &str, version: u32) {
        self.schedule(name, version);
        let done = self
            .keyring
            .destroy_due(&id(name), version, NOW + WINDOW_MS, || Ok(()));
        assert!(done.expect("destroyed"));
    }

    fn schedule(&self, name: &str, version: u32) {
        self.keyring
            .schedule_destruction(&id(name), version, WINDOW_MS, &NO_ID, NOW)
            .expect("scheduled");
    }
}

/// Where a backup lies, and where it is restored.
struct Place {
    dir: TempDir,
    opener: Opener,
}

impl Place {
    fn new(opener: Opener) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        Self { dir, opener }
    }

    fn restore(&self, bytes: &[u8]) -> Result<Verified, BackupError> {
        self.restore_signed_by(bytes, None)
    }

    fn restore_signed_by(&self, bytes: &[u8], signer: Option<Digest>) -> Result<Verified, BackupError> {
        let backup = self.dir.path().join("backup");
        fs::write(&backup, bytes).expect("written");
        let order = Order {
            backup: &backup,
            opener: &self.opener,
            signer,
            data_dir: &self.dir.path().join("kms"),
            now_ms: NOW,
        };
        restore(&order, &mut |_| {})
    }

    fn refused(&self, bytes: &[u8]) -> BackupError {
        let refusal = self.restore(bytes).expect_err("not refused");
        let left: Vec<_> = fs::read_dir(self.dir.path()).expect("read").collect();
        assert_eq!(left.len(), 1, "only the backup: {left:?}");
        refusal
    }

    fn start(&self) -> Keyring {
        let dir = self.dir.path().join("kms");
        let records = SledRecords::open(&dir.join("records"), SledOptions::default()).expect("opened");
        keyring(&dir, Arc::new(records))
    }
}

fn key_pair() -> (Recipient, Opener) {
    let key = DecryptionKey::generate().expect("key");
    (
        Recipient::new(key.encryption_key(), None),
        Opener::PrivateKey(key),
    )
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn what_was_is_there_again_and_what_came_later_is_not() {
    let kms = kms();
    fs::write(kms.dir.path().join("root.key"), ROOT).expect("written");
    fs::write(kms.dir.path().join("root.json"), "{\"salt\":1}").expect("written");
    fs::set_permissions(
        kms.dir.path().join("root.json"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .expect("private");
    kms.create("one");
    let first = kms.encrypt("one", b"first");
    kms.keyring
        .rotate(&id("one"), None, &NO_ID, NOW)
        .expect("rotated");
    let second = kms.encrypt("one", b"second");
    kms.create("mortal");
    kms.destroy("mortal", 1);
    // A record of which this module knows nothing.
    kms.keyring
        .records
        .commit(Batch::new().put(*b"z-other", *b"\0\xff"))
        .expect("put");
    let (recipient, opener) = key_pair();
    let backup = kms.backup(&recipient);
    kms.create("later");
    kms.keyring
        .rotate(&id("one"), None, &NO_ID, NOW)
        .expect("rotated");
    let third = kms.encrypt("one", b"third");

    let place = Place::new(opener);
    let verified = place.restore(&backup).expect("restored");
    assert_eq!(verified.header.contents.files, 1);
    assert_eq!(
        verified.header.contents.wrapping_keys, 3,
        "two of `one`, and the signer's"
    );
    let restored = place.start();
    let one = restored.get(&id("one")).expect("there");
    assert_eq!(one.versions.len(), 2);
    for (ciphertext, text) in [(&first, b"first".as_slice()), (&second, b"second")] {
        let opened = restored.decrypt(&one, ciphertext, b"", NOW).expect("decrypted");
        assert_eq!(opened.0.expose(), text);
    }
    assert!(restored.decrypt(&one, &third, b"", NOW).is_err());
    assert!(restored.get(&id("later")).is_err());
    let mortal = restored.get(&id("mortal")).expect("there");
    assert_eq!(mortal.version(1).expect("version").state(NOW), State::Destroyed);
    assert_eq!(
        restored.records.get(b"z-other").expect("read").expect("there"),
        b"\0\xff"
    );
    let dir = place.dir.path().join("kms");
    assert_eq!(fs::read(dir.join("root.json")).expect("read"), b"{\"salt\":1}");
    assert!(!dir.join("root.key").exists(), "the root key was in the backup");
    // Changes go on where they were.
    let rotated = restored.rotate(&id("one"), None, &NO_ID, NOW).expect("rotated");
    assert_eq!(rotated.versions.len(), 3);
}

#[test]
fn no_secret_can_be_read_from_a_backup() {
    let kms = kms();
    fs::write(kms.dir.path().join("root.key"), ROOT).expect("written");
    kms.create("one");
    let passphrase = b"correct horse battery";
    let backup = kms.backup(&Recipient::by_passphrase(passphrase).expect("recipient"));
    assert!(!holds(&backup, passphrase) && !holds(&backup, &ROOT));
    let key = kms.keyring.get(&id("one")).expect("key");
    let material = kms.keyring.raw_material(&key, 1).expect("material");
    assert!(!holds(&backup, material.expose()));
    let mut wrapping_keys = 0;
    for entry in fs::read_dir(kms.dir.path().join(VERSION_KEYS_DIR)).expect("read") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            continue;
        }
        let half = fs::read(path).expect("read");
        assert!(!holds(&backup, &half[..32]));
        wrapping_keys += 1;
    }
    assert_eq!(wrapping_keys, 2);
    assert!(!holds(&backup, b"user/alice"), "records are encrypted too");
    assert!(holds(&backup, b"store_format"), "the header is not");
}

#[test]
fn a_passphrase_opens_what_was_sealed_with_it_and_no_other_does() {
    let kms = kms();
    kms.create("one");
    assert!(matches!(
        Recipient::by_passphrase(b"short"),
        Err(BackupError::ShortPassphrase(12))
    ));
    let sealed = Recipient::by_passphrase(b"correct horse battery").expect("recipient");
    assert_eq!(
        sealed.derivation().expect("by passphrase").argon2id,
        Argon2Params::default()
    );
    let backup = kms.backup(&sealed);
    let by = |text: &[u8]| Place::new(Opener::Passphrase(text.to_vec().into()));
    assert!(matches!(
        by(b"correct horse batterY").refused(&backup),
        BackupError::WrongPassphrase
    ));
    let (other, opener) = key_pair();
    let place = Place::new(opener);
    assert!(matches!(place.refused(&backup), BackupError::OtherSealing(_)));
    assert!(matches!(
        by(b"correct horse battery").refused(&kms.backup(&other)),
        BackupError::OtherSealing(_)
    ));
    by(b"correct horse battery").restore(&backup).expect("restored");
}

#[test]
fn only_the_recipient_opens_and_only_the_pinned_signer_is_believed() {
    let kms = kms();
    kms.create("one");
    let (recipient, opener) = key_pair();
    let backup = kms.backup(&recipient);
    let (_, stranger) = key_pair();
    assert!(matches!(
        Place::new(stranger).refused(&backup),
        BackupError::WrongPrivateKey { expected, .. } if expected == recipient.key().fingerprint()
    ));
    let place = Place::new(opener);
    let wrong = place.restore_signed_by(&backup, Some(Digest::of(b"another")));
    assert!(matches!(wrong, Err(BackupError::SignerDiffers { .. })));
    let signer = kms.keyring.get(&id(SIGNER)).expect("made");
    let (public, _) = kms.keyring.public_key(&signer, 1, NOW).expect("public");
    let verified = place.restore_signed_by(&backup, Some(public.fingerprint()));
    assert_eq!(verified.expect("restored").header.signer, public.fingerprint());
    let again = place.restore(&backup).expect_err("not refused");
    assert!(matches!(again, BackupError::TargetNotEmpty(_)));
}

#[test]
fn a_name_that_somebody_else_took_signs_nothing() {
    let kms = kms();
    kms.create(SIGNER);
    let refusal = ensure_signer(&kms.keyring, NOW, || Ok(()))
        .err()
        .expect("refused");
    assert!(matches!(refusal, BackupError::SignerTaken(_)));
}

#[test]
fn a_wrapping_key_that_is_lost_keeps_a_backup_from_being_made_unless_its_version_ends() {
    let kms = kms();
    kms.create("ends");
    kms.create("lost");
    let names = |name: &str| {
        let at = crate::keys::record::version_record(&id(name), 1);
        let stored = kms.keyring.records.get(&at).expect("read").expect("there");
        let record: crate::keys::record::VersionRecord =
            crate::keys::record::decode(&stored).expect("record");
        record.wrapping_key.expect("named")
    };
    kms.schedule("ends", 1);
    kms.keyring.version_keys.shred(&names("ends")).expect("shredded");
    let (recipient, opener) = key_pair();
    // As a crash leaves it between the shredding and the record.
    let place = Place::new(opener);
    place.restore(&kms.backup(&recipient)).expect("restored");
    let restored = place.start();
    assert!(
        restored
            .destroy_due(&id("ends"), 1, NOW + WINDOW_MS, || Ok(()))
            .expect("destroyed")
    );
    kms.keyring.version_keys.shred(&names("lost")).expect("shredded");
    let refusal = capture(&kms.keyring, kms.dir.path(), NOW).err().expect("refused");
    assert!(matches!(refusal, BackupError::Changing));
}
