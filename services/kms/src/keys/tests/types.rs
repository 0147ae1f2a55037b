//! Every key type: what it does, what it refuses, and what the states of its versions allow.

use asterism_crypto::{DecryptionKey, EncryptionKey};

use super::*;

/// What is asked of a key in these tests, with something that the key made while it was active.
struct Made {
    key: Arc<Key>,
    /// A ciphertext, a MAC, a signature, a wrapped key, or a message to its public key.
    proof: Vec<u8>,
}

fn public(keyring: &Keyring, key: &Key) -> EncryptionKey {
    match keyring.public_key(key, 1, NOW).expect("public").0 {
        PublicKey::Encrypt(public) => public,
        PublicKey::Verify(_) => panic!("not a key to encrypt to"),
    }
}

fn protect(keyring: &Keyring, key: &Key) -> Result<Vec<u8>, KmsError> {
    match key.key_type {
        KeyType::Aes256Gcm | KeyType::Aes256Siv => {
            keyring.encrypt(key, b"text", b"aad", NOW).map(|(bytes, _)| bytes)
        }
        KeyType::HmacSha256 | KeyType::HmacSha512 => keyring.mac(key, b"data", NOW).map(|(mac, _)| mac),
        KeyType::EcSignP256Sha256 => keyring
            .sign(key, &Digest::of(b"message"), NOW)
            .map(|(signature, _)| signature.to_der()),
        KeyType::Aes256Kwp => keyring.wrap_key(key, b"secret", NOW).map(|(bytes, _)| bytes),
        // Whoever has the public key protects.
        KeyType::EcP256Hpke => Ok(public(keyring, key)
            .seal(b"info", b"aad", b"text")
            .expect("sealed")),
        KeyType::EcP256Ecdh => Ok(vec![]),
    }
}

fn process(keyring: &Keyring, made: &Made, version: u32) -> Result<(), KmsError> {
    let (key, proof) = (&*made.key, made.proof.as_slice());
    match key.key_type {
        KeyType::Aes256Gcm | KeyType::Aes256Siv => keyring.decrypt(key, proof, b"aad", NOW).map(drop),
        KeyType::HmacSha256 | KeyType::HmacSha512 => keyring
            .verify_mac(key, b"data", proof, version, NOW)
            .map(|found| assert_eq!(found, Some(1))),
        KeyType::EcSignP256Sha256 => {
            let signature = asterism_crypto::Signature::from_der(proof).expect("DER");
            keyring
                .verify(key, &Digest::of(b"message"), &signature, version, NOW)
                .map(|found| assert_eq!(found, Some(1)))
        }
        KeyType::Aes256Kwp => keyring
            .unwrap_key(key, proof, version, NOW)
            .map(|(secret, _)| assert_eq!(secret.expose(), b"secret")),
        KeyType::EcP256Hpke => keyring
            .decrypt_asymmetric(key, proof, (b"info", b"aad"), version, NOW)
            .map(|(plaintext, _)| assert_eq!(plaintext.expose(), b"text")),
        KeyType::EcP256Ecdh => {
            let peer = DecryptionKey::from_bytes(&[5; 32]).expect("key").encryption_key();
            keyring.agree(key, &peer, version, NOW).map(drop)
        }
    }
}

#[test]
fn every_type_does_in_every_state_what_the_table_says() {
    for key_type in KeyType::all() {
        let (keyring, _) = keyring();
        let key = create(&keyring, "key", key_type);
        let proof = protect(&keyring, &key).expect("protected");
        for state in [
            State::Active,
            State::Suspended,
            State::Deactivated,
            State::Compromised,
            State::DestroyScheduled,
        ] {
            let key = match state {
                State::Active => keyring.get(&key.id),
                State::DestroyScheduled => {
                    keyring.schedule_destruction(&key.id, 1, MIN_WINDOW_MS, &NO_ID, NOW)
                }
                state => keyring.set_state(&key.id, 1, state, &NO_ID, NOW),
            };
            let made = Made {
                key: key.expect("changed"),
                proof: proof.clone(),
            };
            let processes = matches!(state, State::Active | State::Deactivated | State::Compromised);
            assert_eq!(
                process(&keyring, &made, 1).is_ok(),
                processes,
                "{key_type} {state}"
            );
            if !matches!(key_type, KeyType::EcP256Hpke | KeyType::EcP256Ecdh) {
                let protects = state == State::Active;
                assert_eq!(
                    protect(&keyring, &made.key).is_ok(),
                    protects,
                    "{key_type} {state}"
                );
            }
        }
    }
}

