//! A small service whose calls behave as their request asks, and clients for it.

use std::{pin::Pin, sync::Arc};

use asterism_proto::audit::{
    self, AppendEventsRequest, AppendEventsResponse, EventFilter, ListEventsRequest, ListEventsResponse,
    VerifyLogRequest, VerifyLogResponse, WatchEventsRequest, WatchEventsResponse,
    audit_service_client::AuditServiceClient,
    audit_service_server::{AuditService, AuditServiceServer},
};
use futures::Stream;
use tokio::{net::TcpListener, sync::Notify};
use tonic::{Request, Response, Status, transport::Channel};

use crate::{
    config::Common,
    server::{Deadline, MethodPath, Running, Server, ServerBuilder, TraceId},
};

/// What the handlers share with a test.
#[derive(Default)]
pub(super) struct Stage {
    /// Told when a call with the operation `wait` has begun.
    pub(super) begun: Notify,
    /// Lets such a call end.
    pub(super) release: Notify,
}

pub(super) struct Probe(pub(super) Arc<Stage>);

type Watch = Pin<Box<dyn Stream<Item = Result<WatchEventsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AuditService for Probe {
    async fn append_events(
        &self,
        _: Request<AppendEventsRequest>,
    ) -> Result<Response<AppendEventsResponse>, Status> {
        Ok(Response::new(AppendEventsResponse::default()))
    }

    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        let seen = seen(&request);
        match request.into_inner().filter.unwrap_or_default().operation.as_str() {
            "hang" => std::future::pending().await,
            "panic" => panic!("as asked"),
            "wait" => {
                self.0.begun.notify_one();
                self.0.release.notified().await;
            }
            _ => {}
        }
        Ok(Response::new(ListEventsResponse {
            next_page_token: seen,
            ..ListEventsResponse::default()
        }))
    }

    type WatchEventsStream = Watch;

    async fn watch_events(&self, request: Request<WatchEventsRequest>) -> Result<Response<Watch>, Status> {
        let deadline = request.extensions().get::<Deadline>().is_some();
        let mut response = Response::new(Box::pin(futures::stream::pending()) as Watch);
        response.metadata_mut().insert(
            "has-deadline",
            if deadline { "yes" } else { "no" }.parse().unwrap(),
        );
        Ok(response)
    }

    async fn verify_log(&self, _: Request<VerifyLogRequest>) -> Result<Response<VerifyLogResponse>, Status> {
        Err(Status::not_found("as asked"))
    }

    async fn get_checkpoint(
        &self,
        _: Request<audit::GetCheckpointRequest>,
    ) -> Result<Response<audit::GetCheckpointResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn get_inclusion_proof(
        &self,
        _: Request<audit::GetInclusionProofRequest>,
    ) -> Result<Response<audit::GetInclusionProofResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn get_consistency_proof(
        &self,
        _: Request<audit::GetConsistencyProofRequest>,
    ) -> Result<Response<audit::GetConsistencyProofResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    type ReadEntriesStream = tokio_stream::Empty<Result<audit::ReadEntriesResponse, Status>>;

    async fn read_entries(
        &self,
        _: Request<audit::ReadEntriesRequest>,
    ) -> Result<Response<Self::ReadEntriesStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

/// What the edge put into the request, as text.
fn seen(request: &Request<ListEventsRequest>) -> String {
    let extensions = request.extensions();
    let method = extensions
        .get::<MethodPath>()
        .map(|method| method.0.clone())
        .unwrap_or_default();
    let trace = extensions
        .get::<TraceId>()
        .map(ToString::to_string)
        .unwrap_or_default();
    let deadline = extensions
        .get::<Deadline>()
        .map(|deadline| deadline.0.elapsed().is_zero());
    let peer = request
        .remote_addr()
        .map(|peer| peer.ip().to_string())
        .unwrap_or_default();
    format!("{method} {trace} {deadline:?} {peer}")
}

pub(super) struct Fixture {
    pub(super) running: Running,
    pub(super) stage: Arc<Stage>,
    pub(super) client: AuditServiceClient<Channel>,
}

pub(super) fn common() -> Common {
    Common::embedded("audit", std::path::Path::new("unused"))
}

pub(super) async fn fixture() -> Fixture {
    fixture_with(&common(), |builder| builder).await
}

pub(super) async fn fixture_with(
    common: &Common,
    adjust: impl FnOnce(ServerBuilder) -> ServerBuilder,
) -> Fixture {
    let stage = Arc::new(Stage::default());
    let service = AuditServiceServer::new(Probe(Arc::clone(&stage)))
        .max_decoding_message_size(common.limits.max_message_bytes);
    let listener = TcpListener::bind(common.listen).await.unwrap();
    let running = adjust(Server::builder("audit", common).add(service))
        .spawn(listener)
        .unwrap();
    let client = AuditServiceClient::new(channel(&running));
    Fixture {
        running,
        stage,
        client,
    }
}

pub(super) fn channel(running: &Running) -> Channel {
    Channel::from_shared(running.url()).unwrap().connect_lazy()
}

pub(super) fn list(operation: &str) -> ListEventsRequest {
    let filter = EventFilter {
        operation: operation.to_owned(),
        ..EventFilter::default()
    };
    ListEventsRequest {
        filter: Some(filter),
        ..ListEventsRequest::default()
    }
}
