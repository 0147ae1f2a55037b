//! What a connection is read from and written to: TCP as it is, or the channel over it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use asterism_channel::NoiseStream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tonic::transport::server::{Connected as _, TcpConnectInfo};

use crate::channel::{Channel, ChannelPeer};

pub(super) enum Wire {
    Plain(TcpStream),
    Secured(Box<NoiseStream<TcpStream>>, ChannelPeer),
}

/// Where a connection comes from. The edge makes extensions of it.
#[derive(Clone)]
pub(crate) struct Arrived {
    pub(super) tcp: TcpConnectInfo,
    pub(super) peer: Option<ChannelPeer>,
}

impl Wire {
    /// Resolves once the key at the other end is withdrawn; never for a plain connection.
    pub(super) fn withdrawn(&self, channel: &Channel) -> impl Future<Output = ()> + Send + use<> {
        let peer = match self {
            Self::Plain(_) => None,
            Self::Secured(_, peer) => Some(peer.clone()),
        };
        let channel = channel.clone();
        async move {
            match peer {
                Some(peer) => channel.withdrawn(peer).await,
                None => std::future::pending().await,
            }
        }
    }

    pub(super) fn arrived(&self) -> Arrived {
        match self {
            Self::Plain(stream) => Arrived {
                tcp: stream.connect_info(),
                peer: None,
            },
            Self::Secured(stream, peer) => Arrived {
                tcp: stream.inner().connect_info(),
                peer: Some(peer.clone()),
            },
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Secured(stream, _) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Secured(stream, _) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Secured(stream, _) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Secured(stream, _) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Secured(stream, _) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Secured(stream, _) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
