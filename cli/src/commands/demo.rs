//! `asterism demo`: the main job from end to end, on real data.

mod encrypted;

use std::{
    future::Future,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use asterism_chassis::identity::Role;
use asterism_client::{
    ClientError, Credentials, UploadSource,
    dataset::DatasetReader,
    proto::{
        audit::EventFilter,
        inference::{Algorithm, Evaluation, Model, TrainRequest},
        ingest::Dataset,
    },
};
use serde::Serialize;
use serde_json::{Value, json};

use self::encrypted::Encrypted;
use crate::{
    args::{DemoArgs, Global},
    commands::{
        datasets::{DATASET_SIGNER, first_problem},
        models, predict,
        up::ADMIN,
    },
    connect::{self, Endpoints, Services, data_dir},
    constellation::{Constellation, Options},
    error::CliError,
    output::Output,
};

/// Breast Cancer Wisconsin (Diagnostic): 569 rows, 30 features; see `examples/README.md`.
const DATA: &[u8] = include_bytes!("../../../examples/breast_cancer.csv");
const LABEL: &str = "diagnosis";
const TEST_FRACTION: f64 = 0.3;
/// As good as deeper trees here, and encrypted rows are predicted by tables over pairs of features, without any key.
const HYPERPARAMETERS: [(&str, &str); 2] = [("depth", "2"), ("bins", "32")];
/// How long the last events may take to reach audit.
const AUDIT_PATIENCE: Duration = Duration::from_secs(10);

/// One line of the final table.
#[derive(Debug, Serialize)]
struct Step {
    name: &'static str,
    ms: f64,
    ok: bool,
    #[serde(skip)]
    detail: String,
}

/// What the demo found out.
#[derive(Debug, Default)]
struct Findings {
    accuracy: f64,
    roc_auc: f64,
    encrypted: Encrypted,
    audit_events: usize,
    log_verified: bool,
}

/// Runs the demo; fails when any step does.
pub async fn run(args: DemoArgs, global: &Global, output: Output) -> Result<(), CliError> {
    let mut demo = Demo {
        output,
        trace_id: uuid::Uuid::new_v4().simple().to_string(),
        steps: Vec::new(),
    };
    let temporary = tempfile::tempdir().map_err(|error| CliError::file(&std::env::temp_dir(), error))?;
    let (host, services) = demo.reach(global, temporary.path()).await?;
    let keeps_data = global.data.is_some() && host.is_some();
    let svg = args.svg.unwrap_or_else(|| {
        let name = "asterism-demo.svg";
        if keeps_data {
            data_dir(global).join(name)
        } else {
            PathBuf::from(name)
        }
    });
    let found = demo.flow(&services, host.as_ref(), args.seed, &svg).await;
    if let Some(constellation) = host {
        constellation.shutdown().await;
    }
    let ended = found.as_ref().err().map(ToString::to_string);
    let found = found.unwrap_or_default();
    let ok = ended.is_none() && demo.steps.iter().all(|step| step.ok);
    demo.report(&found, ok, &svg, keeps_data.then(|| data_dir(global)));
    match ended {
        _ if ok => Ok(()),
        Some(problem) => Err(CliError::NotVerified(format!("the demo stopped: {problem}"))),
        None => Err(CliError::NotVerified("a step of the demo failed".into())),
    }
}

struct Demo {
    output: Output,
    trace_id: String,
    steps: Vec<Step>,
}

impl Demo {
    /// Running services when an address was given, else four of our own.
    async fn reach(
        &mut self,
        global: &Global,
        temporary: &Path,
    ) -> Result<(Option<Constellation>, Services), CliError> {
        if let Some(addr) = &global.addr {
            let token = global
                .token_file
                .clone()
                .unwrap_or_else(|| data_dir(global).join(connect::ADMIN_TOKEN));
            let endpoints = Endpoints::consecutive(addr)?;
            return Ok((
                None,
                endpoints.connect(&Credentials::file(token), Some(&self.trace_id))?,
            ));
        }
        let data = global.data.clone().unwrap_or_else(|| temporary.to_owned());
        let trace_id = self.trace_id.clone();
        let constellation = self
            .step("start four services", async {
                let constellation = Constellation::start(&data, &Options::default()).await?;
                Ok((
                    constellation,
                    "kms, ingest, inference, audit on loopback".to_owned(),
                ))
            })
            .await?;
        let services = constellation.connect(ADMIN, &[Role::Admin], Some(&trace_id))?;
        Ok((Some(constellation), services))
    }

    async fn flow(
        &mut self,
        services: &Services,
        host: Option<&Constellation>,
        seed: u64,
        svg: &Path,
    ) -> Result<Findings, CliError> {
        let dataset = self.upload(services, "breast cancer").await?;
        self.step("verify the dataset", verify(services, &dataset))
            .await?;
        self.step("verify on the client's side", verify_here(services, &dataset))
            .await?;
        match host {
            Some(constellation) => {
                self.step("catch one flipped byte", catch_damage(services, constellation))
                    .await?;
            }
            None => {
                self.step(
                    "catch one flipped byte",
                    catch_damage_in_a_copy(services, &dataset),
                )
                .await?;
            }
        }
        let model = self.train(services, &dataset, seed).await?;
        let evaluation = self
            .step("evaluate on held-out rows", async {
                let evaluation = services.inference.evaluate(&model.name, "").await?;
                let detail = format!(
                    "accuracy {:.4}, ROC AUC {:.4}",
                    evaluation.accuracy, evaluation.roc_auc
                );
                Ok((evaluation, detail))
            })
            .await?;
        self.step("draw the evaluation", async {
            models::draw(svg, "Breast cancer, boosted trees, held-out rows", &evaluation)?;
            Ok(((), svg.display().to_string()))
        })
        .await?;
        self.step("predict", predict_both_ways(services, &model, &dataset))
            .await?;
        let encrypted = self
            .step(
                "predict encrypted",
                encrypted::predict_held_out(services, &model, seed),
            )
            .await?;
        let (audit_events, log_verified) = self.audit(services).await?;
        let Evaluation {
            accuracy, roc_auc, ..
        } = evaluation;
        Ok(Findings {
            accuracy,
            roc_auc,
            encrypted,
            audit_events,
            log_verified,
        })
    }

    async fn upload(&mut self, services: &Services, name: &str) -> Result<Dataset, CliError> {
        self.step("upload, encrypt, sign", async {
            let dataset = upload(services, name).await?;
            let detail = format!(
                "{}: {} rows, {} columns",
                dataset.name,
                dataset.rows,
                dataset.columns.len()
            );
            Ok((dataset, detail))
        })
        .await
    }

    async fn train(&mut self, services: &Services, dataset: &Dataset, seed: u64) -> Result<Model, CliError> {
        let request = TrainRequest {
            dataset: dataset.name.clone(),
            label: LABEL.into(),
            algorithm: Algorithm::GradientBoostedTrees.into(),
            test_fraction: TEST_FRACTION,
            hyperparameters: HYPERPARAMETERS
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            seed,
            display_name: "breast cancer, boosted trees".into(),
            request_id: uuid::Uuid::new_v4().to_string(),
            ..TrainRequest::default()
        };
        let bar = self.output.progress(1, "train", false);
        self.step("train boosted trees", async {
            let trained = services.inference.train(request, |progress| {
                bar.set_length(progress.total.into());
                bar.set_position(progress.step.into());
            });
            let model = trained.await?;
            bar.finish_and_clear();
            let detail = format!("{}: encrypted and signed", model.name);
            Ok((model, detail))
        })
        .await
    }

    /// Waits until audit has the last event of this run, then has it verify the whole log.
    async fn audit(&mut self, services: &Services) -> Result<(usize, bool), CliError> {
        let trace_id = self.trace_id.clone();
        self.step("verify the audit log", async {
            let filter = EventFilter {
                trace_id,
                ..EventFilter::default()
            };
            let events = settled(services, filter).await?;
            let report = services.audit.verify().await?;
            if !report.verified {
                return Err(CliError::NotVerified(report.problem));
            }
            let detail = format!("{events} events of this run, {} in the log", report.entries);
            Ok(((events, true), detail))
        })
        .await
    }

    /// Runs and times one step.
    async fn step<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = Result<(T, String), CliError>>,
    ) -> Result<T, CliError> {
        let begun = Instant::now();
        let result = work.await;
        let ms = (begun.elapsed().as_secs_f64() * 1e4).round() / 10.0;
        let (ok, detail) = match &result {
            Ok((_, detail)) => (true, detail.clone()),
            Err(error) => (false, error.to_string()),
        };
        if self.output.is_json() {
            self.output
                .value(&json!({ "step": name, "ms": ms, "ok": ok, "detail": detail }));
        }
        self.steps.push(Step { name, ms, ok, detail });
        result.map(|(value, _)| value)
    }

    fn report(&self, found: &Findings, ok: bool, svg: &Path, kept: Option<PathBuf>) {
        if self.output.is_json() {
            self.output.value(&json!({
                "ok": ok, "steps": self.steps, "accuracy": found.accuracy, "roc_auc": found.roc_auc,
                "fhe_rows": found.encrypted.rows, "fhe_agreement": found.encrypted.agreement,
                "fhe_ms_per_row": found.encrypted.ms_per_row, "audit_events": found.audit_events, "log_verified": found.log_verified,
                "svg": svg.display().to_string(), "trace_id": self.trace_id,
            }));
            return;
        }
        let rows: Vec<_> = self
            .steps
            .iter()
            .map(|step| {
                let sign = if step.ok { "ok" } else { "FAILED" };
                let cells = [
                    step.name.to_owned(),
                    format!("{:.1}", step.ms),
                    sign.to_owned(),
                    step.detail.clone(),
                ];
                (cells, Value::Null)
            })
            .collect();
        self.output.rows(["step", "ms", "", "what came out"], &rows);
        let total: f64 = self.steps.iter().map(|step| step.ms).sum();
        self.output
            .say(&format!("{} audit events in {total:.0} ms", found.audit_events));
        if let Some(kept) = kept {
            self.output.say(&format!("the data stays in {}", kept.display()));
        }
    }
}

