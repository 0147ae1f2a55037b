//! Destroyed means that no copy of the store's files gives the material again, not even with the root key.

use std::{fs, path::Path};

use asterism_crypto::{Argon2Params, Context, KeyRef, SecretKey, envelope, kdf, password};
use asterism_kms::RootKeyConfig;
use asterism_proto::kms::{KeyType, KeyVersionState};
use asterism_store::{Batch, Records as _, SledOptions, SledRecords};
use tonic::Code;

use crate::{
    disk::{all_files, holds},
    seals::{PASSPHRASE, copy, passphrase, reason, roots, unseal},
    support::{DAY, World, eventually, make_keys, refusal, refused},
};

fn context(key: &str, version: u32) -> Vec<u8> {
    Context::new("asterism/key-version/v1")
        .field("key", key)
        .field("version", &version.to_string())
        .field("type", "AES_256_GCM")
        .encode()
}

/// Everything in the files that looks like an envelope, as stored records hold it: base64 that begins with the magic.
fn envelopes(dir: &Path) -> Vec<Vec<u8>> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut found = Vec::new();
    for path in all_files(dir) {
        let bytes = fs::read(path).unwrap();
        for at in 0..bytes.len().saturating_sub(4) {
            if &bytes[at..at + 4] == b"QUV2" {
                let plain = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
                let text: Vec<u8> = bytes[at..].iter().take_while(plain).copied().collect();
                found.extend(STANDARD.decode(text));
            }
        }
    }
    found
}

/// What a thief with the root keys makes of a copy: every envelope under a root key, and under every wrapping key that is there.
pub fn recovered(copy: &Path, roots: Vec<SecretKey>, key: &str, version: u32) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    for path in all_files(&copy.join("kms/version-keys")) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let label = "asterism/version-wrapping-key/v1";
        let bound = Context::new(label).field("name", &name).encode();
        let half = &fs::read(&path).unwrap()[..32];
        keys.extend(roots.iter().map(|root| kdf::derive(root, half, label, &bound)));
    }
    keys.extend(roots);
    let found = envelopes(copy);
    assert!(!found.is_empty(), "the search finds what is there");
    let mut materials = Vec::new();
    for envelope in &found {
        for key_of in &keys {
            let opened = envelope::open(key_of, envelope, &context(key, version));
            materials.extend(opened.ok().map(|bytes| bytes.expose().to_vec()));
        }
    }
    materials
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_store_after_the_destruction_holds_nothing_that_opens() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let (first, _) = kms.encrypt("aes", b"first", b"").await.unwrap();
    kms.rotate_key("aes", "r").await.unwrap();
    let (second, _) = kms.encrypt("aes", b"second", b"").await.unwrap();
    kms.destroy_key_version("aes", 1, Some(7 * DAY), "d")
        .await
        .unwrap();
    let dir = world.stop().await;

    let before = copy(&dir.path().join("kms"));
    let materials = recovered(before.path(), roots(&before.path().join("kms")), "aes", 1);
    assert!(
        !materials.is_empty(),
        "the thief's way works before the destruction"
    );
    let secret = SecretKey::try_from_slice(&materials[0]).unwrap();
    assert_eq!(envelope::open(&secret, &first, b"").unwrap().expose(), b"first");
    let halves: Vec<(String, Vec<u8>)> = all_files(&before.path().join("kms/version-keys"))
        .iter()
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap()[..32].to_vec())
        })
        .collect();
    assert_eq!(halves.len(), 4);

    let world = World::start_with(dir, RootKeyConfig::default()).await.unwrap();
    world.advance(7 * DAY);
    let kms = world.admin();
    eventually(|| async { kms.key_version("aes", 1).await.unwrap().state() == KeyVersionState::Destroyed })
        .await;
    let gone = refused(Code::FailedPrecondition, "KEY_VERSION_STATE");
    assert_eq!(refusal(kms.decrypt("aes", &first, b"").await), gone);
    assert_eq!(
        kms.decrypt("aes", &second, b"").await.unwrap().expose(),
        b"second"
    );
    // Copied while the service runs, and again after it has stopped.
    let live = copy(&world.dir.path().join("kms"));
    let dir = world.stop().await;
    let after = copy(&dir.path().join("kms"));
    for copy in [live.path(), after.path()] {
        assert_eq!(
            recovered(copy, roots(&copy.join("kms")), "aes", 1),
            Vec::<Vec<u8>>::new()
        );
        assert!(
            !recovered(copy, roots(&copy.join("kms")), "aes", 2).is_empty(),
            "only that version is gone"
        );
        let left = all_files(&copy.join("kms/version-keys"));
        assert_eq!(left.len(), 3);
        let gone = halves
            .iter()
            .find(|(name, _)| !left.iter().any(|path| path.ends_with(name)))
            .unwrap();
        for path in all_files(copy) {
            let bytes = fs::read(&path).unwrap();
            assert!(!holds(&bytes, &gone.1), "{} holds a shredded key", path.display());
            assert!(!holds(&bytes, &materials[0]), "{} holds material", path.display());
        }
    }
}

