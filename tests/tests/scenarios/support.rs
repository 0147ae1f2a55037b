//! What every scenario needs.

use std::path::{Path, PathBuf};

use asterism::{
    connect::Services,
    constellation::{Constellation, Options},
};
use asterism_chassis::identity::Role;
use asterism_client::{
    ClientError, UploadSource,
    proto::{
        inference::{Algorithm, Model, TrainRequest},
        ingest::Dataset,
    },
};
use tempfile::TempDir;

/// The shipped example: 569 rows, 30 features.
pub const BREAST_CANCER: &str = include_str!("../../../examples/breast_cancer.csv");
pub const LABEL: &str = "diagnosis";

/// A running constellation; everything goes away with it.
pub struct World {
    pub constellation: Constellation,
    pub dir: TempDir,
}

impl World {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let constellation = Constellation::start(dir.path(), &Options::default())
            .await
            .unwrap();
        Self { constellation, dir }
    }

    /// Stops the services and starts them again over the same data.
    pub async fn restart(self) -> Self {
        self.restart_after(|_| {}).await
    }

    /// As [`World::restart`], with something done to the data in between.
    pub async fn restart_after(self, change: impl FnOnce(&Path)) -> Self {
        self.constellation.shutdown().await;
        change(self.dir.path());
        let constellation = Constellation::start(self.dir.path(), &Options::default())
            .await
            .unwrap();
        Self {
            constellation,
            dir: self.dir,
        }
    }

    pub fn admin(&self) -> Services {
        self.as_principal("user/admin", &[Role::Admin])
    }

    pub fn as_principal(&self, principal: &str, roles: &[Role]) -> Services {
        self.constellation.connect(principal, roles, None).unwrap()
    }

    pub fn in_trace(&self, trace_id: &str) -> Services {
        self.constellation
            .connect("user/admin", &[Role::Admin], Some(trace_id))
            .unwrap()
    }
}

pub fn fresh_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

pub async fn upload(services: &Services, csv: impl AsRef<[u8]>) -> Result<Dataset, ClientError> {
    upload_as(services, csv, &fresh_id()).await
}

pub async fn upload_as(
    services: &Services,
    csv: impl AsRef<[u8]>,
    request_id: &str,
) -> Result<Dataset, ClientError> {
    let mut bytes = csv.as_ref();
    let source = UploadSource {
        display_name: "scenario",
        request_id,
        with_sha256: false,
        reader: &mut bytes,
    };
    services.ingest.upload(source, |_| {}).await
}

/// A quick model's request.
pub fn order(dataset: &str, algorithm: Algorithm) -> TrainRequest {
    TrainRequest {
        dataset: dataset.to_owned(),
        label: LABEL.into(),
        algorithm: algorithm.into(),
        test_fraction: 0.3,
        seed: 7,
        request_id: fresh_id(),
        ..TrainRequest::default()
    }
}

pub async fn train(services: &Services, request: TrainRequest) -> Result<Model, ClientError> {
    services.inference.train(request, |_| {}).await
}

/// The service's reason for refusing.
#[track_caller]
pub fn reason<T: std::fmt::Debug>(result: Result<T, ClientError>) -> String {
    match result {
        Ok(value) => panic!("not refused: {value:?}"),
        Err(error) => match error.reason() {
            Some(reason) => reason.to_owned(),
            None => panic!("refused without a reason: {error}"),
        },
    }
}

/// Every file below `dir`.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Files below `dir` whose name holds the id of `datasets/{id}` or `models/{id}`.
pub fn files_of(dir: &Path, name: &str) -> Vec<PathBuf> {
    let id = name.split_once('/').unwrap().1;
    let mut found = files(dir);
    found.retain(|path| path.file_name().unwrap().to_string_lossy().contains(id));
    assert!(!found.is_empty(), "nothing stored for {name}");
    found
}

/// A table of two features that a boundary separates.
pub fn small_csv(rows: usize) -> String {
    let mut csv = String::from("a,b,label\n");
    for row in 0..rows {
        let label = if row % 2 == 0 { "even" } else { "odd" };
        csv += &format!("{}.5,{},{label}\n", row % 2 * 10 + row % 3, row % 7);
    }
    csv
}

/// The example's rows in the order of `features`.
pub fn feature_rows(features: &[String]) -> Vec<Vec<f64>> {
    let mut lines = BREAST_CANCER.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let columns: Vec<usize> = features
        .iter()
        .map(|name| header.iter().position(|h| h == name).unwrap())
        .collect();
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            columns
                .iter()
                .map(|column| cells[*column].parse().unwrap())
                .collect()
        })
        .collect()
}
