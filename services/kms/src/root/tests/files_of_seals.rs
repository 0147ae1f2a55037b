//! What may stand in `seal.json`.

use super::*;

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
            json["kind"] = serde_json::json!({"spell": {}})
        }),
        ("a file elsewhere", |json| {
            json["kind"]["key_file"]["file"] = "../root.key".into()
        }),
        ("another file", |json| {
            json["kind"]["key_file"]["file"] = "records".into()
        }),
        ("a short id", |json| json["seal_id"] = "0011".into()),
        ("an id in capitals", |json| {
            json["seal_id"] = "00112233445566AA".into()
        }),
        ("a seal that replaces something else", |json| {
            json["replaces"] = "seal.json".into()
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
