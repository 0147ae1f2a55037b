//! W3C trace context in and out of gRPC metadata.

use std::sync::LazyLock;

use http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceState},
};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{IdGenerator as _, RandomIdGenerator},
};
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// One propagator for all: it does not depend on whether [`init`](super::init) ran.
static PROPAGATOR: LazyLock<TraceContextPropagator> = LazyLock::new(TraceContextPropagator::new);

/// The trace that a request belongs to: 32 lower-case hex digits (W3C trace context). In every request's
/// extensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub String);

impl std::fmt::Display for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a request's headers say about its trace.
pub(crate) struct RequestTrace {
    remote: Context,
}

impl RequestTrace {
    /// Reads `traceparent` and `tracestate`; wrong ones count as absent (W3C trace context, 3.2.2).
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self {
            remote: PROPAGATOR.extract_with_context(&Context::new(), &Headers(headers)),
        }
    }

    /// Makes the caller's span the parent of `span` and answers the trace id: the span's own where spans are
    /// recorded, otherwise the caller's, otherwise a fresh one.
    pub(crate) fn adopt(self, span: &Span) -> TraceId {
        let remote = self.remote.span().span_context().clone();
        if remote.is_valid() {
            // Refused only where nobody records spans; the id below does not depend on it.
            let _ = span.set_parent(self.remote);
        }
        let own = span.context();
        let own = own.span().span_context().trace_id();
        let id = if own != opentelemetry::TraceId::INVALID {
            own
        } else if remote.is_valid() {
            remote.trace_id()
        } else {
            RandomIdGenerator::default().new_trace_id()
        };
        TraceId(id.to_string())
    }
}

/// Writes `traceparent` of the current span into the metadata of a call to another service.
///
/// Code that runs in `spawn_blocking` or `tokio::spawn` has the request's span only if it was carried along
/// (`.instrument(Span::current())`); where that is not sure, use [`inject_with`].
pub fn inject(metadata: &mut MetadataMap) {
    let context = Span::current().context();
    if context.span().span_context().is_valid() {
        PROPAGATOR.inject_context(&context, &mut Metadata(metadata));
    }
}

/// As [`inject`]; without a current span the call continues the trace `trace_id` (32 hex digits), so that audit
/// events of all services share it. A text that is no trace id is ignored.
pub fn inject_with(metadata: &mut MetadataMap, trace_id: &str) {
    let current = Span::current().context();
    if current.span().span_context().is_valid() {
        PROPAGATOR.inject_context(&current, &mut Metadata(metadata));
        return;
    }
    let id = opentelemetry::TraceId::from_hex(trace_id);
    let (32, Ok(trace_id)) = (trace_id.len(), id) else {
        return;
    };
    let span_id: SpanId = RandomIdGenerator::default().new_span_id();
    let span = SpanContext::new(
        trace_id,
        span_id,
        TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    );
    let context = Context::new().with_remote_span_context(span);
    PROPAGATOR.inject_context(&context, &mut Metadata(metadata));
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

struct Metadata<'a>(&'a mut MetadataMap);

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (
            MetadataKey::from_bytes(key.as_bytes()),
            MetadataValue::try_from(value),
        ) {
            self.0.insert(key, value);
        }
    }
}
