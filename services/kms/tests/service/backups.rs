//! Backups over gRPC, and the service that starts from one.

use std::{fs, path::Path, time::Duration};

use asterism_chassis::identity::Role;
use asterism_client::{ClientError, Kms};
use asterism_crypto::{DecryptionKey, Digest, EncryptionKey};
use asterism_kms::{
    RootKeyConfig,
    backup::{Opener, Order, restore},
};
use asterism_proto::kms::{
    BackupPassphrase, CreateBackupRequest, KeyType, backup_service_client::BackupServiceClient,
};
use asterism_store::{Batch, Records as _, SledOptions, SledRecords};
use tempfile::TempDir;
use tonic::{Code, transport::Endpoint};

use crate::{
    seals::{channel, reason, seal, unseal},
    support::{DAY, World, eventually, refusal, refused},
};

fn request(recipient: &EncryptionKey) -> CreateBackupRequest {
    CreateBackupRequest {
        recipient_pem: recipient.to_pem(),
        passphrase: None,
    }
}

pub async fn backup(kms: &Kms, recipient: &EncryptionKey) -> Result<(Vec<u8>, Digest), ClientError> {
    let mut bytes = Vec::new();
    let made = kms.create_backup(request(recipient), |part| {
        bytes.extend_from_slice(part);
        Ok(())
    });
    let made = made.await?;
    assert_eq!(made.bytes, bytes.len() as u64);
    let signer = Digest::from_bytes(made.facts.signer_fingerprint_sha256.try_into().unwrap());
    Ok((bytes, signer))
}

/// A directory whose `kms` is what the backup holds.
pub(crate) fn restored_dir(bytes: &[u8], key: DecryptionKey, signer: Digest) -> TempDir {
    let dir: TempDir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("backup"), bytes).unwrap();
    let order = Order {
        backup: &dir.path().join("backup"),
        opener: &Opener::PrivateKey(key),
        signer: Some(signer),
        data_dir: &dir.path().join("kms"),
        now_ms: 1,
    };
    restore(&order, &mut |_| {}).unwrap();
    dir
}

/// A fresh world over what the backup holds.
pub(crate) async fn restored(bytes: &[u8], key: DecryptionKey, signer: Digest, root: &Path) -> World {
    let dir = restored_dir(bytes, key, signer);
    fs::copy(root, dir.path().join("kms/root.key")).unwrap();
    World::start_with(dir, RootKeyConfig::default()).await.unwrap()
}

#[tokio::test]
async fn a_restored_service_decrypts_what_was_and_knows_nothing_of_what_came_later() {
    let world = World::start().await;
    let kms = world.admin();
    kms.create_key("aes", KeyType::Aes256Gcm, [], "make")
        .await
        .unwrap();
    let (old, _) = kms.encrypt("aes", b"old text", b"").await.unwrap();
    kms.rotate_key("aes", "rotate").await.unwrap();
    kms.destroy_key_version("aes", 1, Some(7 * DAY), "destroy")
        .await
        .unwrap();
    kms.create_key("mortal", KeyType::Aes256Gcm, [], "make-mortal")
        .await
        .unwrap();
    let (kept, _) = kms.encrypt("aes", b"kept text", b"").await.unwrap();
    let key = DecryptionKey::generate().unwrap();
    let (bytes, signer) = backup(&kms, &key.encryption_key()).await.unwrap();
    kms.create_key("later", KeyType::Aes256Gcm, [], "later")
        .await
        .unwrap();
    let dir = world.stop().await;

    let world = restored(&bytes, key, signer, &dir.path().join("kms/root.key")).await;
    assert!(
        !world.dir.path().join("kms/restored.json").exists(),
        "reported once"
    );
    let kms = world.admin();
    assert_eq!(
        kms.decrypt("aes", &kept, b"").await.unwrap().expose(),
        b"kept text"
    );
    assert_eq!(
        refusal(kms.key("later").await),
        refused(Code::NotFound, "KEY_NOT_FOUND")
    );
    // Its destruction was scheduled, and goes on being so.
    assert_eq!(
        refusal(kms.decrypt("aes", &old, b"").await.map(drop)),
        refused(Code::FailedPrecondition, "KEY_VERSION_STATE")
    );
    kms.restore_key_version("aes", 1, "undo").await.unwrap();
    assert_eq!(kms.decrypt("aes", &old, b"").await.unwrap().expose(), b"old text");
    // A repeated request is the same request still.
    let again = kms.rotate_key("aes", "rotate").await.unwrap();
    assert_eq!(again.versions.len(), 2);
    world.stop().await;
}

