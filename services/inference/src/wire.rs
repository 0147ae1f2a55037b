//! Between messages and the domain.

pub(crate) mod encrypted;
pub(crate) mod tensors;

use asterism_crypto::{Context, Digest};
use asterism_learn::{
    metrics::{self, Evaluation},
    model::{Algorithm, Hyperparameters},
};
use asterism_proto::inference as pb;

use crate::{
    error::InferenceError,
    flow::Step,
    models::{ImportedFrom, Method, ModelId, Predicted, RequestKey, Verified},
    training::{self, TrainOrder},
};

const MAX_ROWS: usize = 10_000;
const MAX_NAME_BYTES: usize = 128;
const MAX_REQUEST_ID_BYTES: usize = 64;
const MAX_FEATURES: usize = 16_384;
const MAX_HYPERPARAMETERS: usize = 32;

/// A validated training, and the key under which it is remembered, if any.
pub(crate) fn order(
    request: pb::TrainRequest,
    owner: &str,
) -> Result<(TrainOrder, Option<RequestKey>), InferenceError> {
    let algorithm = match request.algorithm() {
        pb::Algorithm::LogisticRegression => Algorithm::LogisticRegression,
        pb::Algorithm::GradientBoostedTrees => Algorithm::GradientBoostedTrees,
        pb::Algorithm::NeuralNetwork => Algorithm::NeuralNetwork,
        pb::Algorithm::DecisionTree => Algorithm::DecisionTree,
        pb::Algorithm::RandomForest => Algorithm::RandomForest,
        pb::Algorithm::ImportedXgboost => {
            return Err(InferenceError::field(
                "algorithm",
                "is for models that ImportModel stores; name one that trains",
            ));
        }
        pb::Algorithm::Unspecified => {
            return Err(InferenceError::field(
                "algorithm",
                "must be one of the known algorithms",
            ));
        }
    };
    check_dataset_name("dataset", &request.dataset)?;
    if request.label.is_empty() {
        return Err(InferenceError::field("label", "must name the column to predict"));
    }
    if request.features.len() > MAX_FEATURES || request.hyperparameters.len() > MAX_HYPERPARAMETERS {
        return Err(InferenceError::field(
            "features",
            "too many features or hyperparameters",
        ));
    }
    check_texts("", &request.display_name, &request.request_id)?;
    let hyperparameters = request.hyperparameters.into_iter().collect();
    let order = TrainOrder {
        parsed: Hyperparameters::parse(algorithm, &hyperparameters)?,
        dataset: request.dataset,
        label: request.label,
        features: request.features,
        algorithm,
        hyperparameters,
        test_fraction: training::test_fraction(request.test_fraction)?,
        seed: request.seed,
        display_name: request.display_name,
    };
    let key = (!request.request_id.is_empty()).then(|| {
        let context = Context::new("asterism/train-request/v1")
            .field("owner", owner)
            .field("id", &request.request_id);
        RequestKey {
            key: Digest::of(&context.encode()),
            parameters: order.digest(),
        }
    });
    Ok((order, key))
}

/// What is said of a model that is imported.
pub(crate) fn import_header(header: pb::ImportModelHeader) -> Result<pb::ImportModelHeader, InferenceError> {
    check_texts("header.", &header.display_name, &header.request_id)?;
    Ok(header)
}

/// The key under which an import is remembered, if any.
pub(crate) fn import_key(header: &pb::ImportModelHeader, owner: &str, file: &[u8]) -> Option<RequestKey> {
    (!header.request_id.is_empty()).then(|| {
        let context = Context::new("asterism/import-request/v1")
            .field("owner", owner)
            .field("id", &header.request_id);
        let parameters = Context::new("asterism/import/v1")
            .field("display_name", &header.display_name)
            .field("sha256", &Digest::of(file).to_string());
        RequestKey {
            key: Digest::of(&context.encode()),
            parameters: Digest::of(&parameters.encode()),
        }
    })
}

fn check_texts(path: &str, display_name: &str, request_id: &str) -> Result<(), InferenceError> {
    if display_name.len() > MAX_NAME_BYTES || display_name.chars().any(char::is_control) {
        return Err(InferenceError::field(
            format!("{path}display_name"),
            "must be at most 128 printable characters",
        ));
    }
    if request_id.len() > MAX_REQUEST_ID_BYTES || !request_id.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(InferenceError::field(
            format!("{path}request_id"),
            "must be at most 64 visible ASCII characters",
        ));
    }
    Ok(())
}

/// The dataset to evaluate on or to predict; `None` when the field is empty.
pub(crate) fn dataset_name(name: &str) -> Result<Option<&str>, InferenceError> {
    if name.is_empty() {
        return Ok(None);
    }
    check_dataset_name("dataset", name).map(|()| Some(name))
}

