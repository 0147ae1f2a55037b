//! Import and export.

use asterism_crypto::{DecryptionKey, transfer};

use super::*;

fn job(keyring: &Keyring, id: &str, key_type: KeyType) -> ImportJob {
    keyring
        .create_import_job(id.parse().expect("id"), key_type, "user/alice", NOW)
        .expect("a job")
}

fn seal(job: &ImportJob, material: &[u8]) -> Import {
    let info = transfer::import_info(&job.id, job.key.as_str(), &job.key_type.to_string());
    Import {
        job: job.id.clone(),
        sealed: job.public_key.seal(&info, b"", material).expect("sealed"),
        labels: BTreeMap::new(),
        exportable: false,
        active_from_ms: None,
    }
}

fn import(
    keyring: &Keyring,
    import: &Import,
    request: &RequestId<'_>,
    now_ms: u64,
) -> Result<Arc<Key>, KmsError> {
    keyring.import(import, request, now_ms, |id| keyring.get(id))
}

#[test]
fn imported_material_is_used_rotated_and_exported_as_it_came() {
    let (keyring, disk) = keyring();
    let mut wish = seal(&job(&keyring, "mine", KeyType::HmacSha256), &[7; 20]);
    wish.exportable = true;
    let key = import(&keyring, &wish, &NO_ID, NOW).expect("imported");
    assert!(key.exportable && key.versions[0].imported);
    let expected = asterism_crypto::HmacKey::new(asterism_crypto::MacHash::Sha256, &[7; 20]).expect("key");
    assert_eq!(
        keyring.mac(&key, b"data", NOW).expect("mac").0,
        expected.compute(b"data")
    );
    // A fresh version between two imported ones.
    keyring.rotate(&key.id, None, &NO_ID, NOW).expect("rotated");
    let second = seal(&job(&keyring, "mine", KeyType::HmacSha256), &[8; 32]);
    import(&keyring, &second, &NO_ID, NOW).expect("imported");
    let keyring = disk.start();
    let key = keyring.get(&key.id).expect("kept");
    assert_eq!(
        key.versions
            .iter()
            .map(|version| version.imported)
            .collect::<Vec<_>>(),
        [true, false, true]
    );
    assert_eq!(key.primary(NOW), 3);
    let recipient = DecryptionKey::generate().expect("key");
    let exported = |version: u32| {
        let sealed = keyring
            .export(&key, version, &recipient.encryption_key(), NOW)
            .expect("exported");
        let info = transfer::export_info("mine", version, "HMAC_SHA256");
        recipient
            .open(&info, b"", &sealed)
            .expect("opened")
            .expose()
            .to_vec()
    };
    assert_eq!(exported(1), [7; 20]);
    assert_eq!(exported(3), [8; 32]);
    assert_eq!(exported(2).len(), 32);
    let sealed = keyring
        .export(&key, 1, &recipient.encryption_key(), NOW)
        .expect("exported");
    let wrong = transfer::export_info("mine", 2, "HMAC_SHA256");
    assert!(
        recipient.open(&wrong, b"", &sealed).is_err(),
        "bound to its version"
    );
}

#[test]
fn material_of_a_key_that_is_not_exportable_stays() {
    let (keyring, _) = keyring();
    let key = create(&keyring, "aes", KeyType::Aes256Gcm);
    let recipient = DecryptionKey::generate().expect("key").encryption_key();
    assert!(matches!(
        keyring.export(&key, 1, &recipient, NOW),
        Err(KmsError::NotExportable(_))
    ));
    let new = NewKey {
        id: Some("out".parse().expect("id")),
        key_type: KeyType::Aes256Gcm,
        labels: BTreeMap::new(),
        active_from_ms: None,
        exportable: true,
        required_approvals: 0,
    };
    let key = keyring.create(new, &NO_ID, NOW).expect("created");
    keyring.export(&key, 1, &recipient, NOW).expect("exported");
    assert!(matches!(
        keyring.export(&key, 2, &recipient, NOW),
        Err(KmsError::VersionNotFound { .. })
    ));
    for (state, allowed) in [(State::Suspended, false), (State::Deactivated, true)] {
        let key = keyring.set_state(&key.id, 1, state, &NO_ID, NOW).expect("set");
        assert_eq!(
            keyring.export(&key, 1, &recipient, NOW).is_ok(),
            allowed,
            "{state}"
        );
    }
    let key = keyring
        .schedule_destruction(&key.id, 1, MIN_WINDOW_MS, &NO_ID, NOW)
        .expect("scheduled");
    assert!(matches!(
        keyring.export(&key, 1, &recipient, NOW),
        Err(KmsError::VersionState { .. })
    ));
}