#[tokio::test]
async fn only_administrators_may_and_only_with_a_usable_recipient() {
    let world = World::start().await;
    let key = DecryptionKey::generate().unwrap().encryption_key();
    for role in [
        Role::KeyAdmin,
        Role::DataOwner,
        Role::Auditor,
        Role::Viewer,
        Role::Service,
    ] {
        let principal = if role == Role::Service {
            "service/ingest"
        } else {
            "user/bob"
        };
        let kms = world.as_principal(principal, &[role]);
        let (code, _) = refusal(backup(&kms, &key).await);
        assert_eq!(code, Code::PermissionDenied, "{role:?}");
    }
    let passphrase = |change: fn(&mut BackupPassphrase)| {
        let mut passphrase = BackupPassphrase {
            salt: vec![1; 16],
            memory_kib: 64 << 10,
            iterations: 3,
            parallelism: 4,
        };
        change(&mut passphrase);
        CreateBackupRequest {
            passphrase: Some(passphrase),
            ..request(&key)
        }
    };
    let bad = [
        CreateBackupRequest::default(),
        CreateBackupRequest {
            recipient_pem: "x".repeat(5000),
            passphrase: None,
        },
        passphrase(|p| p.salt.truncate(15)),
        passphrase(|p| p.memory_kib = 8),
        passphrase(|p| p.memory_kib = u32::MAX),
        passphrase(|p| p.iterations = 0),
        passphrase(|p| p.parallelism = 65),
    ];
    for request in bad {
        let answer = world.admin().create_backup(request, |_| Ok(())).await;
        assert_eq!(refusal(answer), refused(Code::InvalidArgument, "INVALID_FIELD"));
    }
    world.stop().await;
}

/// A service that keeps more than the buffers between it and its caller hold.
async fn large() -> World {
    let dir = tempfile::tempdir().unwrap();
    {
        let records = SledRecords::open(&dir.path().join("kms/records"), SledOptions::default()).unwrap();
        for part in 0..16_u8 {
            let put = |batch: Batch, index: u8| batch.put([b'z', part, index], vec![index; 4000]);
            records.commit((0..=255).fold(Batch::new(), put)).unwrap();
        }
    }
    World::start_with(dir, RootKeyConfig::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn sealing_waits_for_no_slow_reader_of_a_backup() {
    let world = large().await;
    let key = DecryptionKey::generate().unwrap().encryption_key();
    let mut client = BackupServiceClient::new(channel(&world).await);
    let answer = client.create_backup(world.request(request(&key))).await;
    let mut stream = answer.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    assert!(seal(&world).await.sealed);
    // The last call of before is over, or this would be refused.
    assert!(!unseal(&world, None).await.unwrap().sealed);
    let end = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert_eq!(reason(end), refused(Code::FailedPrecondition, "SEALED"));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time_and_a_caller_who_leaves_leaves_nothing() {
    let world = large().await;
    let key = DecryptionKey::generate().unwrap().encryption_key();
    let endpoint = Endpoint::from_shared(world.endpoint().to_owned()).unwrap();
    let mut client = BackupServiceClient::new(endpoint.connect().await.unwrap());
    let mut stream = client
        .create_backup(world.request(request(&key)))
        .await
        .unwrap()
        .into_inner();
    stream.message().await.unwrap().unwrap();
    let admin = world.admin();
    assert_eq!(
        refusal(backup(&admin, &key).await),
        refused(Code::ResourceExhausted, "BACKUP_RUNNING")
    );
    // The service goes on meanwhile.
    let made = admin.create_key("meanwhile", KeyType::Aes256Gcm, [], "make");
    tokio::time::timeout(Duration::from_secs(20), made)
        .await
        .unwrap()
        .unwrap();
    drop(stream);
    eventually(|| async { backup(&admin, &key).await.is_ok() }).await;
    let dir = world.stop().await;
    for entry in fs::read_dir(dir.path().join("kms")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = ["records", "version-keys", "outbox", "root.key", "seal.json"];
        assert!(known.contains(&name.as_str()), "{name}");
    }
}
