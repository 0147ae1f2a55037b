//! Messages of a channel whose handshake is done: bytes in, bytes out.

use std::io;

use snow::TransportState;

/// A message of Noise, and so the ciphertext in a frame, is at most this long.
pub(crate) const MAX_MESSAGE: usize = 65_535;
const TAG: usize = 16;
/// Plaintext in one message.
pub(crate) const MAX_PLAIN: usize = MAX_MESSAGE - TAG;
/// The length of the message, big-endian.
pub(crate) const HEADER: usize = 2;

/// When a direction goes on under a fresh key: both sides count the same and need not say so.
#[derive(Clone, Copy)]
pub(crate) struct Rekey {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

impl Default for Rekey {
    fn default() -> Self {
        Self {
            messages: 1 << 16,
            bytes: 1 << 30,
        }
    }
}

/// What went one way under the current key.
#[derive(Default)]
struct Meter {
    messages: u64,
    bytes: u64,
}

impl Meter {
    /// Whether the next message goes under a fresh key.
    fn add(&mut self, plain: usize, bounds: Rekey) -> bool {
        self.messages += 1;
        self.bytes += plain as u64;
        let due = self.messages >= bounds.messages || self.bytes >= bounds.bytes;
        if due {
            *self = Self::default();
        }
        due
    }
}

/// Seals and opens messages, in order.
pub(crate) struct Session {
    state: Box<TransportState>,
    sent: Meter,
    received: Meter,
    rekey: Rekey,
}

impl Session {
    pub(crate) fn new(state: TransportState, rekey: Rekey) -> Self {
        Self {
            state: Box::new(state),
            sent: Meter::default(),
            received: Meter::default(),
            rekey,
        }
    }

    /// Replaces `frame` by the frame of `plain`, which is at most [`MAX_PLAIN`] long; empty ends the stream.
    pub(crate) fn seal(&mut self, plain: &[u8], frame: &mut Vec<u8>) -> io::Result<()> {
        frame.clear();
        frame.resize(HEADER + plain.len() + TAG, 0);
        let (header, message) = frame.split_at_mut(HEADER);
        let length = self
            .state
            .write_message(plain, message)
            .map_err(|_| io::Error::other("the channel is used up"))?;
        let length = u16::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
        header.copy_from_slice(&length.to_be_bytes());
        if self.sent.add(plain.len(), self.rekey) {
            self.state.rekey_outgoing();
        }
        Ok(())
    }

    /// Replaces `plain` by what a message says; empty when the stream ends.
    pub(crate) fn open(&mut self, message: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        plain.clear();
        plain.resize(message.len().saturating_sub(TAG), 0);
        let length = self
            .state
            .read_message(message, plain)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the channel's bytes were altered"))?;
        plain.truncate(length);
        if self.received.add(length, self.rekey) {
            self.state.rekey_incoming();
        }
        Ok(())
    }
}

/// The length of the message that a header announces.
pub(crate) fn message_length(header: [u8; HEADER]) -> io::Result<usize> {
    let length = usize::from(u16::from_be_bytes(header));
    if length < TAG {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message of the channel is too short",
        ));
    }
    Ok(length)
}
