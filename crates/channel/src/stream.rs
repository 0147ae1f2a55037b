//! A byte stream in the messages of a channel.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    key::PublicKey,
    session::{HEADER, MAX_MESSAGE, MAX_PLAIN, Session, message_length},
};

/// What is read at once as long as messages are small.
const FIRST_READ: usize = 8 * 1024;

/// A stream over a channel. It holds at most one message each way, in the clear and encrypted: 256 KiB.
///
/// [`shutdown`](tokio::io::AsyncWriteExt::shutdown) says to the other side that this was all; without it the other
/// side's reads end in an error. After a failed read all that follows fails too.
pub struct NoiseStream<T> {
    io: T,
    session: Session,
    peer: PublicKey,
    incoming: Incoming,
    outgoing: Outgoing,
    broken: bool,
}

#[derive(Default)]
struct Incoming {
    /// Frames as they came in, at `start..end`.
    frames: Vec<u8>,
    start: usize,
    end: usize,
    /// The last message, and how much of it was read.
    plain: Vec<u8>,
    read: usize,
    ended: bool,
}

#[derive(Default)]
struct Outgoing {
    /// The last frame, and how much of it was written.
    frame: Vec<u8>,
    written: usize,
    gathered: Vec<u8>,
    ended: bool,
}

impl<T> NoiseStream<T> {
    pub(crate) fn new(io: T, session: Session, peer: PublicKey) -> Self {
        Self {
            io,
            session,
            peer,
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
            broken: false,
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> PublicKey {
        self.peer
    }

    /// The stream beneath.
    pub fn inner(&self) -> &T {
        &self.io
    }

    /// Marks the channel as broken: nothing that follows can be trusted, and nothing more is said on it.
    fn fail<R>(&mut self, error: io::Error) -> Poll<io::Result<R>> {
        self.broken = true;
        Poll::Ready(Err(error))
    }

    fn check(&self) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the channel is broken",
            ));
        }
        Ok(())
    }
}

impl Incoming {
    /// The message of the next frame that is here in full; otherwise the length of that frame, as far as it is known.
    fn next(&self) -> io::Result<Result<(usize, usize), usize>> {
        let here = self.frames.get(self.start..self.end).unwrap_or_default();
        let Some(header) = here.first_chunk::<HEADER>() else {
            return Ok(Err(HEADER));
        };
        let whole = HEADER + message_length(*header)?;
        Ok(if here.len() >= whole {
            Ok((self.start + HEADER, self.start + whole))
        } else {
            Err(whole)
        })
    }

    /// Room for a frame of `whole` bytes, and for what comes along with it.
    fn make_room(&mut self, whole: usize) {
        if self.start > 0 {
            self.frames.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let wanted = whole.clamp(FIRST_READ, HEADER + MAX_MESSAGE);
        if self.frames.len() < wanted {
            self.frames.resize(wanted, 0);
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> NoiseStream<T> {
    /// Reads until a message is there; its plaintext is then in `incoming`, unless the stream ended.
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let incoming = &mut self.incoming;
            if incoming.ended || incoming.read < incoming.plain.len() {
                return Poll::Ready(Ok(()));
            }
            let whole = match incoming.next() {
                Err(error) => return self.fail(error),
                Ok(Ok((from, to))) => {
                    let message = incoming.frames.get(from..to).unwrap_or_default();
                    incoming.read = 0;
                    let opened = self.session.open(message, &mut incoming.plain);
                    incoming.start = to;
                    incoming.ended = incoming.plain.is_empty();
                    match opened {
                        Ok(()) => continue,
                        Err(error) => return self.fail(error),
                    }
                }
                Ok(Err(whole)) => whole,
            };
            incoming.make_room(whole);
            let room = incoming.frames.get_mut(incoming.end..).unwrap_or_default();
            let mut buffer = ReadBuf::new(room);
            let read = ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer));
            match (read, buffer.filled().len()) {
                (Ok(()), 0) => {
                    let cut_off = io::Error::new(io::ErrorKind::UnexpectedEof, "the channel was cut off");
                    return self.fail(cut_off);
                }
                (Ok(()), length) => self.incoming.end += length,
                (Err(error), _) => return self.fail(error),
            }
        }
    }

    /// Writes what is left of the last frame.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outgoing = &mut self.outgoing;
        while let Some(rest @ [_, ..]) = outgoing.frame.get(outgoing.written..) {
            match ready!(Pin::new(&mut self.io).poll_write(context, rest)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => outgoing.written += written,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes up to a message's worth of `slices`, once the frame before has left.
    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        if self.outgoing.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_drain(context))?;
        let Outgoing { frame, gathered, .. } = &mut self.outgoing;
        let mut filled = slices.iter().filter(|slice| !slice.is_empty());
        let taken = match (filled.next(), filled.next()) {
            // An empty message would mean the end.
            (None, _) => return Poll::Ready(Ok(0)),
            (Some(only), None) => {
                let plain = only.get(..MAX_PLAIN).unwrap_or(only);
                self.session.seal(plain, frame)?;
                plain.len()
            }
            _ => {
                gathered.clear();
                for slice in slices {
                    let room = MAX_PLAIN - gathered.len();
                    gathered.extend_from_slice(slice.get(..room).unwrap_or(slice));
                }
                self.session.seal(gathered, frame)?;
                gathered.len()
            }
        };
        self.outgoing.written = 0;
        // What does not leave now leaves at the next call; an error comes up there again.
        let _ = self.poll_drain(context);
        Poll::Ready(Ok(taken))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for NoiseStream<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check()?;
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_message(context))?;
        let incoming = &mut this.incoming;
        let unread = incoming.plain.get(incoming.read..).unwrap_or_default();
        let now = unread.get(..buffer.remaining()).unwrap_or(unread);
        buffer.put_slice(now);
        incoming.read += now.len();
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for NoiseStream<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(context, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(context))?;
        if !this.outgoing.ended && !this.broken {
            this.session.seal(&[], &mut this.outgoing.frame)?;
            this.outgoing.written = 0;
            this.outgoing.ended = true;
            ready!(this.poll_drain(context))?;
        }
        Pin::new(&mut this.io).poll_shutdown(context)
    }
}
