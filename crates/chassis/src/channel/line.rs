//! How a service itself calls another.

use std::time::Duration;

use asterism_channel::{Connector, Pins, SCHEME};
use tonic::transport::{Channel, Endpoint};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A line to `http://host:port`, or with pins to `noise://host:port`; connects at the first call. None to what is no endpoint, or to one
/// over the encrypted channel without a pin, or the other way round: nothing is ever sent in the clear by mistake.
pub(crate) fn lazy(endpoint: &str, pins: Option<Pins>) -> Option<Channel> {
    let secured = endpoint.strip_prefix(SCHEME).map(|at| format!("http://{at}"));
    let plain = secured.is_none();
    let endpoint = Endpoint::from_shared(secured.unwrap_or_else(|| endpoint.to_owned()))
        .ok()?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true);
    match pins {
        Some(pins) if !plain => Some(endpoint.connect_with_connector_lazy(Connector::new(pins))),
        None if plain => Some(endpoint.connect_lazy()),
        _ => None,
    }
}
