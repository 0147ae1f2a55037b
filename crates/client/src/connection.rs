//! A channel to one service, with what every call carries.

use std::{future::Future, path::PathBuf, sync::Arc, time::Duration};

use asterism_channel::{Connector, Pins, PublicKey, SCHEME};
use opentelemetry::trace::TraceContextExt as _;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataKey, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::{error::ClientError, line::Line};

/// Deadline of a unary call that sets none.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// Largest message that the SDK takes: a manifest of 16 384 columns fits.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Tries of an idempotent call before its transient error is reported.
const TRIES: u32 = 4;

type TokenSource = dyn Fn() -> Result<String, String> + Send + Sync;

/// Where the bearer token comes from. Asked anew for every call, so that short-lived tokens work.
#[derive(Clone)]
pub struct Credentials {
    source: Arc<TokenSource>,
}

impl Credentials {
    /// A fixed token.
    pub fn token(token: impl Into<String>) -> Self {
        let token = token.into();
        Self::source(move || Ok(token.clone()))
    }

    /// A token in a file, read at every call.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self::source(move || {
            std::fs::read_to_string(&path)
                .map(|text| text.trim().to_owned())
                .map_err(|error| format!("cannot read the token file {}: {error}", path.display()))
        })
    }

    /// A token made on demand.
    pub fn source(source: impl Fn() -> Result<String, String> + Send + Sync + 'static) -> Self {
        Self {
            source: Arc::new(source),
        }
    }

    /// No token: for health checks, and to see what a stranger sees.
    pub fn anonymous() -> Self {
        Self::token("")
    }
}

/// A lazily made HTTP/2 channel with credentials. Cheap to clone; reconnects by itself.
#[derive(Clone)]
pub struct Connection {
    endpoint: Arc<str>,
    line: Arc<Line>,
    /// The static key that the service sees: this side's on the encrypted channel, or a proxy's.
    own_key: Option<PublicKey>,
    carried: Carried,
}

impl Connection {
    /// A connection to `endpoint` (`http://host:port`); nothing is sent before the first call.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::Argument`] when the endpoint is not a URL.
    pub fn lazy(endpoint: &str, credentials: Credentials) -> Result<Self, ClientError> {
        Self::pinned(endpoint, None::<Pins>, credentials)
    }

    /// As [`Connection::lazy`], over the encrypted channel where there is a pin: to `noise://host:port`. The service
    /// has to have a key of the pins. When those change, new calls take a new connection; open ones go on over the old one.
    ///
    /// # Errors
    /// [`ClientError::Argument`] when the endpoint is not a URL, and when it goes with a pin and is not `noise://`, or
    /// the other way round: nothing is ever sent in the clear by mistake.
    pub fn pinned(
        endpoint: &str,
        pin: Option<impl Into<Pins>>,
        credentials: Credentials,
    ) -> Result<Self, ClientError> {
        let settings = |address: String| {
            let settings = Endpoint::from_shared(address).map_err(|_| {
                ClientError::Argument(format!(
                    "`{endpoint}` is not an endpoint like http://127.0.0.1:7001"
                ))
            })?;
            Ok::<_, ClientError>(
                settings
                    .connect_timeout(Duration::from_secs(5))
                    .tcp_nodelay(true)
                    .http2_keep_alive_interval(Duration::from_secs(20))
                    .keep_alive_timeout(Duration::from_secs(10))
                    .initial_stream_window_size(4 << 20)
                    .initial_connection_window_size(8 << 20),
            )
        };
        let pins = pin.map(Into::into);
        let own_key = pins
            .as_ref()
            .and_then(|pins: &Pins| pins.now().first().map(|pin| pin.own.public()));
        let line = match (pins, endpoint.strip_prefix(SCHEME)) {
            (None, None) => Line::fixed(settings(endpoint.to_owned())?.connect_lazy()),
            (Some(pins), Some(at)) => {
                let endpoint = settings(format!("http://{at}"))?;
                let connector = Connector::new(pins.clone());
                Line::pinned(pins, move || {
                    endpoint.connect_with_connector_lazy(connector.clone())
                })
            }
            (Some(_), None) => {
                return Err(ClientError::Argument(format!(
                    "`{endpoint}` is not an endpoint like {SCHEME}127.0.0.1:7001, and would be called in the clear"
                )));
            }
            (None, Some(_)) => {
                return Err(ClientError::Argument(format!(
                    "`{endpoint}` is reached over the encrypted channel, which needs its public key"
                )));
            }
        };
        Ok(Self {
            endpoint: endpoint.into(),
            line: Arc::new(line),
            own_key,
            carried: Carried {
                credentials,
                on_behalf_of: None,
                trace_id: None,
                deadline: Some(CALL_DEADLINE),
            },
        })
    }

