//! Models, their hyperparameters, and how they are stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    LearnError,
    dataset::{MAX_CLASSES, Matrix},
    gbdt::Trees,
    logistic::Logistic,
    mlp::Network,
};

/// The stored format that this code reads and writes.
const FORMAT: u32 = 1;
/// Largest stored model.
const MAX_BYTES: usize = 256 << 20;

/// Ways to learn.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Multinomial logistic regression, L2-penalised, by L-BFGS.
    LogisticRegression,
    /// Histogram gradient boosting, second order.
    GradientBoostedTrees,
    /// A multilayer perceptron with ReLU units, by Adam.
    NeuralNetwork,
}

/// Validated settings of a training.
#[derive(Clone, Debug, PartialEq)]
pub enum Hyperparameters {
    /// Of [`Algorithm::LogisticRegression`].
    Logistic {
        /// Strength of the L2 penalty, >= 0.
        l2: f64,
    },
    /// Of [`Algorithm::GradientBoostedTrees`].
    Trees(TreeParameters),
    /// Of [`Algorithm::NeuralNetwork`].
    Network(NetworkParameters),
}

/// Of [`Algorithm::GradientBoostedTrees`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TreeParameters {
    /// Boosting rounds, 1–2000; each adds a tree, or one per class beyond two.
    pub trees: usize,
    /// Splits on a path, 1–8.
    pub depth: usize,
    /// Shrinkage of each tree, in (0, 1].
    pub learning_rate: f64,
    /// Bins per feature, 2–256.
    pub bins: usize,
    /// Least sum of second derivatives in a leaf, >= 0.
    pub min_child_weight: f64,
    /// L2 penalty on leaf weights, >= 0.
    pub lambda: f64,
    /// Share of rows that each round sees, in (0, 1].
    pub subsample: f64,
}

/// Of [`Algorithm::NeuralNetwork`].
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkParameters {
    /// Units of each hidden layer: 1–4 layers of 1–512.
    pub hidden: Vec<usize>,
    /// Passes over the data, 1–10 000.
    pub epochs: usize,
    /// Adam's step, in (0, 1].
    pub learning_rate: f64,
    /// Rows in a step, 1–65 536.
    pub batch_size: usize,
    /// L2 penalty on weights, >= 0.
    pub l2: f64,
}

impl Hyperparameters {
    /// Defaults, overridden by `wishes` (name to text).
    ///
    /// # Errors
    /// [`LearnError::Hyperparameter`] for an unknown name, or a value out of range.
    pub fn parse(algorithm: Algorithm, wishes: &BTreeMap<String, String>) -> Result<Self, LearnError> {
        let mut wishes = Wishes(wishes.clone());
        let parsed = match algorithm {
            Algorithm::LogisticRegression => Self::Logistic { l2: wishes.real("l2", 1.0, 0.0, 1e6)? },
            Algorithm::GradientBoostedTrees => Self::Trees(TreeParameters {
                trees: wishes.whole("trees", 150, 1, 2000)?,
                depth: wishes.whole("depth", 3, 1, 8)?,
                learning_rate: wishes.real("learning_rate", 0.1, 1e-4, 1.0)?,
                bins: wishes.whole("bins", 256, 2, 256)?,
                min_child_weight: wishes.real("min_child_weight", 1.0, 0.0, 1e6)?,
                lambda: wishes.real("lambda", 1.0, 0.0, 1e6)?,
                subsample: wishes.real("subsample", 0.8, 0.05, 1.0)?,
            }),
            Algorithm::NeuralNetwork => Self::Network(NetworkParameters {
                hidden: wishes.layers("hidden", &[16])?,
                epochs: wishes.whole("epochs", 150, 1, 10_000)?,
                learning_rate: wishes.real("learning_rate", 0.01, 1e-6, 1.0)?,
                batch_size: wishes.whole("batch_size", 32, 1, 65_536)?,
                l2: wishes.real("l2", 1e-3, 0.0, 1e3)?,
            }),
        };
        wishes.nothing_left()?;
        Ok(parsed)
    }
}

/// Settings by name that were not looked at yet.
struct Wishes(BTreeMap<String, String>);

impl Wishes {
    fn real(&mut self, name: &str, default: f64, least: f64, most: f64) -> Result<f64, LearnError> {
        let Some(text) = self.0.remove(name) else { return Ok(default) };
        let number = text.trim().parse::<f64>().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| bad(name, format!("must be a number from {least} to {most}")))
    }

    fn whole(&mut self, name: &str, default: usize, least: usize, most: usize) -> Result<usize, LearnError> {
        let Some(text) = self.0.remove(name) else { return Ok(default) };
        let number = text.trim().parse::<usize>().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| bad(name, format!("must be a whole number from {least} to {most}")))
    }

    fn layers(&mut self, name: &str, default: &[usize]) -> Result<Vec<usize>, LearnError> {
        let Some(text) = self.0.remove(name) else { return Ok(default.to_vec()) };
        let layers: Option<Vec<usize>> = text.split(',').map(|units| units.trim().parse().ok()).collect();
        layers
            .filter(|layers| (1..=4).contains(&layers.len()) && layers.iter().all(|units| (1..=512).contains(units)))
            .ok_or_else(|| bad(name, "must be 1 to 4 layers of 1 to 512 units, such as 16,8".to_owned()))
    }

    fn nothing_left(self) -> Result<(), LearnError> {
        match self.0.into_keys().next() {
            Some(name) => Err(bad(&name, "is unknown for this algorithm".to_owned())),
            None => Ok(()),
        }
    }
}

