//! The client's half in files: keys, queries and replies.

use std::path::Path;

use asterism_fhe::{bundle::Bundle, client, keys::SecretKey, wire::query_digest};
use serde_json::json;

use super::{failed, keys, read, refused, rows, write};
use crate::{
    error::CliError,
    output::{self, Output},
};

fn read_bundle(file: &Path) -> Result<Bundle, CliError> {
    Bundle::from_bytes(&read(file)?).map_err(|error| refused(file, &error))
}

/// `asterism fhe keygen`
pub(super) fn keygen(bundle: &Path, out: &Path, output: Output) -> Result<(), CliError> {
    let bundle = read_bundle(bundle)?;
    std::fs::create_dir_all(out).map_err(|error| CliError::file(out, error))?;
    let key = SecretKey::generate(bundle.params_id()).map_err(failed)?;
    let (secret, evaluation) = (out.join(keys::SECRET), out.join(keys::EVALUATION));
    keys::write_secret(&secret, &key)?;
    let bytes = client::evaluation_key(&key).map_err(failed)?;
    if let Some(bytes) = &bytes {
        write(&evaluation, bytes)?;
    }
    let written = bytes.as_ref().map(|_| evaluation.display().to_string());
    let facts = [
        ("secret key", format!("{}: keep it", secret.display())),
        (
            "evaluation key",
            match (&written, &bytes) {
                (Some(file), Some(bytes)) => {
                    format!("{file}: {}, for the service", output::bytes(bytes.len() as u64))
                }
                _ => "none needed".into(),
            },
        ),
    ];
    let value = json!({
        "secret_key": secret.display().to_string(), "evaluation_key": written,
        "evaluation_key_bytes": bytes.map_or(0, |bytes| bytes.len()), "params": key.params_id().name(),
    });
    output.facts(&facts, &value);
    Ok(())
}

/// `asterism fhe encrypt`
pub(super) fn encrypt(
    bundle: &Path,
    key: &Path,
    csv: &Path,
    row: usize,
    out: &Path,
    output: Output,
) -> Result<(), CliError> {
    let bundle_file = bundle;
    let bundle = read_bundle(bundle)?;
    let key = keys::read_secret(key)?;
    let matrix = rows::of_features(csv, &bundle)?;
    let values = matrix.row(row).ok_or_else(|| {
        CliError::Usage(format!(
            "{} has {} rows, counted from 0",
            csv.display(),
            matrix.rows()
        ))
    })?;
    let query = client::encrypt(&bundle, &key, values).map_err(|error| refused(bundle_file, &error))?;
    write(out, &query.bytes)?;
    let clamped: Vec<&str> = query
        .clamped
        .iter()
        .map(|index| bundle.features()[*index].name.as_str())
        .collect();
    let mut facts = vec![(
        "query",
        format!("{}: {}", out.display(), output::bytes(query.bytes.len() as u64)),
    )];
    if !clamped.is_empty() {
        facts.push(("beyond the model's ranges", clamped.join(", ")));
    }
    let value = json!({
        "query": out.display().to_string(), "bytes": query.bytes.len(), "sha256": hex::encode(query.digest),
        "clamped": clamped,
    });
    output.facts(&facts, &value);
    Ok(())
}

/// `asterism fhe decrypt`
pub(super) fn decrypt(
    bundle: &Path,
    key: &Path,
    query: &Path,
    reply: &Path,
    output: Output,
) -> Result<(), CliError> {
    let bundle = read_bundle(bundle)?;
    let key = keys::read_secret(key)?;
    let digest = query_digest(&read(query)?);
    let prediction =
        client::decrypt(&bundle, &key, &digest, &read(reply)?).map_err(|error| refused(reply, &error))?;
    let mut facts = vec![("prediction", rows::answer(&bundle, &prediction))];
    for (class, probability) in bundle.classes().iter().zip(&prediction.probabilities) {
        facts.push(("probability", format!("{probability:.4} {class}")));
    }
    output.facts(&facts, &rows::prediction(&bundle, &prediction));
    Ok(())
}
