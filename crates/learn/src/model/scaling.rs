//! What happens to a row before a model sees it, and to its scores after.

use serde::{Deserialize, Serialize};

use crate::model::ScalingView;

/// Standardised values are kept within this many deviations: no weight that training finds makes them overflow.
const MOST_DEVIATIONS: f64 = 1e6;

/// The row with missing values replaced.
pub(crate) fn impute(row: &[f64], medians: &[f64]) -> Vec<f64> {
    row.iter()
        .zip(medians)
        .map(|(value, median)| if value.is_nan() { *median } else { *value })
        .collect()
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
    /// Learnt from rows of `width` finite values, one after the other.
    pub(crate) fn learn(values: &[f64], width: usize) -> Self {
        let rows = values.chunks_exact(width.max(1));
        let count = rows.len().max(1) as f64;
        let mut mean = vec![0.0; width];
        for row in rows.clone() {
            mean.iter_mut()
                .zip(row)
                .for_each(|(mean, value)| *mean += value / count);
        }
        let mut deviation = vec![0.0; width];
        for row in rows {
            for ((sum, value), mean) in deviation.iter_mut().zip(row).zip(&mean) {
                *sum += (value - mean).powi(2) / count;
            }
        }
        for (deviation, mean) in deviation.iter_mut().zip(&mean) {
            let root = deviation.sqrt();
            // A constant feature (but for rounding) says nothing: any scale will do.
            *deviation = if root.is_finite() && root > mean.abs() * 1e-14 {
                root
            } else {
                1.0
            };
        }
        Self { mean, deviation }
    }

    pub(crate) fn apply(&self, row: &[f64]) -> Vec<f64> {
        let scale = |((value, mean), deviation): ((&f64, &f64), &f64)| {
            ((value - mean) / deviation).clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS)
        };
        row.iter()
            .zip(&self.mean)
            .zip(&self.deviation)
            .map(scale)
            .collect()
    }

    /// Four deviations on each side of the mean, by feature.
    pub(crate) fn ranges(&self) -> Vec<(f64, f64)> {
        const DEVIATIONS: f64 = 4.0;
        let around = |(mean, deviation): (&f64, &f64)| {
            let reach = DEVIATIONS * deviation;
            ((mean - reach).max(f64::MIN), (mean + reach).min(f64::MAX))
        };
        self.mean.iter().zip(&self.deviation).map(around).collect()
    }

    pub(crate) fn view(&self) -> ScalingView<'_> {
        ScalingView {
            mean: &self.mean,
            deviation: &self.deviation,
        }
    }

    pub(crate) fn is_consistent(&self, features: usize) -> bool {
        self.mean.len() == features
            && self.deviation.len() == features
            && self.mean.iter().all(|mean| mean.is_finite())
            && self
                .deviation
                .iter()
                .all(|deviation| deviation.is_finite() && *deviation > 0.0)
    }
}
