//! Models that XGBoost itself trained and saved (`data/make.py`), against the margins that XGBoost gives.
#![allow(clippy::unwrap_used)]

use asterism_fhe::{
    client,
    compile::{Options, compile},
    keys::SecretKey,
    model::Model,
    server::EvaluationKey,
    xgboost::import,
};
use rayon::ThreadPoolBuilder;
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    /// Missing values are null.
    rows: Vec<Vec<Option<f64>>>,
    margins: Vec<Vec<f64>>,
}

impl Expected {
    fn rows(&self) -> Vec<Vec<f64>> {
        let row = |row: &Vec<Option<f64>>| row.iter().map(|value| value.unwrap_or(f64::NAN)).collect();
        self.rows.iter().map(row).collect()
    }
}

fn read(model: &str, expected: &str) -> (Model, Expected) {
    let model = import(model.as_bytes()).unwrap();
    (model, serde_json::from_str(expected).unwrap())
}

fn breast_cancer() -> (Model, Expected) {
    read(
        include_str!("data/breast_cancer.json"),
        include_str!("data/breast_cancer.expected.json"),
    )
}

fn wine() -> (Model, Expected) {
    read(
        include_str!("data/wine.json"),
        include_str!("data/wine.expected.json"),
    )
}

#[test]
fn margins_are_those_of_xgboost() {
    for (model, expected) in [breast_cancer(), wine()] {
        let rows = expected.rows();
        assert_eq!(rows.len(), 40);
        assert!(rows.iter().flatten().any(|value| value.is_nan()));
        for (row, margins) in rows.iter().zip(&expected.margins) {
            let scores = model.scores(row).unwrap();
            assert_eq!(scores.len(), margins.len());
            for (score, margin) in scores.iter().zip(margins) {
                // XGBoost adds in single precision.
                assert!((score - margin).abs() < 1e-5, "{score} {margin}");
            }
        }
    }
}

#[test]
fn they_are_served_encrypted_with_every_split_as_it_was() {
    let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    for ((model, expected), plan, rows) in [(breast_cancer(), "pairs", 40), (wine(), "paths", 12)] {
        let program = compile(&model, Options::default()).unwrap();
        assert_eq!(program.explanation().plan, plan);
        let bundle = program.bundle();
        assert!(bundle.edges_are_thresholds());
        let key = SecretKey::generate(bundle.params_id()).unwrap();
        let evaluation_key = client::evaluation_key(&key)
            .unwrap()
            .map(|bytes| EvaluationKey::from_bytes(&bytes).unwrap());
        for (row, margins) in expected.rows().iter().zip(&expected.margins).take(rows) {
            let query = client::encrypt(bundle, &key, row).unwrap();
            let answer = program.evaluate(&query.bytes, evaluation_key.as_ref(), &pool, &|| false);
            let reply = answer.unwrap().reply;
            let prediction = client::decrypt(bundle, &key, &query.digest, &reply).unwrap();
            assert_eq!(prediction, program.clear(row).unwrap());
            // Leaves are rounded, and nothing else.
            let bounds = &program.explanation().quantisation_error;
            for ((score, margin), bound) in prediction.scores.iter().zip(margins).zip(bounds) {
                assert!((score - margin).abs() <= bound + 1e-5, "{score} {margin} {bound}");
            }
        }
    }
}

/// The wine model sends a missing feature 3 left at some splits and right at others.
#[test]
fn a_feature_whose_missing_values_go_both_ways_has_two_codes() {
    let (model, expected) = wine();
    assert!(expected.rows().iter().any(|row| row[3].is_nan()));
    let bundle = compile(&model, Options::default()).unwrap().bundle().clone();
    let codings: Vec<usize> = bundle
        .features()
        .iter()
        .map(|feature| feature.codings.len())
        .collect();
    assert_eq!(codings.iter().position(|codings| *codings == 2), Some(3));
    assert_eq!(codings.iter().sum::<usize>(), 14);
}
