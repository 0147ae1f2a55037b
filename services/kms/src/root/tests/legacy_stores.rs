//! Stores as releases without `seal.json` made them.

use asterism_crypto::{Argon2Params, KeyRef, envelope, password};

use super::*;

fn check_record(root: &SecretKey) -> Vec<u8> {
    let key = KeyRef {
        key: "root".to_owned(),
        version: 1,
    };
    envelope::seal(root, &key, b"asterism root key check", b"asterism/root-check/v1").expect("sealed")
}

fn make(root: &SecretKey) -> Store {
    let store = Store::new();
    let batch = Batch::new().put(b"c".as_slice(), check_record(root));
    store.records.commit(batch).expect("written");
    store
}

fn by_key_file() -> (Store, SecretKey) {
    let root = SecretKey::generate().expect("a key");
    let store = make(&root);
    store.put("root.key", root.expose());
    (store, root)
}

fn by_passphrase() -> (Store, SecretKey) {
    let (salt, parameters) = ([9; 16], Argon2Params::default());
    let root = password::derive_key(PASSPHRASE, &salt, &parameters).expect("derived");
    let store = make(&root);
    let text = r#"{"format": 1, "argon2id": {"memory_kib": 65536, "iterations": 3, "parallelism": 4},
        "salt": "09090909090909090909090909090909"}"#;
    store.put("root.json", text.as_bytes());
    (store, root)
}

#[test]
fn a_store_with_a_key_file_is_converted_and_keeps_its_root() {
    let (store, root) = by_key_file();
    let seal = store.open().expect("opened");
    let facts = seal.facts();
    assert_eq!(
        (facts.kind, facts.id.as_str(), facts.automatic),
        (SealKind::KeyFile, "", true)
    );
    assert_eq!(store.names(), ["root.key"], "nothing changes before it is opened");
    let roots = seal.unseal(&[], &store.records, NOW).expect("converted");
    assert_eq!(roots.newest().expose(), root.expose());
    assert_eq!(seal.facts().id.len(), 16);
    assert_eq!(store.names(), ["root.key", "seal.json"]);
    assert_eq!(fs::read(store.path("root.key")).expect("read"), root.expose());
    let again = store.unseal(&[]).expect("opened");
    assert_eq!(again.newest().expose(), root.expose());
    // From there on as every other.
    let seal = store.open().expect("opened");
    let rotated = seal.begin_rotation(&[], &store.records, NOW).expect("begun");
    assert_eq!(rotated.newest_version(), 2);
    let facts = seal
        .rekey(&[], NewSeal::KeyFile, &store.records, NOW)
        .expect("rekeyed");
    assert_eq!(
        store.names(),
        [format!("root-{}.key", facts.id), "seal.json".to_owned()]
    );
}

#[test]
fn a_store_with_a_passphrase_is_converted_by_the_settings_or_by_whoever_gives_it() {
    let elsewhere = tempfile::tempdir().expect("directory");
    let file = elsewhere.path().join("passphrase");
    files::write_atomic(&file, b"correct horse battery\n", 0o600).expect("written");
    for in_settings in [true, false] {
        let (mut store, root) = by_passphrase();
        store.config.passphrase_file = in_settings.then(|| file.clone());
        let seal = store.open().expect("opened");
        let facts = seal.facts();
        assert_eq!((facts.kind, facts.automatic), (SealKind::Passphrase, in_settings));
        let secrets: Vec<Secret> = if in_settings {
            vec![]
        } else {
            let refused = seal.unseal(&[], &store.records, NOW).err();
            assert!(matches!(refused, Some(RootError::SecretRequired(_))));
            let refused = seal
                .unseal(&said(b"another passphrase"), &store.records, NOW)
                .err();
            assert!(matches!(refused, Some(RootError::WrongPassphrase)));
            assert_eq!(store.names(), ["root.json"]);
            said(PASSPHRASE).into()
        };
        let witness = elsewhere.path().join(format!("witness-{in_settings}"));
        fs::hard_link(store.path("root.json"), &witness).expect("linked");
        let roots = seal.unseal(&secrets, &store.records, NOW).expect("converted");
        assert_eq!(roots.newest().expose(), root.expose());
        assert_eq!(store.names(), ["seal.json"]);
        assert!(fs::read(&witness).expect("read").iter().all(|byte| *byte == 0));
        let again = store.unseal(&secrets).expect("opened");
        assert_eq!(again.newest().expose(), root.expose());
    }
}

#[test]
fn a_conversion_that_was_interrupted_is_ended() {
    let (store, root) = by_passphrase();
    let parameters = store.files();
    store.unseal(&said(PASSPHRASE)).expect("converted");
    store.put("root.json", &parameters["root.json"]);
    let opened = store.unseal(&said(PASSPHRASE)).expect("opened");
    assert_eq!(opened.newest().expose(), root.expose());
    assert_eq!(store.names(), ["seal.json"]);
}

#[test]
fn what_does_not_open_the_old_store_converts_nothing() {
    let (store, root) = by_key_file();
    store.put("root.key", &[7; 32]);
    let wrong = store.refusal(&[]);
    assert!(matches!(wrong, RootError::WrongKeyFile(_)), "{wrong}");
    assert!(wrong.to_string().contains("not the one"), "{wrong}");
    fs::remove_file(store.path("root.key")).expect("removed");
    let missing = store.refusal(&[]);
    assert!(matches!(missing, RootError::KeyFileMissing(_)), "{missing}");
    assert_eq!(store.names(), [""; 0]);
    store.put("root.key", root.expose());
    store.unseal(&[]).expect("converted");

    let (store, _) = by_passphrase();
    for damaged in [
        "",
        "{\"format\":1}",
        "{\"format\":2,\"argon2id\":{\"memory_kib\":8,\"iterations\":1,\"parallelism\":1},\"salt\":\"09090909090909090909090909090909\"}",
    ] {
        store.put("root.json", damaged.as_bytes());
        assert!(
            matches!(store.open().err(), Some(RootError::Damaged(_))),
            "{damaged}"
        );
    }
}

/// Material without a check record: a release before that record made it.
#[test]
fn a_store_without_a_check_record_keeps_its_root_too() {
    let store = Store::new();
    store.put("root.key", &[5; 32]);
    let material = Batch::new().put(b"vkey\0\0\0\0\x01".as_slice(), b"{}".as_slice());
    store.records.commit(material).expect("written");
    let roots = store.unseal(&[]).expect("converted");
    assert_eq!(roots.newest().expose(), &[5; 32]);
}
