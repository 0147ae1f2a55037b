//! What happens around every call: its name, its trace, its deadline, its record, and a fence around panics.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use futures::{FutureExt as _, future::BoxFuture};
use http::{Request, Response};
use opentelemetry::{global, metrics::Histogram};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Instrument as _, Span, field};

use super::{
    body::{CallRecord, ObservedBody},
    deadline::{Budget, Deadline},
    method_path::{Method, MethodPath},
    wire::Arrived,
};
use crate::{
    config::Limits,
    telemetry::{RequestTrace, names},
};

/// How prost begins to say what is wrong with a message.
const MALFORMED: &str = "failed to decode Protobuf message";

/// Puts [`Edge`] around the routes.
#[derive(Clone)]
pub(super) struct EdgeLayer {
    shared: Arc<Shared>,
}

struct Shared {
    limits: Limits,
    durations: Histogram<f64>,
    /// Ends the streams that have no end of their own.
    stopping: CancellationToken,
    /// One token for every open call.
    calls: TaskTracker,
}

impl EdgeLayer {
    pub(super) fn new(limits: &Limits, stopping: CancellationToken, calls: TaskTracker) -> Self {
        Method::prepare();
        let durations = global::meter(names::SCOPE)
            .f64_histogram(names::RPC_SERVER_CALL_DURATION)
            .with_unit("s")
            .with_description("Duration of inbound calls")
            .with_boundaries(names::DURATION_BUCKETS.to_vec())
            .build();
        Self {
            shared: Arc::new(Shared {
                limits: limits.clone(),
                durations,
                stopping,
                calls,
            }),
        }
    }
}

impl<S> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        Edge {
            inner,
            shared: Arc::clone(&self.shared),
        }
    }
}

/// The outermost service of a server.
#[derive(Clone)]
pub(super) struct Edge<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request<Body>> for Edge<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<ObservedBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // tonic starts its own timer after this call returned: ours, which counts from here, is always due first.
        let arrived = Instant::now();
        let path = MethodPath::of(request.uri());
        let method = Method::find(&path);
        let span = open_span(method);
        let trace_id = RequestTrace::of(request.headers()).adopt(&span);
        span.record("trace_id", field::display(&trace_id));
        let budget = Budget::of(request.headers(), method, &self.shared.limits);
        let mut record = CallRecord::begin(
            name_of(method),
            span.clone(),
            self.shared.durations.clone(),
            self.shared.calls.token(),
        );

        let extensions = request.extensions_mut();
        if let Some(Arrived { tcp, peer }) = extensions.remove::<Arrived>() {
            extensions.insert(tcp);
            if let Some(peer) = peer {
                extensions.insert(peer);
            }
        }
        extensions.insert(path);
        extensions.insert(trace_id);
        if let Some(end) = budget.whole.and_then(|whole| arrived.checked_add(whole)) {
            extensions.insert(Deadline(end));
        }

        let due = (!budget.headers.is_zero()).then(|| arrived + budget.headers);
        // The service that was polled ready has to be the one that is called.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let shared = Arc::clone(&self.shared);
        let work = async move {
            let response = answer(&mut inner, request, due, &shared.limits).await;
            let stop = method
                .is_some_and(|method| method.is_endless())
                .then(|| shared.stopping.clone());
            record.see(response.headers());
            Ok(response.map(|body| ObservedBody::new(body, record, stop)))
        };
        Box::pin(work.instrument(span))
    }
}

/// The answer until `due`; the handler is dropped when the time is over. `None`: it is over already.
async fn answer<S>(
    inner: &mut S,
    request: Request<Body>,
    due: Option<Instant>,
    limits: &Limits,
) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let Some(due) = due else {
        return deadline_exceeded();
    };
    let guarded = AssertUnwindSafe(inner.call(request)).catch_unwind();
    match tokio::time::timeout_at(due.into(), guarded).await {
        Ok(Ok(Ok(response))) => explain_form(explain_size(response, limits)),
        Ok(Ok(Err(never))) => match never {},
        // The panic hook has logged where; the caller learns nothing of the inside.
        Ok(Err(_panic)) => refusal(Code::Internal, "internal error", "INTERNAL"),
        Err(_elapsed) => deadline_exceeded(),
    }
}

fn deadline_exceeded() -> Response<Body> {
    refusal(
        Code::DeadlineExceeded,
        "the deadline of the call passed",
        "DEADLINE_EXCEEDED",
    )
}

/// tonic answers OUT_OF_RANGE with its own words when a message is over the limit; ours name the way out.
fn explain_size(response: Response<Body>, limits: &Limits) -> Response<Body> {
    if response
        .headers()
        .get("grpc-status")
        .is_none_or(|code| code != "11")
    {
        return response;
    }
    let too_large = Status::from_header_map(response.headers())
        .is_some_and(|status| status.message().contains("message length too large"));
    if !too_large {
        return response;
    }
    let message = format!(
        "the message is larger than {} bytes: send data in pieces, as PutChunk does",
        limits.max_message_bytes
    );
    refusal(Code::OutOfRange, &message, "MESSAGE_TOO_LARGE")
}

/// tonic calls it an internal error when the bytes of a message are none of the contract's; that is the caller's.
fn explain_form(response: Response<Body>) -> Response<Body> {
    if response
        .headers()
        .get("grpc-status")
        .is_none_or(|code| code != "13")
    {
        return response;
    }
    // Failures of ours carry details, and other words.
    let malformed = Status::from_header_map(response.headers())
        .is_some_and(|status| status.details().is_empty() && status.message().contains(MALFORMED));
    if !malformed {
        return response;
    }
    refusal(
        Code::InvalidArgument,
        "the message cannot be read: make it from the published contract",
        "MALFORMED_MESSAGE",
    )
}

fn refusal(code: Code, message: &str, reason: &str) -> Response<Body> {
    let details = ErrorDetails::with_error_info(reason, "asterism", std::collections::HashMap::new());
    Status::with_error_details(code, message, details).into_http()
}

fn name_of(method: Option<Method>) -> &'static str {
    method.map_or(names::OTHER_METHOD, |method| method.name)
}

fn open_span(method: Option<Method>) -> Span {
    let name = name_of(method);
    tracing::info_span!(
        "call",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = field::Empty,
        { names::RPC_SYSTEM_NAME } = names::GRPC,
        { names::RPC_METHOD } = name,
        { names::RPC_STATUS_CODE } = field::Empty,
        trace_id = field::Empty,
    )
}
