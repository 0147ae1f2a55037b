//! Training.

use std::ops::ControlFlow;

use crate::{
    LearnError,
    dataset::Problem,
    gbdt::Trees,
    logistic::Logistic,
    mlp::Network,
    model::{Body, Hyperparameters, Model, impute},
};

/// How far a training is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// From 1: boosting rounds, epochs, or the whole.
    pub step: usize,
    /// Steps in all.
    pub total: usize,
    /// Mean training loss (cross-entropy, nats) at this step.
    pub loss: f64,
}

/// Trains on the given rows of a problem. The same rows, hyperparameters and seed give the same model.
///
/// # Errors
/// [`LearnError::Cancelled`] when `progress` breaks, [`LearnError::Training`] when the solver fails.
pub fn train(
    problem: &Problem,
    rows: &[usize],
    hyperparameters: &Hyperparameters,
    seed: u64,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Model, LearnError> {
    let medians = medians(problem, rows);
    let data: Vec<Vec<f64>> = rows.iter().map(|row| impute(problem.features.row(*row), &medians)).collect();
    let labels: Vec<u32> = rows.iter().map(|row| problem.labels[*row]).collect();
    let classes = problem.classes.len();
    let body = match hyperparameters {
        Hyperparameters::Logistic { l2 } => Body::Logistic(Logistic::train(&data, &labels, classes, *l2)?),
        Hyperparameters::Trees(parameters) => {
            Body::Trees(Trees::train(&data, &labels, classes, parameters, seed, progress)?)
        }
        Hyperparameters::Network(parameters) => {
            Body::Network(Network::train(&data, &labels, classes, parameters, seed, progress)?)
        }
    };
    let model = Model::new(problem.feature_names.clone(), problem.classes.clone(), medians, body);
    if matches!(hyperparameters, Hyperparameters::Logistic { .. }) {
        // The solver runs to its end in one go.
        let loss = crate::metrics::log_loss(&model, &data, &labels)?;
        if progress(Progress { step: 1, total: 1, loss }).is_break() {
            return Err(LearnError::Cancelled);
        }
    }
    Ok(model)
}

/// The median of each feature over the training rows; 0 where no row has a value.
fn medians(problem: &Problem, rows: &[usize]) -> Vec<f64> {
    (0..problem.features.columns())
        .map(|feature| {
            let mut values: Vec<f64> = rows
                .iter()
                .map(|row| problem.features.row(*row)[feature])
                .filter(|value| !value.is_nan())
                .collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(0.0)
        })
        .collect()
}
