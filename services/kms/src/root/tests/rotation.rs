//! A new root key: the seal's and the check record's part. What `keys/rewrap.rs` does is tested there.

use super::*;

/// A store whose directory of identities has its key.
fn with_directory() -> (Store, Roots) {
    let store = Store::sealed(NewSeal::KeyFile);
    let roots = store.unseal(&[]).expect("opened");
    vault::Vault::open(roots.newest(), &store.records).expect("made");
    (store, roots)
}

fn records(store: &Store) -> [Option<Vec<u8>>; 2] {
    [b"c".as_slice(), vault::RECORD].map(|at| store.records.get(at).expect("read"))
}

fn put_back(store: &Store, records: &[Option<Vec<u8>>; 2]) {
    let mut batch = Batch::new();
    for (at, value) in [b"c".as_slice(), vault::RECORD].into_iter().zip(records) {
        batch = batch.put(at, value.clone().expect("there"));
    }
    store.records.commit(batch).expect("written");
}

fn all_wrapped(roots: &Roots) -> AllWrapped {
    AllWrapped {
        roots: roots.newest_only(),
    }
}

#[test]
fn a_rotation_moves_what_the_store_itself_keeps_and_ends_with_the_new_root_alone() {
    let (store, old) = with_directory();
    let seal = store.open().expect("opened");
    let roots = seal.begin_rotation(&[], &store.records, NOW).expect("begun");
    assert_eq!(roots.versions().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(roots.get(1).expect("kept").expose(), old.newest().expose());
    assert_ne!(roots.newest().expose(), old.newest().expose());
    assert!(vault::Vault::open(roots.newest(), &store.records).is_ok());
    assert!(vault::Vault::open(old.newest(), &store.records).is_err());
    let again = seal.begin_rotation(&[], &store.records, NOW).err();
    assert!(matches!(again, Some(RootError::RotationRunning)));
    // A restart meanwhile finds both.
    let found = store.unseal(&[]).expect("opened");
    assert_eq!(found.versions().collect::<Vec<_>>(), [1, 2]);
    // So does one after a new seal.
    let facts = seal
        .rekey(&[], NewSeal::KeyFile, &store.records, NOW)
        .expect("rekeyed");
    let found = store.unseal(&[]).expect("opened");
    assert_eq!(found.versions().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(found.newest().expose(), roots.newest().expose());

    let witness = tempfile::tempdir_in(store.dir.path()).expect("directory");
    let witness = witness.path().join("seal");
    fs::hard_link(store.path("seal.json"), &witness).expect("linked");
    let left = seal.finish_rotation(all_wrapped(&roots)).expect("ended");
    assert!(fs::read(&witness).expect("read").iter().all(|byte| *byte == 0));
    assert_eq!(left.versions().collect::<Vec<_>>(), [2]);
    assert_eq!(seal.facts(), facts);
    let found = store.unseal(&[]).expect("opened");
    assert_eq!(found.versions().collect::<Vec<_>>(), [2]);
    assert_eq!(found.newest().expose(), roots.newest().expose());
    // Another one follows.
    let third = seal.begin_rotation(&[], &store.records, NOW).expect("begun");
    assert_eq!(third.versions().collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn a_crash_anywhere_in_the_beginning_of_a_rotation_goes_on_at_the_next_unsealing() {
    let (store, old) = with_directory();
    let (files_before, records_before) = (store.files(), records(&store));
    let seal = store.open().expect("opened");
    let roots = seal.begin_rotation(&[], &store.records, NOW).expect("begun");
    let (files_after, records_after) = (store.files(), records(&store));
    // The new root was not written to the seal.
    store.set_files(&files_before);
    put_back(&store, &records_before);
    store.put(".seal.json.next", &files_after["seal.json"][..100]);
    let found = store.unseal(&[]).expect("opened");
    assert_eq!(found.versions().collect::<Vec<_>>(), [1]);
    assert_eq!(found.newest().expose(), old.newest().expose());
    assert_eq!(records(&store), records_before);
    // It was written; the records were not.
    store.set_files(&files_after);
    put_back(&store, &records_before);
    let found = store.unseal(&[]).expect("goes on");
    assert_eq!(found.versions().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(found.newest().expose(), roots.newest().expose());
    assert_ne!(records(&store), records_before);
    vault::Vault::open(found.newest(), &store.records).expect("moved");
    // Both were.
    put_back(&store, &records_after);
    let found = store.unseal(&[]).expect("opened");
    assert_eq!(found.newest().expose(), roots.newest().expose());
    assert_eq!(records(&store), records_after);
    // The end of the rotation was not written.
    let seal = store.open().expect("opened");
    seal.finish_rotation(all_wrapped(&roots)).expect("ended");
    let ended = store.files();
    store.set_files(&files_after);
    store.put(".seal.json.next", &ended["seal.json"]);
    let found = store.unseal(&[]).expect("opened");
    assert!(found.is_rotating());
}

/// The store refused the second step, and the process lives on.
#[test]
fn a_rotation_whose_second_step_failed_begins_again() {
    let (store, _) = with_directory();
    let records_before = records(&store);
    let seal = store.open().expect("opened");
    let first = seal.begin_rotation(&[], &store.records, NOW).expect("begun");
    put_back(&store, &records_before);
    let second = seal.begin_rotation(&[], &store.records, NOW).expect("goes on");
    assert_eq!(second.versions().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(second.newest().expose(), first.newest().expose());
    vault::Vault::open(second.newest(), &store.records).expect("moved");
}

#[test]
fn an_older_copy_of_the_records_does_not_open_once_their_root_is_forgotten() {
    let (store, _) = with_directory();
    let records_before = records(&store);
    let seal = store.open().expect("opened");
    let roots = seal.begin_rotation(&[], &store.records, NOW).expect("begun");
    seal.finish_rotation(all_wrapped(&roots)).expect("ended");
    put_back(&store, &records_before);
    assert!(matches!(store.refusal(&[]), RootError::WrongRoot));
}
