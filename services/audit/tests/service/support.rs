//! The service on a free port, and clients of it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use asterism_chassis::{
    StartError,
    config::Common,
    identity::{Authority, Role},
    server::Running,
};
use asterism_proto::audit::{
    AppendEventsRequest, AppendEventsResponse, Event, EventFilter, GetCheckpointRequest,
    GetCheckpointResponse, GetConsistencyProofRequest, GetConsistencyProofResponse, GetInclusionProofRequest,
    GetInclusionProofResponse, ListEventsRequest, ListEventsResponse, LogEntry, Outcome, ReadEntriesRequest,
    VerifyLogRequest, VerifyLogResponse, WatchEventsRequest, WatchEventsResponse,
    audit_service_client::AuditServiceClient,
};
use asterism_store::{SledOptions, SledRecords};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::{Code, Request, Status, Streaming, transport::Channel};
use tonic_types::StatusExt as _;

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    pub dir: TempDir,
    pub authority: Authority,
    pub audit: Running,
}

impl World {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(&dir.path().join("credentials")).unwrap();
        let audit = start(&dir).await.unwrap();
        Self {
            dir,
            authority,
            audit,
        }
    }

    /// The service ends, something happens to its data, and it starts again.
    pub async fn restart_after(self, change: impl FnOnce(&TempDir)) -> Self {
        let Self {
            dir,
            authority,
            audit,
        } = self;
        audit.shutdown().await;
        closed(&dir).await;
        change(&dir);
        let audit = start(&dir).await.unwrap();
        Self {
            dir,
            authority,
            audit,
        }
    }

    pub async fn restart(self) -> Self {
        self.restart_after(|_| {}).await
    }

    /// As [`World::restart_after`], when that is refused; gives the reason.
    pub async fn refused_after(self, change: impl FnOnce(&TempDir)) -> String {
        let Self { dir, audit, .. } = self;
        audit.shutdown().await;
        closed(&dir).await;
        change(&dir);
        start(&dir).await.err().expect("refused").to_string()
    }

    pub fn token(&self, principal: &str, roles: &[Role]) -> String {
        self.authority.mint(
            &principal.parse().unwrap(),
            roles,
            Duration::from_secs(600),
            SystemTime::now(),
        )
    }

    pub fn client(&self, principal: &str, roles: &[Role]) -> Client {
        self.with_token(Some(self.token(principal, roles)))
    }

    pub fn with_token(&self, token: Option<String>) -> Client {
        let channel = Channel::from_shared(self.audit.url()).unwrap().connect_lazy();
        let client = AuditServiceClient::new(channel).max_decoding_message_size(4 << 20);
        Client {
            client,
            token: token.map(Arc::from),
        }
    }

    pub fn kms(&self) -> Client {
        self.client("service/kms", &[Role::Service])
    }

    pub fn auditor(&self) -> Client {
        self.client("user/auditor", &[Role::Auditor])
    }
}

async fn start(dir: &TempDir) -> Result<Running, StartError> {
    let config = asterism_audit::Config {
        common: Common::embedded("audit", dir.path()),
    };
    asterism_audit::start(config, TcpListener::bind("127.0.0.1:0").await.unwrap()).await
}

pub fn data(dir: &TempDir) -> PathBuf {
    dir.path().join("audit")
}

/// Resolves when the service that was shut down has let go of its store: a task of its that is still noting the head needs
/// this runtime's only thread to end, so the wait must not take that.
async fn closed(dir: &TempDir) {
    let data = data(dir);
    tokio::task::spawn_blocking(move || drop(open(&data)))
        .await
        .unwrap();
}

/// The records of a service that is down.
pub fn records(dir: &TempDir) -> SledRecords {
    open(&data(dir))
}

fn open(data: &Path) -> SledRecords {
    let options = SledOptions {
        lock_patience: PATIENCE,
        ..SledOptions::default()
    };
    SledRecords::open(&data.join("records"), options).unwrap()
}

#[derive(Clone)]
pub struct Client {
    client: AuditServiceClient<Channel>,
    token: Option<Arc<str>>,
}

