//! Training.

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use crate::{
    LearnError,
    dataset::Problem,
    forest::Forest,
    gbdt::Trees,
    logistic::Logistic,
    mlp::Network,
    model::{Body, Hyperparameters, Model, impute},
};

/// How far a training is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// From 1: steps of the solver, boosting rounds, epochs, levels of a tree, or trees of a forest.
    pub step: usize,
    /// Most steps; the last report has `step == total`.
    pub total: usize,
    /// Mean training loss: cross-entropy in nats, and the penalty where the solver counts it in.
    pub loss: f64,
}

/// Rows without missing values, one after the other, and their labels.
pub(crate) struct Samples {
    pub(crate) width: usize,
    pub(crate) values: Vec<f64>,
    pub(crate) labels: Vec<u32>,
    pub(crate) classes: usize,
}

impl Samples {
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Least and largest value of a feature; a filled value, the median, lies between them.
    fn range(&self, feature: usize) -> (f64, f64) {
        let nothing = (f64::INFINITY, f64::NEG_INFINITY);
        self.rows().fold(nothing, |(low, high), row| {
            (low.min(row[feature]), high.max(row[feature]))
        })
    }

    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = &[f64]> + Clone {
        self.values.chunks_exact(self.width.max(1))
    }
}

/// Trains on the given rows of a problem. The same rows, hyperparameters and seed give the same model.
///
/// # Errors
/// [`LearnError::Cancelled`] when `progress` breaks, [`LearnError::Diverged`] when weights are not finite,
/// [`LearnError::Hyperparameters`] (for a forest too when it would be too large to store), [`LearnError::NotEnoughRows`], [`LearnError::RowOutOfRange`],
/// [`LearnError::NotFinite`] for an infinite value.
pub fn train(
    problem: &Problem,
    rows: &[usize],
    hyperparameters: &Hyperparameters,
    seed: u64,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Model, LearnError> {
    hyperparameters.validate()?;
    let (samples, medians) = samples(problem, rows)?;
    let ranges = (0..samples.width).map(|feature| samples.range(feature)).collect();
    let body = match hyperparameters {
        Hyperparameters::Logistic(parameters) => {
            Body::Logistic(Logistic::train(&samples, parameters, progress)?)
        }
        Hyperparameters::Trees(parameters) => {
            Body::Trees(Trees::train(&samples, parameters, seed, progress)?)
        }
        Hyperparameters::Network(parameters) => {
            Body::Network(Network::train(&samples, parameters, seed, progress)?)
        }
        Hyperparameters::DecisionTree(parameters) => {
            Body::DecisionTree(Forest::train_tree(&samples, parameters, progress)?)
        }
        Hyperparameters::Forest(parameters) => {
            Body::Forest(Forest::train(&samples, parameters, seed, progress)?)
        }
    };
    Model::new(
        problem.feature_names().to_vec(),
        problem.classes.clone(),
        medians,
        ranges,
        body,
    )
}

/// The rows to learn from with their missing values filled, and what they were filled with.
fn samples(problem: &Problem, rows: &[usize]) -> Result<(Samples, Vec<f64>), LearnError> {
    if rows.is_empty() {
        return Err(LearnError::NotEnoughRows { rows: 0, needed: 1 });
    }
    let width = problem.features.columns();
    let mut values = Vec::with_capacity(rows.len().saturating_mul(width));
    let mut labels = Vec::with_capacity(rows.len());
    for index in rows {
        let out_of_range = LearnError::RowOutOfRange {
            index: *index,
            rows: problem.rows(),
        };
        let (Some(row), Some(label)) = (problem.features.row(*index), problem.labels.get(*index)) else {
            return Err(out_of_range);
        };
        if *label as usize >= problem.classes.len() {
            return Err(out_of_range);
        }
        if let Some(index) = row.iter().position(|value| value.is_infinite()) {
            return Err(LearnError::NotFinite { index });
        }
        values.extend_from_slice(row);
        labels.push(*label);
    }
    let medians: Vec<f64> = (0..width)
        .map(|feature| median(values.iter().skip(feature).step_by(width)))
        .collect();
    for row in values.chunks_exact_mut(width.max(1)) {
        let filled = impute(row, &medians);
        row.copy_from_slice(&filled);
    }
    Ok((
        Samples {
            width,
            values,
            labels,
            classes: problem.classes.len(),
        },
        medians,
    ))
}

/// The median of what is not missing; 0 where everything is.
fn median<'a>(values: impl Iterator<Item = &'a f64>) -> f64 {
    let mut present: Vec<f64> = values.copied().filter(|value| !value.is_nan()).collect();
    let middle = present.len() / 2;
    if present.is_empty() {
        return 0.0;
    }
    let even = present.len().is_multiple_of(2);
    let (below, upper, _) = present.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if !even {
        return upper;
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    lower / 2.0 + upper / 2.0
}
