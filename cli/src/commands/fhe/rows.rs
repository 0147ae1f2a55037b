//! Rows of a CSV file, by the names of a model's features.

use std::path::Path;

use asterism_fhe::bundle::{Bundle, Prediction};
use asterism_learn::{
    csv::{CsvLimits, CsvReader},
    dataset::Matrix,
    table::{Table, TableBuilder},
};
use serde_json::{Value, json};

use super::read;
use crate::error::CliError;

/// Memory that the rows of a file may take.
const MAX_TABLE_BYTES: usize = 1 << 30;

/// Reads a CSV file.
pub(super) fn table(file: &Path) -> Result<Table, CliError> {
    parse(&read(file)?).map_err(|problem| CliError::Usage(format!("{}: {problem}", file.display())))
}

/// Reads CSV.
pub(in crate::commands) fn parse(bytes: &[u8]) -> Result<Table, String> {
    let mut builder = TableBuilder::new(MAX_TABLE_BYTES);
    let mut reader = CsvReader::new(CsvLimits::default());
    reader
        .feed(bytes, &mut builder)
        .and_then(|()| reader.finish(&mut builder))
        .map_err(|error| error.to_string())?;
    builder.finish().map_err(|error| error.to_string())
}

/// The rows of a CSV file in the order of a model's features; other columns are ignored.
pub(super) fn of_features(file: &Path, bundle: &Bundle) -> Result<Matrix, CliError> {
    let names: Vec<String> = bundle
        .features()
        .iter()
        .map(|feature| feature.name.clone())
        .collect();
    Matrix::from_table(&table(file)?, &names)
        .map_err(|error| CliError::Usage(format!("{}: {error}", file.display())))
}

/// Names of the cells of [`line`].
pub(super) const HEADER: [&str; 3] = ["row", "prediction", "probability"];

/// A prediction in a table of many.
pub(super) fn line(bundle: &Bundle, index: usize, made: &Prediction) -> ([String; 3], Value) {
    let share = made.probabilities.iter().copied().reduce(f64::max);
    let cells = [
        index.to_string(),
        answer(bundle, made),
        share.map_or_else(String::new, |share| format!("{share:.4}")),
    ];
    let mut value = prediction(bundle, made);
    value["row"] = json!(index);
    (cells, value)
}

/// The class of a prediction, or its score.
pub(super) fn answer(bundle: &Bundle, prediction: &Prediction) -> String {
    match prediction.class {
        Some(class) => bundle.classes()[class].clone(),
        None => format!("{:.6}", prediction.scores[0]),
    }
}

/// A prediction for machines.
pub(super) fn prediction(bundle: &Bundle, prediction: &Prediction) -> Value {
    let probabilities: serde_json::Map<_, _> = bundle
        .classes()
        .iter()
        .cloned()
        .zip(prediction.probabilities.iter().map(|p| json!(p)))
        .collect();
    json!({
        "class": prediction.class.map(|class| &bundle.classes()[class]),
        "probabilities": probabilities,
        "scores": prediction.scores,
    })
}
