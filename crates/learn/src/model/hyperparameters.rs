//! Settings of a training and their ranges.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{HyperparameterViolation, LearnError, model::Algorithm};

/// Settings of a training; the defaults suit tables of some hundred rows and more.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Hyperparameters {
    /// Of [`Algorithm::LogisticRegression`].
    Logistic(LogisticParameters),
    /// Of [`Algorithm::GradientBoostedTrees`].
    Trees(TreeParameters),
    /// Of [`Algorithm::NeuralNetwork`].
    Network(NetworkParameters),
    /// Of [`Algorithm::DecisionTree`].
    DecisionTree(DecisionTreeParameters),
    /// Of [`Algorithm::RandomForest`].
    Forest(ForestParameters),
}

/// Of [`Algorithm::LogisticRegression`].
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct LogisticParameters {
    /// L2 penalty on the weights of standardised features, 0–1e6, against the sum of the rows' losses: `1 / C` in
    /// scikit-learn.
    pub l2: f64,
    /// Most steps of L-BFGS, 1–10 000; it ends sooner when it has converged.
    pub max_iterations: usize,
}

impl Default for LogisticParameters {
    fn default() -> Self {
        Self {
            l2: 1.0,
            max_iterations: 200,
        }
    }
}

/// Of [`Algorithm::GradientBoostedTrees`].
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct TreeParameters {
    /// Boosting rounds, 1–2000; a round adds one tree for two classes, else one per class.
    pub trees: usize,
    /// Splits on a path, 1–8.
    pub depth: usize,
    /// Shrinkage of each tree, 0.0001–1.
    pub learning_rate: f64,
    /// Bins per feature, 2–256.
    pub bins: usize,
    /// Least sum of second derivatives on each side of a split, 0–1e6.
    pub min_child_weight: f64,
    /// L2 penalty on leaf weights, 0–1e6.
    pub lambda: f64,
    /// Share of rows that each round sees, 0.05–1.
    pub subsample: f64,
}

impl Default for TreeParameters {
    fn default() -> Self {
        Self {
            trees: 200,
            depth: 3,
            learning_rate: 0.1,
            bins: 256,
            min_child_weight: 0.1,
            lambda: 1.0,
            subsample: 0.5,
        }
    }
}

/// Of [`Algorithm::NeuralNetwork`].
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkParameters {
    /// Units of each hidden layer: 1–4 layers of 1–512.
    pub hidden: Vec<usize>,
    /// Passes over the data, 1–10 000.
    pub epochs: usize,
    /// Adam's step, 0.000001–1.
    pub learning_rate: f64,
    /// Rows in a step, 1–65 536.
    pub batch_size: usize,
    /// L2 penalty on weights, 0–1000, against the mean of the rows' losses.
    pub l2: f64,
}

impl Default for NetworkParameters {
    fn default() -> Self {
        Self {
            hidden: vec![16],
            epochs: 100,
            learning_rate: 0.005,
            batch_size: 32,
            l2: 1e-2,
        }
    }
}

/// Of [`Algorithm::DecisionTree`].
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct DecisionTreeParameters {
    /// Splits on a path, 1–12.
    pub depth: usize,
    /// Bins per feature, 2–256.
    pub bins: usize,
    /// Least rows of a leaf, 1–1 000 000.
    pub min_samples_leaf: usize,
}

impl Default for DecisionTreeParameters {
    fn default() -> Self {
        Self {
            depth: 5,
            bins: 256,
            // The shares in a leaf of one or two rows say little.
            min_samples_leaf: 5,
        }
    }
}

/// Of [`Algorithm::RandomForest`].
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct ForestParameters {
    /// Trees, 1–1000.
    pub trees: usize,
    /// Splits on a path, 1–12.
    pub depth: usize,
    /// Bins per feature, 2–256.
    pub bins: usize,
    /// Least rows of a leaf, counted as often as they are drawn, 1–1 000 000.
    pub min_samples_leaf: usize,
}

impl Default for ForestParameters {
    fn default() -> Self {
        Self {
            trees: 50,
            depth: 4,
            bins: 256,
            min_samples_leaf: 1,
        }
    }
}

