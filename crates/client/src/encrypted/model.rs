//! One model, asked in secret: encrypts, asks, checks and decrypts.

use std::sync::Arc;

use asterism_crypto::Digest;
use asterism_fhe::{
    FheError,
    bundle::{Bundle, Prediction},
    client::{self, Query},
    keys::SecretKey,
    params::ParamsId,
    wire,
};
use asterism_proto::inference::StageTime;
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;

use super::{EncryptedAnswer, EncryptedInference};
use crate::{error::ClientError, receipt::ReplyReceipt};

/// Rows that are encrypted ahead of the one being sent.
const AHEAD: usize = 2;

/// A secret key whose evaluation key is registered: for all models of its parameter set.
#[derive(Clone)]
pub struct KeptKey {
    /// Stays here.
    pub secret: Arc<SecretKey>,
    /// `evaluationKeys/{sha256 in hex}`.
    pub evaluation_key: String,
}

impl KeptKey {
    /// Makes a key and registers its evaluation key; `progress` is told bytes sent and bytes in all.
    ///
    /// # Errors
    /// [`ClientError::Argument`] for a parameter set without evaluation keys.
    pub async fn register(
        inference: &EncryptedInference,
        params: ParamsId,
        mut progress: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<Self, ClientError> {
        let made = blocking(move || {
            let secret = SecretKey::generate(params)?;
            let evaluation_key = client::evaluation_key(&secret)?;
            Ok((secret, evaluation_key))
        });
        let (secret, evaluation_key) = made.await?;
        let evaluation_key = evaluation_key.ok_or_else(|| {
            ClientError::Argument(format!(
                "the parameter set {} needs no evaluation key",
                params.name()
            ))
        })?;
        let total = evaluation_key.len() as u64;
        let registered = inference
            .register_evaluation_key(params, evaluation_key, move |sent| progress(sent, total))
            .await?;
        Ok(Self {
            secret: Arc::new(secret),
            evaluation_key: registered.name,
        })
    }
}

/// A decrypted prediction.
#[derive(Clone, Debug)]
pub struct EncryptedPrediction {
    /// Scores, probabilities and class.
    pub prediction: Prediction,
    /// Features whose value lay outside of the known range and was clamped.
    pub clamped: Vec<usize>,
    /// What the service answers for.
    pub receipt: ReplyReceipt,
    /// Seconds of each stage of the evaluation.
    pub stages: Vec<StageTime>,
}

/// A compiled model and what it takes to ask it. Cheap to clone.
#[derive(Clone)]
pub struct EncryptedModel {
    inference: EncryptedInference,
    asked: Arc<Asked>,
}

struct Asked {
    name: String,
    bundle: Bundle,
    /// None for plans without evaluation keys: every query has a secret key of its own.
    kept: Option<KeptKey>,
}

/// A query that waits for its answer.
struct Pending {
    secret: Arc<SecretKey>,
    digest: [u8; 32],
    clamped: Vec<usize>,
}

impl EncryptedModel {
    /// Fetches the bundle of a compiled model; makes and registers a key when its plan needs one.
    pub async fn open(inference: &EncryptedInference, name: &str) -> Result<Self, ClientError> {
        let bundle = inference.bundle(name).await?;
        let params = bundle.params_id();
        let kept = if wire::evaluation_key_len(params) > 0 {
            Some(KeptKey::register(inference, params, |_, _| {}).await?)
        } else {
            None
        };
        Self::with(inference, name, bundle, kept)
    }

    /// As [`EncryptedModel::open`], with a bundle and a key that were kept.
    ///
    /// # Errors
    /// [`ClientError::Argument`] when the bundle's parameter set needs a key and there is none of it.
    pub fn with(
        inference: &EncryptedInference,
        name: &str,
        bundle: Bundle,
        kept: Option<KeptKey>,
    ) -> Result<Self, ClientError> {
        let params = bundle.params_id();
        let needed = wire::evaluation_key_len(params) > 0;
        let kept = kept.filter(|_| needed);
        let fits = kept.as_ref().is_some_and(|key| key.secret.params_id() == params);
        if needed && !fits {
            return Err(ClientError::Argument(format!(
                "the model needs a key of the parameter set {}",
                params.name()
            )));
        }
        Ok(Self {
            inference: inference.clone(),
            asked: Arc::new(Asked {
                name: name.to_owned(),
                bundle,
                kept,
            }),
        })
    }

    /// `models/{id}`.
    pub fn name(&self) -> &str {
        &self.asked.name
    }

    /// What the model tells its clients.
    pub fn bundle(&self) -> &Bundle {
        &self.asked.bundle
    }

    /// The key, where the plan needs one: keep it, and it serves again.
    pub fn key(&self) -> Option<&KeptKey> {
        self.asked.kept.as_ref()
    }

    /// Deletes the evaluation key from the service, where only so many have room: for a key that is not going to be kept.
    pub async fn forget_key(self) -> Result<(), ClientError> {
        match &self.asked.kept {
            Some(kept) => self.inference.delete_evaluation_key(&kept.evaluation_key).await,
            None => Ok(()),
        }
    }

