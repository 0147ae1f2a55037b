//! For HTTP/2 clients: TCP, then the handshake.

use std::{
    future::Future,
    io,
    sync::Arc,
    task::{Context, Poll},
};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::{ChannelError, HANDSHAKE, NoiseStream, PublicKey, StaticKey, initiate};

/// Starts the address of a service that is reached over the channel: `noise://host:port`.
pub const SCHEME: &str = "noise://";

/// Whom to call over the channel, and as whom.
#[derive(Clone)]
pub struct Pin {
    /// The caller's own key.
    pub own: Arc<StaticKey>,
    /// The key that the service has to have.
    pub service_key: PublicKey,
    /// The name of the service: `kms`, `ingest`, …
    pub service: Arc<str>,
}

/// Pins as they are at the moment: a key may be replaced while there are connections.
#[derive(Clone)]
pub struct Pins(Arc<dyn Fn() -> Vec<Pin> + Send + Sync>);

impl Pins {
    /// Asked before every connection; the first one that works is used.
    pub fn source(source: impl Fn() -> Vec<Pin> + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// The pins of this moment.
    pub fn now(&self) -> Vec<Pin> {
        (self.0)()
    }
}

impl From<Pin> for Pins {
    fn from(pin: Pin) -> Self {
        Self::source(move || vec![pin.clone()])
    }
}

/// Makes a connection to the host and port of an address, and the channel of a [`Pin`] on it.
#[derive(Clone)]
pub struct Connector {
    pins: Pins,
}

impl Connector {
    /// Of one service.
    pub fn new(pins: impl Into<Pins>) -> Self {
        Self { pins: pins.into() }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<NoiseStream<TcpStream>>;
    type Error = ChannelError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, ChannelError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let pins = self.pins.now();
        Box::pin(async move {
            // Without a pin there is nobody who could be called.
            let mut result = Err(ChannelError::Handshake);
            for pin in pins {
                let stream = connect(&address).await.map_err(ChannelError::Io)?;
                // Small requests should not wait for the acknowledgement of earlier ones; without it all still works.
                let _ = stream.set_nodelay(true);
                result = initiate(stream, &pin.own, &pin.service_key, &pin.service, HANDSHAKE).await;
                // Another key may be the one that the service has; it cannot be quicker, or nearer.
                if !matches!(result, Err(ChannelError::Handshake | ChannelError::HungUp)) {
                    break;
                }
            }
            result.map(TokioIo::new)
        })
    }
}

async fn connect(address: &Uri) -> io::Result<TcpStream> {
    let (Some(host), Some(port)) = (address.host(), address.port_u16()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "an address is a host and a port",
        ));
    };
    TcpStream::connect((host.trim_start_matches('[').trim_end_matches(']'), port)).await
}
