//! The gRPC adapter of the Open Inference Protocol: the same use cases under other names.

use std::sync::Arc;

use asterism_chassis::{
    call::{Caller, Gate, Trail},
    error::Failure,
};
use asterism_crypto::Digest;
use asterism_learn::metrics;
use asterism_policy::Verb;
use asterism_proto::open_inference::{self as pb, grpc_inference_service_server::GrpcInferenceService};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    encrypted::{EncryptedFlow, Waiter},
    error::InferenceError,
    flow::Flow,
    models::{ModelId, Predicted},
    wire::tensors::{self, Elements, Output},
};

const CLEAR: &str = "clear";
const ENCRYPTED: &str = "encrypted";

pub(crate) struct OpenInferenceAdapter {
    gate: Gate,
    flow: Arc<Flow>,
    encrypted: Arc<EncryptedFlow>,
}

/// Which of a model's two faces.
#[derive(Clone, Copy, PartialEq)]
enum Version {
    Clear,
    Encrypted,
}

impl Version {
    fn parse(field: &str, version: &str) -> Result<Self, InferenceError> {
        match version {
            "" | CLEAR => Ok(Self::Clear),
            ENCRYPTED => Ok(Self::Encrypted),
            _ => Err(InferenceError::field(field, "must be `clear` or `encrypted`")),
        }
    }
}

impl OpenInferenceAdapter {
    pub(crate) fn new(gate: Gate, flow: Arc<Flow>, encrypted: Arc<EncryptedFlow>) -> Self {
        Self {
            gate,
            flow,
            encrypted,
        }
    }