    /// The same connection, acting for `principal`. Honoured by services only from principals with the role `service`.
    #[must_use]
    pub fn on_behalf_of(mut self, principal: &str) -> Self {
        self.carried.on_behalf_of = MetadataValue::try_from(principal).ok();
        self
    }

    /// The same connection, continuing the trace `trace_id` (32 hex digits) where the current span carries none.
    #[must_use]
    pub fn in_trace(mut self, trace_id: &str) -> Self {
        let valid = trace_id.len() == 32 && trace_id.bytes().all(|b| b.is_ascii_hexdigit());
        self.carried.trace_id = valid.then(|| trace_id.into());
        self
    }

    /// The same connection with another deadline for each call; `None` leaves it to the service.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Option<Duration>) -> Self {
        self.carried.deadline = deadline;
        self
    }

    /// The endpoint as configured.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The same connection with other credentials.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.carried.credentials = credentials;
        self
    }

    /// The same connection, known to lead through a proxy with this static key: the service sees that key. Said explicitly, since a login by key
    /// signs it, and must not sign whatever somebody in between would like.
    #[must_use]
    pub fn through(mut self, proxy: PublicKey) -> Self {
        self.own_key = Some(proxy);
        self
    }

    /// As whom the service sees this side: the static key of the encrypted channel as text, or `loopback`.
    pub(crate) fn sender(&self) -> String {
        self.own_key
            .map_or_else(|| "loopback".to_owned(), |key| key.to_string())
    }

    /// The channel for a generated client: adds token, trace and deadline to every request.
    pub fn service(&self) -> InterceptedService<Channel, Carried> {
        InterceptedService::new(self.line.channel(), self.carried.clone())
    }

    /// The service without a default deadline, for calls that stream.
    pub(crate) fn streaming(&self) -> InterceptedService<Channel, Carried> {
        InterceptedService::new(
            self.line.channel(),
            Carried {
                deadline: None,
                ..self.carried.clone()
            },
        )
    }

    pub(crate) fn error(&self, status: &Status) -> ClientError {
        ClientError::from_status(status, &self.endpoint)
    }

    /// Makes one call.
    pub(crate) async fn once<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, ClientError> {
        call.await
            .map(tonic::Response::into_inner)
            .map_err(|status| self.error(&status))
    }

    /// Makes an idempotent call, again after a transient error, with growing pauses.
    pub(crate) async fn retrying<T, F, Fut>(&self, mut call: F) -> Result<T, ClientError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let mut tried = 0;
        loop {
            tried += 1;
            match self.once(call()).await {
                Err(error) if error.is_transient() && tried < TRIES => {
                    let pause = error.retry_after().unwrap_or(Duration::from_millis(25 << tried));
                    tokio::time::sleep(pause.min(Duration::from_secs(2))).await;
                }
                answer => return answer,
            }
        }
    }
}

/// What every call carries in its metadata.
#[derive(Clone)]
pub struct Carried {
    credentials: Credentials,
    on_behalf_of: Option<MetadataValue<Ascii>>,
    trace_id: Option<Arc<str>>,
    deadline: Option<Duration>,
}

impl Interceptor for Carried {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let token = (self.credentials.source)().map_err(Status::unauthenticated)?;
        let metadata = request.metadata_mut();
        if !token.is_empty() {
            let mut value = MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| {
                Status::unauthenticated("the token holds characters that no header may carry")
            })?;
            value.set_sensitive(true);
            metadata.insert("authorization", value);
        }
        if let Some(principal) = &self.on_behalf_of {
            metadata.insert("x-asterism-on-behalf-of", principal.clone());
        }
        if let Some(traceparent) = self.traceparent() {
            metadata.insert(MetadataKey::from_static("traceparent"), traceparent);
        }
        if let Some(deadline) = self.deadline
            && metadata.get("grpc-timeout").is_none()
        {
            request.set_timeout(deadline);
        }
        Ok(request)
    }
}

