//! A new root key, while the service serves.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use asterism_client::Kms;
use asterism_crypto::DecryptionKey;
use asterism_kms::RootKeyConfig;
use asterism_proto::kms::{KeyType, KeyVersionState};
use tonic::Code;

use crate::{
    backups::{backup, restored},
    destruction::recovered,
    seals::{
        PASSPHRASE, copy, passphrase, reason, roots, rotate_root, seal, sealed_with_passphrase, status,
        unseal,
    },
    support::{DAY, World, eventually, make_keys, refused},
};

async fn rotated(world: &World, version: u32) {
    eventually(async || {
        let told = status(world).await;
        !told.sealed && told.root_version == version && told.rotation.is_none()
    })
    .await;
}

/// Keys, each with a ciphertext.
async fn fill(kms: &Kms, count: usize) -> Vec<(String, Vec<u8>)> {
    let mut made = vec![];
    for at in 0..count {
        let id = format!("fill-{at}");
        kms.create_key(&id, KeyType::Aes256Gcm, [], &id).await.unwrap();
        let (ciphertext, _) = kms.encrypt(&id, id.as_bytes(), b"").await.unwrap();
        made.push((id, ciphertext));
    }
    made
}

async fn decrypts(kms: &Kms, made: &[(String, Vec<u8>)]) {
    for (id, ciphertext) in made {
        let opened = kms.decrypt(id, ciphertext, b"").await.unwrap();
        assert_eq!(opened.expose(), id.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_the_old_root_key_opens_nothing_in_a_copy_of_the_store() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let made = fill(&kms, 5).await;
    let dir = world.stop().await;
    let before = copy(&dir.path().join("kms"));
    let old = || roots(&before.path().join("kms"));
    assert_eq!(old().len(), 1);
    assert!(
        !recovered(before.path(), old(), "aes", 1).is_empty(),
        "the thief's way works"
    );

    let world = World::start_with(dir, RootKeyConfig::default()).await.unwrap();
    let told = rotate_root(&world, vec![]).await.unwrap();
    assert_eq!(told.root_version, 2, "it is in use when this answers");
    rotated(&world, 2).await;
    decrypts(&world.admin(), &made).await;
    let live = copy(&world.dir.path().join("kms"));
    let dir = world.stop().await;
    let after = copy(&dir.path().join("kms"));
    for copy in [live.path(), after.path()] {
        let new = roots(&copy.join("kms"));
        assert_eq!(new.len(), 1, "the old one is dropped");
        assert_ne!(new[0].expose(), old()[0].expose());
        for id in ["aes", "fill-0", "fill-4"] {
            assert_eq!(recovered(copy, old(), id, 1), Vec::<Vec<u8>>::new(), "{id}");
            assert!(
                !recovered(copy, roots(&copy.join("kms")), id, 1).is_empty(),
                "{id}"
            );
        }
    }
    // The old seal is not one of this store any more.
    fs::copy(
        before.path().join("kms/seal.json"),
        after.path().join("kms/seal.json"),
    )
    .unwrap();
    let Err(error) = World::start_with(after, RootKeyConfig::default()).await else {
        panic!("opened by the old seal")
    };
    assert!(error.to_string().contains("not the one"), "{error}");

    let world = World::start_with(dir, RootKeyConfig::default()).await.unwrap();
    assert_eq!(status(&world).await.root_version, 2);
    decrypts(&world.admin(), &made).await;
    rotate_root(&world, vec![]).await.unwrap();
    rotated(&world, 3).await;
    decrypts(&world.admin(), &made).await;
    world.stop().await;
}

/// Creates, rotates, encrypts and decrypts until told to stop; gives what has to decrypt afterwards.
async fn work(kms: Kms, name: usize, stop: Arc<AtomicBool>) -> Vec<(String, Vec<u8>)> {
    let mut made = vec![];
    while !stop.load(Ordering::Acquire) {
        let id = format!("work-{name}-{}", made.len());
        kms.create_key(&id, KeyType::Aes256Gcm, [], &id).await.unwrap();
        let (first, _) = kms.encrypt(&id, id.as_bytes(), b"").await.unwrap();
        kms.rotate_key(&id, "").await.unwrap();
        let (second, _) = kms.encrypt(&id, id.as_bytes(), b"").await.unwrap();
        made.extend([(id.clone(), first), (id, second)]);
        decrypts(&kms, &made[made.len().saturating_sub(6)..]).await;
    }
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rotation_under_load_loses_nothing_and_revives_nothing() {
    let world = World::start().await;
    let kms = world.admin();
    let filled = fill(&kms, 60).await;
    let mut doomed = vec![];
    for at in 0..10 {
        let id = format!("doomed-{at}");
        kms.create_key(&id, KeyType::Aes256Gcm, [], &id).await.unwrap();
        kms.rotate_key(&id, "").await.unwrap();
        kms.destroy_key_version(&id, 1, Some(7 * DAY), "").await.unwrap();
        doomed.push(id);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..4)
        .map(|name| tokio::spawn(work(world.admin(), name, stop.clone())))
        .collect();
    // The destructions become due while material is wrapped anew.
    world.advance(8 * DAY);
    for version in 2..6 {
        rotate_root(&world, vec![]).await.unwrap();
        rotated(&world, version).await;
    }
    stop.store(true, Ordering::Release);
    let mut made = filled;
    for worker in workers {
        let done = worker.await.unwrap();
        assert!(!done.is_empty());
        made.extend(done);
    }
    let ended = async |id: &str| {
        let version = world.admin().key_version(id, 1).await.unwrap();
        version.state() == KeyVersionState::Destroyed
    };
    for id in &doomed {
        eventually(async || ended(id).await).await;
    }
    decrypts(&world.admin(), &made).await;
    let world = world.restart().await;
    decrypts(&world.admin(), &made).await;
    let dir = world.stop().await;
    let copy = copy(&dir.path().join("kms"));
    for id in &doomed {
        let roots = roots(&copy.path().join("kms"));
        assert_eq!(recovered(copy.path(), roots, id, 1), Vec::<Vec<u8>>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_interrupted_goes_on_when_the_seal_is_opened() {
    let world = sealed_with_passphrase().await;
    let secret = || passphrase(PASSPHRASE);
    unseal(&world, Some(secret())).await.unwrap();
    let made = fill(&world.admin(), 300).await;
    let refusal = |answer| reason(answer).1;
    assert_eq!(
        refusal(rotate_root(&world, vec![]).await),
        "UNSEAL_SECRET_REQUIRED"
    );
    let wrong = vec![passphrase("wrong horse battery staple")];
    assert_eq!(
        reason(rotate_root(&world, wrong).await),
        refused(Code::Unauthenticated, "WRONG_PASSPHRASE")
    );
    assert_eq!(status(&world).await.root_version, 1);

    let (mut world, version) = (world, AtomicU32::new(1));
    for by_seal in [true, false, true, false] {
        let next = version.fetch_add(1, Ordering::AcqRel) + 1;
        let told = rotate_root(&world, vec![secret()]).await.unwrap();
        assert_eq!(told.root_version, next);
        if by_seal {
            seal(&world).await;
        } else {
            world = world.restart().await;
        }
        assert!(status(&world).await.sealed);
        let told = unseal(&world, Some(secret())).await.unwrap();
        assert_eq!(told.root_version, next, "what was begun holds");
        decrypts(&world.admin(), &made[..20]).await;
        rotated(&world, next).await;
        decrypts(&world.admin(), &made).await;
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_taken_in_the_midst_of_a_rotation_is_whole() {
    let world = World::start().await;
    let made = fill(&world.admin(), 200).await;
    let key = DecryptionKey::generate().unwrap();
    let recipient = key.encryption_key();
    rotate_root(&world, vec![]).await.unwrap();
    // So many wrapping keys may change meanwhile that it has to be asked for again.
    let mut taken = backup(&world.admin(), &recipient).await;
    for _ in 0..50 {
        if taken.is_err() {
            taken = backup(&world.admin(), &recipient).await;
        }
    }
    let (bytes, signer) = taken.unwrap();
    let root = world.dir.path().join("kms/root.key");
    let restored = restored(&bytes, key, signer, &root).await;
    rotated(&restored, 2).await;
    decrypts(&restored.admin(), &made).await;
    restored.stop().await;
    world.stop().await;
}
