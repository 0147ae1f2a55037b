//! The gRPC adapter: who asks, parse, one call into the domain, translate.

mod encrypted;
mod import;
mod open_inference;

use std::{ops::ControlFlow, sync::Arc};

use asterism_chassis::{
    call::{Caller, Emitter, Gate, ReplyStream, Trail},
    error::Failure,
    paging::page_size,
};
use asterism_crypto::Digest;
use asterism_policy::Verb;
use asterism_proto::inference::{self as pb, inference_service_server::InferenceService};
use futures::{StreamExt as _, TryStreamExt as _};
use tonic::{Request, Response, Status, Streaming};

pub(crate) use self::{encrypted::EncryptedAdapter, open_inference::OpenInferenceAdapter};
use crate::{
    encrypted::EncryptedFlow,
    error::InferenceError,
    flow::{Flow, OnStep, Step},
    models::{ModelId, Verified},
    wire,
};

/// Predictions in one message of a batch.
const BATCH_ROWS: usize = 1000;
/// Models that are verified at once for a list.
const LIST_CONCURRENCY: usize = 8;

pub(crate) struct Adapter {
    gate: Gate,
    flow: Arc<Flow>,
    encrypted: Arc<EncryptedFlow>,
}

impl Adapter {
    pub(crate) fn new(gate: Gate, flow: Arc<Flow>, encrypted: Arc<EncryptedFlow>) -> Self {
        Self {
            gate,
            flow,
            encrypted,
        }
    }
}

#[tonic::async_trait]
impl InferenceService for Adapter {
    type TrainStream = ReplyStream<pb::TrainResponse>;
    type BatchPredictStream = ReplyStream<pb::BatchPredictResponse>;

    async fn train(&self, request: Request<pb::TrainRequest>) -> Result<Response<Self::TrainStream>, Status> {
        let flow = self.flow.clone();
        self.gate
            .stream(
                "inference.Train",
                request,
                move |caller, message, emitter| async move {
                    emitter.trail(|trail| {
                        trail.resource(message.dataset.clone());
                    });
                    let (order, key) = wire::order(message, caller.owner().as_str())?;
                    let verified = flow.train(&caller, order, key, on_step(&emitter)).await?;
                    emitter.trail(|trail| {
                        trail.resource(format!("models/{}", verified.manifest.model));
                        if let Some(dataset) = verified.manifest.dataset_manifest_sha256 {
                            trail.input_digest(dataset);
                        }
                        trail.output_digest(verified.manifest_sha256);
                    });
                    emitter.release().await?;
                    emitter.send(wire::trained(&verified)).await
                },
            )
            .await
    }

    async fn import_model(
        &self,
        request: Request<Streaming<pb::ImportModelRequest>>,
    ) -> Result<Response<pb::Model>, Status> {
        let flow = self.flow.clone();
        self.gate
            .flow(
                "inference.ImportModel",
                request,
                move |caller, parts, mut trail| async move {
                    let imported = import::import(&flow, &caller, parts, &mut trail).await;
                    (trail, imported)
                },
            )
            .await
    }

    async fn list_models(
        &self,
        request: Request<pb::ListModelsRequest>,
    ) -> Result<Response<pb::ListModelsResponse>, Status> {
        let flow = self.flow.clone();
        self.gate
            .flow(
                "inference.ListModels",
                request,
                move |caller, message, mut trail| async move {
                    trail.silent();
                    let listed = list(&flow, &caller, &message).await;
                    (trail, listed)
                },
            )
            .await
    }

    async fn get_model(&self, request: Request<pb::GetModelRequest>) -> Result<Response<pb::Model>, Status> {
        let flow = self.flow.clone();
        self.gate
            .flow(
                "inference.GetModel",
                request,
                move |caller, message, mut trail| async move {
                    trail.silent();
                    let found = verified(&flow, &caller, Verb::Get, &message.name, &mut trail).await;
                    (trail, found.map(|verified| wire::model(&verified)))
                },
            )
            .await
    }