impl Client {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request
                .metadata_mut()
                .insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        request
    }

    pub async fn append(&self, events: Vec<Event>) -> Result<Vec<u64>, Status> {
        let request = self.request(AppendEventsRequest {
            events,
            receipts: false,
        });
        Ok(self
            .client
            .clone()
            .append_events(request)
            .await?
            .into_inner()
            .indexes)
    }

    pub async fn append_for_receipts(&self, events: Vec<Event>) -> Result<AppendEventsResponse, Status> {
        let request = AppendEventsRequest {
            events,
            receipts: true,
        };
        let answer = self.client.clone().append_events(self.request(request)).await?;
        Ok(answer.into_inner())
    }

    pub async fn checkpoint(&self) -> Result<GetCheckpointResponse, Status> {
        let request = self.request(GetCheckpointRequest {});
        Ok(self.client.clone().get_checkpoint(request).await?.into_inner())
    }

    pub async fn prove(
        &self,
        request: GetInclusionProofRequest,
    ) -> Result<GetInclusionProofResponse, Status> {
        let request = self.request(request);
        Ok(self
            .client
            .clone()
            .get_inclusion_proof(request)
            .await?
            .into_inner())
    }

    pub async fn prove_growth(
        &self,
        request: GetConsistencyProofRequest,
    ) -> Result<GetConsistencyProofResponse, Status> {
        let request = self.request(request);
        Ok(self
            .client
            .clone()
            .get_consistency_proof(request)
            .await?
            .into_inner())
    }

    pub async fn read_entries(&self, from: u64, until: u64) -> Result<Vec<Vec<u8>>, Status> {
        let request = self.request(ReadEntriesRequest { from, until });
        let mut stream = self.client.clone().read_entries(request).await?.into_inner();
        let mut entries = vec![];
        while let Some(message) = stream.message().await? {
            assert_eq!(message.first_index, from + entries.len() as u64);
            entries.extend(message.entries);
        }
        Ok(entries)
    }

    pub async fn list(&self, request: ListEventsRequest) -> Result<ListEventsResponse, Status> {
        Ok(self
            .client
            .clone()
            .list_events(self.request(request))
            .await?
            .into_inner())
    }

    pub async fn list_all(&self, filter: EventFilter, page_size: i32) -> Vec<LogEntry> {
        let mut request = ListEventsRequest {
            filter: Some(filter),
            page_size,
            page_token: String::new(),
        };
        let mut entries = vec![];
        loop {
            let page = self.list(request.clone()).await.unwrap();
            entries.extend(page.entries);
            if page.next_page_token.is_empty() {
                return entries;
            }
            request.page_token = page.next_page_token;
        }
    }

    pub async fn verify(&self) -> Result<VerifyLogResponse, Status> {
        Ok(self
            .client
            .clone()
            .verify_log(self.request(VerifyLogRequest {}))
            .await?
            .into_inner())
    }

    pub async fn watch(
        &self,
        filter: EventFilter,
        from_index: Option<u64>,
    ) -> Result<Streaming<WatchEventsResponse>, Status> {
        let request = self.request(WatchEventsRequest {
            filter: Some(filter),
            from_index,
        });
        Ok(self.client.clone().watch_events(request).await?.into_inner())
    }

    /// The first event that matches, as soon as it is there.
    pub async fn await_event(&self, filter: EventFilter) -> Event {
        let mut watch = self.watch(filter, Some(0)).await.unwrap();
        next(&mut watch).await.unwrap().event.unwrap()
    }
}

pub async fn next(watch: &mut Streaming<WatchEventsResponse>) -> Result<LogEntry, Status> {
    let message = tokio::time::timeout(PATIENCE, watch.message())
        .await
        .expect("in time")?;
    Ok(message.expect("no end without a status").entry.unwrap())
}

/// Event `number` of kms; the same for the same number.
pub fn event(number: u64) -> Event {
    of("kms", number)
}

pub fn of(source: &str, number: u64) -> Event {
    let kind = source.len();
    Event {
        event_id: format!("01900000-0000-7000-8{kind:03}-{number:012x}"),
        source: source.to_owned(),
        source_sequence: number + 1,
        occurred_at: Some(prost_types::Timestamp {
            seconds: 1000 + number as i64,
            nanos: 7,
        }),
        principal: format!("user/{}", number % 3),
        on_behalf_of: String::new(),
        operation: format!(
            "{source}.{}",
            if number.is_multiple_of(2) { "Even" } else { "Odd" }
        ),
        resource: format!("keys/{}", number % 5),
        key_version: 3,
        outcome: if number % 7 == 5 {
            Outcome::Denied
        } else {
            Outcome::Succeeded
        }
        .into(),
        reason: String::new(),
        request_id: format!("r{number}"),
        trace_id: format!("{:032x}", number / 4),
        token_id: format!("token{number}"),
        network: "192.0.2.1".to_owned(),
        input_sha256: vec![number as u8; 32],
        output_sha256: vec![],
    }
}

#[track_caller]
pub fn assert_refused<T>(result: Result<T, Status>, code: Code, reason: &str) -> Status {
    let Err(status) = result else {
        panic!("not refused")
    };
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(status.get_details_error_info().expect("details").reason, reason);
    status
}

/// The field that a refused request names.
#[track_caller]
pub fn wrong_field<T>(result: Result<T, Status>) -> String {
    let status = assert_refused(result, Code::InvalidArgument, "INVALID_FIELD");
    status
        .get_details_bad_request()
        .expect("details")
        .field_violations[0]
        .field
        .clone()
}
