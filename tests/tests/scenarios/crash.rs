//! Services that are killed under load: what they acknowledged is never missing, and the log verifies.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use asterism::connect::Services;
use asterism_client::{
    EncryptedModel,
    proto::{
        audit::EventFilter,
        inference::{Algorithm, Plan},
        kms::KeyType,
    },
};
use tokio::task::JoinHandle;

use crate::{
    encrypted::trees,
    processes::{Embedded, SERVICES, Separate},
    support::{BREAST_CANCER, feature_rows, fresh_id, order, small_csv, train, upload},
};

const ROUNDS: usize = 20;

/// What was acknowledged so far.
#[derive(Default)]
struct Acknowledged {
    keys: Vec<String>,
    ciphertexts: Vec<(String, Vec<u8>)>,
    datasets: Vec<String>,
    models: Vec<String>,
}

impl Acknowledged {
    fn assert_not_empty(&self) {
        let counts = [self.ciphertexts.len(), self.datasets.len(), self.models.len()];
        assert!(
            counts.iter().all(|count| *count > 0),
            "there was no load: {counts:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_twenty_times_under_load_nothing_acknowledged_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    for round in 0..ROUNDS {
        let process = Embedded::start(dir.path());
        check(&process.services, &acknowledged, round).await;
        let load = Load::start(&process.services, &acknowledged);
        // Kills fall at other moments of the work in every round.
        tokio::time::sleep(Duration::from_millis(60 + 37 * (round as u64 % 8))).await;
        process.kill();
        load.stop().await;
    }
    let process = Embedded::start(dir.path());
    check(&process.services, &acknowledged, ROUNDS).await;
    acknowledged.lock().unwrap().assert_not_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn services_killed_one_by_one_come_back_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    let mut processes = Separate::start(dir.path());
    for round in 0..3 * SERVICES.len() {
        let load = Load::start(&processes.services, &acknowledged);
        tokio::time::sleep(Duration::from_millis(100 + 37 * (round as u64 % 5))).await;
        let victim = round % SERVICES.len();
        processes.kill(victim);
        // The others meet its absence.
        tokio::time::sleep(Duration::from_millis(150)).await;
        processes.restart(victim);
        load.stop().await;
        check(&processes.services, &acknowledged, round).await;
    }
    acknowledged.lock().unwrap().assert_not_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiled_model_and_a_registered_key_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let process = Embedded::start(dir.path());
    let services = process.services.clone();
    let dataset = upload(&services, BREAST_CANCER).await.unwrap();
    let parameters = [("trees", "10"), ("depth", "3"), ("bins", "16")];
    let name = trees(&services, &dataset.name, 7, &parameters).await;
    let compiled = services
        .encrypted
        .compile(&name, Plan::Paths, true)
        .await
        .unwrap();
    let model = EncryptedModel::open(&services.encrypted, &name).await.unwrap();
    // Killed right after the acknowledgement.
    process.kill();

    let process = Embedded::start(dir.path());
    let services = &process.services;
    let explained = services.encrypted.explain(&name).await.unwrap();
    assert_eq!(explained.compiled_sha256, compiled.compiled_sha256);
    let kept = model.key().unwrap();
    let (keys, _) = services.encrypted.evaluation_keys(100, "").await.unwrap();
    assert_eq!(keys[0].name, kept.evaluation_key);
    let (bundle, key) = (model.bundle().clone(), Some(kept.clone()));
    let again = EncryptedModel::with(&services.encrypted, &name, bundle, key).unwrap();
    let features: Vec<String> = again
        .bundle()
        .features()
        .iter()
        .map(|feature| feature.name.clone())
        .collect();
    let rows = feature_rows(&features);
    let clear = services
        .inference
        .predict(&name, rows[..10].to_vec())
        .await
        .unwrap();
    for (answer, clear) in again
        .predict(rows[..10].to_vec())
        .await
        .unwrap()
        .iter()
        .zip(&clear.predictions)
    {
        let class = answer.prediction.class.unwrap();
        assert_eq!(again.bundle().classes()[class], clear.class);
    }
}

/// Three callers that go on until they are stopped, whatever they are answered.
struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(services: &Services, acknowledged: &Arc<Mutex<Acknowledged>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let workers = (0..3).map(|worker| {
            let (services, acknowledged) = (services.clone(), acknowledged.clone());
            let stop = stop.clone();
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if work(worker, &services, &acknowledged).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            })
        });
        Self {
            workers: workers.collect(),
            stop,
        }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            worker.await.unwrap();
        }
    }
}

