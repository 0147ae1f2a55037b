//! How good a model is.

use serde::{Deserialize, Serialize};

use crate::{LearnError, dataset::Problem, model::Model};

/// Figures of a model on some rows. A ratio whose denominator is zero is 0.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Rows evaluated.
    pub rows: u64,
    /// Share of rows whose most probable class is theirs.
    pub accuracy: f64,
    /// Area under the ROC curve; the mean over classes one-versus-rest beyond two.
    pub roc_auc: f64,
    /// Mean cross-entropy, nats.
    pub log_loss: f64,
    /// Counts by true class, then by predicted class.
    pub confusion: Vec<Vec<u64>>,
    /// By class, in the model's order.
    pub per_class: Vec<ClassMetrics>,
    /// Unweighted means over the classes.
    pub macro_average: Average,
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
pub struct Average {
    /// Of the precisions.
    pub precision: f64,
    /// Of the recalls.
    pub recall: f64,
    /// Of the F1 scores.
    pub f1: f64,
}

/// Evaluates a model on the given rows of a problem that has its features and classes.
///
/// # Errors
/// As [`Model::predict_proba`].
pub fn evaluate(model: &Model, problem: &Problem, rows: &[usize]) -> Result<Evaluation, LearnError> {
    let classes = problem.classes.len();
    let mut confusion = vec![vec![0; classes]; classes];
    let mut probabilities = Vec::with_capacity(rows.len());
    let mut loss = 0.0;
    for row in rows {
        let p = model.predict_proba(problem.features.row(*row))?;
        let label = problem.labels[*row] as usize;
        confusion[label][most_probable(&p)] += 1;
        loss -= p[label].max(1e-15).ln();
        probabilities.push(p);
    }
    let labels: Vec<usize> = rows.iter().map(|row| problem.labels[*row] as usize).collect();
    let right: u64 = (0..classes).map(|class| confusion[class][class]).sum();
    let per_class: Vec<ClassMetrics> =
        problem.classes.iter().enumerate().map(|(index, class)| of_class(class, index, &confusion)).collect();
    let mean = |figure: fn(&ClassMetrics) -> f64| per_class.iter().map(figure).sum::<f64>() / classes.max(1) as f64;
    let macro_average = Average { precision: mean(|c| c.precision), recall: mean(|c| c.recall), f1: mean(|c| c.f1) };
    Ok(Evaluation {
        rows: rows.len() as u64,
        accuracy: ratio(right, rows.len() as u64),
        roc_auc: multiclass_auc(&probabilities, &labels, classes),
        log_loss: loss / rows.len().max(1) as f64,
        confusion,
        per_class,
        macro_average,
    })
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

/// Mean cross-entropy of a model on rows, nats.
pub(crate) fn log_loss(model: &Model, rows: &[Vec<f64>], labels: &[u32]) -> Result<f64, LearnError> {
    let mut loss = 0.0;
    for (row, label) in rows.iter().zip(labels) {
        loss -= model.predict_proba(row)?[*label as usize].max(1e-15).ln();
    }
    Ok(loss / rows.len().max(1) as f64)
}

fn of_class(class: &str, index: usize, confusion: &[Vec<u64>]) -> ClassMetrics {
    let hits = confusion[index][index];
    let support = confusion[index].iter().sum();
    let predicted = confusion.iter().map(|row| row[index]).sum();
    let (precision, recall) = (ratio(hits, predicted), ratio(hits, support));
    let f1 = if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 };
    ClassMetrics { class: class.to_owned(), precision, recall, f1, support }
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

/// Area under the ROC curve by ranks (Mann and Whitney 1947), ties counted half; `None` without both kinds.
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
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
