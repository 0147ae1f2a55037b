//! A PKCS #11 token as the seal, against SoftHSM 2.
//!
//! `apt-get install softhsm2`, then `cargo test -p asterism-kms --features pkcs11-tests --test token`. SoftHSM reads from the environment, once a process,
//! where its tokens are: so each test starts itself again, as a process with tokens of its own.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use asterism_crypto::SecretBytes;
use asterism_kms::{
    Pkcs11Config, RootKeyConfig,
    root::{NewSeal, RootError, Seal, SealKind, Secret, TokenError, init},
};
use asterism_store::{MemoryRecords, files};
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    mechanism::Mechanism,
    object::{Attribute, AttributeType, ObjectClass},
    session::{Session, UserType},
    types::AuthPin,
};

const MODULES: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];
const CONFIGURATION: &str = "SOFTHSM2_CONF";
/// Set in the processes that tests start.
const STARTED: &str = "ASTERISM_TOKEN_TEST";
const TOKEN: &str = "asterism";
const PIN: &str = "the user's PIN";
const OFFICER_PIN: &str = "the officer's PIN";
const NOW: u64 = 1_700_000_000_000;

fn module() -> PathBuf {
    let found = MODULES.iter().map(PathBuf::from).find(|path| path.exists());
    found.expect("SoftHSM 2 is installed: apt-get install softhsm2")
}

/// Runs the rest of a test in a process of its own; gives what it needs there, and `None` here.
fn in_own_process(test: &str) -> Option<World> {
    if env::var_os(STARTED).is_some() {
        return Some(World::new());
    }
    let tokens = tempfile::tempdir().unwrap();
    let configuration = tokens.path().join("softhsm2.conf");
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\n",
        tokens.path().display()
    );
    fs::write(&configuration, text).unwrap();
    let status = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CONFIGURATION, &configuration)
        .env(STARTED, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test}: {status}");
    None
}

/// A token, and a data directory.
struct World {
    dir: tempfile::TempDir,
    pin_file: PathBuf,
    config: RootKeyConfig,
    records: MemoryRecords,
}

impl World {
    fn new() -> Self {
        make_token(TOKEN);
        let dir = tempfile::tempdir().unwrap();
        let pin_file = dir.path().join("pin");
        files::write_atomic(&pin_file, format!("{PIN}\n").as_bytes(), 0o600).unwrap();
        fs::create_dir(dir.path().join("kms")).unwrap();
        let config = RootKeyConfig {
            pkcs11: Pkcs11Config {
                module: Some(module()),
                token_label: Some(TOKEN.to_owned()),
                pin_file: Some(pin_file.clone()),
                ..Pkcs11Config::default()
            },
            ..RootKeyConfig::default()
        };
        Self {
            dir,
            pin_file,
            config,
            records: MemoryRecords::new(),
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("kms")
    }

    fn open(&self) -> Result<Seal, RootError> {
        Seal::open(&self.data_dir(), &self.config, &self.records, NOW)
    }

    /// The root key.
    fn unseal(&self) -> Result<[u8; 32], RootError> {
        let roots = self.open()?.unseal(&[], &self.records, NOW)?;
        Ok(*roots.newest().expose())
    }

    /// What is wrong when settings or the token are otherwise.
    fn refusal(&self, change: impl FnOnce(&mut Pkcs11Config)) -> TokenError {
        let mut config = self.config.clone();
        change(&mut config.pkcs11);
        let seal = Seal::open(&self.data_dir(), &config, &self.records, NOW).unwrap();
        match seal.unseal(&[], &self.records, NOW) {
            Err(RootError::Token(error)) => error,
            Err(error) => panic!("another error: {error}"),
            Ok(_) => panic!("opened"),
        }
    }
}

fn make_token(label: &str) {
    let output = Command::new("softhsm2-util")
        .args(["--init-token", "--free", "--label", label])
        .args(["--pin", PIN, "--so-pin", OFFICER_PIN])
        .output()
        .expect("softhsm2-util is installed: apt-get install softhsm2");
    assert!(output.status.success(), "{output:?}");
}

/// What an administrator of the token does beside kms.
fn administer<T>(work: impl FnOnce(&Session) -> T) -> T {
    let module = Pkcs11::new(module()).unwrap();
    let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
    module.initialize(arguments).unwrap();
    let slot = module.get_slots_with_initialized_token().unwrap()[0];
    let session = module.open_rw_session(slot).unwrap();
    session.login(UserType::User, Some(&AuthPin::from(PIN))).unwrap();
    let result = work(&session);
    drop(session);
    module.finalize().unwrap();
    result
}

fn make_key(session: &Session, extractable: bool, bytes: u64) {
    let template = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(!extractable),
        Attribute::Extractable(extractable),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::ValueLen(bytes.into()),
        Attribute::Label(b"asterism-kms".to_vec()),
    ];
    session.generate_key(&Mechanism::AesKeyGen, &template).unwrap();
}

