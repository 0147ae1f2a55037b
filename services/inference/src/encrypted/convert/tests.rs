use std::{collections::BTreeMap, ops::ControlFlow};

use asterism_chassis::error::Classify as _;
use asterism_fhe::compile::{Options, compile};
use asterism_learn::{
    csv::{CsvLimits, CsvReader},
    dataset::Problem,
    metrics::most_probable,
    model::{Algorithm, Hyperparameters},
    table::{Table, TableBuilder},
    train::train,
};

use super::*;

const BREAST_CANCER: &[u8] = include_bytes!("../../../../../examples/breast_cancer.csv");

fn table(csv: &[u8]) -> Table {
    let mut builder = TableBuilder::new(16 << 20);
    let mut reader = CsvReader::new(CsvLimits::default());
    reader.feed(csv, &mut builder).unwrap();
    reader.finish(&mut builder).unwrap();
    builder.finish().unwrap()
}

fn breast_cancer() -> Problem {
    Problem::from_table(&table(BREAST_CANCER), "diagnosis", None).unwrap()
}

fn wine() -> Problem {
    let csv = include_bytes!("../../../../../examples/wine.csv");
    Problem::from_table(&table(csv), "class", None).unwrap()
}

/// Three classes of the same rows: the benign ones parted by their texture.
fn three_classes() -> Problem {
    let mut problem = breast_cancer();
    for (label, row) in problem.labels.iter_mut().zip(problem.features.iter()) {
        if *label == 0 && row[1] > 18.0 {
            *label = 2;
        }
    }
    problem.classes.push("rough".into());
    problem
}

fn fit(problem: &Problem, algorithm: Algorithm, wishes: &[(&str, &str)]) -> model::Model {
    let wishes: BTreeMap<String, String> = wishes
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect();
    let hyperparameters = Hyperparameters::parse(algorithm, &wishes).unwrap();
    let rows: Vec<usize> = (0..problem.rows()).collect();
    train(problem, &rows, &hyperparameters, 7, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap()
}

/// What people ask for, from scores.
fn probabilities(link: Link, scores: &[f64]) -> Vec<f64> {
    match link {
        Link::Logistic => {
            let second = 1.0 / (1.0 + (-scores[0]).exp());
            vec![1.0 - second, second]
        }
        Link::Softmax => {
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
            let sum: f64 = powers.iter().sum();
            powers.iter().map(|power| power / sum).collect()
        }
        Link::Average | Link::Identity => scores.to_vec(),
    }
}

/// The converted model answers as the trained one on every row, on rows with missing values, and on one with none else.
fn assert_same(problem: &Problem, model: &model::Model, link: Link) {
    let converted = to_fhe(model).unwrap();
    assert_eq!(converted.link, link);
    assert_eq!(
        (converted.features.as_slice(), converted.classes.as_slice()),
        (problem.feature_names(), problem.classes.as_slice())
    );
    let width = problem.features.columns();
    let mut rows: Vec<Vec<f64>> = problem.features.iter().map(<[f64]>::to_vec).collect();
    for index in 0..rows.len() {
        let mut holes = rows[index].clone();
        holes[index % width] = f64::NAN;
        holes[index * 7 % width] = f64::NAN;
        rows.push(holes);
    }
    rows.push(vec![f64::NAN; width]);
    let mut answers = Vec::new();
    for row in rows {
        let expected = model.predict_proba(&row).unwrap();
        let found = probabilities(link, &converted.scores(&row).unwrap());
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() <= 1e-9, "{found} {expected} {row:?}");
        }
        answers.push(expected[1]);
    }
    // Agreement says something only where answers differ.
    assert!(answers.iter().any(|p| *p > 0.9) && answers.iter().any(|p| *p < 0.1));
}

#[test]
fn logistic_regression() {
    for (problem, link) in [
        (breast_cancer(), Link::Logistic),
        (three_classes(), Link::Softmax),
    ] {
        let model = fit(&problem, Algorithm::LogisticRegression, &[]);
        assert_same(&problem, &model, link);
        let Body::Linear(linear) = to_fhe(&model).unwrap().body else {
            panic!("not linear")
        };
        // The least and largest radius that are published with the data.
        assert_eq!(linear.ranges[0], (6.981, 28.11));
    }
}

#[test]
fn boosted_trees() {
    for wishes in [
        [("trees", "40"), ("depth", "3"), ("bins", "256")],
        [("trees", "40"), ("depth", "6"), ("bins", "45")],
    ] {
        for (problem, link) in [
            (breast_cancer(), Link::Logistic),
            (three_classes(), Link::Softmax),
        ] {
            let model = fit(&problem, Algorithm::GradientBoostedTrees, &wishes);
            assert_same(&problem, &model, link);
        }
    }
}

