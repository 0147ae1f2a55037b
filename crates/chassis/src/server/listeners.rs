//! Where a server listens, and which of its listeners speak in the clear.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

use super::ServerError;
use crate::{channel::Channel, config::ChannelConfig};

/// The listener of a service, and one for the channel beside it.
pub struct Listeners {
    main: TcpListener,
    channel: Option<TcpListener>,
}

impl From<TcpListener> for Listeners {
    /// One listener: plain, or of the channel where that is on and has no address of its own.
    fn from(main: TcpListener) -> Self {
        Self { main, channel: None }
    }
}

impl Listeners {
    /// With a listener for the channel: in place of binding `channel.listen`.
    #[must_use]
    pub fn and_channel(mut self, listener: TcpListener) -> Self {
        self.channel = Some(listener);
        self
    }
}

/// Each listener in its part.
pub(super) struct Doors {
    /// Where `listen` is: what the service is known by.
    pub(super) main: SocketAddr,
    pub(super) plain: Option<TcpListener>,
    pub(super) secured: Option<(TcpListener, Channel)>,
}

impl Doors {
    pub(super) fn open(
        listeners: Listeners,
        config: &ChannelConfig,
        channel: Option<Channel>,
        allow_remote_plaintext: bool,
    ) -> Result<Self, ServerError> {
        // Never in the clear because somebody forgot to hand over the key.
        if config.is_on() != channel.is_some() {
            return Err(ServerError::ChannelKey);
        }
        let main = listeners.main.local_addr().map_err(ServerError::Listener)?;
        let beside = match (&channel, listeners.channel, config.listen) {
            (None, Some(_), _) => return Err(ServerError::ChannelKey),
            (Some(_), None, Some(address)) => Some(bind(address).map_err(ServerError::Listener)?),
            (_, listener, _) => listener,
        };
        let (plain, secured) = match (channel, beside) {
            (None, _) => (Some(listeners.main), None),
            (Some(channel), None) => (None, Some((listeners.main, channel))),
            (Some(channel), Some(beside)) => (Some(listeners.main), Some((beside, channel))),
        };
        if plain.is_some() && !allow_remote_plaintext && !main.ip().is_loopback() {
            return Err(ServerError::RemotePlaintext);
        }
        Ok(Self { main, plain, secured })
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
