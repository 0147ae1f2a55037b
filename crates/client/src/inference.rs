//! The inference service.

use std::time::Duration;

use asterism_proto::inference::{
    self as pb, import_model_request, inference_service_client::InferenceServiceClient, train_response,
};
use futures::Stream;
use tonic::{Streaming, service::interceptor::InterceptedService, transport::Channel};

use crate::{
    connection::{Carried, Connection, MAX_MESSAGE_BYTES},
    error::ClientError,
};

type Client = InferenceServiceClient<InterceptedService<Channel, Carried>>;

/// Deadline of calls whose work grows with a dataset.
const LONG: Duration = Duration::from_secs(600);

/// Bytes of a file in one message.
const CHUNK_BYTES: usize = 1 << 20;

/// Client of `asterism.inference.v1.InferenceService`. Models are named `models/{id}`.
#[derive(Clone)]
pub struct Inference {
    connection: Connection,
}

impl Inference {
    /// A client over `connection`.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    fn client(&self) -> Client {
        Client::new(self.connection.service())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn streaming(&self) -> Client {
        Client::new(self.connection.streaming()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Trains a model; `progress` is told every step.
    pub async fn train(
        &self,
        request: pb::TrainRequest,
        mut progress: impl FnMut(pb::Progress),
    ) -> Result<pb::Model, ClientError> {
        let mut stream = self.connection.once(self.streaming().train(request)).await?;
        while let Some(message) = self.next(&mut stream).await? {
            match message.update {
                Some(train_response::Update::Progress(step)) => progress(step),
                Some(train_response::Update::Model(model)) => return Ok(model),
                None => {}
            }
        }
        Err(ClientError::Protocol("the training ended without a model"))
    }

    /// Stores a model that XGBoost trained: a file in its JSON format.
    pub async fn import(
        &self,
        display_name: &str,
        request_id: &str,
        file: Vec<u8>,
    ) -> Result<pb::Model, ClientError> {
        let header = import_model_request::Part::Header(pb::ImportModelHeader {
            display_name: display_name.to_owned(),
            request_id: request_id.to_owned(),
        });
        let count = file.len().div_ceil(CHUNK_BYTES);
        let chunks = (0..count).map(move |index| {
            let end = file.len().min((index + 1) * CHUNK_BYTES);
            import_model_request::Part::Chunk(file[index * CHUNK_BYTES..end].to_vec())
        });
        let parts = std::iter::once(header).chain(chunks);
        let requests = parts.map(|part| pb::ImportModelRequest { part: Some(part) });
        let patient = Self {
            connection: self.connection.clone().with_deadline(Some(LONG)),
        };
        patient
            .connection
            .once(patient.client().import_model(futures::stream::iter(requests)))
            .await
    }

    /// A page of models, and the token of the next page (empty at the end).
    pub async fn list(
        &self,
        page_size: i32,
        page_token: &str,
    ) -> Result<(Vec<pb::Model>, String), ClientError> {
        let request = pb::ListModelsRequest {
            page_size,
            page_token: page_token.to_owned(),
        };
        let page = self
            .connection
            .retrying(|| client_call!(self, list_models, request))
            .await?;
        Ok((page.models, page.next_page_token))
    }

    /// Metadata of a model.
    pub async fn get(&self, name: &str) -> Result<pb::Model, ClientError> {
        let request = pb::GetModelRequest {
            name: name.to_owned(),
        };
        self.connection
            .retrying(|| client_call!(self, get_model, request))
            .await
    }

    /// Deletes a model.
    pub async fn delete(&self, name: &str) -> Result<(), ClientError> {
        let request = pb::DeleteModelRequest {
            name: name.to_owned(),
        };
        self.connection
            .once(self.client().delete_model(request))
            .await
            .map(drop)
    }

    /// Evaluates a model on the held-out rows of its own dataset (`dataset` empty) or on another dataset.
    pub async fn evaluate(&self, name: &str, dataset: &str) -> Result<pb::Evaluation, ClientError> {
        let request = pb::EvaluateRequest {
            name: name.to_owned(),
            dataset: dataset.to_owned(),
        };
        let patient = Self {
            connection: self.connection.clone().with_deadline(Some(LONG)),
        };
        patient
            .connection
            .retrying(|| client_call!(patient, evaluate, request))
            .await
    }

    /// Predicts rows, each in the order of the model's features; NaN means missing.
    pub async fn predict(&self, name: &str, rows: Vec<Vec<f64>>) -> Result<pb::PredictResponse, ClientError> {
        let rows = rows.into_iter().map(|values| pb::FeatureRow { values }).collect();
        let request = pb::PredictRequest {
            name: name.to_owned(),
            rows,
        };
        self.connection
            .retrying(|| client_call!(self, predict, request))
            .await
    }

    /// Streams rows in and predictions out, in order.
    pub async fn batch_predict(
        &self,
        requests: impl Stream<Item = pb::BatchPredictRequest> + Send + 'static,
    ) -> Result<Streaming<pb::BatchPredictResponse>, ClientError> {
        self.connection
            .once(self.streaming().batch_predict(requests))
            .await
    }

    /// Predictions for every row of an encrypted dataset, in order.
    pub async fn predict_dataset(
        &self,
        name: &str,
        dataset: &str,
    ) -> Result<Vec<pb::Prediction>, ClientError> {
        let request = pb::BatchPredictRequest {
            name: name.to_owned(),
            rows: vec![],
            dataset: dataset.to_owned(),
        };
        let mut stream = self.batch_predict(futures::stream::iter([request])).await?;
        let mut predictions = Vec::new();
        while let Some(message) = self.next(&mut stream).await? {
            predictions.extend(message.predictions);
        }
        Ok(predictions)
    }

    async fn next<T>(&self, stream: &mut Streaming<T>) -> Result<Option<T>, ClientError> {
        stream
            .message()
            .await
            .map_err(|status| self.connection.error(&status))
    }
}
