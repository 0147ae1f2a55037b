//! Forwarding to an audit service on a real connection.

use std::{net::SocketAddr, sync::atomic::AtomicU64};

use asterism_proto::audit::{
    self, AppendEventsRequest, AppendEventsResponse, ListEventsRequest, ListEventsResponse, VerifyLogRequest,
    VerifyLogResponse, WatchEventsRequest, WatchEventsResponse,
    audit_service_server::{AuditService, AuditServiceServer},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::*;

/// An audit service that keeps what it is given in the order of arrival, and may answer with an error all the same.
#[derive(Clone, Default)]
struct Stub {
    events: Arc<Mutex<Vec<Event>>>,
    /// Answers that are lost after the events were kept.
    lose: Arc<AtomicU64>,
    largest: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl AuditService for Stub {
    async fn append_events(
        &self,
        request: Request<AppendEventsRequest>,
    ) -> Result<Response<AppendEventsResponse>, Status> {
        let token = request.metadata().get("authorization").cloned();
        if token.is_none_or(|token| token != "Bearer the-token") {
            return Err(Status::unauthenticated("no token"));
        }
        if request.metadata().get("grpc-timeout").is_none() {
            return Err(Status::invalid_argument("no deadline"));
        }
        let events = request.into_inner().events;
        self.largest.fetch_max(events.len() as u64, Ordering::SeqCst);
        self.events.lock().expect("events").extend(events);
        let lost = self
            .lose
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match lost {
            Ok(_) => Err(Status::unavailable("the answer was lost")),
            Err(_) => Ok(Response::new(AppendEventsResponse::default())),
        }
    }

    async fn list_events(
        &self,
        _: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    type WatchEventsStream = tokio_stream::Empty<Result<WatchEventsResponse, Status>>;

    async fn watch_events(
        &self,
        _: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn verify_log(&self, _: Request<VerifyLogRequest>) -> Result<Response<VerifyLogResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
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

impl Stub {
    async fn serve(&self, addr: SocketAddr) -> JoinHandle<()> {
        let listener = TcpListener::bind(addr).await.expect("bound");
        let service = AuditServiceServer::new(self.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(async move {
            server
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .expect("served");
        })
    }

    /// The sequence numbers in the order in which each arrived first.
    fn sequences(&self) -> Vec<u64> {
        let mut seen = BTreeSet::new();
        let events = self.events.lock().expect("events");
        events
            .iter()
            .map(|event| event.source_sequence)
            .filter(|sequence| seen.insert(*sequence))
            .collect()
    }
}

/// An address on which nobody listens.
async fn unused() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bound")
        .local_addr()
        .expect("address")
}

fn sink(addr: SocketAddr) -> Sink {
    Sink::Grpc {
        endpoint: format!("http://{addr}"),
        pin: None,
        token: Arc::new(|| "the-token".to_owned()),
    }
}

async fn record(outbox: &Outbox, count: usize) {
    for _ in 0..count {
        outbox.record_async(event("keys/k")).await.expect("recorded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_that_was_down_gets_everything_in_order() {
    let dir = tempfile::tempdir().expect("directory");
    let addr = unused().await;
    let outbox = open(dir.path(), LIMITS, sink(addr));
    record(&outbox, 20).await;
    assert!(!outbox.flush(Duration::from_millis(100)).await, "nobody is there");
    assert_eq!(outbox.depth(), 20);

    let stub = Stub::default();
    let serving = stub.serve(addr).await;
    assert!(outbox.flush(Duration::from_secs(20)).await);
    assert_eq!(stub.sequences(), (1..=20).collect::<Vec<_>>());

    serving.abort();
    assert!(serving.await.expect_err("aborted").is_cancelled());
    record(&outbox, 5).await;
    let _serving = stub.serve(addr).await;
    assert!(outbox.flush(Duration::from_secs(20)).await);
    assert_eq!(stub.sequences(), (1..=25).collect::<Vec<_>>());
    assert!(outbox.check().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_goes_again_under_the_same_ids() {
    let stub = Stub::default();
    stub.lose.store(2, Ordering::SeqCst);
    let addr = unused().await;
    let _serving = stub.serve(addr).await;
    let dir = tempfile::tempdir().expect("directory");
    let outbox = open(dir.path(), LIMITS, sink(addr));
    record(&outbox, 3).await;
    assert!(outbox.flush(Duration::from_secs(20)).await);
    assert_eq!(stub.sequences(), [1, 2, 3]);
    let events = stub.events.lock().expect("events").clone();
    assert!(events.len() > 3, "some went twice");
    let ids: BTreeSet<_> = events
        .iter()
        .map(|e| (e.source_sequence, e.event_id.clone()))
        .collect();
    assert_eq!(ids.len(), 3);
    assert!(
        events
            .iter()
            .all(|e| e.source == "kms" && e.principal == "user/alice")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_queue_goes_in_bounded_batches() {
    let addr = unused().await;
    let dir = tempfile::tempdir().expect("directory");
    let outbox = open(dir.path(), LIMITS, sink(addr));
    record(&outbox, 1_200).await;
    let stub = Stub::default();
    let _serving = stub.serve(addr).await;
    assert!(outbox.flush(Duration::from_secs(20)).await);
    assert_eq!(stub.sequences(), (1..=1_200).collect::<Vec<_>>());
    assert!(stub.largest.load(Ordering::SeqCst) <= 500);
}