fn bad(name: &str, problem: String) -> LearnError {
    LearnError::Hyperparameter { name: name.to_owned(), problem }
}

/// A trained model.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Model {
    format: u32,
    feature_names: Vec<String>,
    classes: Vec<String>,
    /// Replaces missing values, by feature: the median of the training rows.
    medians: Vec<f64>,
    body: Body,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Body {
    Logistic(Logistic),
    Trees(Trees),
    Network(Network),
}

impl Model {
    pub(crate) fn new(
        feature_names: Vec<String>,
        classes: Vec<String>,
        medians: Vec<f64>,
        body: Body,
    ) -> Self {
        Self { format: FORMAT, feature_names, classes, medians, body }
    }

    /// What it was trained by.
    pub fn algorithm(&self) -> Algorithm {
        match self.body {
            Body::Logistic(_) => Algorithm::LogisticRegression,
            Body::Trees(_) => Algorithm::GradientBoostedTrees,
            Body::Network(_) => Algorithm::NeuralNetwork,
        }
    }

    /// Columns that it reads, in order.
    pub fn feature_names(&self) -> &[String] {
        &self.feature_names
    }

    /// Classes that it tells apart, in order.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Probability of each class for a row in the order of the features; NaN is a missing value.
    ///
    /// # Errors
    /// [`LearnError::WrongWidth`], [`LearnError::NotFinite`].
    pub fn predict_proba(&self, row: &[f64]) -> Result<Vec<f64>, LearnError> {
        if row.len() != self.feature_names.len() {
            return Err(LearnError::WrongWidth { expected: self.feature_names.len(), found: row.len() });
        }
        if let Some(index) = row.iter().position(|value| value.is_infinite()) {
            return Err(LearnError::NotFinite { index });
        }
        let filled = impute(row, &self.medians);
        let mut scores = match &self.body {
            Body::Logistic(body) => body.scores(&filled),
            Body::Trees(body) => body.scores(&filled),
            Body::Network(body) => body.scores(&filled),
        };
        softmax(&mut scores);
        Ok(scores)
    }

    /// As [`Model::predict_proba`], for every row.
    ///
    /// # Errors
    /// As [`Model::predict_proba`].
    pub fn predict_batch(&self, rows: &Matrix) -> Result<Vec<Vec<f64>>, LearnError> {
        rows.iter().map(|row| self.predict_proba(row)).collect()
    }

    /// The stored form: JSON, because it is versioned by name, exact for every float, and read by every language.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a model has string keys and finite numbers and serialises")
    }

    /// Reads the stored form; whatever it says, predicting with the result cannot fail.
    ///
    /// # Errors
    /// [`LearnError::NotAModel`]
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LearnError> {
        if bytes.len() > MAX_BYTES {
            return Err(LearnError::NotAModel("larger than any model"));
        }
        let model: Self = serde_json::from_slice(bytes).map_err(|_| LearnError::NotAModel("cannot be read"))?;
        if model.format != FORMAT {
            return Err(LearnError::NotAModel("the format is unknown; use a newer version"));
        }
        let (features, classes) = (model.feature_names.len(), model.classes.len());
        if features == 0 || !(2..=MAX_CLASSES).contains(&classes) {
            return Err(LearnError::NotAModel("no features, or too few or too many classes"));
        }
        if model.medians.len() != features || !model.medians.iter().all(|median| median.is_finite()) {
            return Err(LearnError::NotAModel("the medians do not fit the features"));
        }
        let consistent = match &model.body {
            Body::Logistic(body) => body.is_consistent(features, classes),
            Body::Trees(body) => body.is_consistent(features, classes),
            Body::Network(body) => body.is_consistent(features, classes),
        };
        if consistent { Ok(model) } else { Err(LearnError::NotAModel("its parts do not fit each other")) }
    }
}

/// The row with missing values replaced.
pub(crate) fn impute(row: &[f64], medians: &[f64]) -> Vec<f64> {
    row.iter().zip(medians).map(|(value, median)| if value.is_nan() { *median } else { *value }).collect()
}

/// Scores to probabilities, without overflow.
pub(crate) fn softmax(scores: &mut [f64]) {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for score in &mut *scores {
        *score = (*score - most).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}

/// Mean and standard deviation of each feature, by which linear models and networks see the data.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scaling {
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

impl Scaling {
    /// Learnt from rows without missing values.
    pub(crate) fn learn(rows: &[Vec<f64>], features: usize) -> Self {
        let count = rows.len().max(1) as f64;
        let mut mean = vec![0.0; features];
        for row in rows {
            mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += value / count);
        }
        let mut deviation = vec![0.0; features];
        for row in rows {
            for ((sum, value), mean) in deviation.iter_mut().zip(row).zip(&mean) {
                *sum += (value - mean).powi(2) / count;
            }
        }
        for value in &mut deviation {
            // A constant feature says nothing: any scale will do.
            *value = if *value > 1e-24 && value.is_finite() { value.sqrt() } else { 1.0 };
        }
        Self { mean, deviation }
    }

    pub(crate) fn apply(&self, row: &[f64]) -> Vec<f64> {
        row.iter().zip(&self.mean).zip(&self.deviation).map(|((value, mean), dev)| (value - mean) / dev).collect()
    }

    pub(crate) fn is_consistent(&self, features: usize) -> bool {
        self.mean.len() == features
            && self.deviation.len() == features
            && self.mean.iter().all(|mean| mean.is_finite())
            && self.deviation.iter().all(|deviation| deviation.is_finite() && *deviation > 0.0)
    }
}