fn check_dataset_name(field: &'static str, name: &str) -> Result<(), InferenceError> {
    let good = name.strip_prefix("datasets/").is_some_and(|id| {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    });
    if good {
        Ok(())
    } else {
        Err(InferenceError::field(
            field,
            "must be a dataset's name, `datasets/{id}`",
        ))
    }
}

pub(crate) fn rows(rows: Vec<pb::FeatureRow>) -> Result<Vec<Vec<f64>>, InferenceError> {
    if rows.len() > MAX_ROWS {
        return Err(InferenceError::field(
            "rows",
            "at most 10 000 in one message; stream more with BatchPredict",
        ));
    }
    Ok(rows.into_iter().map(|row| row.values).collect())
}

/// A page token is the last id of the page before.
pub(crate) fn page_token(token: &str) -> Result<Option<ModelId>, InferenceError> {
    if token.is_empty() {
        return Ok(None);
    }
    let bad = |_| InferenceError::field("page_token", "must be one that ListModels gave");
    ModelId::from_name(&format!("models/{token}"))
        .map(Some)
        .map_err(bad)
}

pub(crate) fn progress(step: &Step) -> pb::TrainResponse {
    let progress = pb::Progress {
        stage: step.stage.to_owned(),
        step: step.step,
        total: step.total,
        loss: step.loss,
    };
    pb::TrainResponse {
        update: Some(pb::train_response::Update::Progress(progress)),
    }
}

pub(crate) fn trained(verified: &Verified) -> pb::TrainResponse {
    pb::TrainResponse {
        update: Some(pb::train_response::Update::Model(model(verified))),
    }
}

pub(crate) fn model(verified: &Verified) -> pb::Model {
    let manifest = &verified.manifest;
    pb::Model {
        name: format!("models/{}", manifest.model),
        display_name: manifest.display_name.clone(),
        owner: manifest.owner.clone(),
        algorithm: match manifest.algorithm {
            Method::Trained(Algorithm::LogisticRegression) => pb::Algorithm::LogisticRegression,
            Method::Trained(Algorithm::GradientBoostedTrees) => pb::Algorithm::GradientBoostedTrees,
            Method::Trained(Algorithm::NeuralNetwork) => pb::Algorithm::NeuralNetwork,
            Method::Trained(Algorithm::DecisionTree) => pb::Algorithm::DecisionTree,
            Method::Trained(Algorithm::RandomForest) => pb::Algorithm::RandomForest,
            Method::Imported(ImportedFrom::ImportedXgboost) => pb::Algorithm::ImportedXgboost,
        }
        .into(),
        dataset: manifest.dataset.clone(),
        dataset_manifest_sha256: manifest
            .dataset_manifest_sha256
            .map(|digest| digest.as_bytes().to_vec())
            .unwrap_or_default(),
        label: manifest.label.clone(),
        features: manifest.features.clone(),
        classes: manifest.classes.clone(),
        test_fraction: manifest.test_fraction,
        seed: manifest.seed,
        hyperparameters: manifest.hyperparameters.clone().into_iter().collect(),
        evaluation: manifest.evaluation.as_ref().map(evaluation),
        create_time: manifest
            .created_at
            .parse::<jiff::Timestamp>()
            .ok()
            .map(|at| prost_types::Timestamp {
                seconds: at.as_second(),
                nanos: at.subsec_nanosecond(),
            }),
        manifest_sha256: verified.manifest_sha256.as_bytes().to_vec(),
    }
}

pub(crate) fn evaluation(evaluation: &Evaluation) -> pb::Evaluation {
    pb::Evaluation {
        rows: evaluation.rows,
        accuracy: evaluation.accuracy,
        roc_auc: evaluation.roc_auc,
        log_loss: evaluation.log_loss,
        per_class: evaluation
            .per_class
            .iter()
            .map(|c| pb::ClassMetrics {
                class: c.class.clone(),
                precision: c.precision,
                recall: c.recall,
                f1: c.f1,
                support: c.support,
            })
            .collect(),
        macro_precision: evaluation.macro_avg.precision,
        macro_recall: evaluation.macro_avg.recall,
        macro_f1: evaluation.macro_avg.f1,
        classes: evaluation.per_class.iter().map(|c| c.class.clone()).collect(),
        confusion: evaluation
            .confusion
            .iter()
            .map(|row| pb::ConfusionRow { counts: row.clone() })
            .collect(),
    }
}

pub(crate) fn predictions(classes: &[String], predicted: Vec<Predicted>) -> Vec<pb::Prediction> {
    predicted
        .into_iter()
        .map(
            |Predicted {
                 probabilities,
                 scores,
             }| pb::Prediction {
                class: classes
                    .get(metrics::most_probable(&probabilities))
                    .cloned()
                    .unwrap_or_default(),
                probabilities,
                scores,
            },
        )
        .collect()
}
