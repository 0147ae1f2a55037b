//! What lies on the disk, and what a start makes of it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use asterism_kms::RootKeyConfig;
use asterism_store::files;

use crate::support::{World, make_keys};

pub fn all_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(all_files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

pub fn holds(bytes: &[u8], secret: &[u8]) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_keys_nor_plaintext_nor_tokens_lie_on_the_disk() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let data_key = kms.generate_data_key("aes", b"bound").await.unwrap();
    kms.encrypt("aes", b"a plaintext canary", b"an aad canary")
        .await
        .unwrap();
    kms.generate_mac("mac", b"a mac data canary").await.unwrap();
    let dir = world.stop().await;

    let root_file = dir.path().join("kms/root.key");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&root_file), 0o600);
    assert_eq!(mode(&dir.path().join("kms")), 0o700);
    let root = fs::read(&root_file).unwrap();
    assert_eq!(root.len(), 32);
    let secrets: [&[u8]; 6] = [
        &root,
        data_key.key.expose(),
        b"a plaintext canary",
        b"an aad canary",
        b"a mac data canary",
        b"Bearer",
    ];
    for path in all_files(&dir.path().join("kms")) {
        if path == root_file {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        for secret in secrets {
            assert!(!holds(&bytes, secret), "{} holds a secret", path.display());
        }
    }
    // The search finds what is there: the wrapped keys are under their names.
    let written = all_files(&dir.path().join("kms/records"));
    assert!(
        written
            .iter()
            .any(|path| holds(&fs::read(path).unwrap(), b"sign"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passphrase_seals_the_keys_and_no_file_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let passphrase = dir.path().join("passphrase");
    files::write_atomic(&passphrase, b"correct horse battery staple\n", 0o600).unwrap();
    let sealed = RootKeyConfig {
        passphrase_file: Some(passphrase.clone()),
        ..RootKeyConfig::default()
    };
    let world = World::start_with(dir, sealed.clone()).await.unwrap();
    let kms = world.admin();
    make_keys(&kms).await;
    let (ciphertext, _) = kms.encrypt("aes", b"sealed", b"").await.unwrap();
    let world = world.restart().await;
    let opened = world.admin().decrypt("aes", &ciphertext, b"").await.unwrap();
    assert_eq!(opened.expose(), b"sealed");

    let dir = world.stop().await;
    assert!(!dir.path().join("kms/root.key").exists());
    for path in all_files(&dir.path().join("kms")) {
        assert!(
            !holds(&fs::read(&path).unwrap(), b"correct horse"),
            "{}",
            path.display()
        );
    }
    // Neither another passphrase nor a key file opens it, and nothing is made in its place.
    files::write_atomic(&passphrase, b"incorrect horse battery staple\n", 0o600).unwrap();
    let Err(error) = World::start_with(dir, sealed).await else {
        panic!("opened with another passphrase")
    };
    assert!(error.to_string().contains("not the one"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_the_root_key_is_refused_and_makes_no_other() {
    let world = World::start().await;
    make_keys(&world.admin()).await;
    let dir = world.stop().await;
    let file = dir.path().join("kms/root.key");
    let root = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let copy = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(dir.path().join("kms"))
        .arg(copy.path())
        .status()
        .unwrap();
    assert!(status.success());
    let Err(error) = World::start_with(copy, RootKeyConfig::default()).await else {
        panic!("started without the root key")
    };
    assert!(error.to_string().contains("missing"), "{error}");

    files::write_atomic(&file, &root, 0o644).unwrap();
    let Err(error) = World::start_with(dir, RootKeyConfig::default()).await else {
        panic!("started with a root key that all may read")
    };
    assert!(error.to_string().contains("chmod 600"), "{error}");
}