impl Carried {
    /// W3C Trace Context, level 1: of the current span, or else of the trace that was given.
    fn traceparent(&self) -> Option<MetadataValue<Ascii>> {
        let context = tracing::Span::current().context();
        let span = context.span().span_context().clone();
        let text = if span.is_valid() {
            format!(
                "00-{}-{}-{:02x}",
                span.trace_id(),
                span.span_id(),
                span.trace_flags().to_u8()
            )
        } else {
            let span_id = uuid::Uuid::new_v4().as_u64_pair().1;
            format!("00-{}-{span_id:016x}-00", self.trace_id.as_deref()?)
        };
        MetadataValue::try_from(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use asterism_channel::Pin;

    use super::*;

    fn carried(connection: &Connection) -> tonic::metadata::MetadataMap {
        let mut interceptor = connection.carried.clone();
        interceptor
            .call(Request::new(()))
            .expect("accepted")
            .metadata()
            .clone()
    }

    #[tokio::test]
    async fn a_call_carries_token_principal_trace_and_deadline() {
        let connection = Connection::lazy("http://127.0.0.1:1", Credentials::token("abc"))
            .expect("endpoint")
            .on_behalf_of("user/alice")
            .in_trace("0af7651916cd43dd8448eb211c80319c");
        let metadata = carried(&connection);
        assert_eq!(metadata.get("authorization").expect("token"), "Bearer abc");
        assert_eq!(
            metadata.get("x-asterism-on-behalf-of").expect("principal"),
            "user/alice"
        );
        let traceparent = metadata
            .get("traceparent")
            .expect("trace")
            .to_str()
            .expect("ascii");
        assert!(
            traceparent.starts_with("00-0af7651916cd43dd8448eb211c80319c-"),
            "{traceparent}"
        );
        assert!(metadata.get("grpc-timeout").is_some());
    }

    #[tokio::test]
    async fn an_anonymous_call_carries_no_token_and_a_bad_trace_is_left_out() {
        let connection = Connection::lazy("http://127.0.0.1:1", Credentials::anonymous())
            .expect("endpoint")
            .in_trace("zz");
        let metadata = carried(&connection);
        assert!(metadata.get("authorization").is_none());
        assert!(metadata.get("traceparent").is_none());
    }

    #[tokio::test]
    async fn a_token_file_is_read_at_every_call() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("token");
        let connection = Connection::lazy("http://127.0.0.1:1", Credentials::file(&path)).expect("endpoint");
        assert!(connection.carried.clone().call(Request::new(())).is_err());
        std::fs::write(&path, "one\n").expect("written");
        assert_eq!(
            carried(&connection).get("authorization").expect("token"),
            "Bearer one"
        );
        std::fs::write(&path, "two\n").expect("written");
        assert_eq!(
            carried(&connection).get("authorization").expect("token"),
            "Bearer two"
        );
    }

    #[tokio::test]
    async fn a_key_goes_with_an_encrypted_endpoint_and_only_with_one() {
        let own = std::sync::Arc::new(asterism_channel::StaticKey::generate().expect("a key"));
        let pin = Pin {
            service_key: own.public(),
            own,
            service: "kms".into(),
        };
        let made = |endpoint: &str, pin: Option<&Pin>| {
            Connection::pinned(endpoint, pin.cloned(), Credentials::anonymous()).map(|_| ())
        };
        made("noise://127.0.0.1:1", Some(&pin)).expect("encrypted");
        for (endpoint, pin) in [
            ("http://127.0.0.1:1", Some(&pin)),
            ("noise://127.0.0.1:1", None),
            ("noise://", Some(&pin)),
        ] {
            let refused = made(endpoint, pin);
            assert!(matches!(refused, Err(ClientError::Argument(_))), "{endpoint}");
        }
    }

    #[tokio::test]
    async fn nobody_listening_is_unreachable() {
        let connection = Connection::lazy("http://127.0.0.1:1", Credentials::anonymous()).expect("endpoint");
        let kms = crate::Kms::new(connection);
        assert!(matches!(kms.key("k").await, Err(ClientError::Unreachable { .. })));
    }
}
