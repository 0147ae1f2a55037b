use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use asterism_crypto::{
    SecretBytes, SecretKey,
    shares::{self, SetId, Share, ShareError},
};
use asterism_store::{Batch, MemoryRecords, Records as _, files};

use super::*;
use crate::{config::RootKeyConfig, directory::vault};

mod crashes;
mod files_of_seals;
mod legacy_stores;
mod rotation;

const NOW: u64 = 1_700_000_000_000;
const PASSPHRASE: &[u8] = b"correct horse battery";

/// A data directory, and what its store holds.
struct Store {
    dir: tempfile::TempDir,
    records: MemoryRecords,
    config: RootKeyConfig,
}

impl Store {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("directory"),
            records: MemoryRecords::new(),
            config: RootKeyConfig::default(),
        }
    }

    /// Sealed as `asterism kms init` does it.
    fn sealed(new: NewSeal) -> Self {
        let store = Self::new();
        init(store.dir.path(), &store.config, new, NOW).expect("sealed");
        store
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// As a start does.
    fn open(&self) -> Result<Seal, RootError> {
        Seal::open(self.dir.path(), &self.config, &self.records, NOW)
    }

    fn unseal(&self, secrets: &[Secret]) -> Result<Roots, RootError> {
        self.open()?.unseal(secrets, &self.records, NOW)
    }

    fn refusal(&self, secrets: &[Secret]) -> RootError {
        self.unseal(secrets).err().expect("refused")
    }

    /// Names and contents of what is in the directory, but for the records.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.dir.path()).expect("directory");
        entries
            .map(|entry| entry.expect("entry"))
            .filter(|entry| entry.path().is_file())
            .map(|entry| {
                let name = entry.file_name().into_string().expect("text");
                (name, fs::read(entry.path()).expect("read"))
            })
            .collect()
    }

    /// Puts other files in the place of those that are there.
    fn set_files(&self, files: &BTreeMap<String, Vec<u8>>) {
        for name in self.files().keys() {
            fs::remove_file(self.path(name)).expect("removed");
        }
        for (name, bytes) in files {
            self.put(name, bytes);
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        files::write_atomic(&self.path(name), bytes, 0o600).expect("written");
    }

    fn names(&self) -> Vec<String> {
        self.files().into_keys().collect()
    }
}

fn passphrase(text: &[u8]) -> SecretBytes {
    SecretBytes::new(text.to_vec())
}

fn said(text: &[u8]) -> [Secret; 1] {
    [Secret::Passphrase(passphrase(text))]
}

/// A seal of shares, and the shares.
fn shared(threshold: u8, count: u8) -> (NewSeal, Vec<Share>) {
    let unseal_key = SecretKey::generate().expect("a key");
    let shares = shares::split(&unseal_key, threshold, count).expect("split");
    let digests = shares.iter().map(Share::digest).collect();
    let new = NewSeal::Shares {
        unseal_key,
        threshold,
        digests,
    };
    (new, shares)
}

/// Some of the shares, by their places.
fn given(shares: &[Share], which: &[usize]) -> Vec<Secret> {
    let copy = |at: &usize| shares[*at].to_text().parse().expect("reads");
    which.iter().map(copy).map(Secret::Share).collect()
}

