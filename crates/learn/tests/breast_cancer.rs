//! How good the default settings are on real data: the accuracy that the product promises.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use asterism_learn::{
    csv::{CsvLimits, CsvReader},
    dataset::{Problem, stratified_split},
    metrics::{Evaluation, evaluate},
    model::{Algorithm, Hyperparameters, Model},
    profile::{ColumnKind, Profiler},
};

const DATA: &[u8] = include_bytes!("../../../examples/breast_cancer.csv");

fn problem() -> Problem {
    support::problem(DATA, "diagnosis")
}

fn fit(problem: &Problem, algorithm: Algorithm, seed: u64) -> (Model, Evaluation) {
    let (model, evaluation) = support::fit(problem, &Hyperparameters::defaults(algorithm), seed);
    assert_eq!(evaluation.rows, 171);
    (model, evaluation)
}

#[test]
fn the_example_is_as_documented() {
    let mut profiler = Profiler::new();
    let mut reader = CsvReader::new(CsvLimits::default());
    reader.feed(DATA, &mut profiler).unwrap();
    reader.finish(&mut profiler).unwrap();
    let profile = profiler.finish();
    assert_eq!((profile.rows, profile.columns.len()), (569, 31));
    assert!(profile.columns.iter().all(|column| column.missing == 0));
    let radius = &profile.columns[0];
    assert_eq!(
        (radius.name.as_str(), radius.kind),
        ("mean_radius", ColumnKind::Float)
    );
    // The summary statistics that are published with the data.
    assert_eq!((radius.min, radius.max), (Some(6.981), Some(28.11)));
    let label = &profile.columns[30];
    assert_eq!(
        (label.name.as_str(), label.kind, label.distinct),
        ("diagnosis", ColumnKind::Text, 2)
    );
    let problem = problem();
    assert_eq!(problem.classes, ["benign", "malignant"]);
    assert_eq!(problem.labels.iter().filter(|label| **label == 1).count(), 212);
}

/// Evaluations of ten splits, and of the one that examples use.
fn evaluations(algorithm: Algorithm) -> Vec<Evaluation> {
    let problem = problem();
    (0..10)
        .chain([42])
        .map(|seed| fit(&problem, algorithm, seed).1)
        .collect()
}

fn mean_accuracy(evaluations: &[Evaluation]) -> f64 {
    evaluations
        .iter()
        .map(|evaluation| evaluation.accuracy)
        .sum::<f64>()
        / evaluations.len() as f64
}

/// Some splits hold out the few hard rows: no boosted ensemble gets 0.95 on every one of them.
#[test]
fn boosted_trees() {
    let evaluations = evaluations(Algorithm::GradientBoostedTrees);
    let good = evaluations
        .iter()
        .filter(|evaluation| evaluation.accuracy >= 0.95)
        .count();
    assert!(good >= 10, "{good} of {} splits", evaluations.len());
    assert!(
        mean_accuracy(&evaluations) >= 0.96,
        "{}",
        mean_accuracy(&evaluations)
    );
    for (index, evaluation) in evaluations.iter().enumerate() {
        assert!(
            evaluation.accuracy >= 0.93 && evaluation.roc_auc >= 0.98,
            "{index}: {evaluation:?}"
        );
    }
    assert!(evaluations[10].accuracy >= 0.95, "{:?}", evaluations[10]);
}

#[test]
fn logistic_regression() {
    for (index, evaluation) in evaluations(Algorithm::LogisticRegression).iter().enumerate() {
        assert!(
            evaluation.accuracy >= 0.95 && evaluation.roc_auc >= 0.98,
            "{index}: {evaluation:?}"
        );
    }
}

#[test]
fn neural_network() {
    for (index, evaluation) in evaluations(Algorithm::NeuralNetwork).iter().enumerate() {
        assert!(
            evaluation.accuracy >= 0.95 && evaluation.roc_auc >= 0.98,
            "{index}: {evaluation:?}"
        );
    }
}

#[test]
fn random_forest() {
    let evaluations = evaluations(Algorithm::RandomForest);
    assert!(
        mean_accuracy(&evaluations) >= 0.94,
        "{}",
        mean_accuracy(&evaluations)
    );
    for (index, evaluation) in evaluations.iter().enumerate() {
        assert!(
            evaluation.accuracy >= 0.92 && evaluation.roc_auc >= 0.98,
            "{index}: {evaluation:?}"
        );
    }
}

/// One tree varies more from split to split than a forest: the mean of forty is what is promised.
#[test]
fn decision_tree() {
    let problem = problem();
    let evaluations: Vec<Evaluation> = (0..40)
        .map(|seed| fit(&problem, Algorithm::DecisionTree, seed).1)
        .collect();
    assert!(
        mean_accuracy(&evaluations) >= 0.92,
        "{}",
        mean_accuracy(&evaluations)
    );
    for (index, evaluation) in evaluations.iter().enumerate() {
        assert!(
            evaluation.accuracy >= 0.87 && evaluation.roc_auc >= 0.9,
            "{index}: {evaluation:?}"
        );
    }
}

/// The model that is stored predicts what the trained one does, to the last bit.
#[test]
fn stored_models_predict_the_same() {
    let problem = problem();
    for algorithm in [
        Algorithm::LogisticRegression,
        Algorithm::GradientBoostedTrees,
        Algorithm::NeuralNetwork,
        Algorithm::DecisionTree,
        Algorithm::RandomForest,
    ] {
        let (model, evaluation) = fit(&problem, algorithm, 42);
        let read = Model::from_bytes(&model.to_bytes()).unwrap();
        let split = stratified_split(&problem.labels, 0.3, 42).unwrap();
        assert_eq!(evaluate(&read, &problem, &split.test).unwrap(), evaluation);
    }
}
