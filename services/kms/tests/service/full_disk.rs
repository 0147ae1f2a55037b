//! A disk that is really full, for keys and for what they are wrapped under: nothing is lost that was acknowledged, what is refused leaves nothing
//! behind, and all goes on once there is room.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use asterism_chassis::config::Common;
use asterism_client::{ClientError, Kms, NewMaterial, seal_for};
use asterism_crypto::crc32c;
use asterism_kms::{Config, RootKeyConfig};
use asterism_proto::kms::{self as pb, ImportKeyVersionRequest, KeyType, rekey_request::NewSeal};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{Code, Status};

use crate::{
    disk::all_files,
    seals::{PASSPHRASE, passphrase, reason, rekey, rotate_root, status, unseal},
    support::{World, eventually, make_keys, refusal, refused},
};

/// A store wants 16 MiB to be free to go on.
const DISK: &str = "80m";
const MIB: u64 = 1 << 20;

/// A small file system of its own.
struct SmallDisk {
    at: TempDir,
}

impl SmallDisk {
    /// `None` where this user may not mount anything.
    fn mount() -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let options = format!("size={DISK},mode=0700");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at.path())
            .output();
        let mounted = done.is_ok_and(|done| done.status.success());
        if !mounted {
            // What a store does without space is also tested where the stores are, without a real disk.
            eprintln!("SKIPPED: this user may not mount a file system; run as root, who may");
        }
        mounted.then_some(Self { at })
    }

    fn filler(&self) -> PathBuf {
        self.at.path().join("filler")
    }

    /// Takes all that is free but `left` bytes.
    fn fill(&self, left: u64) {
        let mut file = File::create(self.filler()).unwrap();
        let page = [1; 4096];
        while file.write_all(&page).is_ok() {}
        let taken = file.metadata().unwrap().len();
        file.set_len(taken.saturating_sub(left)).unwrap();
    }

    /// Takes what became free since.
    fn top_up(&self) {
        let mut file = File::create(self.at.path().join("topping")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        let _ = fs::remove_file(self.at.path().join("topping"));
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.at.path()).status();
    }
}

/// What was acknowledged.
struct Kept {
    ciphertext: Vec<u8>,
    mac: Vec<u8>,
    signature: Vec<u8>,
}

impl Kept {
    async fn make(kms: &Kms) -> Self {
        make_keys(kms).await;
        Self {
            ciphertext: kms.encrypt("aes", b"text", b"aad").await.unwrap().0,
            mac: kms.generate_mac("mac", b"data").await.unwrap().0,
            signature: kms.sign("sign", b"message").await.unwrap().0,
        }
    }

    async fn check(&self, kms: &Kms) {
        let opened = kms.decrypt("aes", &self.ciphertext, b"aad").await.unwrap();
        assert_eq!(opened.expose(), b"text");
        assert!(kms.verify_mac("mac", b"data", &self.mac).await.unwrap());
        let verified = kms.verify("sign", b"message", &self.signature).await;
        assert!(verified.unwrap());
    }
}

fn material(key: &str) -> NewMaterial<'_> {
    NewMaterial {
        key,
        key_type: KeyType::Aes256Gcm,
        material: b"0123456789abcdefFEDCBA9876543210",
        exportable: false,
    }
}

/// Material for a job that is there already.
fn upload(job: &pb::ImportJob) -> ImportKeyVersionRequest {
    let sealed = seal_for(job, material("").material).unwrap();
    ImportKeyVersionRequest {
        import_job: job.name.clone(),
        sealed_material_crc32c: Some(crc32c(&sealed)),
        sealed_material: sealed,
        request_id: "import".into(),
        ..ImportKeyVersionRequest::default()
    }
}

/// Every change of keys, each with a request id, so that it can be repeated.
async fn changes(kms: &Kms, upload: &ImportKeyVersionRequest) -> Vec<Result<(), ClientError>> {
    let created = kms.create_key("new", KeyType::HmacSha512, [], "create");
    vec![
        created.await.map(drop),
        kms.import_key_version(upload.clone()).await.map(drop),
        kms.rotate_key("aes", "rotate").await.map(drop),
        kms.destroy_key_version("mac", 1, None, "destroy").await.map(drop),
    ]
}

