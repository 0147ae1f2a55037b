//! The authenticated, encrypted channel between two parties that know each other by a key instead of a certificate.
//!
//! * [`StaticKey`], [`PublicKey`]: who a party is; as a file, and as text.
//! * [`initiate`], [`accept`]: the handshake, `Noise_IK_25519_AESGCM_SHA256`. The caller knows whom it calls and says who
//!   it is; the called party decides before it answers. Version, suite and service are bound: another of any is a failure.
//! * [`NoiseStream`]: the bytes of a TCP stream in messages that are encrypted, ordered, and ended by a message of their
//!   own: what is altered, repeated, reordered, left out or cut off is an error, never shorter data.
//! * [`Connector`], [`Pin`], [`Pins`]: for HTTP/2 clients.
//!
//! The bytes are in `docs/formats.md`. Not hidden: when, how long and how much somebody speaks. The first message of a
//! handshake can be replayed; whoever does so cannot read the answer, nor say anything after it.
#![cfg_attr(test, allow(clippy::panic))]

mod connector;
mod handshake;
mod key;
mod session;
mod stream;
#[cfg(test)]
mod tests;

pub use connector::{Connector, Pin, Pins, SCHEME};
pub use handshake::{HANDSHAKE, accept, accept_any, initiate};
pub use key::{KeyError, PublicKey, StaticKey};
pub use stream::NoiseStream;

/// Why a channel did not come about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The other side does not speak this protocol, or another version or suite of it.
    #[error("the peer speaks another protocol")]
    Protocol,
    /// The other side has not the key that was expected, is another service, or its bytes were altered.
    #[error("the handshake failed: another key, another service, or altered bytes")]
    Handshake,
    /// The caller's key is none that may call.
    #[error("the key {0} is not admitted")]
    Refused(PublicKey),
    /// No end of the handshake in time.
    #[error("no handshake in time")]
    TimedOut,
    /// The other side hung up during the handshake: it does not know the caller's key, or is another service.
    #[error("the peer hung up during the handshake: it refuses this key, or is another service")]
    HungUp,
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[source] std::io::Error),
}
