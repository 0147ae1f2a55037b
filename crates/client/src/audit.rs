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

    /// A signed checkpoint of the log as it is now.
    pub async fn checkpoint(&self) -> Result<pb::GetCheckpointResponse, ClientError> {
        self.connection
            .retrying(|| client_call!(self, get_checkpoint, pb::GetCheckpointRequest {}))
            .await
    }

    /// Proof that an entry is in the log, with a receipt unless a tree size is asked for.
    pub async fn prove(
        &self,
        entry: pb::get_inclusion_proof_request::Entry,
        tree_size: Option<u64>,
    ) -> Result<pb::GetInclusionProofResponse, ClientError> {
        let request = pb::GetInclusionProofRequest {
            entry: Some(entry),
            tree_size: tree_size.unwrap_or_default(),
        };
        self.connection
            .retrying(|| client_call!(self, get_inclusion_proof, request))
            .await
    }

    /// Proof that the log of `from` entries is the beginning of that of `to` entries (`None`: as it is now).
    pub async fn prove_growth(
        &self,
        from: u64,
        to: Option<u64>,
    ) -> Result<pb::GetConsistencyProofResponse, ClientError> {
        let request = pb::GetConsistencyProofRequest {
            from_size: from,
            to_size: to.unwrap_or_default(),
        };
        self.connection
            .retrying(|| client_call!(self, get_consistency_proof, request))
            .await
    }

    /// The bytes of the entries from `from` on and below `until`, of which the leaves of the tree are the hashes.
    pub async fn read_entries(
        &self,
        from: u64,
        until: u64,
    ) -> Result<Streaming<pb::ReadEntriesResponse>, ClientError> {
        let request = pb::ReadEntriesRequest { from, until };
        let mut client =
            Client::new(self.connection.streaming()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        self.connection.once(client.read_entries(request)).await
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
