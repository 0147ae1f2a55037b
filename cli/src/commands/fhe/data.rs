//! Trained models, and the rows that they were not trained on.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

use asterism_fhe::{model::Model, xgboost};
use asterism_inference::encrypted::to_fhe;
use asterism_learn::{
    LearnError,
    dataset::{Matrix, Problem, stratified_split},
    model::{Algorithm, Hyperparameters},
    train::train,
};

use super::{read, refused, rows};
use crate::error::CliError;

/// Share of the rows that is held out.
const TEST_FRACTION: f64 = 0.3;
/// Rows of a synthetic problem.
const SYNTHETIC_ROWS: usize = 1000;

/// A model and the rows to predict with it.
pub(super) struct Subject {
    pub(super) model: Model,
    pub(super) rows: Vec<Vec<f64>>,
    /// Index of the class, by row.
    pub(super) labels: Vec<usize>,
    /// The class that the trained model gives in floating point, by row.
    pub(super) clear: Vec<usize>,
}

/// How to train.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    pub(super) algorithm: Algorithm,
    pub(super) hyper: BTreeMap<String, String>,
    pub(super) seed: u64,
}

/// Trains on a seeded, stratified share of a problem; the rest is to predict.
pub(super) fn split_and_train(problem: &Problem, recipe: &Recipe) -> Result<Subject, CliError> {
    let split = stratified_split(&problem.labels, TEST_FRACTION, recipe.seed).map_err(other)?;
    fit(problem, &split.train, problem, &split.test, recipe)
}

/// Trains on the rows of one CSV file; those of another are to predict.
pub(super) fn train_on_files(
    train: &Path,
    test: &Path,
    label: &str,
    recipe: &Recipe,
) -> Result<Subject, CliError> {
    let train_table = rows::table(train)?;
    let problem = Problem::from_table(&train_table, label, None).map_err(unfit(train))?;
    let test_table = rows::table(test)?;
    let held_out =
        Problem::like(&test_table, label, problem.feature_names(), &problem.classes).map_err(unfit(test))?;
    let all = |problem: &Problem| (0..problem.rows()).collect::<Vec<_>>();
    fit(&problem, &all(&problem), &held_out, &all(&held_out), recipe)
}

/// A model that XGBoost saved; the rows of a CSV file are to predict.
pub(super) fn import(file: &Path, test: &Path, label: &str) -> Result<Subject, CliError> {
    let model = xgboost::import(&read(file)?).map_err(|error| refused(file, &error))?;
    if model.classes.is_empty() {
        return Err(CliError::Usage(format!(
            "{}: the model tells no classes apart, and the bench counts right ones",
            file.display()
        )));
    }
    let table = rows::table(test)?;
    let problem = Problem::like(&table, label, &model.features, &model.classes).map_err(unfit(test))?;
    let rows: Vec<Vec<f64>> = problem.features.iter().map(<[f64]>::to_vec).collect();
    let clear = rows.iter().map(|row| {
        let scores = model.scores(row).map_err(|error| refused(test, &error))?;
        Ok(match scores.as_slice() {
            [score] => usize::from(*score > 0.0),
            scores => largest(scores),
        })
    });
    Ok(Subject {
        clear: clear.collect::<Result<_, CliError>>()?,
        labels: problem.labels.iter().map(|label| *label as usize).collect(),
        model,
        rows,
    })
}

/// Two classes parted by waves along some features and products of others: what trees of any depth find something in.
pub(super) fn synthetic(features: usize) -> Problem {
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut draw = || {
        // xorshift64 (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    let rows: Vec<Vec<f64>> = (0..SYNTHETIC_ROWS)
        .map(|_| (0..features).map(|_| draw()).collect())
        .collect();
    let height = |row: &Vec<f64>| {
        let waves = row.iter().map(|x| (5.0 * x).sin() - 0.14).sum::<f64>();
        let products = row
            .windows(2)
            .map(|pair| (pair[0] - 0.5) * (pair[1] - 0.5))
            .sum::<f64>();
        waves + 12.0 * products
    };
    let heights: Vec<f64> = rows.iter().map(height).collect();
    let mut sorted = heights.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted[sorted.len() / 2];
    let names = (0..features).map(|feature| format!("f{feature}")).collect();
    Problem {
        features: Matrix::from_rows(names, &rows).expect("rows of one width, and at least one feature"),
        labels: heights
            .iter()
            .map(|height| u32::from(*height >= middle))
            .collect(),
        classes: vec!["below".into(), "above".into()],
    }
}

fn fit(
    problem: &Problem,
    train_rows: &[usize],
    held_out: &Problem,
    test_rows: &[usize],
    recipe: &Recipe,
) -> Result<Subject, CliError> {
    let hyper = Hyperparameters::parse(recipe.algorithm, &recipe.hyper)
        .map_err(|error| CliError::Usage(error.to_string()))?;
    let go_on = &mut |_| ControlFlow::Continue(());
    let model = train(problem, train_rows, &hyper, recipe.seed, go_on).map_err(other)?;
    let rows: Vec<Vec<f64>> = test_rows
        .iter()
        .filter_map(|row| held_out.features.row(*row))
        .map(<[f64]>::to_vec)
        .collect();
    let clear = rows
        .iter()
        .map(|row| model.predict_proba(row).map(|p| largest(&p)).map_err(other));
    Ok(Subject {
        clear: clear.collect::<Result<_, CliError>>()?,
        labels: test_rows
            .iter()
            .map(|row| held_out.labels[*row] as usize)
            .collect(),
        model: to_fhe(&model).map_err(|error| CliError::Other(error.to_string()))?,
        rows,
    })
}

/// A table of a file that cannot be used.
fn unfit(file: &Path) -> impl Fn(LearnError) -> CliError {
    move |error| CliError::Usage(format!("{}: {error}", file.display()))
}

fn other(error: LearnError) -> CliError {
    CliError::Other(error.to_string())
}

/// The first of the largest.
fn largest(values: &[f64]) -> usize {
    (1..values.len()).fold(
        0,
        |best, index| if values[index] > values[best] { index } else { best },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synthetic_problems_have_two_halves() {
        let problem = synthetic(5);
        let above = problem.labels.iter().filter(|label| **label == 1).count();
        assert_eq!((problem.rows(), above), (SYNTHETIC_ROWS, SYNTHETIC_ROWS / 2));
        assert_eq!(problem, synthetic(5), "the same every time");
    }

    #[test]
    fn the_first_of_equals_is_the_largest() {
        assert_eq!(largest(&[0.5, 0.5]), 0);
        assert_eq!(largest(&[0.1, 0.6, 0.3]), 1);
    }
}
