//! Models, their hyperparameters, and how they are stored.

mod hyperparameters;
mod scaling;
#[cfg(test)]
mod tests;
mod view;

use serde::{Deserialize, Serialize};

pub use self::hyperparameters::{
    DecisionTreeParameters, ForestParameters, Hyperparameters, LogisticParameters, NetworkParameters,
    TreeParameters,
};
pub(crate) use self::scaling::{Scaling, impute, softmax};
pub use self::view::{LayerView, NodeView, ScalingView, View};
use crate::{
    LearnError,
    dataset::{MAX_CLASSES, Matrix},
    forest::Forest,
    gbdt::Trees,
    logistic::Logistic,
    mlp::Network,
};

/// The stored format that this code writes.
const FORMAT: u32 = 2;
/// The stored format without ranges; this code reads it too.
const WITHOUT_RANGES: u32 = 1;
/// Largest stored model.
const MAX_BYTES: usize = 256 << 20;

/// Ways to learn.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Multinomial logistic regression, L2-penalised, by L-BFGS.
    LogisticRegression,
    /// Histogram gradient boosting, second order.
    GradientBoostedTrees,
    /// A multilayer perceptron with ReLU units, by Adam.
    NeuralNetwork,
    /// A classification tree, by the Gini impurity.
    DecisionTree,
    /// Classification trees on rows and features drawn at random, averaged.
    RandomForest,
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
    /// Least and largest value among the training rows, by feature.
    #[serde(default)]
    ranges: Vec<(f64, f64)>,
    body: Body,
}

/// What was learnt. It sees rows without missing values.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Body {
    Logistic(Logistic),
    Trees(Trees),
    Network(Network),
    DecisionTree(Forest),
    Forest(Forest),
}

impl Model {
    /// # Errors
    /// [`LearnError::Diverged`] when a part is not finite.
    pub(crate) fn new(
        feature_names: Vec<String>,
        classes: Vec<String>,
        medians: Vec<f64>,
        ranges: Vec<(f64, f64)>,
        body: Body,
    ) -> Result<Self, LearnError> {
        let model = Self {
            format: FORMAT,
            feature_names,
            classes,
            medians,
            ranges,
            body,
        };
        match model.check() {
            Ok(()) => Ok(model),
            Err(_) => Err(LearnError::Diverged {
                advice: "lower the learning rate, or raise the L2 penalty",
            }),
        }
    }

