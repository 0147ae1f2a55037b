//! Services that are killed under load: what they acknowledged is never missing, and the log verifies.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use asterism::connect::{ADMIN_TOKEN, Endpoints, Services};
use asterism_client::{
    Credentials,
    proto::{audit::EventFilter, inference::Algorithm, kms::KeyType},
};

use crate::support::{fresh_id, order, small_csv, train, upload};

const ROUNDS: usize = 20;

/// All four services in a process of their own.
struct Process {
    child: Child,
    services: Services,
}

impl Process {
    fn start(data: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_asterism-under-test"))
            .args(["up", "--json", "--port", "0", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("did not start: {line:?}"));
        let at = |service: &str| ready[service].as_str().unwrap().to_owned();
        let endpoints = Endpoints {
            kms: at("kms"),
            ingest: at("ingest"),
            inference: at("inference"),
            audit: at("audit"),
        };
        let services = endpoints
            .connect(&Credentials::file(data.join(ADMIN_TOKEN)), None)
            .unwrap();
        Self { child, services }
    }

    /// SIGKILL: no handler, no flush, no goodbye.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was acknowledged so far.
#[derive(Default)]
struct Acknowledged {
    keys: Vec<String>,
    ciphertexts: Vec<(String, Vec<u8>)>,
    datasets: Vec<String>,
    models: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_twenty_times_under_load_nothing_acknowledged_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    for round in 0..ROUNDS {
        let process = Process::start(dir.path());
        check(&process.services, &acknowledged, round).await;
        let stop = Arc::new(AtomicBool::new(false));
        let load: Vec<_> = (0..3)
            .map(|worker| {
                let (services, acknowledged) = (process.services.clone(), acknowledged.clone());
                let stop = stop.clone();
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        if work(worker, &services, &acknowledged).await.is_err() {
                            break;
                        }
                    }
                })
            })
            .collect();
        // Kills fall at other moments of the work in every round.
        tokio::time::sleep(Duration::from_millis(60 + 37 * (round as u64 % 8))).await;
        process.kill();
        stop.store(true, Ordering::Relaxed);
        for worker in load {
            worker.await.unwrap();
        }
    }
    let process = Process::start(dir.path());
    check(&process.services, &acknowledged, ROUNDS).await;
    let done = acknowledged.lock().unwrap();
    assert!(
        !done.keys.is_empty() && !done.datasets.is_empty() && !done.models.is_empty(),
        "there was no load"
    );
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