fn delete_keys(session: &Session) {
    let keys = session
        .find_objects(&[Attribute::Class(ObjectClass::SECRET_KEY)])
        .unwrap();
    assert!(!keys.is_empty());
    for key in keys {
        session.destroy_object(key).unwrap();
    }
}

fn holds(dir: &Path, bytes: &[u8]) -> bool {
    let mut files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.any(|path| {
        path.is_file()
            && fs::read(path)
                .unwrap()
                .windows(bytes.len())
                .any(|found| found == bytes)
    })
}

#[test]
fn a_store_that_a_token_seals_opens_with_it_and_the_key_stays_in_the_token() {
    let Some(world) =
        in_own_process("a_store_that_a_token_seals_opens_with_it_and_the_key_stays_in_the_token")
    else {
        return;
    };
    // The first start makes it as the settings say.
    let root = world.unseal().unwrap();
    let facts = world.open().unwrap().facts();
    assert_eq!((facts.kind, facts.automatic), (SealKind::Token, true));
    assert_eq!(world.unseal().unwrap(), root);
    assert!(!world.data_dir().join("root.key").exists());
    assert!(!holds(&world.data_dir(), &root));
    administer(|session| {
        let template = [Attribute::Class(ObjectClass::SECRET_KEY)];
        let keys = session.find_objects(&template).unwrap();
        assert_eq!(keys.len(), 1, "made once");
        let attributes = [
            AttributeType::NeverExtractable,
            AttributeType::AlwaysSensitive,
            AttributeType::Private,
        ];
        let expected = [
            Attribute::NeverExtractable(true),
            Attribute::AlwaysSensitive(true),
            Attribute::Private(true),
        ];
        let found = session.get_attributes(keys[0], &attributes).unwrap();
        assert!(
            expected.iter().all(|attribute| found.contains(attribute)),
            "{found:?}"
        );
        let value = session.get_attributes(keys[0], &[AttributeType::Value]);
        assert!(!value.is_ok_and(|found| found.iter().any(|found| matches!(found, Attribute::Value(_)))));
    });
    // A secret opens nothing here.
    let secret = Secret::Passphrase(SecretBytes::new(PIN.as_bytes().to_vec()));
    let refused = world.open().unwrap().unseal(&[secret], &world.records, NOW).err();
    assert!(matches!(
        refused,
        Some(RootError::WrongSecretKind(SealKind::Token))
    ));
}

#[test]
fn what_is_wrong_with_a_token_is_said_and_nothing_is_made_in_its_place() {
    let Some(world) = in_own_process("what_is_wrong_with_a_token_is_said_and_nothing_is_made_in_its_place")
    else {
        return;
    };
    let facts = init(&world.data_dir(), &world.config, NewSeal::Token, NOW).unwrap();
    assert_eq!(facts.kind, SealKind::Token);
    let root = world.unseal().unwrap();
    let sealed = fs::read(world.data_dir().join("seal.json")).unwrap();

    let error = world.refusal(|token| token.module = Some("/nowhere/libmodule.so".into()));
    assert!(
        matches!(&error, TokenError::Module { path, .. } if path == "/nowhere/libmodule.so"),
        "{error}"
    );
    let error = world.refusal(|token| token.module = Some(env::current_exe().unwrap()));
    assert!(matches!(error, TokenError::Module { .. }), "{error}");
    let error = world.refusal(|token| token.token_label = Some("another".to_owned()));
    assert!(
        matches!(&error, TokenError::NoToken(label) if label == "another"),
        "{error}"
    );
    let error = world.refusal(|token| *token = Pkcs11Config::default());
    assert!(matches!(error, TokenError::NotSet), "{error}");
    // The key is the one that the seal names, whatever the settings say since.
    let mut renamed = world.config.clone();
    renamed.pkcs11.key_label = "another".to_owned();
    let seal = Seal::open(&world.data_dir(), &renamed, &world.records, NOW).unwrap();
    assert_eq!(
        seal.unseal(&[], &world.records, NOW).unwrap().newest().expose(),
        &root
    );

    let write_pin = |pin: &str| files::write_atomic(&world.pin_file, pin.as_bytes(), 0o600).unwrap();
    for wrong in ["not the user's PIN", "77"] {
        write_pin(wrong);
        let error = world.refusal(|_| ());
        assert!(matches!(error, TokenError::WrongPin), "{error}");
        assert!(!error.to_string().contains(wrong));
    }
    write_pin("\n");
    assert!(matches!(world.refusal(|_| ()), TokenError::NoPin(_)));
    fs::remove_file(&world.pin_file).unwrap();
    assert!(matches!(world.unseal(), Err(RootError::SecretFile { .. })));
    write_pin(PIN);
    assert_eq!(world.unseal().unwrap(), root, "a wrong PIN locked nothing");

    make_token(TOKEN);
    assert!(matches!(world.refusal(|_| ()), TokenError::ManyTokens(_)));
    assert_eq!(fs::read(world.data_dir().join("seal.json")).unwrap(), sealed);
}

