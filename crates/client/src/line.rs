//! The HTTP/2 channel of a connection, and a fresh one when the keys at its ends have changed.

use std::sync::{Arc, Mutex, PoisonError};

use asterism_channel::{Pin, Pins, PublicKey, StaticKey};
use tonic::transport::Channel;

/// One channel, or over the encrypted one the channel that belongs to the pins of the moment.
pub(crate) enum Line {
    Fixed(Channel),
    Pinned {
        pins: Pins,
        make: Box<dyn Fn() -> Channel + Send + Sync>,
        current: Mutex<(Ends, Channel)>,
    },
}

/// The keys that a channel was made with.
type Ends = Vec<(Arc<StaticKey>, PublicKey)>;

impl Line {
    pub(crate) fn fixed(channel: Channel) -> Self {
        Self::Fixed(channel)
    }

    pub(crate) fn pinned(pins: Pins, make: impl Fn() -> Channel + Send + Sync + 'static) -> Self {
        let current = Mutex::new((ends(pins.now()), make()));
        Self::Pinned {
            pins,
            make: Box::new(make),
            current,
        }
    }

    /// For a new call. Calls that are open keep the channel that they have, which ends with the last of them.
    pub(crate) fn channel(&self) -> Channel {
        match self {
            Self::Fixed(channel) => channel.clone(),
            Self::Pinned { pins, make, current } => {
                let now = ends(pins.now());
                let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
                if !same(&current.0, &now) {
                    *current = (now, make());
                }
                current.1.clone()
            }
        }
    }
}

fn ends(pins: Vec<Pin>) -> Ends {
    pins.into_iter().map(|pin| (pin.own, pin.service_key)).collect()
}

fn same(one: &Ends, other: &Ends) -> bool {
    one.len() == other.len()
        && (one.iter().zip(other)).all(|(one, other)| Arc::ptr_eq(&one.0, &other.0) && one.1 == other.1)
}
