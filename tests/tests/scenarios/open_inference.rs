//! The Open Inference Protocol beside the service's own: the same answers under other names.

use std::time::{Duration, SystemTime};

use asterism_chassis::identity::Role;
use asterism_client::proto::{
    inference::{Algorithm, Plan},
    open_inference::{
        InferParameter, ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelReadyRequest,
        ServerMetadataRequest, ServerReadyRequest,
        grpc_inference_service_client::GrpcInferenceServiceClient,
        infer_parameter::ParameterChoice,
        model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
    },
};
use asterism_crypto::{Digest, Signed};
use asterism_fhe::{client, keys::SecretKey};
use tonic::{Code, Request, Status, metadata::MetadataValue, transport::Channel};

use crate::support::{BREAST_CANCER, World, feature_rows, order, train, upload};

struct Peer {
    client: GrpcInferenceServiceClient<Channel>,
    token: String,
}

impl Peer {
    async fn of(world: &World, role: Role) -> Self {
        let url = world.constellation.endpoints().inference.clone();
        Self {
            client: GrpcInferenceServiceClient::new(
                Channel::from_shared(url).unwrap().connect().await.unwrap(),
            ),
            token: world.constellation.authority().mint(
                &"user/admin".parse().unwrap(),
                &[role],
                Duration::from_secs(600),
                SystemTime::now(),
            ),
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let bearer = format!("Bearer {}", self.token);
        request
            .metadata_mut()
            .insert("authorization", MetadataValue::try_from(bearer).unwrap());
        request
    }

    async fn infer(&mut self, message: ModelInferRequest) -> Result<ModelInferResponse, Status> {
        let request = self.request(message);
        self.client
            .model_infer(request)
            .await
            .map(tonic::Response::into_inner)
    }
}

fn input(
    model: &str,
    version: &str,
    tensor: &str,
    datatype: &str,
    shape: &[i64],
    raw: Vec<u8>,
) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.into(),
        model_version: version.into(),
        id: "seven".into(),
        inputs: vec![InferInputTensor {
            name: tensor.into(),
            datatype: datatype.into(),
            shape: shape.to_vec(),
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![raw],
        ..ModelInferRequest::default()
    }
}

fn elements(mut raw: &[u8]) -> Vec<Vec<u8>> {
    let mut elements = vec![];
    while let Some((length, rest)) = raw.split_first_chunk::<4>() {
        let (element, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        elements.push(element.to_vec());
        raw = rest;
    }
    elements
}

#[tokio::test(flavor = "multi_thread")]
async fn clear_and_encrypted_models_answer_as_they_do_by_the_services_own_contract() {
    let world = World::start().await;
    let services = world.admin();
    let dataset = upload(&services, BREAST_CANCER).await.unwrap();
    let mut wish = order(&dataset.name, Algorithm::GradientBoostedTrees);
    wish.hyperparameters = [("trees", "10"), ("depth", "3")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let model = train(&services, wish).await.unwrap();
    let rows: Vec<Vec<f64>> = feature_rows(&model.features).into_iter().take(20).collect();
    let mut peer = Peer::of(&world, Role::Admin).await;

    let request = peer.request(ServerReadyRequest {});
    assert!(
        peer.client
            .server_ready(request)
            .await
            .unwrap()
            .into_inner()
            .ready
    );
    let request = peer.request(ServerMetadataRequest {});
    let server = peer.client.server_metadata(request).await.unwrap().into_inner();
    assert_eq!(server.name, "asterism-inference");

    // In the clear.
    let expected = services
        .inference
        .predict(&model.name, rows.clone())
        .await
        .unwrap();
    let raw: Vec<u8> = rows
        .iter()
        .flatten()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let answer = peer
        .infer(input(&model.name, "", "input", "FP64", &[20, 30], raw.clone()))
        .await
        .unwrap();
    assert_eq!(
        (answer.id.as_str(), answer.model_version.as_str()),
        ("seven", "clear")
    );
    let names: Vec<&str> = answer.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["probabilities", "class"]);
    assert_eq!(answer.outputs[0].shape, [20, 2]);
    let probabilities: Vec<f64> = answer.raw_output_contents[0]
        .as_chunks::<8>()
        .0
        .iter()
        .map(|bytes| f64::from_le_bytes(*bytes))
        .collect();
    let classes = elements(&answer.raw_output_contents[1]);
    for ((expected, probabilities), class) in expected
        .predictions
        .iter()
        .zip(probabilities.chunks(2))
        .zip(&classes)
    {
        assert_eq!(expected.probabilities, probabilities);
        assert_eq!(expected.class.as_bytes(), class);
    }
    let mut one = input(&model.name, "clear", "input", "FP64", &[20, 30], raw.clone());
    one.outputs = vec![InferRequestedOutputTensor {
        name: "class".into(),
        ..InferRequestedOutputTensor::default()
    }];
    assert_eq!(
        elements(&peer.infer(one).await.unwrap().raw_output_contents[0]),
        classes
    );

    // Encrypted: not before it is compiled.
    let metadata = |version: &str| ModelMetadataRequest {
        name: model.name.clone(),
        version: version.into(),
    };
    let request = peer.request(metadata("encrypted"));
    let refused = peer.client.model_metadata(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let compiled = services
        .encrypted
        .compile(&model.name, Plan::Paths, false)
        .await
        .unwrap();
    let request = peer.request(metadata("encrypted"));
    let described = peer.client.model_metadata(request).await.unwrap().into_inner();
    assert_eq!(described.versions, ["clear", "encrypted"]);
    assert_eq!(
        (
            described.inputs[0].name.as_str(),
            described.inputs[0].datatype.as_str()
        ),
        ("query", "BYTES")
    );
    let request = peer.request(ModelReadyRequest {
        name: model.name.clone(),
        version: "encrypted".into(),
    });
    assert!(peer.client.model_ready(request).await.unwrap().into_inner().ready);

    let bundle = services.encrypted.bundle(&model.name).await.unwrap();
    let secret = SecretKey::generate(bundle.params_id()).unwrap();
    let key = client::evaluation_key(&secret).unwrap().unwrap();
    let key = services
        .encrypted
        .register_evaluation_key(bundle.params_id(), key, |_| {})
        .await
        .unwrap();
    let queries: Vec<_> = rows[..2]
        .iter()
        .map(|row| client::encrypt(&bundle, &secret, row).unwrap())
        .collect();
    let mut raw_queries = vec![];
    for query in &queries {
        raw_queries.extend_from_slice(&(query.bytes.len() as u32).to_le_bytes());
        raw_queries.extend_from_slice(&query.bytes);
    }
    let mut ask = input(&model.name, "encrypted", "query", "BYTES", &[2], raw_queries);
    let refused = peer.infer(ask.clone()).await.unwrap_err();
    assert_eq!(
        refused.code(),
        Code::FailedPrecondition,
        "no key named: {refused}"
    );
    ask.parameters.insert(
        "evaluation_key".into(),
        InferParameter {
            parameter_choice: Some(ParameterChoice::StringParam(key.name)),
        },
    );
    let answer = peer.infer(ask).await.unwrap();
    let digest = &answer.parameters["compiled_sha256"].parameter_choice;
    assert_eq!(
        digest,
        &Some(ParameterChoice::StringParam(
            Digest::from_bytes(compiled.compiled_sha256.try_into().unwrap()).to_string()
        ))
    );
    let replies = elements(&answer.raw_output_contents[0]);
    let receipts = elements(&answer.raw_output_contents[1]);
    for (((query, reply), receipt), expected) in queries
        .iter()
        .zip(&replies)
        .zip(&receipts)
        .zip(&expected.predictions)
    {
        let prediction = client::decrypt(&bundle, &secret, &query.digest, reply).unwrap();
        assert_eq!(bundle.classes()[prediction.class.unwrap()], expected.class);
        let receipt: Signed = serde_json::from_slice(receipt).unwrap();
        let payload: serde_json::Value = serde_json::from_slice(&receipt.payload).unwrap();
        assert_eq!(payload["query_sha256"], Digest::of(&query.bytes).to_string());
        assert_eq!(payload["reply_sha256"], Digest::of(reply).to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_precisely() {
    let world = World::start().await;
    let services = world.admin();
    let dataset = upload(&services, BREAST_CANCER).await.unwrap();
    let model = train(&services, order(&dataset.name, Algorithm::LogisticRegression))
        .await
        .unwrap();
    let mut peer = Peer::of(&world, Role::Admin).await;
    let raw = vec![0; 8 * 30];
    for (name, version, tensor, datatype, shape, code) in [
        (
            "models/none",
            "",
            "input",
            "FP64",
            &[1, 30][..],
            Code::InvalidArgument,
        ),
        (&model.name, "2", "input", "FP64", &[1, 30], Code::InvalidArgument),
        (&model.name, "", "inputs", "FP64", &[1, 30], Code::InvalidArgument),
        (&model.name, "", "input", "FP16", &[1, 30], Code::InvalidArgument),
        (&model.name, "", "input", "FP64", &[30, 2], Code::InvalidArgument),
        (
            &model.name,
            "",
            "input",
            "FP64",
            &[i64::MAX, i64::MAX],
            Code::InvalidArgument,
        ),
        (&model.name, "", "input", "FP64", &[2, 15], Code::InvalidArgument),
        (
            &model.name,
            "encrypted",
            "query",
            "BYTES",
            &[1],
            Code::InvalidArgument,
        ),
    ] {
        let asked = input(name, version, tensor, datatype, shape, raw.clone());
        let refused = peer.infer(asked).await.unwrap_err();
        assert_eq!(
            refused.code(),
            code,
            "{name} {version} {tensor} {datatype} {shape:?}: {refused}"
        );
    }
    let mut viewer = Peer::of(&world, Role::Viewer).await;
    let refused = viewer
        .infer(input(&model.name, "", "input", "FP64", &[1, 30], raw))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}