    async fn delete_model(
        &self,
        request: Request<pb::DeleteModelRequest>,
    ) -> Result<Response<pb::DeleteModelResponse>, Status> {
        let (flow, encrypted) = (self.flow.clone(), self.encrypted.clone());
        self.gate
            .flow(
                "inference.DeleteModel",
                request,
                move |caller, message, mut trail| async move {
                    let deleted = delete(&flow, &encrypted, &caller, &message.name, &mut trail).await;
                    (trail, deleted)
                },
            )
            .await
    }

    async fn evaluate(
        &self,
        request: Request<pb::EvaluateRequest>,
    ) -> Result<Response<pb::Evaluation>, Status> {
        let flow = self.flow.clone();
        self.gate
            .flow(
                "inference.Evaluate",
                request,
                move |caller, message, mut trail| async move {
                    let evaluated = evaluate(&flow, &caller, &message, &mut trail).await;
                    (trail, evaluated)
                },
            )
            .await
    }

    async fn predict(
        &self,
        request: Request<pb::PredictRequest>,
    ) -> Result<Response<pb::PredictResponse>, Status> {
        let flow = self.flow.clone();
        self.gate
            .flow(
                "inference.Predict",
                request,
                move |caller, message, mut trail| async move {
                    let predicted = predict(&flow, &caller, message, &mut trail).await;
                    (trail, predicted)
                },
            )
            .await
    }

    async fn batch_predict(
        &self,
        request: Request<Streaming<pb::BatchPredictRequest>>,
    ) -> Result<Response<Self::BatchPredictStream>, Status> {
        let flow = self.flow.clone();
        self.gate
            .stream(
                "inference.BatchPredict",
                request,
                move |caller, messages, emitter| async move {
                    batch_predict(&flow, &caller, messages, &emitter).await
                },
            )
            .await
    }
}

/// Passes the steps of a training on. Those that a slow caller has no room for are left out; one that is gone cancels.
fn on_step(emitter: &Emitter<pb::TrainResponse>) -> OnStep {
    let emitter = emitter.clone();
    Arc::new(move |step: Step| {
        if emitter.is_closed() {
            return ControlFlow::Break(());
        }
        emitter.offer(wire::progress(&step));
        ControlFlow::Continue(())
    })
}

async fn list(
    flow: &Flow,
    caller: &Caller,
    message: &pb::ListModelsRequest,
) -> Result<pb::ListModelsResponse, Failure> {
    let limit = page_size(message.page_size)?;
    let after = wire::page_token(&message.page_token)?;
    let (ids, next) = flow.owned(caller, after, limit)?;
    let models = futures::stream::iter(ids)
        .map(|id| flow.load(caller, id))
        .buffered(LIST_CONCURRENCY)
        .map_ok(|verified| wire::model(&verified))
        .try_collect()
        .await?;
    Ok(pb::ListModelsResponse {
        models,
        next_page_token: next.map(|id| id.to_string()).unwrap_or_default(),
    })
}

async fn delete(
    flow: &Flow,
    encrypted: &EncryptedFlow,
    caller: &Caller,
    name: &str,
    trail: &mut Trail,
) -> Result<pb::DeleteModelResponse, Failure> {
    let id = ModelId::from_name(name)?;
    trail.resource(id.name());
    flow.delete(caller, id).await?;
    encrypted.forget(id);
    Ok(pb::DeleteModelResponse {})
}

/// The model of a request that does that to it, after every check.
async fn verified(
    flow: &Flow,
    caller: &Caller,
    verb: Verb,
    name: &str,
    trail: &mut Trail,
) -> Result<Arc<Verified>, Failure> {
    let id = ModelId::from_name(name)?;
    trail.resource(id.name());
    Ok(flow.verified(caller, verb, id).await?)
}

