//! `asterism fhe`: predictions on encrypted rows.

mod bench;
mod catalogue;
mod data;
mod keys;
mod local;
mod measure;
mod rows;
mod xgboost;

use std::{num::NonZero, path::Path};

use asterism_fhe::{
    FheError,
    compile::{self, Explanation},
    params::PlanKind,
};
use rayon::ThreadPool;
use serde_json::{Value, json};

use crate::{
    args::{CompileOptions, FheCommand, PlanName},
    error::CliError,
    output::{self, Output},
};

/// Runs an `fhe` command.
pub async fn run(command: FheCommand, output: Output) -> Result<(), CliError> {
    match command {
        FheCommand::Bench(args) => bench::run(&args, output),
        FheCommand::ImportXgboost {
            file,
            options,
            bundle,
        } => xgboost::import(&file, options, bundle, output),
        FheCommand::Keygen { bundle, out } => local::keygen(&bundle, &out, output),
        FheCommand::Encrypt {
            bundle,
            key,
            csv,
            row,
            out,
        } => local::encrypt(&bundle, &key, &csv, row, &out, output),
        FheCommand::Evaluate {
            model,
            options,
            query,
            evaluation_key,
            out,
        } => xgboost::evaluate(&model, options, &query, evaluation_key.as_deref(), &out, output),
        FheCommand::Decrypt {
            bundle,
            key,
            query,
            reply,
        } => local::decrypt(&bundle, &key, &query, &reply, output),
        FheCommand::Predict {
            model,
            options,
            file,
            threads,
        } => xgboost::predict(&model, options, &file, threads, output),
    }
}

impl From<CompileOptions> for compile::Options {
    fn from(options: CompileOptions) -> Self {
        Self {
            plan: options.plan.map(|plan| match plan {
                PlanName::Linear => PlanKind::Linear,
                PlanName::Pairs => PlanKind::Pairs,
                PlanName::Paths => PlanKind::Paths,
            }),
            used_edges_only: options.used_edges_only,
        }
    }
}

/// A file that is not what it is taken for, or does not fit the others, is the caller's; the rest is ours.
fn refused(file: &Path, error: &FheError) -> CliError {
    let text = format!("{}: {error}", file.display());
    match error {
        FheError::NoRandomness | FheError::Cancelled => CliError::Other(text),
        _ => CliError::Usage(text),
    }
}

fn failed(error: FheError) -> CliError {
    CliError::Other(error.to_string())
}

fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(file).map_err(|error| CliError::file(file, error))
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), CliError> {
    std::fs::write(file, bytes).map_err(|error| CliError::file(file, error))
}

/// Threads that an evaluation runs on.
fn pool(threads: Option<usize>) -> Result<ThreadPool, CliError> {
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get));
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .build()
        .map_err(|error| CliError::Other(error.to_string()))
}

/// How a model is served, at what cost, and why.
fn explain(explanation: &Explanation, more: &[(&str, String)], value: Value, output: Output) {
    let mut facts = vec![
        ("plan", format!("{} ({})", explanation.plan, explanation.params)),
        ("query", output::bytes(explanation.query_bytes as u64)),
        ("reply", output::bytes(explanation.reply_bytes as u64)),
        (
            "evaluation key",
            match explanation.key_bytes {
                0 => "none".into(),
                bytes => output::bytes(bytes as u64),
            },
        ),
        ("products", explanation.products.to_string()),
        (
            "wrong score",
            format!("with a probability of 2^{:.0}", explanation.failure_log2),
        ),
        (
            "clients learn",
            if explanation.edges_are_thresholds {
                "the values that the model splits on".into()
            } else {
                "bin edges or ranges of the training rows".into()
            },
        ),
    ];
    for candidate in &explanation.candidates {
        let cost = candidate.cost_us.map_or_else(
            || "no".into(),
            |us| format!("about {:.1} ms of a thread", us / 1e3),
        );
        facts.push((
            "candidate",
            format!("{}: {cost}; {}", candidate.plan, candidate.reason),
        ));
    }
    facts.extend_from_slice(more);
    let mut all = json!(explanation);
    if let (Some(all), Value::Object(value)) = (all.as_object_mut(), value) {
        all.extend(value);
    }
    output.facts(&facts, &all);
}
