//! Brings events to audit, at least once and in order.

use std::{sync::Arc, time::Duration};

use asterism_channel::Pins;
use asterism_proto::audit::{AppendEventsRequest, Event, audit_service_client::AuditServiceClient};
use tonic::{Code, Request, Status, metadata::MetadataValue, transport::Channel};

use super::Shared;
use crate::{channel::line, error::Failure};

/// Most events in one call.
const BATCH: usize = 500;
/// Events gather for so long before they leave: one call and one fsync at audit serve many.
const LINGER: Duration = Duration::from_millis(20);
/// A call to audit may take so long: a black hole must not hold up the others for ever.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Without new events for so long, a write of its own makes it durable which were acknowledged.
const IDLE: Duration = Duration::from_secs(1);

/// Makes a token for each call.
type Token = Arc<dyn Fn() -> String + Send + Sync>;
/// Appends within this process.
type Append = Arc<dyn Fn(Vec<Event>) -> Result<(), Failure> + Send + Sync>;

/// Where events go.
#[derive(Clone)]
pub enum Sink {
    /// To the audit service.
    Grpc {
        /// `http://host:port`, or `noise://host:port` with a pin.
        endpoint: String,
        /// Whom to expect there, and who calls, over the encrypted channel.
        pin: Option<Pins>,
        /// Makes a token of the role `service` for each call.
        token: Token,
    },
    /// Into a log in this process; blocks until they are durable.
    Local(Append),
    /// Nowhere yet: events wait here for an audit service to be configured.
    Hold,
}

/// Runs until the outbox is gone.
pub(super) async fn run(shared: Arc<Shared>, sink: Sink) {
    let closed = shared.closed.clone();
    // A call that this cuts off is repeated after the next start.
    let _ = closed.run_until_cancelled_owned(forward(shared, sink)).await;
}

async fn forward(shared: Arc<Shared>, sink: Sink) {
    let mut sender = Sender::new(sink);
    let mut pause = FIRST_PAUSE;
    let mut from = 0;
    loop {
        let reader = shared.clone();
        let read = tokio::task::spawn_blocking(move || reader.pending(from, BATCH)).await;
        let events = match read {
            Ok(Ok(events)) => events,
            Ok(Err(error)) => {
                tracing::error!(%error, source = shared.source, "the outbox cannot be read; restart the service");
                return;
            }
            // The runtime is going down.
            Err(_) => return,
        };
        if events.is_empty() {
            wait(&shared).await;
            linger(&shared).await;
            continue;
        }
        let (count, last) = (
            events.len(),
            events.last().map_or(from, |event| event.source_sequence),
        );
        match sender.send(events).await {
            Ok(()) => {
                pause = FIRST_PAUSE;
                from = last + 1;
                shared.delivered(count, from);
                if count < BATCH {
                    linger(&shared).await;
                }
            }
            Err(Refusal { problem, permanent }) => {
                let source = shared.source;
                if permanent {
                    // Dropping them would be worse: operations stop when the outbox is full, and somebody looks.
                    tracing::error!(
                        problem,
                        source,
                        "audit refuses events; mend the cause, or operations stop when the outbox is full"
                    );
                } else {
                    tracing::warn!(problem, source, "audit does not take events; trying again");
                }
                // Somebody who waits for the end has it tried at once.
                let _ = tokio::time::timeout(jittered(pause), shared.hurry.notified()).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Waits for events, and meanwhile settles what was acknowledged.
async fn wait(shared: &Arc<Shared>) {
    while tokio::time::timeout(IDLE, shared.wake.notified()).await.is_err() {
        if shared.is_unswept() {
            let sweeper = shared.clone();
            // A failed sweep closes the spool, which the next event reports.
            let _ = tokio::task::spawn_blocking(move || sweeper.sweep()).await;
        }
    }
}

/// Lets more events come along, unless somebody waits for the end.
async fn linger(shared: &Shared) {
    let _ = tokio::time::timeout(LINGER, shared.hurry.notified()).await;
}

/// Between half of `pause` and all of it, so that services do not come back in step.
fn jittered(pause: Duration) -> Duration {
    let [random, ..] = uuid::Uuid::new_v4().into_bytes();
    pause / 2 + pause / 2 * u32::from(random) / 255
}

/// Why events were not taken.
struct Refusal {
    problem: String,
    /// Whether trying again does not help by itself.
    permanent: bool,
}

impl Refusal {
    fn passing(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
            permanent: false,
        }
    }

    fn of(status: &Status) -> Self {
        let permanent = matches!(
            status.code(),
            Code::InvalidArgument
                | Code::FailedPrecondition
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::Unimplemented
                | Code::DataLoss
        );
        Self {
            problem: format!("{}: {}", status.code(), status.message()),
            permanent,
        }
    }
}

/// One way to deliver.
enum Sender {
    Grpc {
        client: Option<AuditServiceClient<Channel>>,
        token: Token,
        endpoint: String,
    },
    Local(Append),
    Hold,
}

impl Sender {
    fn new(sink: Sink) -> Self {
        match sink {
            Sink::Local(append) => Self::Local(append),
            Sink::Hold => Self::Hold,
            Sink::Grpc { endpoint, pin, token } => {
                let client = line::lazy(&endpoint, pin).map(AuditServiceClient::new);
                Self::Grpc {
                    client,
                    token,
                    endpoint,
                }
            }
        }
    }

    async fn send(&mut self, events: Vec<Event>) -> Result<(), Refusal> {
        match self {
            Self::Hold => {
                // Nothing changes without a restart; the events stay where they are.
                std::future::pending::<()>().await;
                Ok(())
            }
            Self::Local(append) => {
                let append = append.clone();
                let appended = tokio::task::spawn_blocking(move || append(events)).await;
                appended
                    .map_err(|error| Refusal::passing(error.to_string()))?
                    .map_err(|failure| Refusal::passing(failure.message()))
            }
            Self::Grpc {
                client,
                token,
                endpoint,
            } => {
                let client = client
                    .as_mut()
                    .ok_or_else(|| Refusal::passing(format!("{endpoint} is not an endpoint")))?;
                let mut request = Request::new(AppendEventsRequest {
                    events,
                    receipts: false,
                });
                let bearer = MetadataValue::try_from(format!("Bearer {}", token()))
                    .map_err(|error| Refusal::passing(error.to_string()))?;
                request.metadata_mut().insert("authorization", bearer);
                request.set_timeout(CALL_DEADLINE);
                match tokio::time::timeout(CALL_DEADLINE, client.append_events(request)).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(status)) => Err(Refusal::of(&status)),
                    Err(_) => Err(Refusal::passing("no answer in time")),
                }
            }
        }
    }
}
