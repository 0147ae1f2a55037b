//! What it takes to predict encrypted rows, and whether the answers are right.

use std::time::{Duration, Instant};

use asterism_fhe::{
    client,
    compile::{Options, compile},
    keys::SecretKey,
    server::EvaluationKey,
};
use indicatif::ProgressBar;
use rayon::ThreadPool;
use serde::Serialize;

use super::{data::Subject, failed};
use crate::error::CliError;

/// What came out; times are medians over the rows.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Measured {
    pub(super) model: String,
    pub(super) plan: String,
    pub(super) params: String,
    pub(super) threads: usize,
    pub(super) server_ms: f64,
    /// Products times the time of one, shared among the threads.
    pub(super) floor_ms: f64,
    pub(super) key_bytes: usize,
    pub(super) request_bytes: usize,
    pub(super) reply_bytes: usize,
    pub(super) keygen_ms: f64,
    pub(super) encrypt_ms: f64,
    pub(super) decrypt_ms: f64,
    pub(super) rows: usize,
    /// Share of rows whose class is that of the quantised model in the clear.
    pub(super) agreement: f64,
    /// Share of rows whose class is that of the trained model, in floating point.
    pub(super) agreement_trained: f64,
    /// Largest difference between a decrypted score and the quantised model's.
    pub(super) max_error: f64,
    /// Half of the distance between scores that are told apart.
    pub(super) announced_error: f64,
    /// Of the trained model, in floating point.
    pub(super) accuracy_clear: f64,
    pub(super) accuracy_encrypted: f64,
}

/// Predicts `rows` rows, or as many as fit in `patience`, and at least one.
pub(super) fn measure(
    name: &str,
    subject: &Subject,
    options: Options,
    pool: &ThreadPool,
    rows: Option<usize>,
    patience: Duration,
    bar: &ProgressBar,
) -> Result<Measured, CliError> {
    let program = compile(&subject.model, options).map_err(failed)?;
    let (bundle, explanation) = (program.bundle(), program.explanation());
    let mut times = Times::default();
    let (mut key, evaluation_key) = times.keygen.take(|| {
        let key = SecretKey::generate(bundle.params_id())?;
        let bytes = client::evaluation_key(&key)?;
        Ok((key, bytes))
    })?;
    let evaluation_key = evaluation_key
        .as_deref()
        .map(EvaluationKey::from_bytes)
        .transpose()
        .map_err(failed)?;
    let total = subject.rows.len();
    bar.set_length(rows.map_or(total, |rows| rows.min(total)) as u64);
    let (mut agreed, mut agreed_trained, mut right, mut right_clear) = (0usize, 0usize, 0usize, 0usize);
    let mut max_error = 0f64;
    let began = Instant::now();
    let mut done = 0;
    for at in order(total).take(rows.unwrap_or(total).max(1)) {
        if rows.is_none() && done > 0 && began.elapsed() > patience {
            break;
        }
        let row = &subject.rows[at];
        if evaluation_key.is_none() && done > 0 {
            // A fresh key for each query, as clients are told to.
            key = times.keygen.take(|| SecretKey::generate(bundle.params_id()))?;
        }
        let query = times.encrypt.take(|| client::encrypt(bundle, &key, row))?;
        let answer = times
            .server
            .take(|| program.evaluate(&query.bytes, evaluation_key.as_ref(), pool, &|| false))?;
        let encrypted = times
            .decrypt
            .take(|| client::decrypt(bundle, &key, &query.digest, &answer.reply))?;
        let clear = program.clear(row).map_err(failed)?;
        agreed += usize::from(encrypted.class == clear.class);
        agreed_trained += usize::from(encrypted.class == Some(subject.clear[at]));
        right += usize::from(encrypted.class == Some(subject.labels[at]));
        right_clear += usize::from(subject.clear[at] == subject.labels[at]);
        let errors = encrypted.scores.iter().zip(&clear.scores);
        max_error = errors.map(|(a, b)| (a - b).abs()).fold(max_error, f64::max);
        done += 1;
        bar.inc(1);
    }
    let share = |count: usize| count as f64 / done.max(1) as f64;
    let threads = pool.current_num_threads();
    let floor = program.product_time().as_secs_f64() * explanation.products as f64 / threads as f64;
    Ok(Measured {
        model: name.to_owned(),
        plan: explanation.plan.clone(),
        params: explanation.params.clone(),
        threads,
        server_ms: times.server.median_ms(),
        floor_ms: ms(floor),
        key_bytes: explanation.key_bytes,
        request_bytes: explanation.query_bytes,
        reply_bytes: explanation.reply_bytes,
        keygen_ms: times.keygen.median_ms(),
        encrypt_ms: times.encrypt.median_ms(),
        decrypt_ms: times.decrypt.median_ms(),
        rows: done,
        agreement: share(agreed),
        agreement_trained: share(agreed_trained),
        max_error,
        announced_error: explanation.units.iter().copied().fold(0.0, f64::max) / 2.0,
        accuracy_clear: share(right_clear),
        accuracy_encrypted: share(right),
    })
}

/// Every index once, in a scattered order: a part of the rows is then like the whole.
fn order(total: usize) -> impl Iterator<Item = usize> {
    // A prime, so that only its multiples would not be visited as a whole.
    const STRIDE: usize = 1_000_003;
    let stride = if total.is_multiple_of(STRIDE) { 1 } else { STRIDE };
    (0..total).map(move |index| index * stride % total)
}

#[derive(Default)]
struct Times {
    keygen: Laps,
    encrypt: Laps,
    server: Laps,
    decrypt: Laps,
}

#[derive(Default)]
struct Laps(Vec<f64>);

impl Laps {
    fn take<T>(&mut self, work: impl FnOnce() -> Result<T, asterism_fhe::FheError>) -> Result<T, CliError> {
        let began = Instant::now();
        let result = work();
        self.0.push(began.elapsed().as_secs_f64());
        result.map_err(failed)
    }

    fn median_ms(&mut self) -> f64 {
        self.0.sort_unstable_by(f64::total_cmp);
        self.0.get(self.0.len() / 2).copied().map_or(0.0, ms)
    }
}

/// Milliseconds, to the tenth of a microsecond.
fn ms(seconds: f64) -> f64 {
    (seconds * 1e7).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_turn() {
        for total in [1, 2, 171, 540, 1000] {
            let mut seen: Vec<usize> = order(total).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..total).collect::<Vec<_>>());
        }
    }

    #[test]
    fn medians_are_in_milliseconds() {
        let mut laps = Laps(vec![0.3, 0.001, 0.002]);
        assert_eq!(laps.median_ms(), 2.0);
        assert_eq!(Laps::default().median_ms(), 0.0);
    }
}
