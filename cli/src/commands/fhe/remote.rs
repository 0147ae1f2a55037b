//! Models of the service, asked through the SDK.

use std::{path::Path, sync::Arc, time::Instant};

use asterism_client::{
    EncryptedModel, KeptKey,
    proto::inference::{CompiledModel, Plan},
};
use asterism_fhe::{bundle::Bundle, params::ParamsId, server::EvaluationKey};
use asterism_learn::dataset::Matrix;
use serde_json::{Value, json};

use super::{keys, read, refused, report, rows, write};
use crate::{
    args::{CompileOptions, PlanName},
    connect::Services,
    error::CliError,
    output::{self, Output},
};

/// `asterism fhe import-xgboost`
pub(super) async fn import(
    services: &Services,
    file: &Path,
    options: CompileOptions,
    bundle: &Path,
    output: Output,
) -> Result<(), CliError> {
    let display_name = file.file_name().unwrap_or_default().to_string_lossy();
    let request_id = uuid::Uuid::new_v4().to_string();
    let model = services
        .inference
        .import(&display_name, &request_id, read(file)?)
        .await?;
    let compiled = compiled(services, &model.name, options).await?;
    let bytes = services.encrypted.bundle(&model.name).await?.to_bytes();
    write(bundle, &bytes)?;
    let more = [(
        "bundle",
        format!("{}: {}", bundle.display(), output::bytes(bytes.len() as u64)),
    )];
    let value = json!({ "bundle": bundle.display().to_string() });
    report::compiled(&compiled, &more, value, output);
    Ok(())
}

/// `asterism fhe compile`
pub(super) async fn compile(
    services: &Services,
    model: &str,
    options: CompileOptions,
    output: Output,
) -> Result<(), CliError> {
    let compiled = compiled(services, model, options).await?;
    report::compiled(&compiled, &[], json!({}), output);
    Ok(())
}

async fn compiled(
    services: &Services,
    model: &str,
    options: CompileOptions,
) -> Result<CompiledModel, CliError> {
    let plan = options.plan.map_or(Plan::Unspecified, |plan| match plan {
        PlanName::Linear => Plan::Linear,
        PlanName::Pairs => Plan::Pairs,
        PlanName::Paths => Plan::Paths,
        PlanName::Neurons => Plan::Neurons,
    });
    let compiled = services
        .encrypted
        .compile(model, plan, options.used_edges_only)
        .await?;
    Ok(compiled)
}

/// `asterism fhe explain`
pub(super) async fn explain(services: &Services, model: &str, output: Output) -> Result<(), CliError> {
    let compiled = services.encrypted.explain(model).await?;
    report::compiled(&compiled, &[], json!({}), output);
    Ok(())
}

/// `asterism fhe bundle`
pub(super) async fn bundle(
    services: &Services,
    model: &str,
    out: &Path,
    output: Output,
) -> Result<(), CliError> {
    let bundle = services.encrypted.bundle(model).await?;
    let bytes = bundle.to_bytes();
    write(out, &bytes)?;
    let facts = [
        (
            "bundle",
            format!("{}: {}", out.display(), output::bytes(bytes.len() as u64)),
        ),
        ("params", bundle.params_id().name().to_owned()),
    ];
    let value = json!({
        "bundle": out.display().to_string(), "bytes": bytes.len(), "params": bundle.params_id().name(),
        "compiled_sha256": hex::encode(bundle.model_digest()),
    });
    output.facts(&facts, &value);
    Ok(())
}

/// `asterism fhe evaluate`
pub(super) async fn evaluate(
    services: &Services,
    model: &str,
    query: &Path,
    evaluation_key: Option<&Path>,
    out: &Path,
    output: Output,
) -> Result<(), CliError> {
    let key = match evaluation_key {
        Some(file) => {
            let bytes = read(file)?;
            let params = EvaluationKey::from_bytes(&bytes)
                .map_err(|error| refused(file, &error))?
                .params_id();
            register(services, params, bytes).await?
        }
        None => String::new(),
    };
    let begun = Instant::now();
    let answer = services.encrypted.predict(model, &key, read(query)?).await?;
    let ms = begun.elapsed().as_secs_f64() * 1e3;
    write(out, &answer.reply)?;
    let facts = [
        (
            "reply",
            format!("{}: {}", out.display(), output::bytes(answer.reply.len() as u64)),
        ),
        ("took", format!("{ms:.2} ms; its receipt holds")),
    ];
    let stages: serde_json::Map<_, _> = answer
        .stages
        .iter()
        .map(|stage| (stage.stage.clone(), json!(stage.seconds * 1e3)))
        .collect();
    let value = json!({
        "reply": out.display().to_string(), "bytes": answer.reply.len(), "ms": ms, "stages_ms": stages,
        "receipt": String::from_utf8_lossy(&answer.signed.payload),
    });
    output.facts(&facts, &value);
    Ok(())
}

/// Registering the same key again answers the same.
async fn register(services: &Services, params: ParamsId, bytes: Vec<u8>) -> Result<String, CliError> {
    let registered = services
        .encrypted
        .register_evaluation_key(params, bytes, |_| {})
        .await?;
    Ok(registered.name)
}

/// `asterism fhe predict`
pub(super) async fn predict(
    services: &Services,
    model: &str,
    options: CompileOptions,
    file: &Path,
    kept: Option<&Path>,
    output: Output,
) -> Result<(), CliError> {
    compiled(services, model, options).await?;
    let bundle = services.encrypted.bundle(model).await?;
    let matrix = rows::of_features(file, &bundle)?;
    let asked = match kept {
        Some(dir) => {
            let kept = keep(services, &bundle, dir).await?;
            EncryptedModel::with(&services.encrypted, model, bundle, kept)?
        }
        None => EncryptedModel::open(&services.encrypted, model).await?,
    };
    let lines = answers(&asked, file, &matrix, output).await;
    if kept.is_none() {
        // Nobody has the secret key to it any more.
        asked.forget_key().await?;
    }
    output.rows(rows::HEADER, &lines?);
    Ok(())
}

async fn answers(
    asked: &EncryptedModel,
    file: &Path,
    matrix: &Matrix,
    output: Output,
) -> Result<Vec<([String; 3], Value)>, CliError> {
    let bundle = asked.bundle();
    for (index, row) in matrix.iter().enumerate() {
        bundle
            .quantise(row)
            .map_err(|error| CliError::Usage(format!("{}: row {index}: {error}", file.display())))?;
    }
    let bar = output.progress(matrix.rows() as u64, "predict", false);
    let wanted: Vec<Vec<f64>> = matrix.iter().map(<[f64]>::to_vec).collect();
    let mut answers = asked.predict_stream(futures::stream::iter(wanted)).await?;
    let mut lines = Vec::with_capacity(matrix.rows());
    while let Some(answer) = answers.next().await? {
        lines.push(rows::line(bundle, lines.len(), &answer.prediction));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(lines)
}

/// The key of a directory that `keygen` wrote, its evaluation key registered; none for plans without.
async fn keep(services: &Services, bundle: &Bundle, dir: &Path) -> Result<Option<KeptKey>, CliError> {
    let (secret, evaluation_key) = keys::read_pair(dir, bundle)?;
    let Some(bytes) = evaluation_key else {
        return Ok(None);
    };
    Ok(Some(KeptKey {
        evaluation_key: register(services, secret.params_id(), bytes).await?,
        secret: Arc::new(secret),
    }))
}
