//! `asterism fhe`: predictions on encrypted rows.
//!
//! A model is `models/{id}` of the service, or a file that XGBoost saved, which is served in this process.

mod bench;
mod catalogue;
mod data;
mod keys;
mod local;
mod measure;
mod remote;
mod report;
mod rows;
mod xgboost;

use std::{num::NonZero, path::Path};

use asterism_fhe::{FheError, compile, params::PlanKind};
use rayon::ThreadPool;

pub(super) use self::rows::parse as parse_csv;
use crate::{
    args::{CompileOptions, FheCommand, Global, PlanName},
    connect::{DEFAULT_ADDR, has_token, services},
    error::CliError,
    output::Output,
};

/// Runs an `fhe` command.
pub async fn run(command: FheCommand, global: &Global, output: Output) -> Result<(), CliError> {
    let of_service = |model: &str| model.starts_with("models/");
    match command {
        FheCommand::Bench(args) => bench::run(&args, output),
        FheCommand::ImportXgboost {
            file,
            options,
            bundle,
            local,
        } => {
            let bundle = bundle.unwrap_or_else(|| file.with_extension("bundle.json"));
            // Whoever names a service means it; by default one is used where it runs.
            let named = global.addr.is_some() || global.token_file.is_some();
            if local || (!named && !is_up(global).await) {
                xgboost::import(&file, options, &bundle, output)
            } else {
                remote::import(&services(global)?, &file, options, &bundle, output).await
            }
        }
        FheCommand::Compile { model, options } => {
            remote::compile(&services(global)?, &model, options, output).await
        }
        FheCommand::Explain { model, .. } if of_service(&model) => {
            remote::explain(&services(global)?, &model, output).await
        }
        FheCommand::Explain { model, options } => xgboost::explain(model.as_ref(), options, output),
        FheCommand::Bundle { model, out } => remote::bundle(&services(global)?, &model, &out, output).await,
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
        } => {
            let key = evaluation_key.as_deref();
            if of_service(&model) {
                remote::evaluate(&services(global)?, &model, &query, key, &out, output).await
            } else {
                xgboost::evaluate(model.as_ref(), options, &query, key, &out, output)
            }
        }
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
            keys,
        } => {
            let keys = keys.as_deref();
            if of_service(&model) {
                remote::predict(&services(global)?, &model, options, &file, keys, output).await
            } else {
                xgboost::predict(model.as_ref(), options, &file, threads, keys, output)
            }
        }
    }
}

/// Whether there is a token, and a listener at the usual address.
async fn is_up(global: &Global) -> bool {
    has_token(global) && tokio::net::TcpStream::connect(DEFAULT_ADDR).await.is_ok()
}

impl From<CompileOptions> for compile::Options {
    fn from(options: CompileOptions) -> Self {
        Self {
            plan: options.plan.map(|plan| match plan {
                PlanName::Linear => PlanKind::Linear,
                PlanName::Pairs => PlanKind::Pairs,
                PlanName::Paths => PlanKind::Paths,
                PlanName::Neurons => PlanKind::Neurons,
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
