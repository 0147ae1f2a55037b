//! The gRPC adapter of encrypted prediction: who asks, parse, one call into the domain, translate.

use std::sync::Arc;

use asterism_chassis::{
    call::{Caller, Emitter, Gate, ReplyStream, Trail},
    error::Failure,
    paging::page_size,
};
use asterism_crypto::{Digest, DigestWriter};
use asterism_policy::Verb;
use asterism_proto::inference::{
    self as pb, encrypted_inference_service_server::EncryptedInferenceService,
    register_evaluation_key_request::Part,
};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    encrypted::{Answered, EncryptedFlow, Evaluated, EvaluationKeyId, Session, Target, Waiter},
    error::InferenceError,
    flow::blocking,
    models::ModelId,
    wire::encrypted as wire,
};

/// Queries of a stream that are evaluated at once.
const EVALUATED_AHEAD: usize = 2;
/// Replies of a stream that are signed at once, while later queries are evaluated.
const SIGNED_AHEAD: usize = 4;
/// One answer of a stream is an event like that of a single call.
const PREDICT: &str = "inference.PredictEncrypted";

pub(crate) struct EncryptedAdapter {
    gate: Gate,
    flow: Arc<EncryptedFlow>,
}

impl EncryptedAdapter {
    pub(crate) fn new(gate: Gate, flow: Arc<EncryptedFlow>) -> Self {
        Self { gate, flow }
    }
}

#[tonic::async_trait]
impl EncryptedInferenceService for EncryptedAdapter {
    type PredictEncryptedStreamStream = ReplyStream<pb::PredictEncryptedResponse>;

    async fn compile_model(
        &self,
        request: Request<pb::CompileModelRequest>,
    ) -> Result<Response<pb::CompiledModel>, Status> {
        let flow = self.flow.clone();
        self.gate
            .flow(
                "inference.CompileModel",
                request,
                move |caller, message, mut trail| async move {
                    let compiled = compile(&flow, &caller, &message, &mut trail).await;
                    (trail, compiled)
                },
            )
            .await
    }

    async fn explain_model(
        &self,
        request: Request<pb::ExplainModelRequest>,
    ) -> Result<Response<pb::CompiledModel>, Status> {
        let flow = self.flow.clone();
        self.gate
            .flow(
                "inference.ExplainModel",
                request,
                move |caller, message, mut trail| async move {
                    trail.silent();
                    let target = target(&flow, &caller, Verb::Get, &message.name, &mut trail).await;
                    (trail, target.map(|target| wire::compiled(&target)))
                },
            )
            .await
    }

    async fn get_client_bundle(
        &self,
        request: Request<pb::GetClientBundleRequest>,
    ) -> Result<Response<pb::ClientBundle>, Status> {
        let flow = self.flow.clone();
        self.gate
            .flow(
                "inference.GetClientBundle",
                request,
                move |caller, message, mut trail| async move {
                    // An event: bin edges tell about the training data.
                    let target = target(&flow, &caller, Verb::Predict, &message.name, &mut trail).await;
                    let bundle = target.map(|target| wire::bundle(&target));
                    if let Ok(bundle) = &bundle {
                        trail.output(&bundle.bundle);
                    }
                    (trail, bundle)
                },
            )
            .await
    }

    async fn register_evaluation_key(
        &self,
        request: Request<Streaming<pb::RegisterEvaluationKeyRequest>>,
    ) -> Result<Response<pb::EvaluationKey>, Status> {
        let flow = self.flow.clone();
        self.gate
            .flow(
                "inference.RegisterEvaluationKey",
                request,
                move |caller, parts, mut trail| async move {
                    let registered = register(&flow, &caller, parts, &mut trail).await;
                    (trail, registered)
                },
            )
            .await
    }

    async fn list_evaluation_keys(
        &self,
        request: Request<pb::ListEvaluationKeysRequest>,
    ) -> Result<Response<pb::ListEvaluationKeysResponse>, Status> {
        let flow = self.flow.clone();
        self.gate
            .flow(
                "inference.ListEvaluationKeys",
                request,
                move |caller, message, mut trail| async move {
                    trail.silent();
                    (trail, list(&flow, &caller, &message).await)
                },
            )
            .await
    }

    async fn delete_evaluation_key(
        &self,
        request: Request<pb::DeleteEvaluationKeyRequest>,
    ) -> Result<Response<pb::DeleteEvaluationKeyResponse>, Status> {
        let flow = self.flow.clone();
        self.gate
            .flow(
                "inference.DeleteEvaluationKey",
                request,
                move |caller, message, mut trail| async move {
                    let deleted = delete(&flow, &caller, &message.name, &mut trail).await;
                    (trail, deleted)
                },
            )
            .await
    }