    /// Predicts one row; NaN is a missing value.
    ///
    /// # Errors
    /// [`ClientError::Argument`] for a row that does not fit the model; [`ClientError::Verification`].
    pub async fn predict_row(&self, row: Vec<f64>) -> Result<EncryptedPrediction, ClientError> {
        let (pending, query) = self.asked.clone().encrypt(row).await?;
        let answer = self
            .inference
            .predict(&self.asked.name, self.asked.evaluation_key(), query)
            .await?;
        self.asked.open(&pending, answer)
    }

    /// Predicts rows, in order, over one stream.
    ///
    /// # Errors
    /// As [`EncryptedModel::predict_row`]; no row is sent when one of them does not fit the model.
    pub async fn predict(&self, rows: Vec<Vec<f64>>) -> Result<Vec<EncryptedPrediction>, ClientError> {
        for (index, row) in rows.iter().enumerate() {
            self.asked
                .bundle
                .quantise(row)
                .map_err(|error| ClientError::Argument(format!("row {index}: {error}")))?;
        }
        let mut predictions = Vec::with_capacity(rows.len());
        let mut answers = self.predict_stream(futures::stream::iter(rows)).await?;
        while let Some(prediction) = answers.next().await? {
            predictions.push(prediction);
        }
        Ok(predictions)
    }

    /// Streams rows in and predictions out, in order. Rows are encrypted as they are sent.
    pub async fn predict_stream(
        &self,
        rows: impl Stream<Item = Vec<f64>> + Send + 'static,
    ) -> Result<EncryptedPredictions, ClientError> {
        let (sent, pending) = mpsc::unbounded_channel();
        let asked = self.asked.clone();
        let encrypted = rows
            .map(move |row| asked.clone().encrypt(row))
            .buffered(AHEAD)
            .scan(sent, |sent, encrypted| {
                let (pending, query) = match encrypted {
                    Ok((pending, query)) => (Ok(pending), Some(query)),
                    Err(error) => (Err(error), None),
                };
                // Ends the stream when nobody waits for answers any more, or a row could not be encrypted.
                let going = sent.send(pending).is_ok();
                std::future::ready(query.filter(|_| going))
            });
        let answers = self
            .inference
            .predict_stream(&self.asked.name, self.asked.evaluation_key(), encrypted)
            .await?;
        Ok(EncryptedPredictions {
            asked: self.asked.clone(),
            answers,
            pending,
        })
    }
}

impl Asked {
    fn evaluation_key(&self) -> &str {
        self.kept.as_ref().map_or("", |kept| &kept.evaluation_key)
    }

    async fn encrypt(self: Arc<Self>, row: Vec<f64>) -> Result<(Pending, Vec<u8>), ClientError> {
        blocking(move || {
            let secret = match &self.kept {
                Some(kept) => kept.secret.clone(),
                None => Arc::new(SecretKey::generate(self.bundle.params_id())?),
            };
            let Query {
                bytes,
                digest,
                clamped,
            } = client::encrypt(&self.bundle, &secret, &row)?;
            let pending = Pending {
                secret,
                digest,
                clamped,
            };
            Ok((pending, bytes))
        })
        .await
    }

    fn open(&self, pending: &Pending, answer: EncryptedAnswer) -> Result<EncryptedPrediction, ClientError> {
        if answer.receipt.compiled_sha256 != Digest::from_bytes(*self.bundle.model_digest()) {
            return Err(ClientError::Verification(
                "the receipt is for another version of the model: fetch its client bundle again".into(),
            ));
        }
        let prediction = client::decrypt(&self.bundle, &pending.secret, &pending.digest, &answer.reply)
            .map_err(|error| ClientError::Verification(format!("the reply is refused: {error}")))?;
        Ok(EncryptedPrediction {
            prediction,
            clamped: pending.clamped.clone(),
            receipt: answer.receipt,
            stages: answer.stages,
        })
    }
}

/// Predictions of a stream of rows, in order.
pub struct EncryptedPredictions {
    asked: Arc<Asked>,
    answers: super::EncryptedAnswers,
    pending: mpsc::UnboundedReceiver<Result<Pending, ClientError>>,
}

impl EncryptedPredictions {
    /// The next prediction; `None` after the last.
    ///
    /// # Errors
    /// As [`EncryptedModel::predict_row`].
    pub async fn next(&mut self) -> Result<Option<EncryptedPrediction>, ClientError> {
        let answer = self.answers.next().await?;
        // A row that could not be encrypted has no answer: its error comes in the answer's place.
        let pending = match self.pending.recv().await {
            Some(pending) => pending?,
            None if answer.is_none() => return Ok(None),
            None => return Err(ClientError::Protocol("an answer to no query")),
        };
        let answer = answer.ok_or(ClientError::Protocol("the answers ended before the queries"))?;
        self.asked.open(&pending, answer).map(Some)
    }
}

/// Runs encryption off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FheError> + Send + 'static,
) -> Result<T, ClientError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| ClientError::Argument(error.to_string())),
        Err(_) => Err(ClientError::Protocol("the encryption did not end")),
    }
}
