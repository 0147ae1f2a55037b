//! Encrypted prediction: the service computes on rows that it cannot read.
//!
//! [`EncryptedInference`] speaks `asterism.inference.v1.EncryptedInferenceService`; every answer that it gives has had its
//! receipt checked. [`EncryptedModel`] is the whole client of one model: rows in, predictions out.

mod model;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use asterism_crypto::{Digest, Signed, VerifyingKey};
use asterism_fhe::{bundle::Bundle, params::ParamsId};
use asterism_proto::inference::{
    self as pb, encrypted_inference_service_client::EncryptedInferenceServiceClient,
    register_evaluation_key_request::Part,
};
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tonic::{Streaming, service::interceptor::InterceptedService, transport::Channel};

pub use self::model::{EncryptedModel, EncryptedPrediction, EncryptedPredictions, KeptKey};
use crate::{
    Kms,
    connection::{Carried, Connection, MAX_MESSAGE_BYTES},
    error::ClientError,
    receipt::{ENCRYPTED_REPLY_DOMAIN, REPLY_SIGNER, ReplyReceipt},
};

type Client = EncryptedInferenceServiceClient<InterceptedService<Channel, Carried>>;

/// Deadline of calls whose work grows with a model or a key.
const LONG: Duration = Duration::from_secs(600);
/// Bytes of an evaluation key in one message.
const CHUNK_BYTES: usize = 1 << 20;

/// Client of `asterism.inference.v1.EncryptedInferenceService`. Models are named `models/{id}`, evaluation keys
/// `evaluationKeys/{sha256 in hex}`. Cheap to clone.
#[derive(Clone)]
pub struct EncryptedInference {
    connection: Connection,
    kms: Kms,
    /// Public keys of the signer of receipts, by version: a version never changes its key.
    signers: Arc<Mutex<HashMap<u32, VerifyingKey>>>,
}

/// An answer whose receipt was checked.
#[derive(Clone, Debug)]
pub struct EncryptedAnswer {
    /// For `asterism_fhe::client::decrypt`.
    pub reply: Vec<u8>,
    /// What the service answers for.
    pub receipt: ReplyReceipt,
    /// The receipt as it was signed: whoever has the public key of `reply-signer` can check it.
    pub signed: Signed,
    /// Seconds of each stage of the evaluation.
    pub stages: Vec<pb::StageTime>,
}

impl EncryptedInference {
    /// A client over a `connection` to inference; `kms` gives the public keys that receipts are checked with.
    pub fn new(connection: Connection, kms: Kms) -> Self {
        Self {
            connection,
            kms,
            signers: Arc::default(),
        }
    }