async fn upload(services: &Services, name: &str) -> Result<Dataset, ClientError> {
    let request_id = uuid::Uuid::new_v4().to_string();
    let mut bytes = DATA;
    let source = UploadSource {
        display_name: name,
        request_id: &request_id,
        with_sha256: false,
        reader: &mut bytes,
    };
    services.ingest.upload(source, |_| {}).await
}

async fn verify(services: &Services, dataset: &Dataset) -> Result<((), String), CliError> {
    let report = services.ingest.verify(&dataset.name).await?;
    if report.verified {
        Ok((
            (),
            format!("{} checks, {} chunks", report.checks.len(), report.chunks),
        ))
    } else {
        Err(CliError::NotVerified(first_problem(&report)))
    }
}

/// Trusts kms for the public key and the data key, and ingest for nothing.
async fn verify_here(services: &Services, dataset: &Dataset) -> Result<((), String), CliError> {
    let mut plaintext = Vec::new();
    let opened = services
        .ingest
        .open_dataset(&services.kms, &dataset.name, DATASET_SIGNER, |chunk| {
            plaintext.extend_from_slice(chunk.expose());
            Ok(())
        });
    let verified = opened.await?;
    if plaintext == DATA {
        Ok(((), format!("manifest sha256:{}", verified.sha256)))
    } else {
        Err(CliError::NotVerified(
            "what came back is not what was uploaded".into(),
        ))
    }
}

