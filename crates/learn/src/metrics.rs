//! How good a model is.

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::{LearnError, dataset::Problem, model::Model};

/// What a probability counts as at least, for the log loss.
const LEAST_PROBABILITY: f64 = 1e-15;

/// Figures of a model on some rows. A ratio whose denominator is zero is 0.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Rows evaluated.
    pub rows: u64,
    /// Share of rows whose most probable class is theirs.
    pub accuracy: f64,
    /// Area under the ROC curve, the second class counting as positive; beyond two classes the mean of one-versus-rest
    /// over the classes that some rows have and others have not. 0 where no class is so.
    pub roc_auc: f64,
    /// Mean cross-entropy, nats; probabilities count as at least 1e-15.
    pub log_loss: f64,
    /// Counts by true class, then by predicted class.
    pub confusion: Vec<Vec<u64>>,
    /// By class, in the model's order.
    pub per_class: Vec<ClassMetrics>,
    /// Unweighted means over the classes.
    pub macro_avg: MacroAverage,
}

/// Figures of one class.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ClassMetrics {
    /// Its name.
    pub class: String,
    /// Share of the rows predicted as this class that are of it.
    pub precision: f64,
    /// Share of the rows of this class that are predicted as it.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// Rows of this class.
    pub support: u64,
}

/// Unweighted means over the classes.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct MacroAverage {
    /// Of the precisions.
    pub precision: f64,
    /// Of the recalls.
    pub recall: f64,
    /// Of the F1 scores.
    pub f1: f64,
}

/// Evaluates a model on the given rows of a problem. The features must be the model's, in its order; classes are matched
/// by name.
///
/// # Errors
/// [`LearnError::WrongFeatures`], [`LearnError::UnknownClass`], [`LearnError::RowOutOfRange`],
/// [`LearnError::NotEnoughRows`] without a row, and as [`Model::predict_proba`].
pub fn evaluate(model: &Model, problem: &Problem, rows: &[usize]) -> Result<Evaluation, LearnError> {
    model.check_features(problem.feature_names())?;
    if rows.is_empty() {
        return Err(LearnError::NotEnoughRows { rows: 0, needed: 1 });
    }
    let known: Vec<Option<usize>> = problem
        .classes
        .iter()
        .map(|class| model.classes().iter().position(|own| own == class))
        .collect();
    let mut labels = Vec::with_capacity(rows.len());
    let mut probabilities = Vec::with_capacity(rows.len());
    for index in rows {
        let (Some(row), Some(label)) = (problem.features.row(*index), problem.labels.get(*index)) else {
            return Err(LearnError::RowOutOfRange {
                index: *index,
                rows: problem.rows(),
            });
        };
        let class = known.get(*label as usize).copied().flatten();
        labels.push(class.ok_or(LearnError::UnknownClass {
            row: *index as u64 + 1,
        })?);
        probabilities.push(model.predict_proba(row)?);
    }
    Ok(Evaluation::of(model.classes(), &labels, &probabilities))
}

impl Evaluation {
    /// From the true classes (by index) and the probabilities of each class, row by row.
    fn of(classes: &[String], labels: &[usize], probabilities: &[Vec<f64>]) -> Self {
        let mut confusion = vec![vec![0; classes.len()]; classes.len()];
        let mut loss = 0.0;
        for (label, p) in labels.iter().zip(probabilities) {
            confusion[*label][most_probable(p)] += 1;
            loss -= p[*label].max(LEAST_PROBABILITY).ln();
        }
        let right = (0..classes.len()).map(|class| confusion[class][class]).sum();
        let per_class: Vec<ClassMetrics> = classes
            .iter()
            .enumerate()
            .map(|(index, class)| of_class(class, index, &confusion))
            .collect();
        let mean = |figure: fn(&ClassMetrics) -> f64| {
            per_class.iter().map(figure).sum::<f64>() / classes.len().max(1) as f64
        };
        let macro_avg = MacroAverage {
            precision: mean(|class| class.precision),
            recall: mean(|class| class.recall),
            f1: mean(|class| class.f1),
        };
        let rows = labels.len() as u64;
        Self {
            rows,
            accuracy: ratio(right, rows),
            roc_auc: multiclass_auc(probabilities, labels, classes.len()),
            log_loss: loss / rows.max(1) as f64,
            confusion,
            per_class,
            macro_avg,
        }
    }
}

/// Index of the largest probability; the first of equals.
pub fn most_probable(probabilities: &[f64]) -> usize {
    let mut best = 0;
    for (index, p) in probabilities.iter().enumerate() {
        if *p > probabilities[best] {
            best = index;
        }
    }
    best
}

fn of_class(class: &str, index: usize, confusion: &[Vec<u64>]) -> ClassMetrics {
    let hits = confusion[index][index];
    let support = confusion[index].iter().sum();
    let predicted = confusion.iter().map(|row| row[index]).sum();
    let (precision, recall) = (ratio(hits, predicted), ratio(hits, support));
    let f1 = if precision + recall > 0.0 {
        2.0 * precision * recall / (precision + recall)
    } else {
        0.0
    };
    ClassMetrics {
        class: class.to_owned(),
        precision,
        recall,
        f1,
        support,
    }
}

fn multiclass_auc(probabilities: &[Vec<f64>], labels: &[usize], classes: usize) -> f64 {
    let of_class = |class: usize| {
        let scores: Vec<f64> = probabilities.iter().map(|p| p[class]).collect();
        let positive: Vec<bool> = labels.iter().map(|label| *label == class).collect();
        roc_auc(&scores, &positive)
    };
    if classes == 2 {
        return of_class(1).unwrap_or(0.0);
    }
    let areas: Vec<f64> = (0..classes).filter_map(of_class).collect();
    areas.iter().sum::<f64>() / areas.len().max(1) as f64
}

/// Area under the ROC curve by ranks (Mann and Whitney 1947), ties counted half; `None` without both kinds. Scores must
/// not be NaN.
pub fn roc_auc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let mut order: Vec<(f64, bool)> = scores.iter().copied().zip(positive.iter().copied()).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = order.iter().filter(|(_, positive)| *positive).count() as f64;
    let negatives = order.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let mut rank_sum = 0.0;
    let mut before = 0.0;
    for tied in order.chunk_by(|a, b| a.0 == b.0) {
        let mean_rank = before + (tied.len() as f64 + 1.0) / 2.0;
        rank_sum += mean_rank * tied.iter().filter(|(_, positive)| *positive).count() as f64;
        before += tied.len() as f64;
    }
    Some((rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}
