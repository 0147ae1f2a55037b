//! `asterism predict`

use std::path::Path;

use asterism_client::proto::inference::{BatchPredictRequest, FeatureRow, Model, Prediction};
use asterism_learn::csv::{CsvError, CsvLimits, CsvReader, Row, RowSink};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::{args::PredictArgs, connect::Services, error::CliError, output::Output};

/// Rows in a message of a batch.
const ROWS_PER_MESSAGE: usize = 1000;

/// Runs `predict`.
pub async fn run(args: PredictArgs, services: &Services, output: Output) -> Result<(), CliError> {
    let model = services.inference.get(&args.model).await?;
    let predictions = match (args.dataset, args.file) {
        (Some(dataset), _) => services.inference.predict_dataset(&args.model, &dataset).await?,
        (None, Some(file)) => batch(services, &model, read_rows(&file, &model).await?).await?,
        (None, None) => return Err(CliError::Usage("name a --file or a --dataset to predict".into())),
    };
    show(&model, &predictions, output);
    Ok(())
}

/// Predicts rows over the streaming call.
pub async fn batch(
    services: &Services,
    model: &Model,
    rows: Vec<Vec<f64>>,
) -> Result<Vec<Prediction>, CliError> {
    let messages: Vec<BatchPredictRequest> = rows
        .chunks(ROWS_PER_MESSAGE)
        .map(|rows| BatchPredictRequest {
            name: model.name.clone(),
            rows: rows
                .iter()
                .map(|values| FeatureRow {
                    values: values.clone(),
                })
                .collect(),
            dataset: String::new(),
        })
        .collect();
    let mut stream = services
        .inference
        .batch_predict(futures::stream::iter(messages))
        .await?;
    let mut predictions = Vec::with_capacity(rows.len());
    while let Some(message) = stream
        .message()
        .await
        .map_err(|status| CliError::Other(status.message().to_owned()))?
    {
        predictions.extend(message.predictions);
    }
    Ok(predictions)
}

/// The rows of a CSV file in the order of the model's features; columns are matched by name, others ignored.
pub async fn read_rows(file: &Path, model: &Model) -> Result<Vec<Vec<f64>>, CliError> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        tokio::io::stdin()
            .read_to_end(&mut bytes)
            .await
            .map_err(|error| CliError::file(file, error))?;
    } else {
        bytes = tokio::fs::read(file)
            .await
            .map_err(|error| CliError::file(file, error))?;
    }
    let mut sink = Features {
        wanted: &model.features,
        columns: Vec::new(),
        rows: Vec::new(),
        missing: None,
    };
    let mut reader = CsvReader::new(CsvLimits::default());
    let read = reader
        .feed(&bytes, &mut sink)
        .and_then(|()| reader.finish(&mut sink));
    if let Some(column) = sink.missing {
        return Err(CliError::Usage(format!(
            "{} has no column `{column}`",
            file.display()
        )));
    }
    read.map_err(|error| CliError::Usage(format!("{}: {error}", file.display())))?;
    Ok(sink.rows)
}

struct Features<'a> {
    wanted: &'a [String],
    columns: Vec<usize>,
    rows: Vec<Vec<f64>>,
    missing: Option<String>,
}

impl RowSink for Features<'_> {
    fn header(&mut self, names: &[String]) -> Result<(), CsvError> {
        for wanted in self.wanted {
            match names.iter().position(|name| name == wanted) {
                Some(index) => self.columns.push(index),
                None => self.missing = Some(wanted.clone()),
            }
        }
        Ok(())
    }

    fn row(&mut self, row: &Row<'_>) -> Result<(), CsvError> {
        let number = |index: &usize| {
            row.cell(*index)
                .and_then(|cell| str::from_utf8(cell).ok())
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(f64::NAN)
        };
        self.rows.push(self.columns.iter().map(number).collect());
        Ok(())
    }
}

fn show(model: &Model, predictions: &[Prediction], output: Output) {
    let rows: Vec<_> = predictions
        .iter()
        .enumerate()
        .map(|(index, prediction)| {
            let share = prediction.probabilities.iter().copied().fold(f64::NAN, f64::max);
            let probabilities: serde_json::Map<_, _> = model
                .classes
                .iter()
                .cloned()
                .zip(prediction.probabilities.iter().map(|p| json!(p)))
                .collect();
            let value = json!({ "row": index, "class": prediction.class, "probabilities": probabilities });
            (
                [index.to_string(), prediction.class.clone(), format!("{share:.4}")],
                value,
            )
        })
        .collect();
    output.rows(["row", "class", "probability"], &rows);
}