/// Values on an edge, and next to it, go the same way.
#[test]
fn edges_part_alike() {
    let problem = breast_cancer();
    let model = fit(&problem, Algorithm::GradientBoostedTrees, &[("trees", "40")]);
    let converted = to_fhe(&model).unwrap();
    let Body::Ensemble(ensemble) = &converted.body else {
        panic!("no ensemble")
    };
    for (feature, edges) in ensemble.edges.iter().enumerate() {
        for edge in edges {
            for value in [edge.next_down(), *edge, edge.next_up()] {
                let mut row = model.medians().to_vec();
                row[feature] = value;
                let expected = model.predict_proba(&row).unwrap()[1];
                let found = probabilities(Link::Logistic, &converted.scores(&row).unwrap())[1];
                assert!((found - expected).abs() <= 1e-9, "feature {feature} at {value}");
            }
        }
    }
}

#[test]
fn neural_networks() {
    for (problem, link) in [
        (breast_cancer(), Link::Logistic),
        (three_classes(), Link::Softmax),
    ] {
        let model = fit(&problem, Algorithm::NeuralNetwork, &[("epochs", "20")]);
        assert_same(&problem, &model, link);
    }
}

#[test]
fn trees_and_forests() {
    for problem in [breast_cancer(), three_classes()] {
        let tree = fit(&problem, Algorithm::DecisionTree, &[]);
        assert_same(&problem, &tree, Link::Average);
        for wishes in [
            [("trees", "50"), ("depth", "4")],
            [("trees", "7"), ("depth", "12")],
        ] {
            let forest = fit(&problem, Algorithm::RandomForest, &wishes);
            assert_same(&problem, &forest, Link::Average);
        }
    }
}

/// What training makes under these hyperparameters compiles to the plan that they are meant for, and the integers of the
/// plan name the trained model's class on nearly every row.
#[test]
fn converted_models_compile() {
    let boosted = Algorithm::GradientBoostedTrees;
    let (breast_cancer, wine) = (breast_cancer(), wine());
    for (problem, algorithm, wishes, plan) in [
        (&breast_cancer, Algorithm::LogisticRegression, vec![], "linear"),
        (&wine, Algorithm::LogisticRegression, vec![], "linear"),
        (
            &breast_cancer,
            boosted,
            vec![("bins", "45"), ("depth", "2"), ("trees", "100")],
            "pairs",
        ),
        (
            &wine,
            boosted,
            vec![("bins", "45"), ("depth", "2"), ("trees", "100")],
            "pairs",
        ),
        (
            &breast_cancer,
            boosted,
            vec![("bins", "256"), ("depth", "6"), ("trees", "50")],
            "paths",
        ),
        (&breast_cancer, Algorithm::RandomForest, vec![], "paths"),
        (&wine, Algorithm::DecisionTree, vec![], "paths"),
        (
            &wine,
            Algorithm::RandomForest,
            vec![("bins", "45"), ("depth", "2")],
            "pairs",
        ),
    ] {
        let model = fit(problem, algorithm, &wishes);
        let program = compile(&to_fhe(&model).unwrap(), Options::default()).unwrap();
        assert_eq!(program.explanation().plan, plan, "{algorithm:?} {wishes:?}");
        let mut same = 0;
        for row in problem.features.iter() {
            let expected = most_probable(&model.predict_proba(row).unwrap());
            same += usize::from(program.clear(row).unwrap().class == Some(expected));
        }
        assert!(
            same * 100 >= problem.rows() * 99,
            "{same} of {} rows: {algorithm:?} {wishes:?}",
            problem.rows()
        );
    }
}

#[test]
fn deep_networks_are_refused() {
    let problem = breast_cancer();
    let model = fit(
        &problem,
        Algorithm::NeuralNetwork,
        &[("epochs", "1"), ("hidden", "8,4")],
    );
    let error = to_fhe(&model).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the model does not predict on encrypted rows: it has 2 hidden layers, and networks with exactly one are served; \
         train with hidden=16, for example"
    );
    assert_eq!(error.reason(), "MODEL_NOT_SERVED");
}

/// What the compiler would refuse is refused here, with its reason.
#[test]
fn models_beyond_what_is_served_are_refused() {
    let features: Vec<String> = (0..2049).map(|index| format!("f{index}")).collect();
    let row = |value: &str| vec![value; features.len()].join(",");
    let csv = format!("{},y\n{},a\n{},b\n", features.join(","), row("1"), row("2"));
    let problem = Problem::from_table(&table(csv.as_bytes()), "y", None).unwrap();
    let model = fit(
        &problem,
        Algorithm::LogisticRegression,
        &[("max_iterations", "2")],
    );
    let error = to_fhe(&model).unwrap_err().to_string();
    assert!(
        error.contains("it has 2049 features, and 1 to 2048 are served"),
        "{error}"
    );
}
