//! Identities of services change while calls are made, and none of them fails.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use asterism::commands::channel::{key_file, peers_dir};
use asterism_chassis::{
    channel::{Channel, Step, rotate},
    config::ChannelConfig,
    identity::{PrincipalId, Role},
};
use asterism_client::{
    Connection, Credentials,
    proto::kms::{GetKeyRequest, KeyType, key_management_service_client::KeyManagementServiceClient},
};

use crate::support::{World, fresh_id, upload};

/// Longer than services take to look at their files.
const LOOKED: Duration = Duration::from_millis(2_500);

/// All steps for one service, with the pauses that the documentation asks for.
async fn rotated(data: &Path, service: &str) {
    let before = std::fs::read(key_file(data, service)).unwrap();
    for step in [Step::Prepare, Step::Promote, Step::Retire] {
        let principal = PrincipalId::service(service);
        rotate(step, &key_file(data, service), &peers_dir(data), &principal).unwrap();
        tokio::time::sleep(LOOKED).await;
    }
    assert_ne!(std::fs::read(key_file(data, service)).unwrap(), before);
}

/// The connection that ingest has to kms.
fn as_ingest(world: &World) -> (Connection, Channel) {
    let data = world.dir.path();
    let config = ChannelConfig {
        static_key_file: Some(key_file(data, "ingest")),
        authorized_peers_dir: Some(peers_dir(data)),
        allow_unknown_peers: false,
        listen: None,
    };
    let channel = Channel::open(&config).unwrap().unwrap();
    channel.watch();
    let channels = world.constellation.channels();
    let kms = channels.iter().find(|channel| channel.service == "kms").unwrap();
    let authority = world.constellation.authority().clone();
    let token = move || {
        let id = PrincipalId::service("ingest");
        Ok(authority.mint(&id, &[Role::Service], Duration::from_secs(60), SystemTime::now()))
    };
    let pins = channel.pin("kms").unwrap();
    let connection = Connection::pinned(&kms.address, Some(pins), Credentials::source(token)).unwrap();
    (connection, channel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn identities_are_rotated_under_load_and_not_one_call_fails() {
    let world = World::start().await;
    let admin = world.admin();
    admin
        .kms
        .create_key("load", KeyType::Aes256Gcm, [], &fresh_id())
        .await
        .unwrap();
    let (connection, _following) = as_ingest(&world);
    let stop = Arc::new(AtomicBool::new(false));
    let (calls, uploads) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = vec![];
    for _ in 0..3 {
        let (connection, stop, calls) = (connection.clone(), stop.clone(), calls.clone());
        tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let request = GetKeyRequest {
                    name: "keys/load".to_owned(),
                };
                // Without a second try: what fails, fails this test.
                let mut client = KeyManagementServiceClient::new(connection.service());
                client.get_key(request).await.expect("kms answers");
                calls.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }));
    }
    let (services, stopped, done) = (admin.clone(), stop.clone(), uploads.clone());
    tasks.push(tokio::spawn(async move {
        while !stopped.load(Ordering::Relaxed) {
            // ingest asks kms for a key and a signature, and both report to audit.
            upload(&services, "a,b\n1,2\n3,4\n")
                .await
                .expect("ingest answers");
            done.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }));
    for service in ["kms", "ingest", "audit"] {
        rotated(world.dir.path(), service).await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let (calls, uploads) = (calls.load(Ordering::Relaxed), uploads.load(Ordering::Relaxed));
    eprintln!("{calls} calls and {uploads} uploads during three rotations");
    assert!(calls > 500 && uploads > 10, "{calls} calls, {uploads} uploads");
    let report = admin.audit.verify().await.unwrap();
    assert!(
        report.verified && report.sequence_problems.is_empty(),
        "{report:?}"
    );
    world.constellation.shutdown().await;
}
