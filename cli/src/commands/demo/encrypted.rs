//! The demo's rows once more, under encryption: the service never sees them.

use std::time::Instant;

use asterism_client::{
    EncryptedModel,
    proto::inference::{Model, Plan},
};
use asterism_learn::dataset::{Problem, stratified_split};

use super::{DATA, LABEL, TEST_FRACTION};
use crate::{
    commands::{fhe::parse_csv, predict},
    connect::Services,
    error::CliError,
};

/// Share of rows whose class may differ from the trained model's: encrypted scores are rounded.
const MAY_DIFFER: f64 = 0.02;

/// What came out of encrypted prediction.
#[derive(Debug, Default)]
pub(super) struct Encrypted {
    pub(super) rows: usize,
    /// Share of rows with the class that the service gives in the clear.
    pub(super) agreement: f64,
    /// From plain row to decrypted prediction.
    pub(super) ms_per_row: f64,
}

/// Predicts the held-out rows in the clear and under encryption.
pub(super) async fn predict_held_out(
    services: &Services,
    model: &Model,
    seed: u64,
) -> Result<(Encrypted, String), CliError> {
    let rows = held_out(model, seed)?;
    let clear = predict::batch(services, model, rows.clone()).await?;
    let compiled = services
        .encrypted
        .compile(&model.name, Plan::Unspecified, false)
        .await?;
    let asked = EncryptedModel::open(&services.encrypted, &model.name).await?;
    let begun = Instant::now();
    let encrypted = asked.predict(rows).await?;
    let ms_per_row = begun.elapsed().as_secs_f64() * 1e3 / encrypted.len().max(1) as f64;
    let (mut agreed, mut furthest) = (0usize, 0f64);
    for (encrypted, clear) in encrypted.iter().zip(&clear) {
        let made = &encrypted.prediction;
        let class = made.class.and_then(|class| asked.bundle().classes().get(class));
        agreed += usize::from(class == Some(&clear.class));
        let probabilities = made.probabilities.iter().zip(&clear.probabilities);
        furthest = probabilities.map(|(a, b)| (a - b).abs()).fold(furthest, f64::max);
    }
    let found = Encrypted {
        rows: encrypted.len(),
        agreement: agreed as f64 / encrypted.len().max(1) as f64,
        ms_per_row: (ms_per_row * 100.0).round() / 100.0,
    };
    if encrypted.len() != clear.len() || found.agreement < 1.0 - MAY_DIFFER {
        return Err(CliError::NotVerified(format!(
            "{agreed} of {} encrypted predictions are those in the clear",
            clear.len()
        )));
    }
    let plan = compiled.params;
    let detail = format!(
        "{agreed} of {} as in the clear, {:.1} ms a row ({plan}); probabilities within {furthest:.4}",
        found.rows, found.ms_per_row
    );
    asked.forget_key().await?;
    Ok((found, detail))
}

/// The rows that training with this seed held out, in the order of the model's features.
fn held_out(model: &Model, seed: u64) -> Result<Vec<Vec<f64>>, CliError> {
    let other = |error: asterism_learn::LearnError| CliError::Other(error.to_string());
    let table = parse_csv(DATA).map_err(CliError::Other)?;
    let problem = Problem::from_table(&table, LABEL, Some(&model.features)).map_err(other)?;
    let split = stratified_split(&problem.labels, TEST_FRACTION, seed).map_err(other)?;
    let rows = split.test.iter().filter_map(|row| problem.features.row(*row));
    Ok(rows.map(<[f64]>::to_vec).collect())
}
