//! Bring your own key, and take it with you: over gRPC, by whoever may.

use asterism_chassis::identity::Role;
use asterism_client::{NewMaterial, seal_for};
use asterism_crypto::{DecryptionKey, crc32c, transfer::export_info};
use asterism_proto::kms::{
    CreateImportJobRequest, CreateKeyRequest, ExportKeyVersionRequest, ImportKeyVersionRequest, KeyType,
};
use tonic::Code;

use crate::{
    disk::{all_files, holds},
    support::{DAY, World, make_keys, refusal, refused},
};

fn new(key: &str, exportable: bool) -> NewMaterial<'_> {
    NewMaterial {
        key,
        key_type: KeyType::Aes256Gcm,
        material: b"0123456789abcdefFEDCBA9876543210",
        exportable,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_comes_in_works_and_goes_out_again() {
    let world = World::start().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner]);
    let key = alice.import_key(new("mine", true), "i").await.unwrap();
    assert!(key.exportable && key.versions[0].imported);
    let (ciphertext, _) = alice.encrypt("mine", b"text", b"").await.unwrap();
    let world = world.restart().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner]);
    let opened = alice.decrypt("mine", &ciphertext, b"").await.unwrap();
    assert_eq!(opened.expose(), b"text");
    let material = alice.export_key("mine", 1).await.unwrap();
    assert_eq!(material.expose(), new("", false).material);

    // A further version, generated, is exportable as the key is.
    let admin = world.admin();
    let rotated = admin.rotate_key("mine", "r").await.unwrap();
    assert!(!rotated.versions[1].imported);
    assert_eq!(alice.export_key("mine", 2).await.unwrap().len(), 32);

    let bob = world.as_principal("user/bob", &[Role::DataOwner]);
    assert_eq!(
        refusal(bob.export_key("mine", 1).await),
        refused(Code::NotFound, "KEY_NOT_FOUND")
    );
    assert_eq!(
        refusal(bob.import_key(new("mine", false), "").await),
        refused(Code::AlreadyExists, "KEY_EXISTS")
    );
    for role in [Role::KeyAdmin, Role::Service, Role::Auditor] {
        let other = world.as_principal("user/alice", &[role]);
        assert_eq!(
            refusal(other.export_key("mine", 1).await),
            refused(Code::PermissionDenied, "POLICY_DENIED"),
            "{role:?}"
        );
    }
    let dir = world.stop().await;
    for path in all_files(dir.path()) {
        let bytes = std::fs::read(&path).unwrap();
        assert!(!holds(&bytes, new("", false).material), "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_created_exportable_stays() {
    let world = World::start().await;
    let kms = world.admin();
    make_keys(&kms).await;
    let refused_export = refused(Code::FailedPrecondition, "NOT_EXPORTABLE");
    assert_eq!(refusal(kms.export_key("aes", 1).await), refused_export);
    kms.import_key(new("in", false), "").await.unwrap();
    assert_eq!(refusal(kms.export_key("in", 1).await), refused_export);
    let request = CreateKeyRequest {
        key_id: "out".into(),
        r#type: KeyType::EcP256Ecdh.into(),
        exportable: true,
        ..CreateKeyRequest::default()
    };
    assert!(kms.create(request).await.unwrap().exportable);
    let recipient = DecryptionKey::generate().unwrap();
    let answer = kms
        .export_key_to("out", 1, &recipient.encryption_key())
        .await
        .unwrap();
    let info = export_info("out", 1, "EC_P256_ECDH");
    let scalar = recipient.open(&info, b"", &answer.sealed_material).unwrap();
    let exported = DecryptionKey::from_bytes(scalar.expose()).unwrap();
    assert_eq!(
        exported.encryption_key(),
        kms.encryption_key("out", 1).await.unwrap()
    );
    kms.destroy_key_version("out", 1, None, "").await.unwrap();
    assert_eq!(
        refusal(kms.export_key("out", 1).await),
        refused(Code::FailedPrecondition, "KEY_VERSION_STATE")
    );
    let mut raw = world.raw().await;
    for (name, pem) in [
        ("keys/out/versions/1", "not PEM".to_owned()),
        ("keys/out/versions/1", "A".repeat(5000)),
        ("keys/out", recipient.encryption_key().to_pem()),
    ] {
        let request = ExportKeyVersionRequest {
            request_id: String::new(),
            name: name.into(),
            recipient_public_key_pem: pem,
            recipient_public_key_pem_crc32c: None,
        };
        let status = raw.export_key_version(world.request(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_used_once_in_time_by_whoever_made_it() {
    let world = World::start().await;
    let kms = world.admin();
    let job = kms.create_import_job("mine", KeyType::Aes256Gcm).await.unwrap();
    let sealed = seal_for(&job, &[3; 32]).unwrap();
    let request = ImportKeyVersionRequest {
        import_job: job.name.clone(),
        sealed_material_crc32c: Some(crc32c(&sealed)),
        sealed_material: sealed,
        request_id: "once".into(),
        ..ImportKeyVersionRequest::default()
    };
    let missing = refused(Code::NotFound, "IMPORT_JOB_NOT_FOUND");
    let bob = world.as_principal("user/bob", &[Role::DataOwner]);
    assert_eq!(refusal(bob.import_key_version(request.clone()).await), missing);
    let key = kms.import_key_version(request.clone()).await.unwrap();
    assert_eq!(
        kms.import_key_version(request.clone()).await.unwrap(),
        key,
        "repeated"
    );
    let mut again = request.clone();
    again.request_id.clear();
    assert_eq!(refusal(kms.import_key_version(again).await), missing, "used");

    let late = kms.create_import_job("late", KeyType::Aes256Gcm).await.unwrap();
    world.advance(DAY);
    let mut too_late = request.clone();
    too_late.import_job = late.name;
    too_late.request_id.clear();
    assert_eq!(refusal(kms.import_key_version(too_late).await), missing, "over");

    let mut raw = world.raw().await;
    for (job, sealed) in [
        ("", vec![1; 113]),
        ("importJobs/", vec![1; 113]),
        ("importJobs/XYZ", vec![1; 113]),
        (job.name.as_str(), vec![1; 2000]),
    ] {
        let request = ImportKeyVersionRequest {
            import_job: job.into(),
            sealed_material: sealed,
            ..ImportKeyVersionRequest::default()
        };
        let status = raw.import_key_version(world.request(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{job}");
    }
    for (key_id, key_type) in [("", 1), ("Upper", 1), ("fine", 0), ("fine", 99)] {
        let request = CreateImportJobRequest {
            key_id: key_id.into(),
            r#type: key_type,
        };
        let status = raw.create_import_job(world.request(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{key_id} {key_type}");
    }
    world.stop().await;
}
