//! An accepted connection: has to speak soon, counts as long as it lives, and can be closed from outside.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};
use tonic::transport::server::Connected;

use super::{
    accept::{Place, Reporter},
    wire::{Arrived, Wire},
};

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n` (RFC 9113, 3.4). After it, HTTP/2 keep-alive finds the silent.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection with those three properties.
pub(super) struct Socket {
    stream: Wire,
    preface: Option<Preface>,
    closed: Closed,
    reporter: Reporter,
    _place: Place,
}

/// Resolves when a connection has to end: the server stops, or its key is withdrawn.
pub(super) type Closed = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Preface {
    missing: usize,
    timer: Pin<Box<Sleep>>,
}

impl Socket {
    pub(super) fn new(
        stream: Wire,
        place: Place,
        handshake: Duration,
        closed: Closed,
        reporter: Reporter,
    ) -> Self {
        let preface = Preface {
            missing: PREFACE.len(),
            timer: Box::pin(tokio::time::sleep(handshake)),
        };
        Self {
            stream,
            preface: Some(preface),
            closed,
            reporter,
            _place: place,
        }
    }

    /// Whether what came so far is how HTTP/2 begins.
    fn received(&mut self, bytes: &[u8]) -> bool {
        let Some(preface) = &mut self.preface else {
            return true;
        };
        let expected = &PREFACE[PREFACE.len() - preface.missing..];
        let fits = expected
            .iter()
            .zip(bytes)
            .all(|(expected, byte)| expected == byte);
        preface.missing = preface.missing.saturating_sub(bytes.len());
        if preface.missing == 0 || !fits {
            self.preface = None;
        }
        fits
    }

    /// `Pending` unless the connection has to end now.
    fn poll_end<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if self.closed.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the server stopped, or the key was withdrawn",
            )));
        }
        let late = self
            .preface
            .as_mut()
            .is_some_and(|preface| preface.timer.as_mut().poll(context).is_ready());
        if late {
            self.preface = None;
            self.reporter.failed();
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "no HTTP/2 preface in time",
            )));
        }
        Poll::Pending
    }
}

impl Connected for Socket {
    type ConnectInfo = Arrived;

    fn connect_info(&self) -> Arrived {
        self.stream.arrived()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(context, buffer) {
            Poll::Pending => this.poll_end(context),
            Poll::Ready(result) => {
                if !this.received(&buffer.filled()[before..]) {
                    this.reporter.failed();
                    let text = "something else than an HTTP/2 preface";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
                }
                Poll::Ready(result)
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_write(context, bytes) {
            Poll::Pending => this.poll_end(context),
            ready => ready,
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_write_vectored(context, slices) {
            Poll::Pending => this.poll_end(context),
            ready => ready,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