impl Hyperparameters {
    /// The defaults.
    pub fn defaults(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::LogisticRegression => Self::Logistic(LogisticParameters::default()),
            Algorithm::GradientBoostedTrees => Self::Trees(TreeParameters::default()),
            Algorithm::NeuralNetwork => Self::Network(NetworkParameters::default()),
            Algorithm::DecisionTree => Self::DecisionTree(DecisionTreeParameters::default()),
            Algorithm::RandomForest => Self::Forest(ForestParameters::default()),
        }
    }

    /// The defaults, overridden by `wishes`: names of the fields to text. Layers are parted by commas: `16,8`.
    ///
    /// # Errors
    /// [`LearnError::Hyperparameters`] with every name that is unknown and every value that cannot be used.
    pub fn parse(algorithm: Algorithm, wishes: &BTreeMap<String, String>) -> Result<Self, LearnError> {
        let mut parsed = Self::defaults(algorithm);
        let mut violations = Vec::new();
        for (name, text) in wishes {
            if let Err(problem) = parsed.set(name, text.trim()) {
                violations.push(HyperparameterViolation {
                    name: name.clone(),
                    problem,
                });
            }
        }
        violations.extend(parsed.violations());
        if violations.is_empty() {
            Ok(parsed)
        } else {
            Err(LearnError::Hyperparameters { violations })
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`LearnError::Hyperparameters`]
    pub fn validate(&self) -> Result<(), LearnError> {
        let violations = self.violations();
        if violations.is_empty() {
            Ok(())
        } else {
            Err(LearnError::Hyperparameters { violations })
        }
    }

    /// What they are for.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Logistic(_) => Algorithm::LogisticRegression,
            Self::Trees(_) => Algorithm::GradientBoostedTrees,
            Self::Network(_) => Algorithm::NeuralNetwork,
            Self::DecisionTree(_) => Algorithm::DecisionTree,
            Self::Forest(_) => Algorithm::RandomForest,
        }
    }

    fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        match (self, name) {
            (Self::Logistic(own), "l2") => read(text, &mut own.l2),
            (Self::Logistic(own), "max_iterations") => read(text, &mut own.max_iterations),
            (Self::Trees(own), "trees") => read(text, &mut own.trees),
            (Self::Trees(own), "depth") => read(text, &mut own.depth),
            (Self::Trees(own), "learning_rate") => read(text, &mut own.learning_rate),
            (Self::Trees(own), "bins") => read(text, &mut own.bins),
            (Self::Trees(own), "min_child_weight") => read(text, &mut own.min_child_weight),
            (Self::Trees(own), "lambda") => read(text, &mut own.lambda),
            (Self::Trees(own), "subsample") => read(text, &mut own.subsample),
            (Self::Network(own), "hidden") => {
                let layers: Result<_, _> = text.split(',').map(|units| units.trim().parse()).collect();
                own.hidden = layers.map_err(|_| "must be whole numbers parted by commas, such as 16,8")?;
                Ok(())
            }
            (Self::Network(own), "epochs") => read(text, &mut own.epochs),
            (Self::Network(own), "learning_rate") => read(text, &mut own.learning_rate),
            (Self::Network(own), "batch_size") => read(text, &mut own.batch_size),
            (Self::Network(own), "l2") => read(text, &mut own.l2),
            (Self::DecisionTree(own), "depth") => read(text, &mut own.depth),
            (Self::DecisionTree(own), "bins") => read(text, &mut own.bins),
            (Self::DecisionTree(own), "min_samples_leaf") => read(text, &mut own.min_samples_leaf),
            (Self::Forest(own), "trees") => read(text, &mut own.trees),
            (Self::Forest(own), "depth") => read(text, &mut own.depth),
            (Self::Forest(own), "bins") => read(text, &mut own.bins),
            (Self::Forest(own), "min_samples_leaf") => read(text, &mut own.min_samples_leaf),
            (own, _) => Err(format!("is unknown; this algorithm has {}", own.names())),
        }
    }

    fn names(&self) -> &'static str {
        match self {
            Self::Logistic(_) => "l2, max_iterations",
            Self::Trees(_) => "trees, depth, learning_rate, bins, min_child_weight, lambda, subsample",
            Self::Network(_) => "hidden, epochs, learning_rate, batch_size, l2",
            Self::DecisionTree(_) => "depth, bins, min_samples_leaf",
            Self::Forest(_) => "trees, depth, bins, min_samples_leaf",
        }
    }

    fn violations(&self) -> Vec<HyperparameterViolation> {
        let mut ranges = Ranges(Vec::new());
        match self {
            Self::Logistic(own) => {
                ranges.check("l2", own.l2, 0.0, 1e6);
                ranges.check("max_iterations", own.max_iterations, 1, 10_000);
            }
            Self::Trees(own) => {
                ranges.check("trees", own.trees, 1, 2000);
                ranges.check("depth", own.depth, 1, 8);
                ranges.check("learning_rate", own.learning_rate, 1e-4, 1.0);
                ranges.check("bins", own.bins, 2, 256);
                ranges.check("min_child_weight", own.min_child_weight, 0.0, 1e6);
                ranges.check("lambda", own.lambda, 0.0, 1e6);
                ranges.check("subsample", own.subsample, 0.05, 1.0);
            }
            Self::Network(own) => {
                let layers = (1..=4).contains(&own.hidden.len());
                if !layers || own.hidden.iter().any(|units| !(1..=512).contains(units)) {
                    ranges.add(
                        "hidden",
                        "must be 1 to 4 layers of 1 to 512 units, such as 16,8".to_owned(),
                    );
                }
                ranges.check("epochs", own.epochs, 1, 10_000);
                ranges.check("learning_rate", own.learning_rate, 1e-6, 1.0);
                ranges.check("batch_size", own.batch_size, 1, 65_536);
                ranges.check("l2", own.l2, 0.0, 1e3);
            }
            Self::DecisionTree(own) => {
                ranges.check("depth", own.depth, 1, 12);
                ranges.check("bins", own.bins, 2, 256);
                ranges.check("min_samples_leaf", own.min_samples_leaf, 1, 1_000_000);
            }
            Self::Forest(own) => {
                ranges.check("trees", own.trees, 1, 1000);
                ranges.check("depth", own.depth, 1, 12);
                ranges.check("bins", own.bins, 2, 256);
                ranges.check("min_samples_leaf", own.min_samples_leaf, 1, 1_000_000);
            }
        }
        ranges.0
    }
}

fn read<T: FromStr>(text: &str, field: &mut T) -> Result<(), String> {
    let kind = if "0.5".parse::<T>().is_ok() {
        "number"
    } else {
        "whole number"
    };
    *field = text.parse().map_err(|_| format!("must be a {kind}"))?;
    Ok(())
}

struct Ranges(Vec<HyperparameterViolation>);

impl Ranges {
    /// NaN is in no range.
    fn check<T: PartialOrd + Display + Copy>(&mut self, name: &str, value: T, least: T, most: T) {
        if !(least..=most).contains(&value) {
            self.add(name, format!("must lie from {least} to {most}"));
        }
    }

    fn add(&mut self, name: &str, problem: String) {
        self.0.push(HyperparameterViolation {
            name: name.to_owned(),
            problem,
        });
    }
}
