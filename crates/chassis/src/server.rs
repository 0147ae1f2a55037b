//! The gRPC server of every service: one edge around all calls, bounded connections, health, reflection and a
//! drain that ends.
//!
//! ```no_run
//! # use asterism_chassis::{config::Common, server::{Running, Server, ServerError}};
//! # async fn start(common: Common, listener: tokio::net::TcpListener) -> Result<Running, ServerError> {
//! Server::builder("kms", &common)
//!     // .add(KeyManagementServiceServer::new(adapter).max_decoding_message_size(common.limits.max_message_bytes))
//!     // .tracker(gate.tracker()).serving(outbox.serving()).on_shutdown(move || async move { outbox.flush().await })
//!     .spawn(listener)
//! # }
//! ```
//! Every request carries [`MethodPath`], [`TraceId`] and, where there is one, [`Deadline`] in its extensions; and
//! [`ChannelPeer`](crate::channel::ChannelPeer), when it came through the channel.

mod accept;
mod body;
mod deadline;
mod edge;
mod health;
mod listeners;
mod method_path;
mod running;
mod socket;
#[cfg(test)]
mod tests;
mod wire;

use std::{convert::Infallible, future::Future, time::Duration};

use http::{Request, Response};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{body::Body, server::NamedService, service::Routes};
use tonic_health::server::{HealthReporter, HealthService};
use tower_service::Service;

use crate::{
    channel::Channel,
    config::{ChannelConfig, Common, Limits},
    firewall::Firewall,
};

pub use crate::telemetry::TraceId;
pub use deadline::Deadline;
pub use listeners::Listeners;
pub use method_path::MethodPath;
pub use running::Running;

use accept::{Acceptor, Places, Secured, Terms};
use listeners::Doors;
use running::Hook;

