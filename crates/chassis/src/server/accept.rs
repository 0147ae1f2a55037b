//! Accepts connections within bounds: so many in all, so many from one network.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::Stream;
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, UpDownCounter},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::socket::Socket;
use crate::{config::Limits, telemetry::names};

/// After a failed accept (no file descriptors left) the next try waits this long, doubling up to the bound.
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// A flood of refusals is logged this often.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Turns a listener into a stream of admitted connections.
pub(super) struct Acceptor {
    listener: TcpListener,
    places: Arc<Places>,
    handshake: Duration,
    force: CancellationToken,
    refused: Refusals,
}

impl Acceptor {
    pub(super) fn new(
        listener: TcpListener,
        limits: &Limits,
        handshake: Duration,
        force: CancellationToken,
    ) -> Self {
        Self {
            listener,
            places: Places::new(limits),
            handshake,
            force,
            refused: Refusals::new(),
        }
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = io::Result<Socket>> {
        futures::stream::unfold(self, |mut acceptor| async move {
            let socket = acceptor.next().await;
            Some((Ok(socket), acceptor))
        })
    }

    async fn next(&mut self) -> Socket {
        let mut backoff = FIRST_BACKOFF;
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => match self.places.take(peer.ip()) {
                    Ok(place) => return self.admit(stream, place),
                    // Dropping the stream tells the caller at once: better than a place in a queue nobody sees.
                    Err(reason) => self.refused.count(reason),
                },
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, backoff_ms = backoff.as_millis(), "cannot accept connections");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, place: Place) -> Socket {
        // Small answers should not wait for the acknowledgement of earlier ones; without it all still works.
        let _ = stream.set_nodelay(true);
        Socket::new(stream, place, self.handshake, self.force.clone())
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// How many connections there are and may be.
pub(super) struct Places {
    max: usize,
    max_per_network: usize,
    taken: Mutex<Taken>,
    open: UpDownCounter<i64>,
}

#[derive(Default)]
struct Taken {
    total: usize,
    by_network: HashMap<IpAddr, usize>,
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            max: limits.max_connections,
            max_per_network: limits.max_connections_per_ip,
            taken: Mutex::default(),
            open: global::meter(names::SCOPE)
                .i64_up_down_counter(names::CONNECTIONS_OPEN)
                .build(),
        })
    }

    /// A place for a connection from `address`, or why there is none.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, &'static str> {
        let network = network_of(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.total >= self.max {
            return Err("total");
        }
        let from_network = taken.by_network.get(&network).copied().unwrap_or(0);
        if from_network >= self.max_per_network {
            return Err("per_ip");
        }
        taken.by_network.insert(network, from_network + 1);
        taken.total += 1;
        self.open.add(1, &[]);
        Ok(Place {
            places: Arc::clone(self),
            network,
        })
    }
}

/// One IPv6 caller commands a whole /64, so that is what counts.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// One connection's place; free again when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    network: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if let Some(count) = taken.by_network.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                taken.by_network.remove(&self.network);
            }
        }
        self.places.open.add(-1, &[]);
    }
}

/// Counts connections turned away, and says so in the log now and then.
struct Refusals {
    counter: Counter<u64>,
    since_log: u64,
    logged: Option<Instant>,
}

impl Refusals {
    fn new() -> Self {
        let counter = global::meter(names::SCOPE)
            .u64_counter(names::CONNECTIONS_REFUSED)
            .build();
        Self {
            counter,
            since_log: 0,
            logged: None,
        }
    }

    fn count(&mut self, reason: &'static str) {
        self.counter.add(1, &[KeyValue::new("reason", reason)]);
        self.since_log += 1;
        if self.logged.is_none_or(|at| at.elapsed() >= REFUSAL_LOG_INTERVAL) {
            tracing::warn!(
                reason,
                refused = self.since_log,
                "connections refused at the limit"
            );
            self.since_log = 0;
            self.logged = Some(Instant::now());
        }
    }
}
