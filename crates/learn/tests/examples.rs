//! The other example data, and settings that encrypted prediction is made for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use asterism_learn::{
    dataset::Problem,
    metrics::Evaluation,
    model::{Algorithm, Hyperparameters, Model, NodeView, View},
};

fn breast_cancer() -> Problem {
    let data = include_bytes!("../../../examples/breast_cancer.csv");
    support::problem(data, "diagnosis")
}

fn wine() -> Problem {
    support::problem(include_bytes!("../../../examples/wine.csv"), "class")
}

fn digits() -> Problem {
    support::problem(include_bytes!("../../../examples/digits.csv"), "digit")
}

/// Hyperparameters as a request names them: `name=text`.
fn fit(problem: &Problem, algorithm: Algorithm, wishes: &[&str], seed: u64) -> (Model, Evaluation) {
    let wishes = wishes.iter().map(|wish| {
        let (name, text) = wish.split_once('=').unwrap();
        (name.to_owned(), text.to_owned())
    });
    let hyperparameters = Hyperparameters::parse(algorithm, &wishes.collect()).unwrap();
    support::fit(problem, &hyperparameters, seed)
}

fn counts(problem: &Problem) -> Vec<usize> {
    let of = |class| problem.labels.iter().filter(|label| **label == class).count();
    (0..problem.classes.len() as u32).map(of).collect()
}

fn range(problem: &Problem, feature: &str) -> (f64, f64) {
    let index = problem
        .feature_names()
        .iter()
        .position(|name| name == feature)
        .unwrap();
    let values = problem.features.iter().map(|row| row[index]);
    let nothing = (f64::INFINITY, f64::NEG_INFINITY);
    values.fold(nothing, |(low, high), value| (low.min(value), high.max(value)))
}

/// Against the counts and summary statistics that are published with the data.
#[test]
fn the_examples_are_as_documented() {
    let wine = wine();
    assert_eq!((wine.rows(), wine.features.columns()), (178, 13));
    assert_eq!(wine.classes, ["cultivar_1", "cultivar_2", "cultivar_3"]);
    assert_eq!(counts(&wine), [59, 71, 48]);
    assert_eq!(range(&wine, "malic_acid"), (0.74, 5.8));
    assert_eq!(range(&wine, "od280_od315_of_diluted_wines"), (1.27, 4.0));
    assert_eq!(range(&wine, "proline"), (278.0, 1680.0));
    let digits = digits();
    assert_eq!((digits.rows(), digits.features.columns()), (1797, 64));
    assert_eq!(digits.classes, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!(
        counts(&digits),
        [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    );
    assert_eq!(range(&digits, "pixel_3_4"), (0.0, 16.0));
    assert_eq!(range(&digits, "pixel_0_0"), (0.0, 0.0));
    for problem in [wine, digits] {
        assert!(problem.features.iter().flatten().all(|value| value.is_finite()));
    }
}

/// The mean over five splits, and the model of the last.
fn mean(problem: &Problem, algorithm: Algorithm, wishes: &[&str]) -> (Model, f64) {
    let mut sum = 0.0;
    let mut last = None;
    for seed in 0..5 {
        let (model, evaluation) = fit(problem, algorithm, wishes, seed);
        sum += evaluation.accuracy;
        last = Some(model);
    }
    (last.unwrap(), sum / 5.0)
}

/// Splits on the longest way, the largest number of edges of a feature, and trees.
fn size(model: &Model) -> (usize, usize, usize) {
    let (View::Boosted { edges, trees, .. } | View::Forest { edges, trees }) = model.view() else {
        panic!("no trees")
    };
    let depth = |nodes: &Vec<NodeView<'_>>| {
        let mut depths = vec![0; nodes.len()];
        for (at, node) in nodes.iter().enumerate() {
            if let NodeView::Split { left, right, .. } = node {
                depths[*left] = depths[at] + 1;
                depths[*right] = depths[at] + 1;
            }
        }
        depths.into_iter().max().unwrap()
    };
    (
        trees.iter().map(depth).max().unwrap(),
        edges.iter().map(Vec::len).max().unwrap(),
        trees.len(),
    )
}

/// The shapes that the plans `pairs` and `paths` are made for.
#[test]
fn boosted_trees_of_served_shapes() {
    let problem = breast_cancer();
    let algorithm = Algorithm::GradientBoostedTrees;
    let (model, accuracy) = mean(&problem, algorithm, &["bins=45", "depth=2", "trees=100"]);
    assert_eq!(size(&model), (2, 44, 100));
    assert!(accuracy >= 0.95, "{accuracy}");
    let (model, accuracy) = mean(&problem, algorithm, &["bins=256", "depth=6"]);
    let (depth, edges, trees) = size(&model);
    assert!((3..=6).contains(&depth) && trees == 200, "{depth} {trees}");
    // Some cuts fall together where values are equal.
    assert!((200..=255).contains(&edges), "{edges}");
    assert!(accuracy >= 0.95, "{accuracy}");
}

#[test]
fn forests_of_served_shapes() {
    let (model, accuracy) = mean(
        &breast_cancer(),
        Algorithm::RandomForest,
        &["bins=45", "depth=2", "trees=100"],
    );
    assert_eq!(size(&model), (2, 44, 100));
    assert!(accuracy >= 0.92, "{accuracy}");
    let (_, accuracy) = mean(&wine(), Algorithm::RandomForest, &[]);
    assert!(accuracy >= 0.95, "{accuracy}");
    let (_, accuracy) = mean(
        &digits(),
        Algorithm::RandomForest,
        &["depth=10", "bins=16", "trees=100"],
    );
    assert!(accuracy >= 0.95, "{accuracy}");
}

#[test]
fn networks_of_one_layer() {
    let (_, accuracy) = mean(&breast_cancer(), Algorithm::NeuralNetwork, &["hidden=16"]);
    assert!(accuracy >= 0.96, "{accuracy}");
    let (_, accuracy) = mean(&digits(), Algorithm::NeuralNetwork, &["hidden=32"]);
    assert!(accuracy >= 0.95, "{accuracy}");
    let (_, accuracy) = mean(&wine(), Algorithm::NeuralNetwork, &["hidden=16"]);
    assert!(accuracy >= 0.95, "{accuracy}");
}
