//! Models that XGBoost saved, served in this process.

use std::{path::Path, time::Instant};

use asterism_fhe::{
    client,
    compile::compile,
    keys::SecretKey,
    server::{EvaluationKey, Program},
    xgboost,
};
use serde_json::json;

use super::{failed, keys, pool, read, refused, report, rows, write};
use crate::{
    args::CompileOptions,
    error::CliError,
    output::{self, Output},
};

fn program(file: &Path, options: CompileOptions) -> Result<Program, CliError> {
    let model = xgboost::import(&read(file)?).map_err(|error| refused(file, &error))?;
    compile(&model, options.into()).map_err(|error| refused(file, &error))
}

/// `asterism fhe import-xgboost`
pub(super) fn import(
    file: &Path,
    options: CompileOptions,
    bundle: &Path,
    output: Output,
) -> Result<(), CliError> {
    let program = program(file, options)?;
    let bytes = program.bundle().to_bytes();
    write(bundle, &bytes)?;
    let more = [(
        "bundle",
        format!("{}: {}", bundle.display(), output::bytes(bytes.len() as u64)),
    )];
    let value = json!({ "model": file.display().to_string(), "bundle": bundle.display().to_string() });
    report::explanation(program.explanation(), &more, value, output);
    Ok(())
}

/// `asterism fhe explain`
pub(super) fn explain(file: &Path, options: CompileOptions, output: Output) -> Result<(), CliError> {
    let program = program(file, options)?;
    report::explanation(program.explanation(), &[], json!({}), output);
    Ok(())
}

/// `asterism fhe evaluate`
pub(super) fn evaluate(
    model: &Path,
    options: CompileOptions,
    query: &Path,
    evaluation_key: Option<&Path>,
    out: &Path,
    output: Output,
) -> Result<(), CliError> {
    let program = program(model, options)?;
    let key = evaluation_key
        .map(|file| EvaluationKey::from_bytes(&read(file)?).map_err(|error| refused(file, &error)))
        .transpose()?;
    let pool = pool(None)?;
    let bytes = read(query)?;
    let begun = Instant::now();
    let answer = program
        .evaluate(&bytes, key.as_ref(), &pool, &|| false)
        .map_err(|error| refused(query, &error))?;
    let ms = begun.elapsed().as_secs_f64() * 1e3;
    write(out, &answer.reply)?;
    let facts = [
        (
            "reply",
            format!("{}: {}", out.display(), output::bytes(answer.reply.len() as u64)),
        ),
        ("took", format!("{ms:.2} ms")),
    ];
    let value = json!({ "reply": out.display().to_string(), "bytes": answer.reply.len(), "server_ms": ms });
    output.facts(&facts, &value);
    Ok(())
}

/// `asterism fhe predict`
pub(super) fn predict(
    model: &Path,
    options: CompileOptions,
    file: &Path,
    threads: Option<usize>,
    kept: Option<&Path>,
    output: Output,
) -> Result<(), CliError> {
    let program = program(model, options)?;
    let bundle = program.bundle();
    let matrix = rows::of_features(file, bundle)?;
    let pool = pool(threads)?;
    let (mut key, evaluation_key) = match kept {
        Some(dir) => keys::read_pair(dir, bundle)?,
        None => {
            let key = SecretKey::generate(bundle.params_id()).map_err(failed)?;
            let evaluation_key = client::evaluation_key(&key).map_err(failed)?;
            (key, evaluation_key)
        }
    };
    let evaluation_key = evaluation_key
        .as_deref()
        .map(EvaluationKey::from_bytes)
        .transpose()
        .map_err(failed)?;
    let bar = output.progress(matrix.rows() as u64, "predict", false);
    let mut lines = Vec::with_capacity(matrix.rows());
    for (index, row) in matrix.iter().enumerate() {
        if evaluation_key.is_none() && kept.is_none() {
            // Costs microseconds, and makes every query independent of every other.
            key = SecretKey::generate(bundle.params_id()).map_err(failed)?;
        }
        let query = client::encrypt(bundle, &key, row)
            .map_err(|error| CliError::Usage(format!("{}: row {index}: {error}", file.display())))?;
        let answer = program
            .evaluate(&query.bytes, evaluation_key.as_ref(), &pool, &|| false)
            .map_err(failed)?;
        let prediction = client::decrypt(bundle, &key, &query.digest, &answer.reply).map_err(failed)?;
        lines.push(rows::line(bundle, index, &prediction));
        bar.inc(1);
    }
    bar.finish_and_clear();
    output.rows(rows::HEADER, &lines);
    Ok(())
}
