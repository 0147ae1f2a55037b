//! `asterism fhe bench`: figures of encrypted prediction, in this process.

use std::time::Duration;

use asterism_learn::model::Algorithm;
use serde_json::json;

use super::{
    catalogue,
    data::{self, Recipe, Subject},
    measure::{Measured, measure},
    pool,
};
use crate::{
    args::{AlgorithmKind, FheBenchArgs},
    error::CliError,
    output::{self, Output},
};

/// How long the rows of a model may take, unless their number was given: when many are measured, and when few are.
const PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE_FOR_FEW: Duration = Duration::from_secs(30);

/// Runs `fhe bench`.
pub(super) fn run(args: &FheBenchArgs, output: Output) -> Result<(), CliError> {
    let pool = pool(args.threads)?;
    let few = args.test.is_some() || (1..=2).contains(&args.only.len());
    let patience = if few { PATIENCE_FOR_FEW } else { PATIENCE };
    let mut lines = vec![];
    let mut one = |name: &str, subject: Subject| -> Result<(), CliError> {
        let bar = output.progress(1, "predict", false);
        let options = args.options.into();
        let measured = measure(name, &subject, options, &pool, args.rows, patience, &bar)?;
        bar.finish_and_clear();
        if output.is_json() {
            output.value(&measured);
        }
        lines.push(measured);
        Ok(())
    };
    match wish(args)? {
        Some((name, subject)) => one(name, subject)?,
        None => {
            let entries = match args.only.as_slice() {
                [] => catalogue::all(),
                names => names
                    .iter()
                    .map(|name| catalogue::named(name))
                    .collect::<Result<_, _>>()?,
            };
            let bar = output.progress(entries.len() as u64, "models", false);
            for entry in entries {
                one(&entry.name, entry.train(args.seed)?)?;
                bar.inc(1);
            }
            bar.finish_and_clear();
        }
    }
    if !output.is_json() {
        show(&lines, output);
    }
    Ok(())
}

/// The model that files say, if they do.
fn wish(args: &FheBenchArgs) -> Result<Option<(&'static str, Subject)>, CliError> {
    let (Some(test), Some(label)) = (&args.test, &args.label) else {
        return Ok(None);
    };
    match (&args.train, &args.import) {
        (Some(train), _) => {
            let recipe = Recipe {
                algorithm: algorithm(args.algorithm),
                hyper: args.hyper.iter().cloned().collect(),
                seed: args.seed,
            };
            let subject = data::train_on_files(train, test, label, &recipe)?;
            Ok(Some(("trained", subject)))
        }
        (None, Some(import)) => Ok(Some(("imported", data::import(import, test, label)?))),
        (None, None) => Err(CliError::Usage(
            "--test goes with --train or --import: what is to predict its rows?".into(),
        )),
    }
}

fn algorithm(kind: AlgorithmKind) -> Algorithm {
    match kind {
        AlgorithmKind::Logistic => Algorithm::LogisticRegression,
        AlgorithmKind::Trees => Algorithm::GradientBoostedTrees,
        AlgorithmKind::Neural => Algorithm::NeuralNetwork,
        AlgorithmKind::Tree => Algorithm::DecisionTree,
        AlgorithmKind::Forest => Algorithm::RandomForest,
    }
}

fn show(lines: &[Measured], output: Output) {
    let size = |count: usize| match count {
        0 => "none".to_owned(),
        count => output::bytes(count as u64),
    };
    let rows: Vec<_> = lines
        .iter()
        .map(|line| {
            let cells = [
                line.model.clone(),
                line.plan.clone(),
                format!("{:.3}", line.server_ms),
                format!("{:.3}", line.floor_ms),
                format!("{:.2} / {:.2}", line.encrypt_ms, line.decrypt_ms),
                format!("{:.2}", line.keygen_ms),
                size(line.key_bytes),
                format!("{} / {}", size(line.request_bytes), size(line.reply_bytes)),
                format!(
                    "{:.4} / {:.4} of {}",
                    line.agreement, line.agreement_trained, line.rows
                ),
                format!("{:.4} / {:.4}", line.accuracy_encrypted, line.accuracy_clear),
            ];
            (cells, json!(line))
        })
        .collect();
    let header = [
        "model",
        "plan",
        "server ms",
        "floor ms",
        "encrypt / decrypt ms",
        "keygen ms",
        "keys",
        "request / reply",
        "agreement / with the trained model",
        "accuracy / in the clear",
    ];
    output.rows(header, &rows);
}
