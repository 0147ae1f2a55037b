//! A call's answer as it leaves: observed to its end, so that the recorded duration and status are the caller's.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use opentelemetry::{KeyValue, metrics::Histogram};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::task_tracker::TaskTrackerToken,
};
use tonic::{Code, Status, body::Body};
use tracing::Span;

use crate::telemetry::names;

/// What is recorded about one call when it is over, whichever way it ends.
pub(super) struct CallRecord {
    method: &'static str,
    span: Span,
    durations: Histogram<f64>,
    started: Instant,
    /// `None` until a status was seen: a call that is dropped before was cancelled.
    status: Option<Code>,
    _open: TaskTrackerToken,
}

impl CallRecord {
    pub(super) fn begin(
        method: &'static str,
        span: Span,
        durations: Histogram<f64>,
        open: TaskTrackerToken,
    ) -> Self {
        Self {
            method,
            span,
            durations,
            started: Instant::now(),
            status: None,
            _open: open,
        }
    }

    /// Takes the status from headers or trailers that hold one.
    pub(super) fn see(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.status = Some(Code::from_bytes(code.as_bytes()));
        }
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        let code = self.status.unwrap_or(Code::Cancelled);
        let status = name_of(code);
        let seconds = self.started.elapsed().as_secs_f64();
        self.durations.record(
            seconds,
            &[
                KeyValue::new(names::RPC_SYSTEM_NAME, names::GRPC),
                KeyValue::new(names::RPC_METHOD, self.method),
                KeyValue::new(names::RPC_STATUS_CODE, status),
            ],
        );
        self.span.record(names::RPC_STATUS_CODE, status);
        if is_servers_fault(code) {
            self.span.record("otel.status_code", "ERROR");
        }
        tracing::debug!(parent: &self.span, status, seconds, "call ended");
    }
}

/// The codes that count as errors of a server span (OpenTelemetry, semantic conventions for gRPC).
fn is_servers_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A response body that tells its [`CallRecord`] how it ended, and that ends by itself when told to stop.
pub(super) struct ObservedBody {
    inner: Body,
    record: CallRecord,
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    stopped: bool,
}

impl ObservedBody {
    pub(super) fn new(inner: Body, record: CallRecord, stop: Option<CancellationToken>) -> Self {
        let stop = stop.map(|token| Box::pin(token.cancelled_owned()));
        Self {
            inner,
            record,
            stop,
            stopped: false,
        }
    }

    /// Ends an endless stream with UNAVAILABLE: its caller should watch another replica.
    fn end_for_shutdown(&mut self) -> HeaderMap {
        self.stopped = true;
        let mut trailers = HeaderMap::new();
        let status = Status::unavailable("the service is shutting down");
        if status.add_header(&mut trailers).is_err() {
            trailers.insert("grpc-status", http::HeaderValue::from_static("14"));
        }
        self.record.see(&trailers);
        trailers
    }
}

impl HttpBody for ObservedBody {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        if this.stopped {
            return Poll::Ready(None);
        }
        let span = this.record.span.clone();
        let _entered = span.enter();
        // The stream comes first, so that what it has to say at the end (NOT_SERVING) is said.
        let frame = match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Pending => {
                let stop = this
                    .stop
                    .as_mut()
                    .is_some_and(|stop| stop.as_mut().poll(context).is_ready());
                return if stop {
                    Poll::Ready(Some(Ok(Frame::trailers(this.end_for_shutdown()))))
                } else {
                    Poll::Pending
                };
            }
            Poll::Ready(frame) => frame,
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.record.see(trailers);
                }
            }
            Some(Err(status)) => this.record.status = Some(status.code()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.stopped || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
