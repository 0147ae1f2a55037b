//! What may stand in `seal.json`.

use asterism_crypto::Argon2Params;
use proptest::prelude::*;

use super::{
    file::{KeyFileName, Kind, Salt, SealFile, SealId},
    *,
};

fn with(store: &Store, change: impl FnOnce(&mut serde_json::Value)) -> Option<RootError> {
    let whole = store.files();
    let mut json: serde_json::Value = serde_json::from_slice(&whole["seal.json"]).expect("JSON");
    change(&mut json);
    store.put("seal.json", json.to_string().as_bytes());
    let refused = store.unseal(&[]).err();
    store.set_files(&whole);
    refused
}

#[test]
fn what_is_not_a_seal_of_this_release_is_refused_and_nothing_is_made_in_its_place() {
    let store = Store::sealed(NewSeal::KeyFile);
    store.unseal(&[]).expect("opened");
    let whole = store.files();
    assert!(with(&store, |_| ()).is_none(), "as it was it opens");
    let newer = with(&store, |json| {
        json["format"] = 2.into();
        json["something"] = "else".into();
    });
    assert!(matches!(newer, Some(RootError::Newer { format: 2, .. })));
    let newer = with(&store, |json| json["format"] = 3.into());
    assert!(matches!(newer, Some(RootError::Newer { format: 3, .. })));
    type Change = fn(&mut serde_json::Value);
    let damages: [(&str, Change); 13] = [
        ("an unknown field", |json| json["more"] = 1.into()),
        ("format 0", |json| json["format"] = 0.into()),
        ("no roots", |json| json["roots"] = serde_json::json!([])),
        ("version 0", |json| json["roots"][0]["version"] = 0.into()),
        ("the same root twice", |json| {
            let root = json["roots"][0].clone();
            json["roots"].as_array_mut().expect("a list").push(root);
        }),
        ("three roots", |json| {
            for version in 2..4 {
                let mut root = json["roots"][0].clone();
                root["version"] = version.into();
                json["roots"].as_array_mut().expect("a list").push(root);
            }
        }),
        ("another kind", |json| {
            json["kind"] = serde_json::json!({"spell": {}});
        }),
        ("a file elsewhere", |json| {
            json["kind"]["key_file"]["file"] = "../root.key".into();
        }),
        ("another file", |json| {
            json["kind"]["key_file"]["file"] = "records".into();
        }),
        ("a short id", |json| json["seal_id"] = "0011".into()),
        ("an id in capitals", |json| {
            json["seal_id"] = "00112233445566AA".into();
        }),
        ("a seal that replaces something else", |json| {
            json["replaces"] = "seal.json".into();
        }),
        ("shares that are none", |json| {
            json["kind"] = serde_json::json!({"shares": {"threshold": 1, "sha256": []}});
        }),
    ];
    for (what, change) in damages {
        let refused = with(&store, change);
        assert!(matches!(refused, Some(RootError::Damaged(_))), "{what}");
    }
    for bytes in [b"".as_slice(), b"{", &vec![b' '; (64 << 10) + 1]] {
        store.put("seal.json", bytes);
        assert!(matches!(store.open().err(), Some(RootError::Damaged(_))));
        assert_eq!(store.names(), ["root.key", "seal.json"]);
    }
    store.set_files(&whole);
    fs::set_permissions(store.path("seal.json"), fs::Permissions::from_mode(0o640)).expect("mode");
    assert!(
        store
            .open()
            .err()
            .expect("refused")
            .to_string()
            .contains("chmod 600")
    );
}

/// Each root is bound to the seal and to its version.
#[test]
fn what_is_sealed_does_not_open_as_something_else() {
    let store = Store::sealed(NewSeal::KeyFile);
    store.unseal(&[]).expect("opened");
    let refused = [
        with(&store, |json| json["seal_id"] = "0011223344556677".into()),
        with(&store, |json| json["roots"][0]["version"] = 2.into()),
        with(&store, |json| {
            let text = json["roots"][0]["wrapped"].as_str().expect("text").to_owned();
            let flipped = if text.contains('a') {
                text.replacen('a', "b", 1)
            } else {
                text.replacen('b', "a", 1)
            };
            json["roots"][0]["wrapped"] = flipped.into();
        }),
    ];
    for refused in refused {
        assert!(matches!(refused, Some(RootError::WrongKeyFile(_))));
    }
}

#[test]
fn a_lost_seal_is_not_made_again_while_the_store_is_there() {
    for new in [NewSeal::KeyFile, NewSeal::Passphrase(passphrase(PASSPHRASE))] {
        let secrets: Vec<Secret> = match new {
            NewSeal::KeyFile => vec![],
            _ => said(PASSPHRASE).into(),
        };
        let store = Store::sealed(new);
        store.unseal(&secrets).expect("opened");
        fs::remove_file(store.path("seal.json")).expect("removed");
        let left = store.names();
        let refused = store.refusal(&[]);
        assert!(
            matches!(refused, RootError::WrongKeyFile(_) | RootError::KeyFileMissing(_)),
            "{refused}"
        );
        assert_eq!(store.names(), left);
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        any::<bool>().prop_map(|first| Kind::KeyFile {
            file: if first {
                KeyFileName::first()
            } else {
                KeyFileName::of(&SealId::random().expect("an id"))
            },
        }),
        any::<[u8; 16]>().prop_map(|salt| Kind::Passphrase {
            argon2id: Argon2Params::default(),
            salt: Salt(salt),
        }),
        (2_u8..=16, prop::collection::hash_set(any::<[u8; 32]>(), 16)).prop_map(|(threshold, digests)| {
            Kind::Shares {
                threshold,
                sha256: digests
                    .into_iter()
                    .map(asterism_crypto::Digest::from_bytes)
                    .collect(),
            }
        }),
        (
            "[ -~]{1,64}",
            prop::collection::vec(any::<u8>(), 1..=32),
            prop::collection::vec(any::<u8>(), 48)
        )
            .prop_map(|(key_label, iv, wrapped)| Kind::Token {
                key_label,
                iv,
                wrapped
            }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_seal_reads_back_as_it_was_written_and_opens(kind in kinds(), created_at_ms: u64, version in 1..u32::MAX) {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("seal.json");
        let (unseal_key, root) = (SecretKey::from_bytes([1; 32]), SecretKey::from_bytes([2; 32]));
        let mut file = SealFile::new(SealId::random().expect("an id"), kind, created_at_ms);
        file.add(&unseal_key, version, &root, created_at_ms).expect("sealed");
        file.write(&path).expect("written");
        let read = SealFile::read(&path).expect("read").expect("there");
        let json = |file: &SealFile| serde_json::to_value(file).expect("JSON");
        prop_assert_eq!(json(&read), json(&file));
        let roots = read.roots(&unseal_key).expect("opened");
        prop_assert_eq!((roots.newest_version(), roots.newest().expose()), (version, root.expose()));
        prop_assert!(read.roots(&root).is_none());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>(), noise: Vec<u8>) {
        let mut file = SealFile::new(SealId::random().expect("an id"), Kind::KeyFile { file: KeyFileName::first() }, 1);
        let key = SecretKey::from_bytes([1; 32]);
        file.add(&key, 1, &key, 1).expect("sealed");
        let mut text = serde_json::to_vec(&file).expect("JSON");
        let place = at.index(text.len());
        text[place] = byte;
        for bytes in [text.as_slice(), &text[..cut.index(text.len())], &noise] {
            if let Ok(read) = SealFile::parse(bytes, "seal.json") {
                let _ = read.roots(&key);
            }
        }
    }
}