    /// What it was trained by.
    pub fn algorithm(&self) -> Algorithm {
        match self.body {
            Body::Logistic(_) => Algorithm::LogisticRegression,
            Body::Trees(_) => Algorithm::GradientBoostedTrees,
            Body::Network(_) => Algorithm::NeuralNetwork,
            Body::DecisionTree(_) => Algorithm::DecisionTree,
            Body::Forest(_) => Algorithm::RandomForest,
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

    /// Probability of each class for a row in the order of the features; NaN is a missing value. They are finite and
    /// sum to 1 (but for rounding).
    ///
    /// # Errors
    /// [`LearnError::WrongWidth`], [`LearnError::NotFinite`], [`LearnError::TooExtreme`].
    pub fn predict_proba(&self, row: &[f64]) -> Result<Vec<f64>, LearnError> {
        if row.len() != self.feature_names.len() {
            return Err(LearnError::WrongWidth {
                expected: self.feature_names.len(),
                found: row.len(),
            });
        }
        if let Some(index) = row.iter().position(|value| value.is_infinite()) {
            return Err(LearnError::NotFinite { index });
        }
        let filled = impute(row, &self.medians);
        let from_scores = |mut scores: Vec<f64>| {
            softmax(&mut scores);
            scores
        };
        let probabilities = match &self.body {
            Body::Logistic(body) => from_scores(body.scores(&filled)),
            Body::Trees(body) => from_scores(body.scores(&filled)),
            Body::Network(body) => from_scores(body.scores(&filled)),
            Body::DecisionTree(body) | Body::Forest(body) => body.probabilities(&filled),
        };
        if probabilities.iter().all(|probability| probability.is_finite()) {
            Ok(probabilities)
        } else {
            Err(LearnError::TooExtreme)
        }
    }

    /// As [`Model::predict_proba`], for every row of a matrix with the model's features in the model's order.
    ///
    /// # Errors
    /// As [`Model::predict_proba`], and [`LearnError::WrongFeatures`].
    pub fn predict_batch(&self, rows: &Matrix) -> Result<Vec<Vec<f64>>, LearnError> {
        self.check_features(rows.names())?;
        rows.iter().map(|row| self.predict_proba(row)).collect()
    }

    pub(crate) fn check_features(&self, names: &[String]) -> Result<(), LearnError> {
        if names.len() != self.feature_names.len() {
            return Err(LearnError::WrongWidth {
                expected: self.feature_names.len(),
                found: names.len(),
            });
        }
        match self
            .feature_names
            .iter()
            .zip(names)
            .position(|(own, other)| own != other)
        {
            Some(index) => Err(LearnError::WrongFeatures {
                index,
                expected: self.feature_names[index].clone(),
            }),
            None => Ok(()),
        }
    }

    /// The stored form: JSON, because it is exact for every finite float, versioned by name, and read by any language
    /// without this code.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a model has string keys only and serialises")
    }

    /// Reads the stored form. Everything that prediction relies on is checked: with whatever comes out of here,
    /// predicting ends and does not panic.
    ///
    /// # Errors
    /// [`LearnError::NotAModel`]
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LearnError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        if bytes.len() > MAX_BYTES {
            return Err(LearnError::NotAModel("it is larger than any model"));
        }
        let mut model: Self =
            serde_json::from_slice(bytes).map_err(|_| match serde_json::from_slice(bytes) {
                Ok(Format { format }) if !(WITHOUT_RANGES..=FORMAT).contains(&format) => {
                    LearnError::NotAModel("its format is unknown to this version")
                }
                _ => LearnError::NotAModel("it cannot be read"),
            })?;
        if model.format == WITHOUT_RANGES && model.ranges.is_empty() {
            model.ranges = model.derived_ranges();
            model.format = FORMAT;
        }
        model.check().map_err(LearnError::NotAModel)?;
        Ok(model)
    }

    /// About the ranges of the training rows, where those were not kept.
    fn derived_ranges(&self) -> Vec<(f64, f64)> {
        match &self.body {
            Body::Logistic(body) => body.ranges(),
            Body::Trees(body) => body.ranges(&self.medians),
            Body::Network(body) => body.ranges(),
            Body::DecisionTree(body) | Body::Forest(body) => body.ranges(&self.medians),
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.format != FORMAT {
            return Err("its format is unknown to this version");
        }
        let (features, classes) = (self.feature_names.len(), self.classes.len());
        if features == 0 || !(2..=MAX_CLASSES).contains(&classes) {
            return Err("it has no features, or too few or too many classes");
        }
        if self.medians.len() != features || !self.medians.iter().all(|median| median.is_finite()) {
            return Err("its medians do not fit its features");
        }
        let is_range = |(low, high): &(f64, f64)| low.is_finite() && high.is_finite() && low <= high;
        if self.ranges.len() != features || !self.ranges.iter().all(is_range) {
            return Err("its ranges do not fit its features");
        }
        let consistent = match &self.body {
            Body::Logistic(body) => body.is_consistent(features, classes),
            Body::Trees(body) => body.is_consistent(features, classes),
            Body::Network(body) => body.is_consistent(features, classes),
            Body::DecisionTree(body) => body.is_tree() && body.is_consistent(features, classes),
            Body::Forest(body) => body.is_consistent(features, classes),
        };
        if consistent {
            Ok(())
        } else {
            Err("its parts do not fit each other")
        }
    }
}