#[test]
fn old_versions_go_on_and_the_minimum_ends_them() {
    for key_type in KeyType::all() {
        let (keyring, disk) = keyring();
        let key = create(&keyring, "key", key_type);
        let proof = protect(&keyring, &key).expect("protected");
        keyring.rotate(&key.id, None, &NO_ID, NOW).expect("rotated");
        // As after a restart: nothing is cached.
        let keyring = disk.start();
        let mut made = Made {
            key: keyring.get(&key.id).expect("kept"),
            proof,
        };
        process(&keyring, &made, 1).expect("processed");
        if key_type != KeyType::EcP256Ecdh {
            process(&keyring, &made, 0).expect("found");
        }
        let update = KeyUpdate {
            min_version: Some(2),
            ..KeyUpdate::default()
        };
        made.key = keyring.update(&key.id, &update, &NO_ID, NOW).expect("updated");
        assert!(
            matches!(process(&keyring, &made, 1), Err(KmsError::VersionTooOld { .. })),
            "{key_type}"
        );
    }
}

#[test]
fn a_key_of_another_type_is_refused() {
    let peer = DecryptionKey::from_bytes(&[5; 32]).expect("key").encryption_key();
    for key_type in KeyType::all() {
        let (keyring, _) = keyring();
        let key = create(&keyring, "key", key_type);
        let digest = Digest::of(b"message");
        let asked = [
            (Purpose::Encrypt, keyring.encrypt(&key, b"", b"", NOW).map(drop)),
            (
                Purpose::MakeDataKeys,
                keyring.generate_data_key(&key, b"", NOW).map(drop),
            ),
            (Purpose::Authenticate, keyring.mac(&key, b"", NOW).map(drop)),
            (Purpose::Sign, keyring.sign(&key, &digest, NOW).map(drop)),
            (Purpose::Wrap, keyring.wrap_key(&key, b"k", NOW).map(drop)),
            (Purpose::Agree, keyring.agree(&key, &peer, 0, NOW).map(drop)),
            (Purpose::Publish, keyring.public_key(&key, 0, NOW).map(drop)),
        ];
        let mut served = 0;
        for (purpose, result) in asked {
            match result {
                Ok(()) => served += 1,
                Err(error) => assert!(
                    matches!(error, KmsError::WrongKeyType { .. }),
                    "{key_type} {purpose:?} {error}"
                ),
            }
        }
        let expected = match key_type {
            KeyType::Aes256Gcm | KeyType::EcSignP256Sha256 | KeyType::EcP256Ecdh => 2,
            _ => 1,
        };
        assert_eq!(served, expected, "{key_type}");
        let opened = keyring.decrypt_asymmetric(&key, &[4; 100], (b"", b""), 0, NOW);
        match opened.map(drop) {
            Err(KmsError::DecryptionFailed) => assert_eq!(key_type, KeyType::EcP256Hpke),
            Err(KmsError::WrongKeyType { .. }) => assert_ne!(key_type, KeyType::EcP256Hpke),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn only_deterministic_keys_encrypt_deterministically() {
    let (keyring, _) = keyring();
    let siv = create(&keyring, "siv", KeyType::Aes256Siv);
    let gcm = create(&keyring, "gcm", KeyType::Aes256Gcm);
    let seal = |key: &Key, text: &[u8], aad: &[u8]| keyring.encrypt(key, text, aad, NOW).expect("sealed").0;
    assert_eq!(seal(&siv, b"same", b"a"), seal(&siv, b"same", b"a"));
    assert_ne!(seal(&siv, b"same", b"a"), seal(&siv, b"same", b"b"));
    assert_ne!(seal(&siv, b"same", b"a"), seal(&siv, b"else", b"a"));
    assert_ne!(seal(&gcm, b"same", b"a"), seal(&gcm, b"same", b"a"));
    let moved = keyring
        .re_encrypt((&siv, &seal(&siv, b"text", b"a"), b"a"), (&gcm, b"b"), NOW)
        .expect("moved");
    let opened = keyring
        .decrypt(&gcm, &moved.ciphertext, b"b", NOW)
        .expect("opened")
        .0;
    assert_eq!(opened.expose(), b"text");
    let rotated = keyring.rotate(&siv.id, None, &NO_ID, NOW).expect("rotated");
    assert_ne!(
        seal(&siv, b"same", b"a"),
        seal(&rotated, b"same", b"a"),
        "equal only under one version"
    );
}

#[test]
fn sizes_out_of_bounds_name_the_field() {
    let (keyring, _) = keyring();
    let wrap = create(&keyring, "wrap", KeyType::Aes256Kwp);
    let hpke = create(&keyring, "hpke", KeyType::EcP256Hpke);
    let big = vec![0; MAX_INPUT_BYTES + 2000];
    let refused = [
        (keyring.random_bytes(0).map(drop), "length"),
        (keyring.random_bytes(65_537).map(drop), "length"),
        (keyring.wrap_key(&wrap, b"", NOW).map(drop), "key_material"),
        (keyring.wrap_key(&wrap, &big, NOW).map(drop), "key_material"),
        (keyring.unwrap_key(&wrap, b"", 0, NOW).map(drop), "wrapped"),
        (keyring.unwrap_key(&wrap, &[0; 17], 0, NOW).map(drop), "wrapped"),
        (
            keyring
                .decrypt_asymmetric(&hpke, &big, (b"", b""), 0, NOW)
                .map(drop),
            "ciphertext",
        ),
        (
            keyring
                .decrypt_asymmetric(&hpke, &[4; 80], (b"", b""), 0, NOW)
                .map(drop),
            "ciphertext",
        ),
        (
            keyring
                .decrypt_asymmetric(&hpke, &[4; 90], (&big, b""), 0, NOW)
                .map(drop),
            "info",
        ),
    ];
    for (result, expected) in refused {
        match result {
            Err(KmsError::Field { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    assert_eq!(keyring.random_bytes(65_536).expect("random").len(), 65_536);
    assert_ne!(
        keyring.random_bytes(32).expect("random").expose(),
        keyring.random_bytes(32).expect("random").expose()
    );
}

#[test]
fn a_change_is_made_only_while_the_key_has_the_etag() {
    let (keyring, _) = keyring();
    let key = create(&keyring, "key", KeyType::Aes256Gcm);
    let on = |etag| RequestId {
        principal: "user/alice",
        id: "",
        etag,
    };
    let stale = on("0000000000000000");
    let refused = [
        keyring.rotate(&key.id, None, &stale, NOW),
        keyring.set_state(&key.id, 1, State::Suspended, &stale, NOW),
        keyring.schedule_destruction(&key.id, 1, MIN_WINDOW_MS, &stale, NOW),
        keyring.restore(&key.id, 1, &stale, NOW),
    ];
    for result in refused {
        assert!(matches!(result.map(drop), Err(KmsError::EtagMismatch(_))));
    }
    let key = keyring
        .rotate(&key.id, None, &on(&key.etag), NOW)
        .expect("rotated");
    let key = keyring
        .set_state(&key.id, 1, State::Suspended, &on(&key.etag), NOW)
        .expect("suspended");
    let old = key.etag.clone();
    let key = keyring
        .schedule_destruction(&key.id, 1, MIN_WINDOW_MS, &on(&key.etag), NOW)
        .expect("scheduled");
    assert_ne!(key.etag, old);
    assert!(matches!(
        keyring.restore(&key.id, 1, &on(&old), NOW).map(drop),
        Err(KmsError::EtagMismatch(_))
    ));
    keyring
        .restore(&key.id, 1, &on(&key.etag), NOW)
        .expect("restored");
    // A request that was answered is answered again, whatever the etag is by then.
    let asked = RequestId {
        principal: "user/alice",
        id: "r1",
        etag: &keyring.get(&key.id).expect("there").etag.clone(),
    };
    for _ in 0..2 {
        let rotated = keyring.rotate(&key.id, None, &asked, NOW).expect("rotated once");
        assert_eq!(rotated.versions.len(), 3);
    }
    let other = RequestId { etag: "", ..asked };
    assert!(matches!(
        keyring.rotate(&key.id, None, &other, NOW).map(drop),
        Err(KmsError::RequestIdReused)
    ));
}