async fn evaluate(
    flow: &Flow,
    caller: &Caller,
    message: &pb::EvaluateRequest,
    trail: &mut Trail,
) -> Result<pb::Evaluation, Failure> {
    let verified = verified(flow, caller, Verb::Predict, &message.name, trail).await?;
    trail.input_digest(verified.manifest_sha256);
    let evaluation = flow
        .evaluate(caller, &verified, wire::dataset_name(&message.dataset)?)
        .await?;
    Ok(wire::evaluation(&evaluation))
}

async fn predict(
    flow: &Flow,
    caller: &Caller,
    message: pb::PredictRequest,
    trail: &mut Trail,
) -> Result<pb::PredictResponse, Failure> {
    let verified = verified(flow, caller, Verb::Predict, &message.name, trail).await?;
    trail.input_digest(verified.manifest_sha256);
    let probabilities = flow.predict(&verified, wire::rows(message.rows)?).await?;
    let classes = verified.manifest.classes.clone();
    Ok(pb::PredictResponse {
        predictions: wire::predictions(&classes, probabilities),
        classes,
    })
}

async fn batch_predict(
    flow: &Flow,
    caller: &Caller,
    mut messages: Streaming<pb::BatchPredictRequest>,
    emitter: &Emitter<pb::BatchPredictResponse>,
) -> Result<(), Failure> {
    let first = next(&mut messages).await?;
    let first = first.ok_or_else(|| Failure::invalid("name", "the first message must name a model"))?;
    let id = ModelId::from_name(&first.name)?;
    let verified = flow.verified(caller, Verb::Predict, id).await?;
    emitter.trail(|trail| {
        trail.resource(id.name()).input_digest(verified.manifest_sha256);
    });
    let mut offset = 0;
    if let Some(dataset) = wire::dataset_name(&first.dataset)? {
        let (rows, manifest_sha256) = flow.feature_rows(caller, &verified, dataset).await?;
        emitter.trail(|trail| {
            trail.input_digest(both(&verified.manifest_sha256, &manifest_sha256));
        });
        emitter.release().await?;
        for rows in rows.chunks(BATCH_ROWS) {
            offset = answer(flow, &verified, rows.to_vec(), offset, emitter).await?;
        }
        return Ok(());
    }
    emitter.release().await?;
    let mut message = Some(first);
    while let Some(request) = message {
        if !request.name.is_empty() && request.name != id.name() {
            return Err(Failure::invalid(
                "name",
                "a batch is for one model; start another for another",
            ));
        }
        // A stream may outlive what was granted: kms is asked again, every two seconds at most.
        flow.permit(caller, Verb::Predict, id, &verified.manifest.owner)
            .await?;
        for rows in wire::rows(request.rows)?.chunks(BATCH_ROWS) {
            offset = answer(flow, &verified, rows.to_vec(), offset, emitter).await?;
        }
        message = next(&mut messages).await?;
    }
    Ok(())
}

/// Predicts some rows of a batch; gives the offset of the next.
async fn answer(
    flow: &Flow,
    verified: &Arc<Verified>,
    rows: Vec<Vec<f64>>,
    offset: u64,
    emitter: &Emitter<pb::BatchPredictResponse>,
) -> Result<u64, Failure> {
    let count = rows.len() as u64;
    let probabilities = flow.predict(verified, rows).await?;
    let predictions = wire::predictions(&verified.manifest.classes, probabilities);
    emitter
        .send(pb::BatchPredictResponse { offset, predictions })
        .await?;
    Ok(offset + count)
}

async fn next(
    messages: &mut Streaming<pb::BatchPredictRequest>,
) -> Result<Option<pb::BatchPredictRequest>, InferenceError> {
    // A caller that breaks off mid-stream cancels the batch.
    messages.message().await.map_err(|_| InferenceError::Cancelled)
}

/// One digest for a model and the dataset that it was applied to.
fn both(model: &Digest, dataset: &Digest) -> Digest {
    Digest::of(&[model.as_bytes().as_slice(), dataset.as_bytes()].concat())
}
