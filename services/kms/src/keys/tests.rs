use asterism_store::MemoryRecords;
use proptest::prelude::*;

use std::{collections::BTreeMap, sync::Arc};

use asterism_crypto::{Digest, SecretKey};
use asterism_store::Records as _;

use super::{version_keys::MemoryVersionKeys, *};
use crate::error::KmsError;

mod agenda;
mod concurrent;
mod life;
mod model;
mod rewrap;
mod transfers;
mod types;

const DAY_MS: u64 = 24 * 3600 * 1000;
/// The moment at which tests do what they do not do at another.
const NOW: u64 = 10;
const NO_ID: RequestId<'static> = RequestId {
    principal: "user/alice",
    id: "",
    etag: "",
};

/// What a keyring stands on, to start it again.
#[derive(Clone, Default)]
struct Disk {
    records: Arc<MemoryRecords>,
    version_keys: Arc<MemoryVersionKeys>,
}

impl Disk {
    fn start(&self) -> Keyring {
        let root = SecretKey::from_bytes([9; 32]);
        Keyring::new(
            self.records.clone(),
            self.version_keys.clone(),
            root,
            MIN_WINDOW_MS,
        )
    }
}

fn keyring() -> (Keyring, Disk) {
    let disk = Disk::default();
    (disk.start(), disk)
}

fn create(keyring: &Keyring, id: &str, key_type: KeyType) -> Arc<Key> {
    let request = RequestId {
        principal: "user/alice",
        id: "",
        etag: "",
    };
    let new = NewKey {
        id: Some(id.parse().expect("id")),
        key_type,
        labels: BTreeMap::new(),
        active_from_ms: None,
        exportable: false,
        required_approvals: 0,
    };
    keyring.create(new, &request, 1).expect("created")
}

#[test]
fn old_versions_decrypt_and_verify_after_a_rotation() {
    let (keyring, disk) = keyring();
    let request = RequestId {
        principal: "user/alice",
        id: "",
        etag: "",
    };
    let aes = create(&keyring, "aes", KeyType::Aes256Gcm);
    let sign = create(&keyring, "sign", KeyType::EcSignP256Sha256);
    let mac = create(&keyring, "mac", KeyType::HmacSha256);
    let (old, version) = keyring.encrypt(&aes, b"text", b"aad", NOW).expect("encrypted");
    assert_eq!(version, 1);
    let digest = Digest::of(b"message");
    let (signature, _) = keyring.sign(&sign, &digest, NOW).expect("signed");
    let (tag, _) = keyring.mac(&mac, b"data", NOW).expect("mac");
    for id in [&aes.id, &sign.id, &mac.id] {
        assert_eq!(
            keyring.rotate(id, None, &request, 2).expect("rotated").primary(2),
            2
        );
    }
    // As after a restart: nothing is cached.
    let keyring = disk.start();
    let get = |id: &str| keyring.get(&id.parse().expect("id")).expect("kept");
    let (plaintext, version) = keyring
        .decrypt(&get("aes"), &old, b"aad", NOW)
        .expect("decrypted");
    assert_eq!((plaintext.expose(), version), (b"text".as_slice(), 1));
    assert_eq!(
        keyring
            .encrypt(&get("aes"), b"text", b"", NOW)
            .expect("encrypted")
            .1,
        2
    );
    assert_eq!(
        keyring
            .verify(&get("sign"), &digest, &signature, 0, NOW)
            .expect("checked"),
        Some(1)
    );
    assert_eq!(
        keyring
            .verify(&get("sign"), &digest, &signature, 2, NOW)
            .expect("checked"),
        None
    );
    assert_eq!(
        keyring
            .verify_mac(&get("mac"), b"data", &tag, 0, NOW)
            .expect("checked"),
        Some(1)
    );
    assert_eq!(
        keyring
            .verify_mac(&get("mac"), b"other", &tag, 0, NOW)
            .expect("checked"),
        None
    );
}

#[test]
fn what_does_not_decrypt_says_no_more_than_that() {
    let (keyring, _) = keyring();
    let aes = create(&keyring, "aes", KeyType::Aes256Gcm);
    let other = create(&keyring, "other", KeyType::Aes256Gcm);
    let (ciphertext, _) = keyring.encrypt(&aes, b"text", b"aad", NOW).expect("encrypted");
    assert!(matches!(
        keyring.decrypt(&aes, &ciphertext, b"bad", NOW).map(drop),
        Err(KmsError::DecryptionFailed)
    ));
    for at in 0..ciphertext.len() {
        let mut altered = ciphertext.clone();
        altered[at] ^= 1;
        let refused = keyring.decrypt(&aes, &altered, b"aad", NOW).map(drop);
        assert!(
            matches!(refused, Err(KmsError::DecryptionFailed | KmsError::Field { .. })),
            "byte {at}"
        );
    }
    assert!(matches!(
        keyring.decrypt(&other, &ciphertext, b"aad", NOW).map(drop),
        Err(KmsError::Field { .. })
    ));
}

