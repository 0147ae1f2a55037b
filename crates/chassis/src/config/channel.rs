//! Settings of the encrypted channel, and the rule where bytes may go in the clear.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{Common, ConfigError};

/// The encrypted channel (`asterism-channel`). Off unless there is a static key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelConfig {
    /// The service's own static key, mode 0600. Setting it switches the channel on.
    pub static_key_file: Option<PathBuf>,
    /// Public keys by principal: `service/kms.pub`, `user/alice.pub`. Services that are called are pinned by it.
    pub authorized_peers_dir: Option<PathBuf>,
    /// Admits callers whose key is not in the directory: people, who have tokens. Tokens of services never come that way.
    pub allow_unknown_peers: bool,
    /// Where the channel listens beside `listen`, which stays plain HTTP/2 then. Unset: `listen` is the channel's.
    pub listen: Option<SocketAddr>,
}

impl ChannelConfig {
    /// Whether there is a channel.
    pub fn is_on(&self) -> bool {
        self.static_key_file.is_some()
    }

    fn check(&self) -> Result<(), ConfigError> {
        let needs = |key: &str, what: &str| Err(ConfigError::invalid(key, what));
        match (&self.static_key_file, &self.authorized_peers_dir) {
            (Some(_), None) => needs(
                "channel.authorized_peers_dir",
                "must be set where channel.static_key_file is",
            ),
            (None, Some(_)) => needs(
                "channel.static_key_file",
                "must be set where channel.authorized_peers_dir is",
            ),
            (None, None) if self.listen.is_some() || self.allow_unknown_peers => needs(
                "channel.static_key_file",
                "must be set where another setting of the channel is",
            ),
            _ => Ok(()),
        }
    }
}

/// How far bytes of an address go, and how.
struct Reach {
    encrypted: bool,
    loopback: bool,
}

impl Common {
    /// Refuses what would leave this machine in the clear, and addresses that are none.
    pub(super) fn check_addresses(&self) -> Result<(), ConfigError> {
        self.channel.check()?;
        let plain = !self.channel.is_on() || self.channel.listen.is_some();
        if plain && !self.allow_remote_plaintext && !self.listen.ip().is_loopback() {
            return Err(ConfigError::remote_plaintext("listen"));
        }
        for (key, address) in self.peers() {
            let reach = reach(key, address)?;
            if reach.encrypted && !self.channel.is_on() {
                let needed = "is a noise:// address: set channel.static_key_file too";
                return Err(ConfigError::invalid(key, needed));
            }
            if !reach.encrypted && !reach.loopback && !self.allow_remote_plaintext {
                return Err(ConfigError::remote_plaintext(key));
            }
        }
        match &self.otlp_endpoint {
            Some(address) if reach("otlp_endpoint", address)?.encrypted => Err(ConfigError::invalid(
                "otlp_endpoint",
                "must be an address such as http://127.0.0.1:4317",
            )),
            _ => Ok(()),
        }
    }
}

/// Reads an `http://host:port` or `noise://host:port`.
fn reach(key: &str, address: &str) -> Result<Reach, ConfigError> {
    let wrong = || ConfigError::invalid(key, "must be an address such as http://127.0.0.1:7001");
    let uri: http::Uri = address.parse().map_err(|_| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?;
    let bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
    let encrypted = match uri.scheme_str() {
        Some("http") => false,
        Some("noise") => true,
        _ => return Err(wrong()),
    };
    // User information would be a secret among the settings.
    if !bare || authority.as_str().contains('@') || (encrypted && authority.port_u16().is_none()) {
        return Err(wrong());
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    Ok(Reach {
        encrypted,
        loopback: host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
    })
}