    async fn predict_encrypted(
        &self,
        request: Request<pb::PredictEncryptedRequest>,
    ) -> Result<Response<pb::PredictEncryptedResponse>, Status> {
        let flow = self.flow.clone();
        let gone = CancellationToken::new();
        // This future is dropped when the caller goes away; the work below is not, and must be told.
        let _tells = gone.clone().drop_guard();
        self.gate
            .flow(PREDICT, request, move |caller, message, mut trail| async move {
                let answered = predict(&flow, &caller, message, gone, &mut trail).await;
                (trail, answered)
            })
            .await
    }

    async fn predict_encrypted_stream(
        &self,
        request: Request<Streaming<pb::PredictEncryptedRequest>>,
    ) -> Result<Response<Self::PredictEncryptedStreamStream>, Status> {
        let (flow, gate) = (self.flow.clone(), self.gate.clone());
        self.gate
            .stream(
                "inference.PredictEncryptedStream",
                request,
                move |caller, messages, emitter| async move {
                    predict_stream(&gate, &flow, caller, messages, &emitter).await
                },
            )
            .await
    }
}

async fn compile(
    flow: &EncryptedFlow,
    caller: &Caller,
    message: &pb::CompileModelRequest,
    trail: &mut Trail,
) -> Result<pb::CompiledModel, Failure> {
    let id = ModelId::from_name(&message.name)?;
    trail.resource(id.name());
    let target = flow.compile(caller, id, wire::options(message)?).await?;
    trail
        .input_digest(target.verified.manifest_sha256)
        .output_digest(target.compiled.digest());
    Ok(wire::compiled(&target))
}

async fn target(
    flow: &EncryptedFlow,
    caller: &Caller,
    verb: Verb,
    name: &str,
    trail: &mut Trail,
) -> Result<Target, Failure> {
    let id = ModelId::from_name(name)?;
    trail.resource(id.name());
    Ok(flow.target(caller, verb, id).await?)
}

/// The header, then the key in parts.
async fn register(
    flow: &EncryptedFlow,
    caller: &Caller,
    mut parts: Streaming<pb::RegisterEvaluationKeyRequest>,
    trail: &mut Trail,
) -> Result<pb::EvaluationKey, Failure> {
    let Some(Part::Header(header)) = next(&mut parts).await?.and_then(|message| message.part) else {
        return Err(Failure::invalid("header", "must be the first part of the stream"));
    };
    let header = wire::key_header(header)?;
    trail
        .resource(EvaluationKeyId(header.sha256).name())
        .input_digest(header.sha256);
    let mut upload = flow.begin_key(caller, header).await?;
    while let Some(message) = next(&mut parts).await? {
        let Some(Part::Chunk(chunk)) = message.part else {
            return Err(Failure::invalid("part", "must be a chunk after the header"));
        };
        if caller.expired() {
            return Err(InferenceError::DeadlineExceeded.into());
        }
        upload = blocking(move || {
            upload.push(&chunk)?;
            Ok(upload)
        })
        .await?;
    }
    Ok(wire::key(flow.keep_key(caller, upload).await?))
}

async fn list(
    flow: &EncryptedFlow,
    caller: &Caller,
    message: &pb::ListEvaluationKeysRequest,
) -> Result<pb::ListEvaluationKeysResponse, Failure> {
    let limit = page_size(message.page_size)?;
    let after = wire::page_token(&message.page_token)?;
    let mut keys = flow.keys(caller, after, limit + 1).await?;
    let more = keys.len() > limit;
    keys.truncate(limit);
    let last = keys.last().filter(|_| more).map(|key| key.id().to_string());
    Ok(pb::ListEvaluationKeysResponse {
        keys: keys.into_iter().map(wire::key).collect(),
        next_page_token: last.unwrap_or_default(),
    })
}

async fn delete(
    flow: &EncryptedFlow,
    caller: &Caller,
    name: &str,
    trail: &mut Trail,
) -> Result<pb::DeleteEvaluationKeyResponse, Failure> {
    let id = EvaluationKeyId::from_name("name", name)?;
    trail.resource(id.name());
    flow.delete_key(caller, id).await?;
    Ok(pb::DeleteEvaluationKeyResponse {})
}