    /// An answer that needs nothing but a caller who may ask.
    async fn plain<Req, Res>(
        &self,
        operation: &'static str,
        request: Request<Req>,
        answer: Res,
    ) -> Result<Response<Res>, Status>
    where
        Req: Send + 'static,
        Res: Send + 'static,
    {
        self.gate
            .flow(operation, request, move |_, _, mut trail| async move {
                trail.silent();
                (trail, Ok(answer))
            })
            .await
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for OpenInferenceAdapter {
    async fn server_live(
        &self,
        request: Request<pb::ServerLiveRequest>,
    ) -> Result<Response<pb::ServerLiveResponse>, Status> {
        let live = pb::ServerLiveResponse { live: true };
        self.plain("inference.ServerLive", request, live).await
    }

    async fn server_ready(
        &self,
        request: Request<pb::ServerReadyRequest>,
    ) -> Result<Response<pb::ServerReadyResponse>, Status> {
        let ready = pb::ServerReadyResponse { ready: true };
        self.plain("inference.ServerReady", request, ready).await
    }

    async fn server_metadata(
        &self,
        request: Request<pb::ServerMetadataRequest>,
    ) -> Result<Response<pb::ServerMetadataResponse>, Status> {
        let metadata = pb::ServerMetadataResponse {
            name: "asterism-inference".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: vec![],
        };
        self.plain("inference.ServerMetadata", request, metadata).await
    }

    async fn model_ready(
        &self,
        request: Request<pb::ModelReadyRequest>,
    ) -> Result<Response<pb::ModelReadyResponse>, Status> {
        let (flow, encrypted) = (self.flow.clone(), self.encrypted.clone());
        self.gate
            .flow(
                "inference.ModelReady",
                request,
                move |caller, message, mut trail| async move {
                    trail.silent();
                    let ready = async {
                        let id = ModelId::from_name(&message.name)?;
                        trail.resource(id.name());
                        match Version::parse("version", &message.version)? {
                            Version::Clear => flow.verified(&caller, Verb::Get, id).await.map(drop)?,
                            Version::Encrypted => encrypted.target(&caller, Verb::Get, id).await.map(drop)?,
                        }
                        Ok(pb::ModelReadyResponse { ready: true })
                    };
                    let ready = ready.await;
                    (trail, ready)
                },
            )
            .await
    }

    async fn model_metadata(
        &self,
        request: Request<pb::ModelMetadataRequest>,
    ) -> Result<Response<pb::ModelMetadataResponse>, Status> {
        let (flow, encrypted) = (self.flow.clone(), self.encrypted.clone());
        self.gate
            .flow(
                "inference.ModelMetadata",
                request,
                move |caller, message, mut trail| async move {
                    trail.silent();
                    let described = describe(&flow, &encrypted, &caller, &message, &mut trail).await;
                    (trail, described)
                },
            )
            .await
    }

    async fn model_infer(
        &self,
        request: Request<pb::ModelInferRequest>,
    ) -> Result<Response<pb::ModelInferResponse>, Status> {
        let (flow, encrypted) = (self.flow.clone(), self.encrypted.clone());
        let gone = CancellationToken::new();
        // This future is dropped when the caller goes away; the work below is not, and must be told.
        let _tells = gone.clone().drop_guard();
        self.gate
            .flow(
                "inference.ModelInfer",
                request,
                move |caller, message, mut trail| async move {
                    let answer = async {
                        let id = ModelId::from_name(&message.model_name)?;
                        trail.resource(id.name());
                        match Version::parse("model_version", &message.model_version)? {
                            Version::Clear => infer(&flow, &caller, id, &message, &mut trail).await,
                            Version::Encrypted => {
                                let waiter = Waiter::new(&caller, gone);
                                infer_encrypted(&encrypted, &caller, id, &message, &waiter, &mut trail).await
                            }
                        }
                    };
                    let answer = answer.await;
                    (trail, answer)
                },
            )
            .await
    }
}

async fn describe(
    flow: &Flow,
    encrypted: &EncryptedFlow,
    caller: &Caller,
    message: &pb::ModelMetadataRequest,
    trail: &mut Trail,
) -> Result<pb::ModelMetadataResponse, Failure> {
    let id = ModelId::from_name(&message.name)?;
    trail.resource(id.name());
    let version = Version::parse("version", &message.version)?;
    let verified = flow.verified(caller, Verb::Get, id).await?;
    let compiled = encrypted.target(caller, Verb::Get, id).await;
    let mut versions = vec![CLEAR.to_owned()];
    if compiled.is_ok() {
        versions.push(ENCRYPTED.to_owned());
    }
    let manifest = &verified.manifest;
    let (features, classes) = (manifest.features.len() as i64, manifest.classes.len() as i64);
    let (platform, inputs, outputs) = match version {
        Version::Clear => (
            "asterism",
            vec![tensors::metadata("input", "FP64", &[-1, features])],
            match classes {
                0 => vec![tensors::metadata("score", "FP64", &[-1])],
                _ => vec![
                    tensors::metadata("probabilities", "FP64", &[-1, classes]),
                    tensors::metadata("class", "BYTES", &[-1]),
                ],
            },
        ),
        Version::Encrypted => {
            compiled?;
            (
                "asterism-fhe",
                vec![tensors::metadata("query", "BYTES", &[-1])],
                ["reply", "receipt"]
                    .map(|name| tensors::metadata(name, "BYTES", &[-1]))
                    .to_vec(),
            )
        }
    };
    Ok(pb::ModelMetadataResponse {
        name: id.name(),
        versions,
        platform: platform.into(),
        inputs,
        outputs,
    })
}

async fn infer(
    flow: &Flow,
    caller: &Caller,
    id: ModelId,
    message: &pb::ModelInferRequest,
    trail: &mut Trail,
) -> Result<pb::ModelInferResponse, Failure> {
    let verified = flow.verified(caller, Verb::Predict, id).await?;
    trail.input_digest(verified.manifest_sha256);
    let predicted = flow.predict(&verified, tensors::rows(message)?).await?;
    let rows = predicted.len() as i64;
    let classes = &verified.manifest.classes;
    if classes.is_empty() {
        let score = Output {
            name: "score",
            shape: vec![rows],
            elements: Elements::Numbers(predicted.into_iter().flat_map(|made| made.scores).collect()),
        };
        return Ok(tensors::respond(message, CLEAR, vec![score])?);
    }
    let class = |made: &Predicted| {
        let class = classes.get(metrics::most_probable(&made.probabilities));
        class.map(|class| class.clone().into_bytes()).unwrap_or_default()
    };
    let class = Output {
        name: "class",
        shape: vec![rows],
        elements: Elements::Bytes(predicted.iter().map(class).collect()),
    };
    let probabilities = predicted.into_iter().flat_map(|made| made.probabilities);
    let probabilities = Output {
        name: "probabilities",
        shape: vec![rows, classes.len() as i64],
        elements: Elements::Numbers(probabilities.collect()),
    };
    Ok(tensors::respond(message, CLEAR, vec![probabilities, class])?)
}

async fn infer_encrypted(
    flow: &EncryptedFlow,
    caller: &Caller,
    id: ModelId,
    message: &pb::ModelInferRequest,
    waiter: &Waiter,
    trail: &mut Trail,
) -> Result<pb::ModelInferResponse, Failure> {
    let key = tensors::text(message, "evaluation_key")?.unwrap_or_default();
    let queries = tensors::queries(message)?;
    trail.input_digest(digest_of(queries.iter().map(|query| Digest::of(query))));
    let session = flow.open(caller, id, key).await?;
    let (mut replies, mut receipts, mut digests) = (vec![], vec![], vec![]);
    for query in queries {
        let evaluated = flow.evaluate(&session, query, waiter).await?;
        let answered = flow.sign(&session, evaluated).await?;
        digests.push(answered.reply_sha256);
        replies.push(answered.reply);
        let receipt = serde_json::to_vec(&answered.receipt);
        receipts.push(receipt.map_err(|_| InferenceError::Damaged("receipt to send"))?);
    }
    trail.output_digest(digest_of(digests.into_iter()));
    let outputs = [("reply", replies), ("receipt", receipts)].map(|(name, strings)| Output {
        name,
        shape: vec![strings.len() as i64],
        elements: Elements::Bytes(strings),
    });
    let mut response = tensors::respond(message, ENCRYPTED, outputs.into())?;
    let compiled = &session.target().compiled;
    for (name, value) in [
        (
            "params",
            compiled.program().bundle().params_id().name().to_owned(),
        ),
        ("compiled_sha256", compiled.digest().to_string()),
    ] {
        response
            .parameters
            .insert(name.to_owned(), tensors::parameter(value));
    }
    Ok(response)
}

/// One digest of one thing, or of the digests of several.
fn digest_of(mut digests: impl ExactSizeIterator<Item = Digest>) -> Digest {
    if digests.len() == 1
        && let Some(only) = digests.next()
    {
        return only;
    }
    Digest::of(&digests.flat_map(|digest| *digest.as_bytes()).collect::<Vec<u8>>())
}