#[test]
fn a_job_is_good_for_one_import_of_its_owner_within_a_day() {
    let (keyring, disk) = keyring();
    let first = job(&keyring, "mine", KeyType::Aes256Gcm);
    let wish = seal(&first, &[1; 32]);
    let request = RequestId {
        principal: "user/alice",
        id: "r1",
        etag: "",
    };
    let bob = RequestId {
        principal: "user/bob",
        id: "",
        etag: "",
    };
    let gone = |result: Result<Arc<Key>, KmsError>| matches!(result, Err(KmsError::ImportJobNotFound(_)));
    assert!(gone(import(&keyring, &wish, &bob, NOW)), "another's");
    assert!(gone(import(&keyring, &wish, &request, NOW + DAY_MS)), "over");
    import(&keyring, &wish, &request, NOW).expect("imported");
    assert!(gone(import(&keyring, &wish, &NO_ID, NOW)), "used");
    let again = import(&keyring, &wish, &request, NOW).expect("the same request");
    assert_eq!(again.versions.len(), 1);
    let second = job(&keyring, "other", KeyType::Aes256Gcm);
    assert!(
        gone(import(&disk.start(), &seal(&second, &[1; 32]), &NO_ID, NOW)),
        "restarted"
    );
}

#[test]
fn a_job_that_many_use_at_once_makes_one_version() {
    let (keyring, disk) = keyring();
    create(&keyring, "mine", KeyType::Aes256Gcm);
    let wish = seal(&job(&keyring, "mine", KeyType::Aes256Gcm), &[1; 32]);
    let done: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| usize::from(import(&keyring, &wish, &NO_ID, NOW).is_ok())))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("ended"))
            .sum()
    });
    assert_eq!(done, 1);
    let key = disk.start().get(&"mine".parse().expect("id")).expect("kept");
    assert_eq!(key.versions.len(), 2);
    assert_eq!(
        disk.version_keys.0.lock().expect("lock").len(),
        2,
        "no wrapping key is left over"
    );
}

#[test]
fn what_does_not_fit_the_job_is_refused_and_the_job_stays() {
    let (keyring, _) = keyring();
    let aes = job(&keyring, "mine", KeyType::Aes256Gcm);
    let mac = job(&keyring, "mine", KeyType::HmacSha256);
    let mut swapped = seal(&mac, &[1; 32]);
    swapped.job.clone_from(&aes.id);
    assert!(matches!(
        import(&keyring, &swapped, &NO_ID, NOW),
        Err(KmsError::DecryptionFailed)
    ));
    for wrong in [vec![], vec![1; 31], vec![1; 33]] {
        assert!(matches!(
            import(&keyring, &seal(&aes, &wrong), &NO_ID, NOW),
            Err(KmsError::Field {
                field: "sealed_material",
                ..
            })
        ));
    }
    let zero = job(&keyring, "sign", KeyType::EcSignP256Sha256);
    assert!(matches!(
        import(&keyring, &seal(&zero, &[0; 32]), &NO_ID, NOW),
        Err(KmsError::Field { .. })
    ));
    import(&keyring, &seal(&aes, &[1; 32]), &NO_ID, NOW).expect("the job is still there");
    // The key is there now, of another type than the second job's.
    assert!(matches!(
        import(&keyring, &seal(&mac, &[1; 32]), &NO_ID, NOW),
        Err(KmsError::WrongKeyType { .. })
    ));
    let refused = keyring.create_import_job(
        "mine".parse().expect("id"),
        KeyType::HmacSha256,
        "user/alice",
        NOW,
    );
    assert!(matches!(refused.map(drop), Err(KmsError::WrongKeyType { .. })));
    let mut labelled = seal(&job(&keyring, "mine", KeyType::Aes256Gcm), &[2; 32]);
    labelled.exportable = true;
    assert!(matches!(
        import(&keyring, &labelled, &NO_ID, NOW),
        Err(KmsError::Field {
            field: "exportable",
            ..
        })
    ));
    let denied = seal(&job(&keyring, "mine", KeyType::Aes256Gcm), &[2; 32]);
    let result = keyring.import(&denied, &NO_ID, NOW, |id| Err(KmsError::KeyNotFound(id.name())));
    assert!(matches!(result.map(drop), Err(KmsError::KeyNotFound(_))));
    assert_eq!(
        keyring
            .get(&"mine".parse().expect("id"))
            .expect("there")
            .versions
            .len(),
        1
    );
}

#[test]
fn a_principal_has_so_many_jobs_and_those_that_are_over_make_room() {
    let (keyring, _) = keyring();
    for _ in 0..16 {
        job(&keyring, "mine", KeyType::Aes256Gcm);
    }
    let ask = |principal, now_ms| {
        keyring
            .create_import_job("mine".parse().expect("id"), KeyType::Aes256Gcm, principal, now_ms)
            .map(drop)
    };
    assert!(matches!(ask("user/alice", NOW), Err(KmsError::TooManyImportJobs)));
    ask("user/bob", NOW).expect("another's");
    ask("user/alice", NOW + DAY_MS).expect("the first are over");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn arbitrary_uploads_are_refused_without_a_panic(sealed: Vec<u8>) {
        let (keyring, _) = keyring();
        let mut wish = seal(&job(&keyring, "mine", KeyType::Aes256Gcm), &[1; 32]);
        wish.sealed = sealed;
        prop_assert!(import(&keyring, &wish, &NO_ID, NOW).is_err());
    }
}