/// Uploads a copy, flips one stored byte of it on the disk, and has ingest verify it.
async fn catch_damage(services: &Services, host: &Constellation) -> Result<((), String), CliError> {
    let copy = upload(services, "a copy to damage").await?;
    let id = copy.name.trim_start_matches("datasets/");
    let blob = largest_blob(&host.data().join("ingest"), id)?;
    let mut bytes = std::fs::read(&blob).map_err(|error| CliError::file(&blob, error))?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&blob, bytes).map_err(|error| CliError::file(&blob, error))?;
    let report = services.ingest.verify(&copy.name).await?;
    services.ingest.delete(&copy.name).await?;
    match (report.verified, report.first_damaged_chunk) {
        (false, Some(chunk)) => Ok((
            (),
            format!("byte {middle} of a copy: chunk {chunk} named as damaged"),
        )),
        (false, None) => Err(CliError::NotVerified(
            "the damage was found, but no chunk was named".into(),
        )),
        (true, _) => Err(CliError::NotVerified("a flipped byte went unnoticed".into())),
    }
}

/// Where the disk is out of reach: flips one byte of the downloaded ciphertext, and verifies that here.
async fn catch_damage_in_a_copy(services: &Services, dataset: &Dataset) -> Result<((), String), CliError> {
    let verified = services
        .ingest
        .verified_manifest(&services.kms, &dataset.name, DATASET_SIGNER)
        .await?;
    let manifest = &verified.manifest;
    let wrapped = &manifest.data_key;
    let key = services
        .kms
        .unwrap_data_key(&wrapped.key, &wrapped.wrapped, &manifest.context())
        .await?;
    let (table, mut blob) = services.ingest.ciphertext(&dataset.name).await?;
    let middle = blob.len() / 2;
    blob[middle] ^= 1;
    let mut reader = DatasetReader::new(manifest, &table, key)?;
    match reader.push(&blob, &mut |_| Ok(())).and_then(|()| reader.finish()) {
        Err(ClientError::Verification(problem)) => Ok(((), format!("byte {middle} of a copy: {problem}"))),
        Err(other) => Err(other.into()),
        Ok(()) => Err(CliError::NotVerified("a flipped byte went unnoticed".into())),
    }
}

