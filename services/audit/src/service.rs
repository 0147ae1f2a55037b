//! The gRPC adapter: who asks, parse, one call into the domain, translate.

use std::{sync::Arc, time::SystemTime};

use asterism_chassis::{
    call::{Emitter, Gate, ReplyStream},
    error::{ErrorClass, Failure},
    paging::page_size,
};
use asterism_proto::audit::{self as pb, audit_service_server::AuditService};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    checkpoint::Checkpoints,
    error::AuditError,
    log::{Filter, Log},
    wire,
};

/// Most events of an append that asks for receipts.
const MAX_RECEIPTS: usize = 100;
/// Entries of one message of those that stream their bytes: of the largest entries less than a megabyte.
const READ_STRIDE: usize = 256;
/// Entries that are read for a watcher in one go.
const WATCH_STRIDE: usize = 256;

pub(crate) struct Adapter {
    gate: Gate,
    log: Arc<Log>,
    checkpoints: Arc<Checkpoints>,
    /// Durable entries, as they grow.
    size: Arc<watch::Sender<u64>>,
    draining: CancellationToken,
}

impl Adapter {
    pub(crate) fn new(
        gate: Gate,
        log: Arc<Log>,
        checkpoints: Arc<Checkpoints>,
        size: Arc<watch::Sender<u64>>,
        draining: CancellationToken,
    ) -> Self {
        Self {
            gate,
            log,
            checkpoints,
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
        let (log, size, checkpoints) = (self.log.clone(), self.size.clone(), self.checkpoints.clone());
        self.gate
            .blocking("audit.AppendEvents", request, move |caller, message, trail| {
                // An event about an event would have no end.
                trail.silent();
                let source = wire::source(&caller.principal.id)?;
                if message.receipts && message.events.len() > MAX_RECEIPTS {
                    let text = format!("at most {MAX_RECEIPTS} in one call that asks for receipts");
                    return Err(AuditError::field("events", text).into());
                }
                let events = wire::events(source, message.events)?;
                let indexes = log.append(&events, SystemTime::now().into())?;
                wire::grow(&size, log.size());
                let receipts = if message.receipts && !indexes.is_empty() {
                    receipts(&log, &checkpoints, &indexes)?
                } else {
                    vec![]
                };
                Ok(pb::AppendEventsResponse { indexes, receipts })
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
                let limit = page_size(message.page_size)?;
                let filter = wire::filter(message.filter)?;
                let from = wire::page_start(&message.page_token, &filter)?;
                let page = log.find(&filter, from, limit)?;
                Ok(pb::ListEventsResponse {
                    entries: page.entries.into_iter().map(wire::log_entry).collect(),
                    next_page_token: wire::page_token(page.next, &filter),
                    log_size: page.size,
                })
            })
            .await
    }

    async fn watch_events(
        &self,
        request: Request<pb::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let (log, size, draining) = (self.log.clone(), self.size.subscribe(), self.draining.clone());
        // Before the answer begins: whoever has it may rely on seeing what is appended from now on.
        let now = log.size();
        self.gate
            .watch(
                "audit.WatchEvents",
                request,
                move |_, message, emitter| async move {
                    emitter.trail(|trail| {
                        trail.silent();
                    });
                    let filter = wire::filter(message.filter)?;
                    let from = message.from_index.unwrap_or(now);
                    tokio::select! {
                        result = follow(log, size, filter, from, &emitter) => result,
                        () = draining.cancelled() => Err(shutting_down()),
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
                let report = log.verify()?;
                trail.output_digest(report.head.root);
                if let Some((index, problem)) = &report.bad {
                    tracing::error!(index, problem, "the log does not verify");
                }
                Ok(wire::report(report))
            })
            .await
    }

    async fn get_checkpoint(
        &self,
        request: Request<pb::GetCheckpointRequest>,
    ) -> Result<Response<pb::GetCheckpointResponse>, Status> {
        let checkpoints = self.checkpoints.clone();
        self.gate
            .blocking("audit.GetCheckpoint", request, move |_, _, trail| {
                trail.silent();
                let signed = checkpoints.publish()?;
                Ok(wire::checkpoint(&signed, checkpoints.verifier_keys()))
            })
            .await
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<pb::GetInclusionProofRequest>,
    ) -> Result<Response<pb::GetInclusionProofResponse>, Status> {
        let (log, checkpoints) = (self.log.clone(), self.checkpoints.clone());
        self.gate
            .blocking("audit.GetInclusionProof", request, move |_, message, trail| {
                trail.silent();
                let index = wire::wanted_entry(&log, message.entry)?;
                if message.tree_size > 0 {
                    let proved = log.inclusion(index, message.tree_size)?;
                    return Ok(wire::inclusion(proved, String::new()));
                }
                let checkpoint = checkpoints.publish()?;
                let proved = log.inclusion(index, checkpoint.checkpoint().size)?;
                let receipt = Checkpoints::receipt(proved.proof.clone(), checkpoint)?;
                Ok(wire::inclusion(proved, receipt))
            })
            .await
    }

    async fn get_consistency_proof(
        &self,
        request: Request<pb::GetConsistencyProofRequest>,
    ) -> Result<Response<pb::GetConsistencyProofResponse>, Status> {
        let log = self.log.clone();
        self.gate
            .blocking("audit.GetConsistencyProof", request, move |_, message, trail| {
                trail.silent();
                let to = match message.to_size {
                    0 => log.size(),
                    size => size,
                };
                Ok(wire::consistency(log.consistency(message.from_size, to)?))
            })
            .await
    }

    type ReadEntriesStream = ReplyStream<pb::ReadEntriesResponse>;

    async fn read_entries(
        &self,
        request: Request<pb::ReadEntriesRequest>,
    ) -> Result<Response<Self::ReadEntriesStream>, Status> {
        let log = self.log.clone();
        self.gate
            .stream(
                "audit.ReadEntries",
                request,
                move |_, message, emitter| async move {
                    emitter.trail(|trail| {
                        trail.silent();
                    });
                    let until = wire::read_until(&message, log.size())?;
                    let sent = tokio::task::spawn_blocking(move || {
                        send_entries(&log, message.from, until, &emitter)
                    });
                    sent.await.map_err(|error| Failure::internal(error.to_string()))?
                },
            )
            .await
    }
}

/// A receipt for each of these entries, all of one checkpoint.
fn receipts(log: &Log, checkpoints: &Checkpoints, indexes: &[u64]) -> Result<Vec<String>, AuditError> {
    let checkpoint = checkpoints.publish()?;
    let size = checkpoint.checkpoint().size;
    let indexes = indexes.iter();
    indexes
        .map(|index| Checkpoints::receipt(log.inclusion(*index, size)?.proof, checkpoint.clone()))
        .collect()
}

/// Sends the bytes of the entries from `next` on and below `until`.
fn send_entries(
    log: &Log,
    mut next: u64,
    until: u64,
    emitter: &Emitter<pb::ReadEntriesResponse>,
) -> Result<(), Failure> {
    while next < until {
        let left = usize::try_from(until - next).unwrap_or(usize::MAX);
        let entries = log.entry_bytes(next, left.min(READ_STRIDE))?;
        let first_index = next;
        next += entries.len() as u64;
        emitter.blocking_send(pb::ReadEntriesResponse { first_index, entries })?;
    }
    Ok(())
}

/// Sends every matching entry from `next` on, as the log grows. A slow watcher stands in nobody's way: it reads ranges of what
/// is durable, when it is ready for them.
async fn follow(
    log: Arc<Log>,
    mut size: watch::Receiver<u64>,
    filter: Filter,
    mut next: u64,
    emitter: &Emitter<pb::WatchEventsResponse>,
) -> Result<(), Failure> {
    let filter = Arc::new(filter);
    loop {
        while next < *size.borrow_and_update() {
            let (reader, wanted) = (log.clone(), filter.clone());
            let read = tokio::task::spawn_blocking(move || reader.find(&wanted, next, WATCH_STRIDE)).await;
            let page = read.map_err(|error| Failure::internal(error.to_string()))??;
            next = page.next.unwrap_or(page.size);
            for entry in page.entries {
                emitter
                    .send(pb::WatchEventsResponse {
                        entry: Some(wire::log_entry(entry)),
                    })
                    .await?;
            }
            if emitter.is_closed() {
                return Err(Failure::cancelled());
            }
        }
        tokio::select! {
            changed = size.changed() => changed.map_err(|_| shutting_down())?,
            () = emitter.closed() => return Err(Failure::cancelled()),
        }
    }
}

fn shutting_down() -> Failure {
    let text = "the service is shutting down; watch again from the next index";
    Failure::new(ErrorClass::Unavailable, "SHUTTING_DOWN", text)
}
