//! The audit service.

use std::time::Duration;

use asterism_proto::audit::{self as pb, audit_service_client::AuditServiceClient};
use tonic::{Streaming, service::interceptor::InterceptedService, transport::Channel};

use crate::{
    connection::{Carried, Connection, MAX_MESSAGE_BYTES},
    error::ClientError,
};

type Client = AuditServiceClient<InterceptedService<Channel, Carried>>;

/// Client of `asterism.audit.v1.AuditService`.
#[derive(Clone)]
pub struct Audit {
    connection: Connection,
}

impl Audit {
    /// A client over `connection`.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    fn client(&self) -> Client {
        Client::new(self.connection.service()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// A page of events in log order.
    pub async fn list(&self, request: pb::ListEventsRequest) -> Result<pb::ListEventsResponse, ClientError> {
        self.connection
            .retrying(|| client_call!(self, list_events, request))
            .await
    }

    /// Every event that matches, page by page.
    pub async fn list_all(&self, filter: pb::EventFilter) -> Result<Vec<pb::LogEntry>, ClientError> {
        let mut request = pb::ListEventsRequest {
            filter: Some(filter),
            page_size: 1000,
            page_token: String::new(),
        };
        let mut entries = Vec::new();
        loop {
            let page = self.list(request.clone()).await?;
            entries.extend(page.entries);
            if page.next_page_token.is_empty() {
                return Ok(entries);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Events from `from_index` on (unset: only new ones), then each new one as it becomes durable.
    pub async fn watch(
        &self,
        filter: pb::EventFilter,
        from_index: Option<u64>,
    ) -> Result<Streaming<pb::WatchEventsResponse>, ClientError> {
        let request = pb::WatchEventsRequest {
            filter: Some(filter),
            from_index,
        };
        let mut client =
            Client::new(self.connection.streaming()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        self.connection.once(client.watch_events(request)).await
    }

    /// Has the service recompute the Merkle tree over the whole log.
    pub async fn verify(&self) -> Result<pb::VerifyLogResponse, ClientError> {
        let patient = Self {
            connection: self
                .connection
                .clone()
                .with_deadline(Some(Duration::from_secs(600))),
        };
        patient
            .connection
            .retrying(|| client_call!(patient, verify_log, pb::VerifyLogRequest {}))
            .await
    }
}
