//! Blobs and small files.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::PermissionsExt as _,
};

use asterism_store::{BlobName, Blobs as _, FsBlobs, StoreError, files, sweep};

fn name(text: &str) -> BlobName {
    text.parse().unwrap()
}

#[test]
fn a_blob_is_seen_after_its_commit_and_only_by_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = FsBlobs::open(&dir.path().join("blobs")).unwrap();
    let mut writer = blobs.create().unwrap();
    writer.write_all(b"content").unwrap();
    assert_eq!(writer.bytes_written(), 7);
    assert!(blobs.list().unwrap().is_empty());
    writer.commit(&name("a.blob")).unwrap();
    assert_eq!(blobs.list().unwrap(), [name("a.blob")]);
    let mut reader = blobs.open(&name("a.blob")).unwrap();
    assert_eq!(reader.len(), 7);
    reader.seek(SeekFrom::Start(3)).unwrap();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "tent");
    let path = blobs.path_hint(&name("a.blob")).unwrap();
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(
        fs::metadata(dir.path().join("blobs"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o700
    );
    blobs.delete(&name("a.blob")).unwrap();
    assert!(matches!(
        blobs.open(&name("a.blob")).err(),
        Some(StoreError::NotFound)
    ));
    assert!(matches!(blobs.delete(&name("a.blob")), Err(StoreError::NotFound)));
}

#[test]
fn what_was_not_committed_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = FsBlobs::open(dir.path()).unwrap();
    let mut writer = blobs.create().unwrap();
    writer.write_all(b"half").unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    // A crashed writer cannot clean up after itself; the next start does.
    let mut crashed = blobs.create().unwrap();
    crashed.write_all(b"half").unwrap();
    std::mem::forget(crashed);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    FsBlobs::open(dir.path()).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_sweep_deletes_what_nobody_claims() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = FsBlobs::open(dir.path()).unwrap();
    for blob in ["kept", "left-over"] {
        blobs.create().unwrap().commit(&name(blob)).unwrap();
    }
    assert_eq!(
        sweep(&blobs, &|blob| *blob == name("kept")).unwrap(),
        [name("left-over")]
    );
    assert_eq!(blobs.list().unwrap(), [name("kept")]);
}

#[test]
fn names_that_could_leave_the_directory_are_refused() {
    let long = "a".repeat(129);
    for bad in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        ".hidden",
        "A",
        "a b",
        "-a",
        long.as_str(),
    ] {
        assert!(bad.parse::<BlobName>().is_err(), "{bad}");
    }
}

#[test]
fn secret_files_are_private_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    files::write_atomic(&path, b"one", 0o600).unwrap();
    files::write_atomic(&path, b"two", 0o600).unwrap();
    assert_eq!(files::read_private(&path).unwrap(), b"two");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    assert!(matches!(
        files::read_private(&path),
        Err(StoreError::Exposed { .. })
    ));
}