#[test]
fn the_first_start_makes_a_private_key_file_which_is_kept_and_missed() {
    let store = Store::new();
    let first = store.unseal(&[]).expect("made");
    for name in ["root.key", "seal.json"] {
        let mode = fs::metadata(store.path(name))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(store.names(), ["root.key", "seal.json"]);
    let second = store.unseal(&[]).expect("kept");
    assert_eq!(first.newest().expose(), second.newest().expose());
    assert_eq!((second.newest_version(), second.is_rotating()), (1, false));
    let file = fs::read(store.path("root.key")).expect("read");
    assert_ne!(
        file,
        first.newest().expose(),
        "the file is not the root key itself"
    );

    let needed = || missing_key_file(store.dir.path()).expect("read");
    assert_eq!(needed(), None);
    fs::remove_file(store.path("root.key")).expect("removed");
    assert_eq!(needed(), Some(store.path("root.key")));
    let missing = store.refusal(&[]);
    assert!(matches!(missing, RootError::KeyFileMissing(_)), "{missing}");
    assert!(missing.to_string().contains("missing"), "{missing}");
    assert!(!store.path("root.key").exists(), "a second root key was made");
    store.put("root.key", &[7; 32]);
    let wrong = store.refusal(&[]);
    assert!(matches!(wrong, RootError::WrongKeyFile(_)), "{wrong}");
    store.put("root.key", &[7; 31]);
    let damaged = store.refusal(&[]);
    assert!(matches!(damaged, RootError::KeyFileDamaged(_)), "{damaged}");
    store.put("root.key", &file);
    store.unseal(&[]).expect("restored");
}

#[test]
fn a_passphrase_in_the_settings_opens_what_it_sealed_and_no_other_does() {
    let elsewhere = tempfile::tempdir().expect("directory");
    let file = elsewhere.path().join("passphrase");
    let mut store = Store::new();
    store.config.passphrase_file = Some(file.clone());
    let write = |text: &[u8]| files::write_atomic(&file, text, 0o600).expect("written");
    let absent = store.open().err().expect("refused");
    assert!(matches!(absent, RootError::SecretFile { .. }), "{absent}");
    write(b"short\n");
    let short = store.open().err().expect("refused");
    assert!(
        matches!(
            short,
            RootError::Field {
                field: "passphrase",
                ..
            }
        ),
        "{short}"
    );
    assert_eq!(store.names(), [""; 0]);
    write(b"correct horse battery\n");
    let first = store.unseal(&[]).expect("sealed");
    let facts = store.open().expect("opened").facts();
    assert_eq!((facts.kind, facts.automatic), (SealKind::Passphrase, true));
    assert_eq!(
        store.unseal(&[]).expect("opened").newest().expose(),
        first.newest().expose()
    );
    assert_eq!(store.names(), ["seal.json"]);
    write(b"correct horse batterY\n");
    assert!(matches!(store.refusal(&[]), RootError::WrongPassphrase));
    // Without the file it has to be given.
    store.config.passphrase_file = None;
    assert!(!store.open().expect("opened").facts().automatic);
    assert!(matches!(
        store.refusal(&[]),
        RootError::SecretRequired(SealKind::Passphrase)
    ));
    let opened = store.unseal(&said(PASSPHRASE)).expect("opened");
    assert_eq!(opened.newest().expose(), first.newest().expose());
    let long = vec![b'a'; MAX_PASSPHRASE_BYTES + 1];
    assert!(matches!(store.refusal(&said(&long)), RootError::WrongPassphrase));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("mode");
    store.config.passphrase_file = Some(file);
    let exposed = store.refusal(&[]).to_string();
    assert!(exposed.contains("chmod 600"), "{exposed}");
}

#[test]
fn shares_open_their_seal_and_each_wrong_one_is_told_at_once() {
    let (new, shares) = shared(3, 5);
    let store = Store::sealed(new);
    let seal = store.open().expect("opened");
    let facts = seal.facts();
    assert_eq!(
        (facts.kind, facts.threshold, facts.shares),
        (SealKind::Shares, 3, 5)
    );
    assert_eq!((facts.automatic, facts.created_at_ms), (false, NOW));
    assert_eq!(facts.id, shares[0].set().to_string());
    let roots = store.unseal(&given(&shares, &[4, 0, 2])).expect("opened");
    let again = store.unseal(&given(&shares, &[1, 2, 3, 4])).expect("opened");
    assert_eq!(roots.newest().expose(), again.newest().expose());

    assert!(matches!(
        store.refusal(&[]),
        RootError::SecretRequired(SealKind::Shares)
    ));
    let few = store.refusal(&given(&shares, &[0, 1]));
    assert!(matches!(
        few,
        RootError::Share(ShareError::TooFew {
            given: 2,
            threshold: 3
        })
    ));
    let repeated = store.refusal(&given(&shares, &[0, 1, 0]));
    assert!(matches!(repeated, RootError::Share(ShareError::Repeated(1))));
    assert!(matches!(
        store.refusal(&said(PASSPHRASE)),
        RootError::WrongSecretKind(SealKind::Shares)
    ));

    let mut progress = GivenShares::default();
    let share = |shares: &[Share], at: usize| -> Share { shares[at].to_text().parse().expect("reads") };
    assert_eq!(progress.add(&seal, share(&shares, 1)).expect("taken"), 1);
    assert_eq!(progress.add(&seal, share(&shares, 1)).expect("the same"), 1);
    let (_, others) = shared(3, 5);
    let foreign = progress.add(&seal, share(&others, 2)).expect_err("refused");
    assert!(
        matches!(foreign, RootError::ShareOfAnotherSeal { .. }),
        "{foreign}"
    );
    // The same key split again: the seal's id, and yet none of its shares.
    let NewSeal::Shares { unseal_key, .. } = shared(2, 2).0 else {
        panic!("another kind")
    };
    let sealed = |threshold, shares: &[Share]| NewSeal::Shares {
        unseal_key: SecretKey::from_bytes(*unseal_key.expose()),
        threshold,
        digests: shares.iter().map(Share::digest).collect(),
    };
    let [one, two] = [0, 1].map(|_| shares::split(&unseal_key, 2, 3).expect("split"));
    let twice = Store::sealed(sealed(2, &one)).open().expect("opened");
    assert_eq!(twice.facts().id, SetId::of(&unseal_key).to_string());
    twice.check_share(&one[2]).expect("its own");
    let forged = twice.check_share(&two[2]).expect_err("refused");
    assert!(matches!(forged, RootError::WrongShare), "{forged}");
    assert_eq!(progress.add(&seal, share(&shares, 4)).expect("taken"), 2);
    assert_eq!(progress.add(&seal, share(&shares, 0)).expect("taken"), 3);
    let opened = store.unseal(&progress.take()).expect("opened");
    assert_eq!(opened.newest().expose(), roots.newest().expose());
    assert_eq!(progress.count(), 0);
}

#[test]
fn a_secret_of_another_kind_is_refused() {
    let (new, shares) = shared(2, 2);
    let (files, phrase) = (
        Store::sealed(NewSeal::KeyFile),
        Store::sealed(NewSeal::Passphrase(passphrase(PASSPHRASE))),
    );
    drop(new);
    for (store, kind) in [(files, SealKind::KeyFile), (phrase, SealKind::Passphrase)] {
        let refused = store.refusal(&given(&shares, &[0, 1]));
        assert!(
            matches!(refused, RootError::WrongSecretKind(of) if of == kind),
            "{refused}"
        );
        let refused = store.open().expect("opened").check_share(&shares[0]);
        assert!(matches!(refused, Err(RootError::WrongSecretKind(of)) if of == kind));
    }
    let store = Store::sealed(NewSeal::KeyFile);
    assert!(matches!(
        store.refusal(&said(PASSPHRASE)),
        RootError::WrongSecretKind(SealKind::KeyFile)
    ));
}

#[test]
fn a_seal_that_makes_no_sense_is_not_made() {
    let digests = |shares: &[Share]| shares.iter().map(Share::digest).collect::<Vec<_>>();
    let NewSeal::Shares { unseal_key, .. } = shared(2, 3).0 else {
        panic!("another kind")
    };
    let split = shares::split(&unseal_key, 2, 3).expect("split");
    let mut repeated = digests(&split);
    repeated[1] = repeated[0];
    for (threshold, digests) in [
        (1, digests(&split)),
        (4, digests(&split)),
        (2, vec![]),
        (2, digests(&split[..1])),
        (2, repeated),
    ] {
        let new = NewSeal::Shares {
            unseal_key: SecretKey::from_bytes(*unseal_key.expose()),
            threshold,
            digests,
        };
        let store = Store::new();
        let refused = init(store.dir.path(), &store.config, new, NOW).expect_err("refused");
        assert!(
            matches!(refused, RootError::Field { field: "shares", .. }),
            "{refused}"
        );
        assert_eq!(store.names(), [""; 0]);
    }
    let store = Store::new();
    let new = NewSeal::Token;
    let refused = init(store.dir.path(), &store.config, new, NOW).expect_err("refused");
    assert!(
        matches!(refused, RootError::Token(TokenError::NotSet)),
        "{refused}"
    );
}

#[test]
fn a_directory_with_a_store_is_not_sealed_again() {
    let store = Store::sealed(NewSeal::KeyFile);
    let before = store.files();
    let again = |store: &Store| {
        let new = NewSeal::Passphrase(passphrase(PASSPHRASE));
        init(store.dir.path(), &store.config, new, NOW).expect_err("refused")
    };
    assert!(matches!(again(&store), RootError::Occupied(_)));
    assert_eq!(store.files(), before);
    for file in ["root.key", "root.json", "records/db"] {
        let store = Store::new();
        fs::create_dir(store.path("records")).expect("made");
        store.put(file, b"something");
        assert!(matches!(again(&store), RootError::Occupied(_)), "{file}");
    }
    let store = Store::new();
    fs::create_dir(store.path("records")).expect("made");
    let _held = files::lock_dir(&store.path("records")).expect("locked");
    assert!(matches!(
        again(&store),
        RootError::Store(asterism_store::StoreError::Locked)
    ));
}

/// Whether nothing in a directory holds these bytes.
fn nothing_holds(dir: &Path, bytes: &[u8]) {
    for entry in fs::read_dir(dir).expect("directory") {
        let path = entry.expect("entry").path();
        if path.is_file() {
            let content = fs::read(&path).expect("read");
            let found = content.windows(bytes.len()).any(|window| window == bytes);
            assert!(!found, "{}", path.display());
        }
    }
}

/// From every kind to every kind: the roots stay, what opened the old seal opens nothing any more and is overwritten.
#[test]
fn a_new_seal_keeps_the_roots_and_makes_the_old_one_worthless() {
    type Make = fn() -> (NewSeal, Vec<Share>);
    let kinds: [Make; 3] = [
        || (NewSeal::KeyFile, vec![]),
        || (NewSeal::Passphrase(passphrase(PASSPHRASE)), vec![]),
        || shared(2, 3),
    ];
    let secrets = |seal: &Seal, shares: &[Share]| match seal.facts().kind {
        SealKind::Passphrase => said(PASSPHRASE).into(),
        SealKind::Shares => given(shares, &[2, 0]),
        _ => vec![],
    };
    for from in kinds {
        for to in kinds {
            let (new, old_shares) = from();
            let store = Store::sealed(new);
            let seal = store.open().expect("opened");
            let opens_old = secrets(&seal, &old_shares);
            let roots = seal.unseal(&opens_old, &store.records, NOW).expect("opened");
            let old = store.files();
            let witnesses = tempfile::tempdir_in(store.dir.path()).expect("directory");
            for name in old.keys() {
                fs::hard_link(store.path(name), witnesses.path().join(name)).expect("linked");
            }
            let (new, shares) = to();
            let facts = seal
                .rekey(&opens_old, new, &store.records, NOW + 1)
                .expect("rekeyed");
            assert_ne!(facts.id, "");
            assert_eq!(facts.created_at_ms, NOW + 1);
            assert_eq!(seal.facts(), facts);
            for name in old.keys() {
                let left = fs::read(witnesses.path().join(name)).expect("read");
                assert!(left.iter().all(|byte| *byte == 0), "{name} is not overwritten");
            }
            nothing_holds(store.dir.path(), roots.newest().expose());
            // The same process goes on with the new seal, and so does the next.
            let opens = secrets(&seal, &shares);
            for seal in [&seal, &store.open().expect("opened")] {
                assert_eq!(seal.facts(), facts);
                let again = seal.unseal(&opens, &store.records, NOW).expect("opened");
                assert_eq!(again.newest().expose(), roots.newest().expose());
            }
            match facts.kind {
                SealKind::KeyFile => {
                    let file = format!("root-{}.key", facts.id);
                    assert_eq!(store.names(), [file, "seal.json".to_owned()]);
                }
                _ => assert_eq!(store.names(), ["seal.json"]),
            }
            // A copy of the old seal beside the new store still opens, and says so nowhere: that is what backups are for. The new one alone
            // takes the old secret no more.
            if facts.kind == SealKind::Shares && !old_shares.is_empty() {
                let refused = store.refusal(&given(&old_shares, &[0, 1]));
                assert!(
                    matches!(refused, RootError::ShareOfAnotherSeal { .. }),
                    "{refused}"
                );
            }
        }
    }
}

#[test]
fn a_new_seal_needs_the_old_secret_anew_and_a_refusal_changes_nothing() {
    let store = Store::sealed(NewSeal::Passphrase(passphrase(PASSPHRASE)));
    let seal = store.open().expect("opened");
    seal.unseal(&said(PASSPHRASE), &store.records, NOW)
        .expect("opened");
    let before = store.files();
    let rekey = |secrets: &[Secret], new| {
        seal.rekey(secrets, new, &store.records, NOW)
            .expect_err("refused")
    };
    assert!(matches!(
        rekey(&[], NewSeal::KeyFile),
        RootError::SecretRequired(_)
    ));
    assert!(matches!(
        rekey(&said(b"another passphrase"), NewSeal::KeyFile),
        RootError::WrongPassphrase
    ));
    let short = NewSeal::Passphrase(passphrase(b"short"));
    assert!(matches!(rekey(&said(PASSPHRASE), short), RootError::Field { .. }));
    assert!(matches!(
        rekey(&said(PASSPHRASE), NewSeal::Token),
        RootError::Token(TokenError::NotSet)
    ));
    let rotate = |secrets: &[Secret]| seal.begin_rotation(secrets, &store.records, NOW).err();
    assert!(matches!(rotate(&[]), Some(RootError::SecretRequired(_))));
    assert!(matches!(
        rotate(&said(b"another passphrase")),
        Some(RootError::WrongPassphrase)
    ));
    assert_eq!(store.files(), before);
}

#[test]
fn the_seal_of_another_store_does_not_open_this_one() {
    let (store, other) = (Store::sealed(NewSeal::KeyFile), Store::sealed(NewSeal::KeyFile));
    store.unseal(&[]).expect("opened");
    other.unseal(&[]).expect("opened");
    store.set_files(&other.files());
    let refused = store.refusal(&[]);
    assert!(matches!(refused, RootError::WrongRoot), "{refused}");
    assert!(refused.to_string().contains("not the one"), "{refused}");
}