/// How long open calls may take to end after a shutdown began.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a connection may take to send the 24 bytes of the HTTP/2 preface.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Streams that one connection may have open (unlimited in tonic by default).
const MAX_CONCURRENT_STREAMS: u32 = 128;
/// Streams a peer may make us reset before the connection is closed (unlimited by default: rapid reset).
const MAX_LOCAL_ERROR_RESETS: usize = 1024;
/// Streams a peer may reset before we accepted them.
const MAX_PENDING_ACCEPT_RESETS: usize = 64;
/// Bytes of headers a request may have.
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// Flow-control windows and frames large enough that one upload fills a loopback or a 10 Gb/s link.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
const MAX_FRAME: u32 = 256 * 1024;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a server cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The listener is reachable from other machines.
    #[error(
        "the listener is not on the loopback interface, and plain HTTP/2 carries tokens and data in the clear: \
         listen on 127.0.0.1, or set allow_remote_plaintext = true where the network itself is trusted"
    )]
    RemotePlaintext,
    /// The settings ask for a channel and there is no key for it, or the other way round.
    #[error("the channel is on without a key, or has a key without being on")]
    ChannelKey,
    /// The listener does not work.
    #[error("cannot use the listener")]
    Listener(#[source] std::io::Error),
    /// The descriptors for reflection do not fit together.
    #[error("cannot describe the services for reflection")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The transport failed while serving.
    #[error("serving ended early")]
    Transport(#[source] tonic::transport::Error),
}

/// Entry point: [`Server::builder`].
pub struct Server;

impl Server {
    /// A server for `service` (`kms`, `ingest`, …) within the limits of `common`.
    pub fn builder(service: &'static str, common: &Common) -> ServerBuilder {
        ServerBuilder {
            service,
            limits: common.limits.clone(),
            allow_remote_plaintext: common.allow_remote_plaintext,
            channel_config: common.channel.clone(),
            channel: None,
            firewall: None,
            routes: Routes::default(),
            names: Vec::new(),
            serving: Vec::new(),
            tracker: TaskTracker::new(),
            draining: CancellationToken::new(),
            hooks: Vec::new(),
            drain: DRAIN,
            handshake: HANDSHAKE,
        }
    }
}

/// What a server consists of. Ends in [`spawn`](Self::spawn) or [`serve`](Self::serve).
#[must_use = "a builder does nothing until it is spawned or served"]
pub struct ServerBuilder {
    service: &'static str,
    limits: Limits,
    allow_remote_plaintext: bool,
    channel_config: ChannelConfig,
    channel: Option<Channel>,
    firewall: Option<Firewall>,
    routes: Routes,
    names: Vec<&'static str>,
    serving: Vec<watch::Receiver<bool>>,
    tracker: TaskTracker,
    draining: CancellationToken,
    hooks: Vec<Hook>,
    drain: Duration,
    handshake: Duration,
}

impl ServerBuilder {
    /// Adds a generated tonic server. Set its `max_decoding_message_size` and `max_encoding_message_size` to
    /// `limits.max_message_bytes` first: tonic has no place to do that for all.
    #[expect(
        clippy::should_implement_trait,
        reason = "it adds a service, as tonic's add_service does"
    )]
    pub fn add<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.routes = self.routes.add_service(service);
        self
    }

    /// The key of the channel, where the settings say that there is one.
    pub fn channel(mut self, channel: Option<Channel>) -> Self {
        self.channel = channel;
        self
    }

    /// What turns connections away before their handshake.
    pub fn firewall(mut self, firewall: Firewall) -> Self {
        self.firewall = Some(firewall);
        self
    }

    /// Health follows this value too: `false` in any of those given (outbox full) answers NOT_SERVING. Without any, health is
    /// SERVING until the drain.
    pub fn serving(mut self, serving: watch::Receiver<bool>) -> Self {
        self.serving.push(serving);
        self
    }

    /// The tasks that outlive their callers (the gate's): a shutdown waits for them.
    pub fn tracker(mut self, tracker: TaskTracker) -> Self {
        self.tracker = tracker;
        self
    }

    /// Runs after the last call has ended, in the order of registration; at most 5 s each.
    pub fn on_shutdown<F, Fut>(mut self, hook: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.hooks.push(running::hook(hook));
        self
    }

    /// Cancelled when the drain begins. Streams of `Watch…` methods are ended by the server itself.
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// How long open calls may take to end after a shutdown began; 10 s unless told.
    pub fn drain_within(mut self, bound: Duration) -> Self {
        self.drain = bound;
        self
    }

    /// How long a connection may take for the channel's handshake, and then to send the HTTP/2 preface; 5 s each unless told.
    pub fn handshake_within(mut self, bound: Duration) -> Self {
        self.handshake = bound;
        self
    }

    /// Serves in the background of the current tokio runtime until [`Running`] is shut down or dropped.
    ///
    /// # Errors
    /// [`ServerError`] for a plain listener that other machines can reach without `allow_remote_plaintext`.
    pub fn spawn(mut self, listeners: impl Into<Listeners>) -> Result<Running, ServerError> {
        let doors = Doors::open(
            listeners.into(),
            &self.channel_config,
            self.channel.take(),
            self.allow_remote_plaintext,
        )?;
        let reporter = HealthReporter::new();
        self = self
            .add(tonic_health::pb::health_server::HealthServer::new(
                HealthService::from_health_reporter(reporter.clone()),
            ))
            .add_reflection()?;

        let stopping = CancellationToken::new();
        let force = CancellationToken::new();
        let calls = TaskTracker::new();
        let edge = edge::EdgeLayer::new(&self.limits, stopping.clone(), calls.clone());
        let places = Places::new(&self.limits);
        let terms = Terms {
            places,
            handshake: self.handshake,
            force: force.clone(),
            firewall: self.firewall,
        };
        let door =
            |listener, secured| Box::pin(Acceptor::new(listener, terms.clone(), secured).into_stream());
        let addr = doors.main;
        let encrypted = doors.plain.is_none();
        let plain = doors.plain.map(|listener| door(listener, None));
        let service = self.service;
        let secured = (doors.secured).map(|(listener, channel)| {
            channel.watch();
            door(listener, Some(Secured { channel, service }))
        });
        let incoming = futures::stream::select_all(plain.into_iter().chain(secured));
        let serving = transport(&self.limits)
            .layer(edge)
            .add_routes(self.routes)
            .serve_with_incoming_shutdown(incoming, stopping.clone().cancelled_owned());

        let health = health::Health {
            reporter,
            services: self.names,
            serving: self.serving,
            draining: self.draining.clone(),
            stopping,
        };
        tracing::info!(service = self.service, %addr, encrypted, "serving");
        Ok(Running::new(running::Parts {
            service: self.service,
            addr,
            encrypted,
            draining: self.draining,
            force,
            calls,
            tracker: self.tracker,
            hooks: self.hooks,
            drain: self.drain,
            server: tokio::spawn(async move { health.supervise(serving).await }),
        }))
    }

    /// Serves until `shutdown` resolves, then drains.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn), and [`ServerError::Transport`] when serving ends by itself.
    pub async fn serve(
        self,
        listeners: impl Into<Listeners>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServerError> {
        let mut running = self.spawn(listeners)?;
        tokio::select! {
            () = shutdown => {}
            ended = running.wait() => return ended,
        }
        running.shutdown().await;
        Ok(())
    }

    /// Both versions of reflection: grpcurl asks v1 first, older tools know v1alpha alone.
    fn add_reflection(self) -> Result<Self, ServerError> {
        const REFLECTION: [&str; 2] = [
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ];
        let describe = || {
            let builder = tonic_reflection::server::Builder::configure()
                .include_reflection_service(false) // each version would describe itself alone
                .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(asterism_proto::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
            let names = self.names.iter().copied().chain(REFLECTION);
            names.fold(builder, tonic_reflection::server::Builder::with_service_name)
        };
        let v1 = describe().build_v1().map_err(ServerError::Reflection)?;
        let v1alpha = describe().build_v1alpha().map_err(ServerError::Reflection)?;
        Ok(self.add(v1).add(v1alpha))
    }
}

fn transport(limits: &Limits) -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .http2_max_local_error_reset_streams(Some(MAX_LOCAL_ERROR_RESETS))
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_ACCEPT_RESETS))
        .http2_max_header_list_size(MAX_HEADER_LIST)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        // HTTP/2 pins a caller to one replica, and a session to one handshake: now and then it has to connect anew.
        .max_connection_age(Duration::from_secs(limits.max_connection_age_seconds))
}