/// One acknowledged thing of each kind, over and over.
async fn work(
    worker: usize,
    services: &Services,
    acknowledged: &Mutex<Acknowledged>,
) -> Result<(), asterism_client::ClientError> {
    match worker {
        0 => {
            let id = format!("k{}", uuid::Uuid::new_v4().simple());
            services
                .kms
                .create_key(&id, KeyType::Aes256Gcm, [], &fresh_id())
                .await?;
            acknowledged.lock().unwrap().keys.push(id.clone());
            let (ciphertext, _) = services.kms.encrypt(&id, id.as_bytes(), b"crash").await?;
            acknowledged.lock().unwrap().ciphertexts.push((id, ciphertext));
        }
        1 => {
            let dataset = upload(services, small_csv(50)).await?;
            acknowledged.lock().unwrap().datasets.push(dataset.name);
        }
        _ => {
            let known = acknowledged.lock().unwrap().datasets.first().cloned();
            let Some(dataset) = known else {
                tokio::task::yield_now().await;
                return Ok(());
            };
            let mut request = order(&dataset, Algorithm::LogisticRegression);
            request.label = "label".into();
            let model = train(services, request).await?;
            acknowledged.lock().unwrap().models.push(model.name);
        }
    }
    Ok(())
}

/// Everything acknowledged is there and whole, its events are in the log, and the log verifies.
async fn check(services: &Services, acknowledged: &Mutex<Acknowledged>, round: usize) {
    let (keys, ciphertexts, datasets, models) = {
        let done = acknowledged.lock().unwrap();
        (
            done.keys.clone(),
            done.ciphertexts.clone(),
            done.datasets.clone(),
            done.models.clone(),
        )
    };
    for id in &keys {
        services
            .kms
            .key(id)
            .await
            .unwrap_or_else(|error| panic!("round {round}: key {id}: {error}"));
    }
    for (id, ciphertext) in &ciphertexts {
        let plaintext = services.kms.decrypt(id, ciphertext, b"crash").await;
        assert_eq!(
            plaintext.map(|p| p.expose().to_vec()).ok().as_deref(),
            Some(id.as_bytes()),
            "round {round}"
        );
    }
    for name in &datasets {
        let report = services.ingest.verify(name).await;
        let report = report.unwrap_or_else(|error| panic!("round {round}: {name}: {error}"));
        assert!(report.verified, "round {round}: {name}: {:?}", report.checks);
    }
    for name in &models {
        let prediction = services.inference.predict(name, vec![vec![0.5, 1.0]]).await;
        prediction.unwrap_or_else(|error| panic!("round {round}: {name}: {error}"));
    }
    let wanted = [
        (
            "kms.CreateKey",
            keys.iter().map(|id| format!("keys/{id}")).collect::<Vec<_>>(),
        ),
        ("ingest.CommitUpload", datasets),
        ("inference.Train", models),
    ];
    for (operation, resources) in wanted {
        for resource in resources {
            wait_for_event(services, operation, &resource, round).await;
        }
    }
    let report = services.audit.verify().await.unwrap();
    assert!(report.verified, "round {round}: {}", report.problem);
    assert_eq!(report.sequence_problems, Vec::<String>::new(), "round {round}");
}

/// Events come at least once, soon after the start: the outbox survived the kill.
async fn wait_for_event(services: &Services, operation: &str, resource: &str, round: usize) {
    let filter = EventFilter {
        operation: operation.to_owned(),
        resource: resource.to_owned(),
        ..EventFilter::default()
    };
    let found = async {
        while services.audit.list_all(filter.clone()).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found)
        .await
        .unwrap_or_else(|_| panic!("round {round}: no {operation} of {resource} in the log"));
}
