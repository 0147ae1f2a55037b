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
    log::{Filter, Log},
    wire,
};

/// Entries that are read for a watcher in one go.
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
                let source = wire::source(&caller.principal.id)?;
                let events = wire::events(source, message.events)?;
                let indexes = log.append(&events, SystemTime::now().into())?;
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
