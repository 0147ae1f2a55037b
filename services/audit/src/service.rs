//! The gRPC adapter: who asks, parse, one call into the domain, translate.

use std::sync::Arc;

use asterism_chassis::{
    call::{Emitter, Gate, ReplyStream},
    error::{ErrorClass, Failure},
};
use asterism_proto::audit::{self as pb, audit_service_server::AuditService};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    error::AuditError,
    log::{Filter, Log},
    wire,
};

/// Entries that a watcher is given in one go.
const WATCH_STRIDE: usize = 256;

pub(crate) struct Adapter {
    gate: Gate,
    log: Arc<Log>,
    /// Durable entries, as they grow.
    size: Arc<watch::Sender<u64>>,
    draining: CancellationToken,
}

impl Adapter {
    pub(crate) fn new(
        gate: Gate,
        log: Arc<Log>,
        size: Arc<watch::Sender<u64>>,
        draining: CancellationToken,
    ) -> Self {
        Self {
            gate,
            log,
            size,
            draining,
        }
    }
}

#[tonic::async_trait]
impl AuditService for Adapter {
    type WatchEventsStream = ReplyStream<pb::WatchEventsResponse>;

    async fn append_events(
        &self,
        request: Request<pb::AppendEventsRequest>,
    ) -> Result<Response<pb::AppendEventsResponse>, Status> {
        let (log, size) = (self.log.clone(), self.size.clone());
        self.gate
            .blocking("audit.AppendEvents", request, move |caller, message, trail| {
                // An event about an event would have no end.
                trail.silent();
                let source = caller
                    .principal
                    .id
                    .as_str()
                    .strip_prefix("service/")
                    .unwrap_or_default();
                let indexes = log.append(&wire::new_events(source, message.events)?, wire::now_ms())?;
                wire::grow(&size, log.size());
                Ok(pb::AppendEventsResponse { indexes })
            })
            .await
    }

    async fn list_events(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        let log = self.log.clone();
        self.gate
            .blocking("audit.ListEvents", request, move |_, message, trail| {
                trail.silent();
                let limit = wire::page_size(message.page_size)?;
                let filter = wire::filter(message.filter)?;
                let from = wire::from_page_token(&message.page_token, &filter)?;
                let page = log.find(&filter, from, limit, wire::facts_of)?;
                Ok(pb::ListEventsResponse {
                    entries: page
                        .entries
                        .iter()
                        .map(wire::log_entry)
                        .collect::<Result<_, _>>()?,
                    next_page_token: wire::page_token(page.next, &filter),
                    log_size: log.size(),
                })
            })
            .await
    }

    async fn watch_events(
        &self,
        request: Request<pb::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let (log, size, draining) = (self.log.clone(), self.size.subscribe(), self.draining.clone());
        self.gate
            .watch(
                "audit.WatchEvents",
                request,
                move |_, message, emitter| async move {
                    emitter.trail(|trail| {
                        trail.silent();
                    });
                    let filter = wire::filter(message.filter)?;
                    let from = message.from_index.unwrap_or_else(|| log.size());
                    tokio::select! {
                        result = follow(log, size, filter, from, &emitter) => result,
                        () = draining.cancelled() => Err(Failure::new(
                            ErrorClass::Unavailable,
                            "SHUTTING_DOWN",
                            "the service is shutting down; watch again from the next index",
                        )),
                    }
                },
            )
            .await
    }

    async fn verify_log(
        &self,
        request: Request<pb::VerifyLogRequest>,
    ) -> Result<Response<pb::VerifyLogResponse>, Status> {
        let log = self.log.clone();
        self.gate
            .blocking("audit.VerifyLog", request, move |_, _, trail| {
                let report = log.verify(wire::identify)?;
                trail.output(report.head.chain.as_bytes());
                let (first_bad_index, problem) = report.bad.unzip();
                Ok(pb::VerifyLogResponse {
                    verified: first_bad_index.is_none(),
                    entries: report.head.size,
                    chain_sha256: wire::digest_bytes(&report.head.chain),
                    first_bad_index,
                    problem: problem.unwrap_or_default(),
                    sequence_problems: report.sequence_problems,
                })
            })
            .await
    }
}

/// Sends every matching entry from `next` on, as the log grows. A slow watcher waits in nobody's way: it reads ranges.
async fn follow(
    log: Arc<Log>,
    mut size: watch::Receiver<u64>,
    filter: Filter,
    mut next: u64,
    emitter: &Emitter<pb::WatchEventsResponse>,
) -> Result<(), Failure> {
    loop {
        while next < *size.borrow_and_update() {
            let reader = log.clone();
            let read = tokio::task::spawn_blocking(move || reader.entries(next, WATCH_STRIDE)).await;
            let entries = read.map_err(|error| Failure::internal(error.to_string()))??;
            let Some(last) = entries.last() else { break };
            next = last.index + 1;
            for entry in &entries {
                if filter.matches(&wire::facts_of(entry)?) {
                    let entry = Some(wire::log_entry(entry)?);
                    emitter.send(pb::WatchEventsResponse { entry }).await?;
                }
            }
        }
        tokio::select! {
            changed = size.changed() => changed.map_err(|_| AuditError::Damaged("the log is closed"))?,
            () = emitter.closed() => return Err(Failure::cancelled()),
        }
    }
}