/// The file under `dir` that belongs to `id` and holds most bytes: the encrypted data itself.
fn largest_blob(dir: &Path, id: &str) -> Result<PathBuf, CliError> {
    let mut candidates = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir)
            .map_err(|error| CliError::file(&dir, error))?
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if entry.file_name().to_string_lossy().contains(id) {
                candidates.push((entry.metadata().map_or(0, |meta| meta.len()), path));
            }
        }
    }
    let largest = candidates.into_iter().max_by_key(|(size, _)| *size);
    largest
        .map(|(_, path)| path)
        .ok_or_else(|| CliError::Other(format!("no stored file belongs to {id}")))
}

/// Predicts every row twice: as plain rows over the stream, and inside inference from the encrypted dataset.
async fn predict_both_ways(
    services: &Services,
    model: &Model,
    dataset: &Dataset,
) -> Result<((), String), CliError> {
    let file =
        tempfile::NamedTempFile::new().map_err(|error| CliError::file(&std::env::temp_dir(), error))?;
    std::fs::write(file.path(), DATA).map_err(|error| CliError::file(file.path(), error))?;
    let rows = predict::read_rows(file.path(), model).await?;
    let from_rows = predict::batch(services, model, rows).await?;
    let from_dataset = services
        .inference
        .predict_dataset(&model.name, &dataset.name)
        .await?;
    if from_rows != from_dataset {
        return Err(CliError::NotVerified("the two ways to predict disagree".into()));
    }
    Ok((
        (),
        format!(
            "{} rows in the clear and from the encrypted dataset: same answers",
            from_rows.len()
        ),
    ))
}

/// The number of events that match, once the last of the run is among them.
async fn settled(services: &Services, filter: EventFilter) -> Result<usize, CliError> {
    let last = EventFilter {
        operation: "inference.PredictEncryptedStream".into(),
        ..filter.clone()
    };
    let begun = Instant::now();
    // One stream: it is recorded before its first answer and when it ends.
    while services.audit.list_all(last.clone()).await?.len() < 2 {
        if begun.elapsed() > AUDIT_PATIENCE {
            return Err(CliError::NotVerified(
                "the last events did not reach audit in time".into(),
            ));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(services.audit.list_all(filter).await?.len())
}
