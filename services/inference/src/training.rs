//! From a decrypted table to a trained, evaluated model: synchronous, in memory only.

use std::{collections::BTreeMap, ops::ControlFlow};

use asterism_crypto::Digest;
use asterism_learn::{
    dataset::{Matrix, Problem, stratified_split},
    metrics::{self, Evaluation},
    model::{Algorithm, Hyperparameters, Model},
    table::Table,
    train,
};
use serde::Serialize;

use crate::error::InferenceError;

/// Share of the rows held out when the request names none.
pub const DEFAULT_TEST_FRACTION: f64 = 0.3;
const MAX_TEST_FRACTION: f64 = 0.9;

/// A validated wish for a model.
#[derive(Clone, Debug, Serialize)]
pub struct TrainOrder {
    /// `datasets/{id}`.
    pub dataset: String,
    /// Column to predict.
    pub label: String,
    /// Columns to learn from; empty means every other.
    pub features: Vec<String>,
    /// How.
    pub algorithm: Algorithm,
    /// As asked for; [`TrainOrder::parsed`] has them checked.
    pub hyperparameters: BTreeMap<String, String>,
    /// In (0, 0.9].
    pub test_fraction: f64,
    /// Of the split and of the training.
    pub seed: u64,
    /// For people.
    pub display_name: String,
    /// Checked and completed by defaults.
    #[serde(skip)]
    pub parsed: Hyperparameters,
}

impl TrainOrder {
    /// Identifies what is asked for: equal orders have equal digests.
    pub fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).expect("an order has string keys only and serialises"))
    }
}

/// Checks the share of rows to hold out; 0 asks for the default.
///
/// # Errors
/// [`InferenceError::Field`] outside (0, 0.9].
pub fn test_fraction(wish: f64) -> Result<f64, InferenceError> {
    if wish == 0.0 {
        return Ok(DEFAULT_TEST_FRACTION);
    }
    if wish > 0.0 && wish <= MAX_TEST_FRACTION {
        return Ok(wish);
    }
    Err(InferenceError::field(
        "test_fraction",
        "must lie in (0, 0.9]; 0 means 0.3",
    ))
}

/// Trains on the seeded, stratified training share of `table`, and evaluates on the rest.
pub fn fit(
    table: &Table,
    order: &TrainOrder,
    progress: &mut dyn FnMut(train::Progress) -> ControlFlow<()>,
) -> Result<(Model, Evaluation), InferenceError> {
    let features = (!order.features.is_empty()).then_some(order.features.as_slice());
    let problem = Problem::from_table(table, &order.label, features)?;
    let split = stratified_split(&problem.labels, order.test_fraction, order.seed)?;
    let model = train::train(&problem, &split.train, &order.parsed, order.seed, progress)?;
    let evaluation = metrics::evaluate(&model, &problem, &split.test)?;
    Ok((model, evaluation))
}

/// Which rows of a table a model is evaluated on.
#[derive(Clone, Copy, Debug)]
pub enum Rows {
    /// Those that the same split held out from training.
    HeldOut {
        /// Share of the rows.
        test_fraction: f64,
        /// Seed of the split.
        seed: u64,
    },
    /// All.
    All,
}

/// Evaluates a model on rows of a table that has its features and its label.
///
/// # Errors
/// [`InferenceError::Learn`] when the table does not fit the model.
pub fn evaluate(model: &Model, label: &str, table: &Table, rows: Rows) -> Result<Evaluation, InferenceError> {
    let problem = Problem::like(table, label, model.feature_names(), model.classes())?;
    let rows = match rows {
        Rows::HeldOut { test_fraction, seed } => stratified_split(&problem.labels, test_fraction, seed)?.test,
        Rows::All => (0..table.rows()).collect(),
    };
    Ok(metrics::evaluate(model, &problem, &rows)?)
}

/// Probabilities of each class, by row.
///
/// # Errors
/// [`InferenceError::Field`] naming the row that does not fit the model.
pub fn predict(model: &Model, rows: &[Vec<f64>]) -> Result<Vec<Vec<f64>>, InferenceError> {
    rows.iter()
        .enumerate()
        .map(|(index, row)| {
            model
                .predict_proba(row)
                .map_err(|error| InferenceError::field(format!("rows[{index}].values"), error.to_string()))
        })
        .collect()
}

/// The rows of a table in the order of `features`.
///
/// # Errors
/// [`InferenceError::Learn`] when a feature is missing or is text.
pub fn feature_rows(features: &[String], table: &Table) -> Result<Vec<Vec<f64>>, InferenceError> {
    Ok(Matrix::from_table(table, features)?
        .iter()
        .map(<[f64]>::to_vec)
        .collect())
}
