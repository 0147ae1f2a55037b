//! What a crash between two steps leaves: composed from what is there before and after.

use super::*;

type Files = BTreeMap<String, Vec<u8>>;

/// The files before and after a new key file took the old one's place, and the root.
fn before_and_after(store: &Store) -> (Files, Files, Roots) {
    let seal = store.open().expect("opened");
    let roots = seal.unseal(&[], &store.records, NOW).expect("opened");
    let before = store.files();
    seal.rekey(&[], NewSeal::KeyFile, &store.records, NOW)
        .expect("rekeyed");
    (before, store.files(), roots)
}

fn replacing(seal: &[u8], old: &str) -> Vec<u8> {
    let mut json: serde_json::Value = serde_json::from_slice(seal).expect("JSON");
    json["replaces"] = old.into();
    json.to_string().into_bytes()
}

#[test]
fn a_crash_anywhere_in_a_change_of_key_files_leaves_a_seal_that_opens_and_no_other_key() {
    let store = Store::sealed(NewSeal::KeyFile);
    let (before, after, roots) = before_and_after(&store);
    let new_key = after
        .keys()
        .find(|name| name.starts_with("root-"))
        .expect("a key file")
        .clone();
    let waiting = format!("{new_key}.new");
    let during = replacing(&after["seal.json"], "root.key");
    let old = |files: &mut Files| {
        files.extend(before.clone());
    };
    let mut states: Vec<(&str, Files, &Files)> = Vec::new();
    let mut state = |what, build: &dyn Fn(&mut Files), then| {
        let mut files = Files::new();
        build(&mut files);
        states.push((what, files, then));
    };
    state(
        "half a key file",
        &|files| {
            old(files);
            files.insert(waiting.clone(), vec![1; 5]);
        },
        &before,
    );
    state(
        "a key file that no seal names",
        &|files| {
            old(files);
            files.insert(waiting.clone(), after[&new_key].clone());
        },
        &before,
    );
    state(
        "a seal that was not written to its end",
        &|files| {
            old(files);
            files.insert(waiting.clone(), after[&new_key].clone());
            files.insert(".seal.json.next".to_owned(), during[..40].to_vec());
        },
        &before,
    );
    state(
        "the new seal, its key file not named yet",
        &|files| {
            old(files);
            files.insert("seal.json".to_owned(), during.clone());
            files.insert(waiting.clone(), after[&new_key].clone());
            files.insert(".seal.json.replaced".to_owned(), before["seal.json"].clone());
        },
        &after,
    );
    state(
        "the new seal and its key file, and the old key file",
        &|files| {
            old(files);
            files.insert("seal.json".to_owned(), during.clone());
            files.insert(new_key.clone(), after[&new_key].clone());
        },
        &after,
    );
    state(
        "the new seal, and the old key file gone",
        &|files| {
            files.insert("seal.json".to_owned(), during.clone());
            files.insert(new_key.clone(), after[&new_key].clone());
        },
        &after,
    );
    for (what, files, then) in states {
        store.set_files(&files);
        let opened = store
            .unseal(&[])
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(opened.newest().expose(), roots.newest().expose(), "{what}");
        assert_eq!(store.names(), then.keys().cloned().collect::<Vec<_>>(), "{what}");
        // A second start finds nothing to do.
        let settled = store.files();
        store
            .unseal(&[])
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(store.files(), settled, "{what}");
    }
}

/// Between the second name of the old content and the new content's taking its place, both names are one file: nothing of it may be overwritten.
#[test]
fn the_second_name_of_a_seal_that_was_not_replaced_yet_is_only_taken_away() {
    let store = Store::sealed(NewSeal::KeyFile);
    let roots = store.unseal(&[]).expect("opened");
    fs::hard_link(store.path("seal.json"), store.path(".seal.json.replaced")).expect("linked");
    let opened = store.unseal(&[]).expect("opened");
    assert_eq!(opened.newest().expose(), roots.newest().expose());
    assert_eq!(store.names(), ["root.key", "seal.json"]);
}

#[test]
fn a_key_file_that_somebody_put_there_is_never_shredded() {
    let store = Store::sealed(NewSeal::KeyFile);
    store.unseal(&[]).expect("opened");
    for name in [
        "root-0011223344556677.key",
        "root.key.bak",
        "root-of-evil.key.new",
    ] {
        store.put(name, &[3; 32]);
        store.unseal(&[]).expect("opened");
        assert_eq!(fs::read(store.path(name)).expect("kept"), [3; 32], "{name}");
    }
}

#[test]
fn a_first_start_that_was_interrupted_begins_anew_or_goes_on() {
    let store = Store::new();
    store.put("root.key.new", &[1; 32]);
    store.put(".seal.json.next", b"{");
    store.unseal(&[]).expect("made");
    assert_eq!(store.names(), ["root.key", "seal.json"]);
    // The seal is written, the key file not named yet, and there is no check record.
    let store = Store::sealed(NewSeal::KeyFile);
    fs::rename(store.path("root.key"), store.path("root.key.new")).expect("renamed");
    let roots = store.unseal(&[]).expect("goes on");
    assert_eq!(
        store.unseal(&[]).expect("kept").newest().expose(),
        roots.newest().expose()
    );
    assert_eq!(store.names(), ["root.key", "seal.json"]);
}

#[test]
fn a_key_file_that_was_put_there_before_the_first_start_is_taken() {
    let store = Store::new();
    store.put("root.key", &[5; 32]);
    let roots = store.unseal(&[]).expect("made");
    assert_eq!(fs::read(store.path("root.key")).expect("kept"), [5; 32]);
    assert_ne!(roots.newest().expose(), &[5; 32]);
}