#[test]
fn a_lost_or_foreign_key_is_told_from_the_right_one() {
    let Some(world) = in_own_process("a_lost_or_foreign_key_is_told_from_the_right_one") else {
        return;
    };
    world.unseal().unwrap();
    administer(delete_keys);
    let error = world.refusal(|_| ());
    assert!(
        matches!(&error, TokenError::NoKey(label) if label == "asterism-kms"),
        "{error}"
    );
    assert!(
        matches!(world.refusal(|_| ()), TokenError::NoKey(_)),
        "no other was made"
    );
    administer(|session| make_key(session, false, 32));
    let error = world.refusal(|_| ());
    assert!(matches!(error, TokenError::WrongKey(_)), "{error}");
    administer(|session| make_key(session, false, 32));
    assert!(matches!(world.refusal(|_| ()), TokenError::ManyKeys(_)));
    for (extractable, bytes) in [(true, 32), (false, 16)] {
        administer(|session| {
            delete_keys(session);
            make_key(session, extractable, bytes);
        });
        let error = world.refusal(|_| ());
        assert!(matches!(error, TokenError::UnfitKey(_)), "{error}");
        // Nor is anything sealed with such a key.
        let other = tempfile::tempdir().unwrap();
        let refused = init(other.path(), &world.config, NewSeal::Token, NOW);
        assert!(matches!(refused, Err(RootError::Token(TokenError::UnfitKey(_)))));
        assert!(!other.path().join("seal.json").exists());
    }
}

#[test]
fn the_seal_goes_into_a_token_and_out_of_it() {
    let Some(world) = in_own_process("the_seal_goes_into_a_token_and_out_of_it") else {
        return;
    };
    init(&world.data_dir(), &world.config, NewSeal::KeyFile, NOW).unwrap();
    let root = world.unseal().unwrap();
    let seal = world.open().unwrap();
    let facts = seal.rekey(&[], NewSeal::Token, &world.records, NOW).unwrap();
    assert_eq!(facts.kind, SealKind::Token);
    assert!(!world.data_dir().join("root.key").exists());
    assert_eq!(world.unseal().unwrap(), root);
    // Again: the same key of the token, and another seal.
    let again = seal.rekey(&[], NewSeal::Token, &world.records, NOW).unwrap();
    assert_ne!(again.id, facts.id);
    assert_eq!(world.unseal().unwrap(), root);
    let roots = seal.begin_rotation(&[], &world.records, NOW).unwrap();
    assert_eq!(roots.newest_version(), 2);
    assert_ne!(world.unseal().unwrap(), root);
    let phrase = || SecretBytes::new(b"correct horse battery".to_vec());
    let facts = seal
        .rekey(&[], NewSeal::Passphrase(phrase()), &world.records, NOW)
        .unwrap();
    assert_eq!((facts.kind, facts.automatic), (SealKind::Passphrase, false));
    let opened = seal
        .unseal(&[Secret::Passphrase(phrase())], &world.records, NOW)
        .unwrap();
    assert_eq!(opened.newest().expose(), roots.newest().expose());
}

#[test]
fn seals_of_one_token_are_opened_by_many_at_once() {
    let Some(world) = in_own_process("seals_of_one_token_are_opened_by_many_at_once") else {
        return;
    };
    let root = world.unseal().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(world.unseal().unwrap(), root);
                }
            });
        }
    });
}
