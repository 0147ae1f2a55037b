//! Accepts connections within bounds: so many in all, so many from one network; over the channel, where there is one,
//! only those whose key may speak.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use asterism_channel::ChannelError;
use futures::Stream;
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, UpDownCounter},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{socket::Socket, wire::Wire};
use crate::{
    channel::Channel,
    config::Limits,
    firewall::{Cause, Firewall, network_of},
    telemetry::names,
};

/// After a failed accept (no file descriptors left) the next try waits this long, doubling up to the bound.
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// A flood of refusals is logged this often.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Turns a listener into a stream of admitted connections.
pub(super) struct Acceptor {
    listener: TcpListener,
    terms: Terms,
    refused: Refusals,
    secured: Option<Secured>,
    /// Each holds its place already; what is refused here never said a byte of HTTP/2.
    handshakes: JoinSet<Result<Socket, &'static str>>,
}

/// On which terms all doors of a service admit connections.
#[derive(Clone)]
pub(super) struct Terms {
    pub(super) places: Arc<Places>,
    pub(super) handshake: Duration,
    pub(super) force: CancellationToken,
    pub(super) firewall: Option<Firewall>,
}

/// Tells the firewall what comes of a connection.
#[derive(Clone)]
pub(super) struct Reporter {
    firewall: Option<Firewall>,
    address: IpAddr,
}

impl Reporter {
    /// It began with something else than it has to, or too slowly.
    pub(super) fn failed(&self) {
        if let Some(firewall) = &self.firewall {
            firewall.failed(self.address, Cause::Handshake);
        }
    }
}

/// The channel of a service.
#[derive(Clone)]
pub(super) struct Secured {
    pub(super) channel: Channel,
    pub(super) service: &'static str,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener, terms: Terms, secured: Option<Secured>) -> Self {
        Self {
            listener,
            terms,
            refused: Refusals::new(),
            secured,
            handshakes: JoinSet::new(),
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
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok(Ok(socket)) => return socket,
                    Ok(Err(reason)) => {
                        self.refused.count(reason);
                        continue;
                    }
                    Err(_) => continue,
                },
            };
            match accepted {
                Ok((stream, peer)) => match self.place(peer.ip()) {
                    Ok(place) => {
                        if let Some(socket) = self.admit(stream, peer.ip(), place) {
                            return socket;
                        }
                    }
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

    /// The cheapest first: what the firewall turns away costs no place.
    fn place(&self, address: IpAddr) -> Result<Place, &'static str> {
        if (self.terms.firewall.as_ref()).is_some_and(|firewall| !firewall.admits_connection(address)) {
            return Err("firewall");
        }
        self.terms.places.take(address)
    }

    /// The connection; over the channel only once its handshake is done.
    fn admit(&mut self, stream: TcpStream, address: IpAddr, place: Place) -> Option<Socket> {
        // Small answers should not wait for the acknowledgement of earlier ones; without it all still works.
        let _ = stream.set_nodelay(true);
        let (handshake, force) = (self.terms.handshake, self.terms.force.clone());
        let reporter = Reporter {
            firewall: self.terms.firewall.clone(),
            address,
        };
        let Some(secured) = self.secured.clone() else {
            let closed = Box::pin(force.cancelled_owned());
            return Some(Socket::new(
                Wire::Plain(stream),
                place,
                handshake,
                closed,
                reporter,
            ));
        };
        self.handshakes.spawn(async move {
            let wire = secured.shake_hands(stream, handshake, &reporter).await?;
            let withdrawn = wire.withdrawn(&secured.channel);
            let closed = Box::pin(async move {
                tokio::select! {
                    () = force.cancelled_owned() => {}
                    () = withdrawn => {}
                }
            });
            Ok(Socket::new(wire, place, handshake, closed, reporter))
        });
        None
    }
}

impl Secured {
    async fn shake_hands(
        &self,
        stream: TcpStream,
        within: Duration,
        reporter: &Reporter,
    ) -> Result<Wire, &'static str> {
        let channel = &self.channel;
        let admit = |key: &_| channel.admits(key);
        let own = channel.own();
        let own: Vec<_> = own.iter().map(AsRef::as_ref).collect();
        match asterism_channel::accept_any(stream, &own, self.service, within, admit).await {
            Ok(stream) => {
                let peer = channel.peer(stream.peer());
                Ok(Wire::Secured(Box::new(stream), peer))
            }
            Err(ChannelError::Refused(key)) => {
                tracing::debug!(%key, "a key that is not known was refused");
                reporter.failed();
                Err("unknown_key")
            }
            // Whoever says nothing and goes is a probe, or had an accident.
            Err(ChannelError::HungUp | ChannelError::Io(_)) => Err("handshake"),
            Err(_) => {
                reporter.failed();
                Err("handshake")
            }
        }
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
            tracing::warn!(reason, refused = self.since_log, "connections refused");
            self.since_log = 0;
            self.logged = Some(Instant::now());
        }
    }
}
