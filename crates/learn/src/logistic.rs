//! Logistic regression by smartcore's L-BFGS.

use serde::{Deserialize, Serialize};
use smartcore::{
    linalg::basic::{arrays::Array as _, matrix::DenseMatrix},
    linear::logistic_regression::{LogisticRegression, LogisticRegressionParameters},
};

use crate::{LearnError, model::Scaling};

/// Weights by class, on standardised features.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Logistic {
    scaling: Scaling,
    weights: Vec<Vec<f64>>,
    intercepts: Vec<f64>,
}

impl Logistic {
    pub(crate) fn train(
        rows: &[Vec<f64>],
        labels: &[u32],
        classes: usize,
        l2: f64,
    ) -> Result<Self, LearnError> {
        let failed = |error: &dyn std::fmt::Display| LearnError::Training(error.to_string());
        let features = rows.first().map_or(0, Vec::len);
        let scaling = Scaling::learn(rows, features);
        let scaled: Vec<Vec<f64>> = rows.iter().map(|row| scaling.apply(row)).collect();
        let x = DenseMatrix::from_2d_vec(&scaled).map_err(|error| failed(&error))?;
        let y = labels.to_vec();
        let parameters = LogisticRegressionParameters::default().with_alpha(l2);
        let fitted = LogisticRegression::fit(&x, &y, parameters).map_err(|error| failed(&error))?;
        let (coefficients, intercept) = (fitted.coefficients(), fitted.intercept());
        let (rows_of_weights, _) = coefficients.shape();
        let weights_of = |row: usize| (0..features).map(|column| *coefficients.get((row, column))).collect();
        // Two classes share one row of weights, for the second against the first.
        let (weights, intercepts) = if classes == 2 && rows_of_weights == 1 {
            (vec![vec![0.0; features], weights_of(0)], vec![0.0, *intercept.get((0, 0))])
        } else {
            ((0..classes).map(weights_of).collect(), (0..classes).map(|row| *intercept.get((row, 0))).collect())
        };
        let trained = Self { scaling, weights, intercepts };
        if trained.is_consistent(features, classes) {
            Ok(trained)
        } else {
            Err(LearnError::Training("the solver diverged; raise l2".to_owned()))
        }
    }

    pub(crate) fn scores(&self, row: &[f64]) -> Vec<f64> {
        let row = self.scaling.apply(row);
        let dot = |weights: &Vec<f64>| weights.iter().zip(&row).map(|(weight, value)| weight * value).sum::<f64>();
        self.weights.iter().map(dot).zip(&self.intercepts).map(|(score, intercept)| score + intercept).collect()
    }

    pub(crate) fn is_consistent(&self, features: usize, classes: usize) -> bool {
        self.scaling.is_consistent(features)
            && self.weights.len() == classes
            && self.intercepts.len() == classes
            && self.weights.iter().all(|row| row.len() == features)
            && self.weights.iter().flatten().chain(&self.intercepts).all(|weight| weight.is_finite())
    }
}