fn version_keys(world: &World) -> usize {
    all_files(&world.dir.path().join("kms/version-keys")).len()
}

fn seal_file(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("kms/seal.json")).unwrap()
}

/// Why kms does not start on what lies in `dir`.
async fn start_refused(dir: &Path) -> String {
    let config = Config {
        common: Common::embedded("kms", dir),
        ..Config::default()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    match asterism_kms::start(config, listener).await {
        Ok(_) => panic!("it starts"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_refused_without_a_trace_and_made_once_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = tempfile::tempdir_in(disk.at.path()).unwrap();
    let world = World::start_with(dir, RootKeyConfig::default()).await.unwrap();
    let kms = world.admin();
    let kept = Kept::make(&kms).await;
    let job = kms
        .create_import_job("imported", KeyType::Aes256Gcm)
        .await
        .unwrap();
    let upload = upload(&job);
    let before = version_keys(&world);
    let full = refused(Code::ResourceExhausted, "STORAGE_FULL");
    // So little that stores do not go on, and nothing at all.
    for left in [8 * MIB, 0] {
        disk.fill(left);
        for result in changes(&kms, &upload).await {
            assert_eq!(refusal(result), full, "{left} bytes left");
        }
        // A destruction that was not scheduled cannot be undone.
        let undone = kms.restore_key_version("mac", 1, "restore").await;
        assert_eq!(refusal(undone).0, Code::FailedPrecondition);
        assert_eq!(version_keys(&world), before, "{left} bytes left");
        assert_eq!(refusal(kms.key("new").await).1, "KEY_NOT_FOUND");
        assert_eq!(kms.key("aes").await.unwrap().versions.len(), 1);
        kept.check(&kms).await;
        disk.make_room();
    }

    // A start on a full disk, too.
    disk.fill(0);
    let world = world.restart().await;
    let kms = world.admin();
    kept.check(&kms).await;
    assert_eq!(refusal(kms.rotate_key("aes", "rotate").await), full);
    disk.make_room();
    kept.check(&kms).await;
    let imported = kms.import_key(material("imported"), "import").await.unwrap();
    assert!(imported.versions[0].imported);
    assert_eq!(kms.rotate_key("aes", "rotate").await.unwrap().primary_version, 2);
    kms.create_key("new", KeyType::HmacSha512, [], "create")
        .await
        .unwrap();
    kms.destroy_key_version("mac", 1, None, "destroy").await.unwrap();
    kms.restore_key_version("mac", 1, "restore").await.unwrap();
    let world = world.restart().await;
    kept.check(&world.admin()).await;
    assert_eq!(version_keys(&world), before + 3);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_job_outlives_a_refusal_for_want_of_space() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = tempfile::tempdir_in(disk.at.path()).unwrap();
    let world = World::start_with(dir, RootKeyConfig::default()).await.unwrap();
    let kms = world.admin();
    let job = kms
        .create_import_job("imported", KeyType::Aes256Gcm)
        .await
        .unwrap();
    let upload = upload(&job);
    disk.fill(0);
    let refusal_of = refusal(kms.import_key_version(upload.clone()).await);
    assert_eq!(refusal_of, refused(Code::ResourceExhausted, "STORAGE_FULL"));
    disk.make_room();
    let key = kms.import_key_version(upload).await.unwrap();
    assert!(key.versions[0].imported);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_key_is_rotated_and_its_seal_replaced_whole_or_not_at_all() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = tempfile::tempdir_in(disk.at.path()).unwrap();
    let world = World::start_with(dir, RootKeyConfig::default()).await.unwrap();
    let kms = world.admin();
    let kept = Kept::make(&kms).await;
    let (seal, before) = (seal_file(world.dir.path()), version_keys(&world));
    let wish = || {
        NewSeal::Passphrase(pb::PassphraseSeal {
            passphrase: PASSPHRASE.into(),
        })
    };
    let full = refused(Code::ResourceExhausted, "STORAGE_FULL");
    disk.fill(0);
    assert_eq!(reason(rotate_root(&world, vec![]).await), full);
    assert_eq!(reason(rekey(&world, vec![], wish()).await), full);
    assert_eq!(status(&world).await.root_version, 1);
    assert!(seal_file(world.dir.path()) == seal);
    kept.check(&kms).await;
    disk.make_room();

    // Room for the file of the seal, and none for the record that goes with it: the rotation has not begun, and does with the next try or start.
    disk.fill(8 * MIB);
    assert_eq!(reason(rotate_root(&world, vec![]).await), full);
    kept.check(&kms).await;
    assert_eq!(version_keys(&world), before);
    let dir = world.stop().await;
    let refused = start_refused(dir.path()).await;
    assert!(refused.contains("the disk is full"), "{refused}");
    disk.make_room();
    let world = World::start_with(dir, RootKeyConfig::default()).await.unwrap();
    let kms = world.admin();
    kept.check(&kms).await;
    eventually(async || status(&world).await.rotation.is_none()).await;
    assert_eq!(status(&world).await.root_version, 2);
    kept.check(&kms).await;
    assert_eq!(version_keys(&world), before);
    // One that begins at once.
    let told = rotate_root(&world, vec![]).await.unwrap();
    assert_eq!(told.root_version, 3);
    eventually(async || status(&world).await.rotation.is_none()).await;
    kept.check(&kms).await;

    rekey(&world, vec![], wish()).await.unwrap();
    let world = world.restart().await;
    assert!(status(&world).await.sealed);
    let opened: Result<_, Status> = unseal(&world, Some(passphrase(PASSPHRASE))).await;
    assert!(!opened.unwrap().sealed);
    kept.check(&world.admin()).await;
    world.stop().await;
}

/// A service on a disk that is nearly full, whose rotation of the root key is not over.
async fn interrupted(disk: &SmallDisk, mut world: World) -> World {
    for _ in 0..10 {
        rotate_root(&world, vec![]).await.unwrap();
        let dir = world.stop().await;
        disk.fill(8 * MIB);
        world = World::start_with(dir, RootKeyConfig::default()).await.unwrap();
        if status(&world).await.rotation.is_some() {
            return world;
        }
        disk.make_room();
    }
    panic!("it always ended before the service did");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_of_the_root_key_that_meets_a_full_disk_waits_and_leaves_nothing_behind() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = tempfile::tempdir_in(disk.at.path()).unwrap();
    let world = World::start_with(dir, RootKeyConfig::default()).await.unwrap();
    let kms = world.admin();
    let kept = Kept::make(&kms).await;
    let mut making = JoinSet::new();
    for at in 0..600 {
        let (kms, id) = (kms.clone(), format!("one-of-many-{at}"));
        making.spawn(async move { kms.create_key(&id, KeyType::Aes256Gcm, [], &id).await });
    }
    assert!(making.join_all().await.iter().all(Result::is_ok));
    let before = version_keys(&world);

    let world = interrupted(&disk, world).await;
    let kms = world.admin();
    kept.check(&kms).await;
    // It is tried again every few seconds, first with room for wrapping keys and none for records, then with room for neither.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert!(status(&world).await.rotation.is_some());
        assert_eq!(version_keys(&world), before);
        kept.check(&kms).await;
        disk.top_up();
    }
    disk.make_room();
    eventually(async || status(&world).await.rotation.is_none()).await;
    kept.check(&kms).await;
    assert_eq!(version_keys(&world), before);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_its_event_nothing_is_done_until_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let dir = tempfile::tempdir_in(disk.at.path()).unwrap();
    let world = World::start_with(dir, RootKeyConfig::default()).await.unwrap();
    let kms = world.admin();
    let kept = Kept::make(&kms).await;
    disk.fill(0);
    // The segment at hand has room for thousands of events.
    let mut made = 0;
    let refusal = loop {
        let mut calls = JoinSet::new();
        for _ in 0..64 {
            let kms = kms.clone();
            calls.spawn(async move { kms.encrypt("aes", b"text", b"").await });
        }
        let (done, refused): (Vec<_>, Vec<_>) = (calls.join_all().await.into_iter()).partition(Result::is_ok);
        made += done.len();
        if let Some(result) = refused.into_iter().next() {
            break refusal(result);
        }
        assert!(made < 100_000, "the outbox does not fill");
    };
    assert_eq!(refusal, refused(Code::Unavailable, "AUDIT_UNAVAILABLE"));
    assert!(made > 0);
    disk.make_room();
    kept.check(&kms).await;
    let world = world.restart().await;
    kept.check(&world.admin()).await;
    world.stop().await;
}