    fn client(&self) -> Client {
        Client::new(self.connection.service())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn streaming(&self) -> Client {
        Client::new(self.connection.streaming()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn patient(&self) -> Self {
        Self {
            connection: self.connection.clone().with_deadline(Some(LONG)),
            ..self.clone()
        }
    }

    /// Compiles a model for encrypted prediction; `plan` may be left unspecified.
    pub async fn compile(
        &self,
        name: &str,
        plan: pb::Plan,
        used_edges_only: bool,
    ) -> Result<pb::CompiledModel, ClientError> {
        let request = pb::CompileModelRequest {
            name: name.to_owned(),
            plan: plan.into(),
            used_edges_only,
        };
        let patient = self.patient();
        patient
            .connection
            .retrying(|| client_call!(patient, compile_model, request))
            .await
    }

    /// How a compiled model is served, at what cost, and why.
    pub async fn explain(&self, name: &str) -> Result<pb::CompiledModel, ClientError> {
        let request = pb::ExplainModelRequest {
            name: name.to_owned(),
        };
        let patient = self.patient();
        patient
            .connection
            .retrying(|| client_call!(patient, explain_model, request))
            .await
    }

    /// What is needed to encrypt rows and to decrypt scores, checked.
    ///
    /// # Errors
    /// [`ClientError::Verification`] for a bundle that cannot be used.
    pub async fn bundle(&self, name: &str) -> Result<Bundle, ClientError> {
        let request = pb::GetClientBundleRequest {
            name: name.to_owned(),
        };
        let patient = self.patient();
        let answer = patient
            .connection
            .retrying(|| client_call!(patient, get_client_bundle, request))
            .await?;
        let bundle = Bundle::from_bytes(&answer.bundle)
            .map_err(|error| ClientError::Verification(format!("the client bundle is refused: {error}")))?;
        if answer.name != name || answer.compiled_sha256 != bundle.model_digest() {
            return Err(ClientError::Verification(
                "the client bundle is that of another model".into(),
            ));
        }
        Ok(bundle)
    }

    /// Registers an evaluation key, which is not secret; `progress` is told the bytes sent so far.
    pub async fn register_evaluation_key(
        &self,
        params: ParamsId,
        key: Vec<u8>,
        mut progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<pb::EvaluationKey, ClientError> {
        let sha256 = Digest::of(&key);
        let header = Part::Header(pb::EvaluationKeyHeader {
            params: params.name().to_owned(),
            sha256: sha256.as_bytes().to_vec(),
            total_bytes: key.len() as u64,
        });
        let mut offset = 0;
        let chunks = std::iter::from_fn(move || {
            let end = key.len().min(offset + CHUNK_BYTES);
            let chunk = (end > offset).then(|| Part::Chunk(key[offset..end].to_vec()));
            offset = end;
            if chunk.is_some() {
                progress(end as u64);
            }
            chunk
        });
        let parts = std::iter::once(header).chain(chunks);
        let requests = parts.map(|part| pb::RegisterEvaluationKeyRequest { part: Some(part) });
        let patient = self.patient();
        let registered = patient
            .connection
            .once(
                patient
                    .client()
                    .register_evaluation_key(futures::stream::iter(requests)),
            )
            .await?;
        if registered.sha256 == sha256.as_bytes() {
            Ok(registered)
        } else {
            Err(ClientError::Protocol("another evaluation key was registered"))
        }
    }

    /// A page of the caller's evaluation keys, and the token of the next page (empty at the end).
    pub async fn evaluation_keys(
        &self,
        page_size: i32,
        page_token: &str,
    ) -> Result<(Vec<pb::EvaluationKey>, String), ClientError> {
        let request = pb::ListEvaluationKeysRequest {
            page_size,
            page_token: page_token.to_owned(),
        };
        let page = self
            .connection
            .retrying(|| client_call!(self, list_evaluation_keys, request))
            .await?;
        Ok((page.keys, page.next_page_token))
    }

    /// Deletes an evaluation key of the caller's.
    pub async fn delete_evaluation_key(&self, name: &str) -> Result<(), ClientError> {
        let request = pb::DeleteEvaluationKeyRequest {
            name: name.to_owned(),
        };
        self.connection
            .once(self.client().delete_evaluation_key(request))
            .await
            .map(drop)
    }

    /// Has one query answered; `evaluation_key` is empty for plans without.
    ///
    /// # Errors
    /// [`ClientError::Verification`] when the receipt is not for this query and this reply, or was not signed by kms.
    pub async fn predict(
        &self,
        name: &str,
        evaluation_key: &str,
        query: Vec<u8>,
    ) -> Result<EncryptedAnswer, ClientError> {
        let digest = Digest::of(&query);
        let request = pb::PredictEncryptedRequest {
            name: name.to_owned(),
            evaluation_key: evaluation_key.to_owned(),
            query,
        };
        let answer = self
            .connection
            .retrying(|| client_call!(self, predict_encrypted, request))
            .await?;
        self.checked(name, &digest, answer).await
    }

    /// Streams queries in and answers out, in order.
    pub async fn predict_stream(
        &self,
        name: &str,
        evaluation_key: &str,
        queries: impl Stream<Item = Vec<u8>> + Send + 'static,
    ) -> Result<EncryptedAnswers, ClientError> {
        let (sent, digests) = mpsc::unbounded_channel();
        let mut opening = Some((name.to_owned(), evaluation_key.to_owned()));
        let requests = queries.map(move |query| {
            // Nobody reads the digests any more when the answers were dropped.
            let _ = sent.send(Digest::of(&query));
            let (name, evaluation_key) = opening.take().unwrap_or_default();
            pb::PredictEncryptedRequest {
                name,
                evaluation_key,
                query,
            }
        });
        let answers = self
            .connection
            .once(self.streaming().predict_encrypted_stream(requests))
            .await?;
        Ok(EncryptedAnswers {
            inference: self.clone(),
            name: name.to_owned(),
            answers,
            digests,
            index: 0,
        })
    }

    /// Checks the receipt of an answer to the query with this digest.
    ///
    /// # Errors
    /// [`ClientError::Verification`]
    pub async fn checked(
        &self,
        name: &str,
        query: &Digest,
        answer: pb::PredictEncryptedResponse,
    ) -> Result<EncryptedAnswer, ClientError> {
        let receipt = answer
            .receipt
            .ok_or(ClientError::Protocol("an answer without a receipt"))?;
        let signed = Signed {
            domain: ENCRYPTED_REPLY_DOMAIN.to_owned(),
            payload: receipt.payload,
            key: receipt.key.strip_prefix("keys/").unwrap_or_default().to_owned(),
            key_version: receipt.key_version,
            signature: receipt.signature,
        };
        let receipt = ReplyReceipt::parse(self.verified(&signed).await?)?;
        receipt.check(name, query, &answer.reply)?;
        Ok(EncryptedAnswer {
            reply: answer.reply,
            receipt,
            signed,
            stages: answer.stages,
        })
    }

    /// The payload of a receipt that the signer of receipts has signed.
    async fn verified<'a>(&self, signed: &'a Signed) -> Result<&'a [u8], ClientError> {
        let version = signed.key_version;
        let known = self.signers().get(&version).cloned();
        let Some(key) = known else {
            let payload = self
                .kms
                .verify_statement(REPLY_SIGNER, ENCRYPTED_REPLY_DOMAIN, signed)
                .await?;
            let key = self.kms.public_key(REPLY_SIGNER, version.max(1)).await?;
            self.signers().insert(version, key);
            return Ok(payload);
        };
        if signed.key != REPLY_SIGNER {
            return Err(ClientError::Verification(format!(
                "signed by the key `{}`, not by `{REPLY_SIGNER}`",
                signed.key
            )));
        }
        signed
            .verify(ENCRYPTED_REPLY_DOMAIN, &key)
            .map_err(|_| ClientError::Verification(format!("the signature of `{REPLY_SIGNER}` does not fit")))
    }

    fn signers(&self) -> std::sync::MutexGuard<'_, HashMap<u32, VerifyingKey>> {
        self.signers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers to a stream of queries, in order.
pub struct EncryptedAnswers {
    inference: EncryptedInference,
    name: String,
    answers: Streaming<pb::PredictEncryptedResponse>,
    digests: mpsc::UnboundedReceiver<Digest>,
    index: u64,
}

impl EncryptedAnswers {
    /// The next answer, its receipt checked; `None` after the last.
    ///
    /// # Errors
    /// As [`EncryptedInference::predict`].
    pub async fn next(&mut self) -> Result<Option<EncryptedAnswer>, ClientError> {
        let answer = self.answers.message().await;
        let Some(answer) = answer.map_err(|status| self.inference.connection.error(&status))? else {
            return Ok(None);
        };
        if answer.index != self.index {
            return Err(ClientError::Protocol("an answer out of order"));
        }
        self.index += 1;
        let digest = self
            .digests
            .recv()
            .await
            .ok_or(ClientError::Protocol("an answer to no query"))?;
        self.inference
            .checked(&self.name, &digest, answer)
            .await
            .map(Some)
    }
}
