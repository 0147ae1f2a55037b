//! Row 10: whoever keeps what is recorded today meets AES-256, and a suite id that can be raised.

use std::fs;

use asterism_client::proto::kms::KeyType;
use asterism_crypto::{SecretKey, envelope, envelope::KeyRef};

use crate::support::{World, files, files_of, fresh_id, small_csv, upload};

#[tokio::test(flavor = "multi_thread")]
async fn every_ciphertext_says_its_version_and_suite_and_no_other_is_opened() {
    let world = World::start().await;
    let services = world.admin();
    let kms = &services.kms;
    kms.create_key("harvest", KeyType::Aes256Gcm, [], &fresh_id())
        .await
        .unwrap();
    let (sealed, _) = kms.encrypt("harvest", b"for thirty years", b"aad").await.unwrap();
    // Magic, version 1, suite 1 (AES-256-GCM under HKDF-SHA256): docs/formats.md.
    assert_eq!(&sealed[..5], b"AEv\x01\x01");
    for at in [3, 4] {
        for other in [0, 2, 0x7F, 0xFF] {
            let mut altered = sealed.clone();
            altered[at] = other;
            assert!(
                kms.decrypt("harvest", &altered, b"aad").await.is_err(),
                "byte {at} is {other}"
            );
        }
    }
    let opened = kms.decrypt("harvest", &sealed, b"aad").await.unwrap();
    assert_eq!(opened.expose(), b"for thirty years");

    let dataset = upload(&services, small_csv(50)).await.unwrap();
    let stored = files_of(&world.dir.path().join("ingest"), &dataset.name);
    let streams = stored
        .iter()
        .filter(|path| fs::read(path).unwrap().starts_with(b"ASs\x01\x01"))
        .count();
    assert_eq!(streams, 1, "{stored:?}");
    world.constellation.shutdown().await;
}

#[test]
fn keys_have_256_bits_and_the_channel_names_its_suite() {
    let root = SecretKey::generate().unwrap();
    assert_eq!(root.expose().len() * 8, 256);
    let key = KeyRef {
        key: "k".to_owned(),
        version: 1,
    };
    // The same message twice: another salt, so another AES key, each time.
    let [one, two] = [0, 1].map(|_| envelope::seal(&root, &key, b"x", b"").unwrap());
    assert_eq!(&one[..5], b"AEv\x01\x01");
    assert_ne!(one, two);
    let other = SecretKey::generate().unwrap();
    assert!(envelope::open(&other, &one, b"").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_of_another_version_or_suite_is_not_answered() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let world = World::start().await;
    assert!(!files(world.dir.path()).is_empty());
    for end in world.constellation.channels() {
        let at = end.address.split_once("://").unwrap().1;
        for preamble in [b"ASNC\x02\x01", b"ASNC\x01\x02", b"ASNC\x01\x00", b"HTTP/1"] {
            let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
            stream.write_all(preamble).await.unwrap();
            stream.write_all(&[7; 96]).await.unwrap();
            let mut answer = vec![];
            let end = stream.read_to_end(&mut answer);
            let closed = tokio::time::timeout(std::time::Duration::from_secs(10), end).await;
            assert!(closed.is_ok() && answer.is_empty(), "{preamble:?}");
        }
    }
    world.constellation.shutdown().await;
}