async fn predict(
    flow: &EncryptedFlow,
    caller: &Caller,
    message: pb::PredictEncryptedRequest,
    gone: CancellationToken,
    trail: &mut Trail,
) -> Result<pb::PredictEncryptedResponse, Failure> {
    let id = ModelId::from_name(&message.name)?;
    trail.resource(id.name()).input(&message.query);
    let session = flow.open(caller, id, &message.evaluation_key).await?;
    let waiter = Waiter::new(caller, gone);
    let evaluated = flow.evaluate(&session, message.query, &waiter).await?;
    let answered = flow.sign(&session, evaluated).await?;
    trail.output_digest(answered.reply_sha256);
    Ok(wire::answer(answered, 0))
}

async fn predict_stream(
    gate: &Gate,
    flow: &EncryptedFlow,
    caller: Caller,
    mut messages: Streaming<pb::PredictEncryptedRequest>,
    emitter: &Emitter<pb::PredictEncryptedResponse>,
) -> Result<(), Failure> {
    let first = next(&mut messages).await?;
    let first = first.ok_or_else(|| Failure::invalid("name", "the first message must name a model"))?;
    let id = ModelId::from_name(&first.name)?;
    emitter.trail(|trail| {
        trail.resource(id.name());
    });
    let session = flow.open(&caller, id, &first.evaluation_key).await?;
    emitter.release().await?;
    let gone = CancellationToken::new();
    let waiter = Waiter::new(&caller, gone.clone());
    let queries = queries(first, messages);
    // In order, and each stage beside the others: while replies are signed, the queries after them are evaluated.
    let (session, waiter, caller) = (&session, &waiter, &caller);
    let answers = queries
        .map(|query| async move { Ok(flow.evaluate(session, query?, waiter).await?) })
        .buffered(EVALUATED_AHEAD)
        .map(|evaluated: Result<Evaluated, Failure>| async move {
            let answered = flow.sign(session, evaluated?).await?;
            record(gate, caller, session, &answered).await?;
            Ok(answered)
        })
        .buffered(SIGNED_AHEAD);
    tokio::select! {
        sent = send_all(answers, emitter) => sent,
        () = emitter.closed() => {
            gone.cancel();
            Err(Failure::cancelled())
        }
    }
}

/// The queries of a stream.
fn queries(
    first: pb::PredictEncryptedRequest,
    messages: Streaming<pb::PredictEncryptedRequest>,
) -> impl Stream<Item = Result<Vec<u8>, Failure>> {
    let (name, key) = (first.name.clone(), first.evaluation_key.clone());
    let rest = stream::try_unfold(messages, async |mut messages| {
        Ok(next(&mut messages).await?.map(|message| (message, messages)))
    });
    let checked = rest.and_then(move |message: pb::PredictEncryptedRequest| {
        let same = |named: &str, opened: &str| named.is_empty() || named == opened;
        let field = if !same(&message.name, &name) {
            Some("name")
        } else if !same(&message.evaluation_key, &key) {
            Some("evaluation_key")
        } else {
            None
        };
        std::future::ready(match field {
            None => Ok(message.query),
            Some(field) => Err(Failure::invalid(
                field,
                "must be that of the first message; start another stream for another",
            )),
        })
    });
    stream::once(std::future::ready(Ok(first.query))).chain(checked)
}

/// Each answer is an event of its own, durable before the answer leaves.
async fn record(gate: &Gate, caller: &Caller, session: &Session, answered: &Answered) -> Result<(), Failure> {
    let mut trail = Trail::default();
    trail
        .resource(session.target().id.name())
        .input_digest(answered.query_sha256)
        .output_digest(answered.reply_sha256);
    gate.record(PREDICT, caller, &trail, Ok(())).await
}

/// Sends answers as they come. The event at the end has digests over the digests of all queries and of all replies.
async fn send_all(
    answers: impl Stream<Item = Result<Answered, Failure>>,
    emitter: &Emitter<pb::PredictEncryptedResponse>,
) -> Result<(), Failure> {
    let mut answers = std::pin::pin!(answers);
    let (mut asked, mut answered) = (DigestWriter::new(), DigestWriter::new());
    let mut index = 0;
    while let Some(answer) = answers.try_next().await? {
        asked.update(answer.query_sha256.as_bytes());
        answered.update(answer.reply_sha256.as_bytes());
        let so_far = |writer: &DigestWriter| -> Digest { writer.clone().finish() };
        emitter.trail(|trail| {
            trail
                .input_digest(so_far(&asked))
                .output_digest(so_far(&answered));
        });
        emitter.send(wire::answer(answer, index)).await?;
        index += 1;
    }
    Ok(())
}

async fn next<T>(messages: &mut Streaming<T>) -> Result<Option<T>, InferenceError> {
    // A caller that breaks off mid-stream cancels it.
    messages.message().await.map_err(|_| InferenceError::Cancelled)
}