/// A store as the first release candidate wrote it: material under the root key alone.
fn make_format_1(dir: &Path, root: &SecretKey, material: &[u8; 32]) {
    make_format_1_without_root(dir, root, material);
    asterism_store::files::write_atomic(&dir.join("kms/root.key"), root.expose(), 0o600).unwrap();
}

fn make_format_1_without_root(dir: &Path, root: &SecretKey, material: &[u8; 32]) {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let root_ref = KeyRef {
        key: "root".to_owned(),
        version: 1,
    };
    let seal = |text: &[u8], aad: &[u8]| envelope::seal(root, &root_ref, text, aad).unwrap();
    let check = seal(b"asterism root key check", b"asterism/root-check/v1");
    let wrapped = STANDARD.encode(seal(material, &context("old", 1)));
    let key = r#"{"key_type":"aes256_gcm","owner":"user/admin","labels":{},"created_at_ms":[1700000000000]}"#;
    asterism_store::files::create_private_dir(&dir.join("kms")).unwrap();
    let records = SledRecords::open(&dir.join("kms/records"), SledOptions::default()).unwrap();
    let batch = Batch::new()
        .put(b"c".as_slice(), check)
        .put(b"kold".as_slice(), key.as_bytes())
        .put(
            b"vold\0\0\0\0\x01".as_slice(),
            format!(r#"{{"wrapped":"{wrapped}"}}"#).into_bytes(),
        );
    records.commit(batch).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_format_1_is_wrapped_anew_and_its_versions_can_be_destroyed() {
    let dir = tempfile::tempdir().unwrap();
    let (root, material) = (SecretKey::generate().unwrap(), [0xa7; 32]);
    make_format_1(dir.path(), &root, &material);
    let key_ref = KeyRef {
        key: "old".to_owned(),
        version: 1,
    };
    let secret = SecretKey::from_bytes(material);
    let ciphertext = envelope::seal(&secret, &key_ref, b"old text", b"").unwrap();
    let world = World::start_with(dir, RootKeyConfig::default()).await.unwrap();
    let kms = world.admin();
    assert_eq!(
        kms.decrypt("old", &ciphertext, b"").await.unwrap().expose(),
        b"old text"
    );
    let key = kms.key("old").await.unwrap();
    assert_eq!(key.versions[0].state(), KeyVersionState::Active);
    assert_eq!((key.primary_version, key.min_decryption_version), (1, 1));
    kms.create_key("new", KeyType::Aes256Gcm, [], "n").await.unwrap();

    // Beside its new wrapping nothing is left of the old one.
    let dir = world.stop().await;
    assert!(!dir.path().join("kms/records.old").exists());
    assert!(!dir.path().join("kms/records.new").exists());
    let found = envelopes(&copy(&dir.path().join("kms")).path().join("kms"));
    assert!(
        found
            .iter()
            .all(|found| envelope::open(&root, found, &context("old", 1)).is_err())
    );
    let world = World::start_with(dir, RootKeyConfig::default()).await.unwrap();
    let kms = world.admin();
    assert_eq!(
        kms.decrypt("old", &ciphertext, b"").await.unwrap().expose(),
        b"old text"
    );
    kms.destroy_key_version("old", 1, Some(7 * DAY), "d")
        .await
        .unwrap();
    world.advance(8 * DAY);
    let world = world.restart().await;
    let version = world.admin().key_version("old", 1).await.unwrap();
    assert_eq!(version.state(), KeyVersionState::Destroyed, "swept at the start");
    let dir = world.stop().await;
    let copy = copy(&dir.path().join("kms"));
    assert_eq!(
        recovered(copy.path(), roots(&copy.path().join("kms")), "old", 1),
        Vec::<Vec<u8>>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_format_1_under_a_passphrase_is_brought_up_to_date_at_a_start_only() {
    let dir = tempfile::tempdir().unwrap();
    let (salt, cost) = ([5; 16], Argon2Params::default());
    let root = password::derive_key(PASSPHRASE.as_bytes(), &salt, &cost).unwrap();
    make_format_1_without_root(dir.path(), &root, &[0xa7; 32]);
    let json = serde_json::json!({ "format": 1, "argon2id": cost, "salt": hex::encode(salt) });
    let file = dir.path().join("kms/root.json");
    asterism_store::files::write_atomic(&file, json.to_string().as_bytes(), 0o600).unwrap();

    let world = World::start_with(dir, RootKeyConfig::default()).await.unwrap();
    assert_eq!(
        reason(unseal(&world, Some(passphrase(PASSPHRASE))).await),
        refused(Code::FailedPrecondition, "UPGRADE_AT_START")
    );
    let dir = world.stop().await;
    let secret = dir.path().join("passphrase");
    asterism_store::files::write_atomic(&secret, PASSPHRASE.as_bytes(), 0o600).unwrap();
    let named = RootKeyConfig {
        passphrase_file: Some(secret),
        ..RootKeyConfig::default()
    };
    let world = World::start_with(dir, named).await.unwrap();
    let key = world.admin().key("old").await.unwrap();
    assert_eq!(key.versions[0].state(), KeyVersionState::Active);
    let dir = world.stop().await;
    assert!(!dir.path().join("kms/root.json").exists());
    let found = envelopes(&copy(&dir.path().join("kms")).path().join("kms"));
    let opens = |found: &Vec<u8>| envelope::open(&root, found, &context("old", 1)).is_ok();
    assert!(!found.iter().any(opens));
    // From now on anybody who knows it opens it, at any time.
    let world = World::start_with(dir, RootKeyConfig::default()).await.unwrap();
    unseal(&world, Some(passphrase(PASSPHRASE))).await.unwrap();
    world.admin().key("old").await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_upgrade_is_settled_at_the_next_start() {
    for interrupted in ["half a copy", "between the renames", "while shredding"] {
        let dir = tempfile::tempdir().unwrap();
        let root = SecretKey::generate().unwrap();
        make_format_1(dir.path(), &root, &[3; 32]);
        let kms = dir.path().join("kms");
        let (records, new, old) = (
            kms.join("records"),
            kms.join("records.new"),
            kms.join("records.old"),
        );
        match interrupted {
            "half a copy" => {
                fs::create_dir_all(new.join("sled")).unwrap();
                fs::write(new.join("sled/db"), b"half").unwrap();
            }
            "between the renames" => {
                assert!(
                    std::process::Command::new("cp")
                        .arg("-a")
                        .arg(&records)
                        .arg(&new)
                        .status()
                        .unwrap()
                        .success()
                );
                fs::rename(&records, &old).unwrap();
            }
            _ => {
                fs::create_dir_all(old.join("sled")).unwrap();
                fs::write(old.join("sled/db"), b"half").unwrap();
            }
        }
        let world = World::start_with(dir, RootKeyConfig::default()).await.unwrap();
        let key = world.admin().key("old").await.unwrap();
        assert_eq!(key.primary_version, 1, "{interrupted}");
        let dir = world.stop().await;
        assert!(!dir.path().join("kms/records.old").exists(), "{interrupted}");
        assert!(!dir.path().join("kms/records.new").exists(), "{interrupted}");
    }
}