#[test]
fn a_key_does_only_what_its_type_says() {
    let (keyring, _) = keyring();
    let aes = create(&keyring, "aes", KeyType::Aes256Gcm);
    let sign = create(&keyring, "sign", KeyType::EcSignP256Sha256);
    let digest = Digest::of(b"m");
    let wrong = [
        keyring.encrypt(&sign, b"", b"", NOW).map(drop),
        keyring.decrypt(&sign, b"", b"", NOW).map(drop),
        keyring.generate_data_key(&sign, b"", NOW).map(drop),
        keyring.mac(&aes, b"", NOW).map(drop),
        keyring.verify_mac(&aes, b"", b"", 0, NOW).map(drop),
        keyring.sign(&aes, &digest, NOW).map(drop),
        keyring.public_key(&aes, 0, NOW).map(drop),
    ];
    for result in wrong {
        assert!(matches!(result, Err(KmsError::WrongKeyType { .. })));
    }
    assert!(matches!(
        keyring.public_key(&sign, 2, NOW).map(drop),
        Err(KmsError::VersionNotFound { .. })
    ));
    assert!(matches!(
        keyring
            .encrypt(&aes, &[0; MAX_INPUT_BYTES + 1], b"", NOW)
            .map(drop),
        Err(KmsError::Field { .. })
    ));
}

#[test]
fn a_request_id_does_one_thing_once() {
    let (keyring, _) = keyring();
    let request = RequestId {
        principal: "user/alice",
        id: "r1",
        etag: "",
    };
    let new = |id: &str| NewKey {
        id: Some(id.parse().expect("id")),
        key_type: KeyType::Aes256Gcm,
        labels: BTreeMap::new(),
        active_from_ms: None,
        exportable: false,
        required_approvals: 0,
    };
    keyring.create(new("one"), &request, 1).expect("created");
    let again = keyring.create(new("one"), &request, 5).expect("the same");
    assert_eq!(again.versions[0].created_at_ms, 1);
    assert!(matches!(
        keyring.create(new("two"), &request, 1).map(drop),
        Err(KmsError::RequestIdReused)
    ));
    let fresh = RequestId {
        principal: "user/alice",
        id: "r2",
        etag: "",
    };
    assert!(matches!(
        keyring.create(new("one"), &fresh, 1).map(drop),
        Err(KmsError::KeyExists(_))
    ));
    let rotation = RequestId {
        principal: "user/alice",
        id: "r3",
        etag: "",
    };
    for _ in 0..2 {
        assert_eq!(
            keyring
                .rotate(&again.id, None, &rotation, 2)
                .expect("rotated")
                .primary(2),
            2
        );
    }
    let bob = RequestId {
        principal: "user/bob",
        id: "r1",
        etag: "",
    };
    keyring
        .create(new("three"), &bob, 1)
        .expect("another principal's ids are its own");
}

#[test]
fn stored_material_is_wrapped_and_bound_to_its_key() {
    let (keyring, disk) = keyring();
    let one = create(&keyring, "one", KeyType::Aes256Gcm);
    create(&keyring, "two", KeyType::Aes256Gcm);
    let (ciphertext, _) = keyring.encrypt(&one, b"text", b"", NOW).expect("encrypted");
    // One key's wrapped material in the other's place is refused.
    let stored = disk
        .records
        .get(&record::version_record(&"two".parse().expect("id"), 1))
        .expect("read")
        .expect("there");
    let place = record::version_record(&"one".parse().expect("id"), 1);
    disk.records
        .commit(asterism_store::Batch::new().put(place, stored))
        .expect("written");
    let keyring = disk.start();
    let one = keyring.get(&one.id).expect("there");
    assert!(matches!(
        keyring.decrypt(&one, &ciphertext, b"", NOW).map(drop),
        Err(KmsError::Damaged(_))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_ciphertext_is_refused_without_a_panic(bytes: Vec<u8>) {
        let (keyring, _) = keyring();
        let aes = create(&keyring, "aes", KeyType::Aes256Gcm);
        prop_assert!(keyring.decrypt(&aes, &bytes, b"", NOW).is_err());
    }

    #[test]
    fn an_id_reads_back_as_it_was_written(text in "\\PC{0,70}") {
        if let Ok(id) = text.parse::<KeyId>() {
            let again = KeyId::from_name(&id.name()).expect("own name");
            prop_assert_eq!(again.as_str(), text);
        }
    }
}
