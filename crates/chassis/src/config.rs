//! Typed settings in layers: built-in defaults, then a TOML file, then the environment, then flags.
//!
//! One rule for keys: a setting has one dotted name, `limits.queue`. In the file it is `queue` under
//! `[limits]`; in the environment of the service `kms` it is `ASTERISM_KMS_LIMITS__QUEUE` (a double underscore
//! for each dot); as a flag it is `--set limits.queue=64`. Unknown names are refused with the nearest known one.
//! Secrets are never settings: a setting names the file that holds one.
//!
//! # For the author of a service
//! ```
//! use asterism_chassis::config::{Common, ConfigError, Settings};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Debug, Serialize, Deserialize)]
//! #[serde(deny_unknown_fields)]
//! pub struct Config {
//!     /// The keys of `Common` appear at the top level (`listen = …`), not under `[common]`.
//!     pub common: Common,
//!     /// Users write `[root_key]`, `ASTERISM_KMS_ROOT_KEY__PASSPHRASE_FILE`, `--set root_key.passphrase_file=…`.
//!     pub root_key: RootKey,
//! }
//!
//! #[derive(Clone, Debug, Default, Serialize, Deserialize)]
//! #[serde(deny_unknown_fields)]
//! pub struct RootKey {
//!     pub kind: String,
//!     pub passphrase_file: Option<std::path::PathBuf>, // an option is known although it is unset
//! }
//!
//! impl Default for Config {
//!     fn default() -> Self {
//!         Self { common: Common::for_service("kms"), root_key: RootKey::default() }
//!     }
//! }
//!
//! impl Settings for Config {
//!     fn common(&self) -> &Common {
//!         &self.common
//!     }
//!     fn check(&self) -> Result<(), ConfigError> {
//!         match self.root_key.kind.as_str() {
//!             "" | "file" | "passphrase" => Ok(()),
//!             _ => Err(ConfigError::invalid("root_key.kind", "must be file or passphrase")),
//!         }
//!     }
//! }
//! ```
//! The known keys are those of the serialised default: keep sections plain structs with options (checked by
//! [`Settings::check`]) rather than enums with data, whose other variants' keys would be unknown. A map that is
//! empty by default takes any keys.

mod channel;
mod layers;
mod schema;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use channel::ChannelConfig;
pub use layers::{load, load_text};

/// Settings of a whole service: what `entry::run_service` needs to know about them.
pub trait Settings: Serialize + DeserializeOwned + Default + Send + 'static {
    /// The part that every service has.
    fn common(&self) -> &Common;

    /// Rules between settings that types cannot say. Runs before a port opens; a failure ends the process with
    /// exit code 2.
    fn check(&self) -> Result<(), ConfigError> {
        Ok(())
    }
}

/// Settings that every service has. Users see them at the top level of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Common {
    /// Where the service listens.
    pub listen: SocketAddr,
    /// Allows a listener or a peer that is not on the loopback interface although the channel is plain HTTP/2.
    pub allow_remote_plaintext: bool,
    /// Where the service keeps its state.
    pub data_dir: PathBuf,
    /// Where the authority key lies that signs and checks tokens.
    pub credentials_dir: PathBuf,
    /// `http://host:port` or `noise://host:port` of kms, where this service calls it.
    pub kms_addr: Option<String>,
    /// `http://host:port` or `noise://host:port` of audit, where events are forwarded to.
    pub audit_addr: Option<String>,
    /// `http://host:port` or `noise://host:port` of ingest, where this service calls it.
    pub ingest_addr: Option<String>,
    /// `http://host:port` of an OTLP/gRPC receiver of traces and metrics; unset exports nothing.
    pub otlp_endpoint: Option<String>,
    /// Events that may wait in the outbox for audit before crypto operations are refused.
    pub outbox_max_events: u64,
    /// The encrypted channel.
    pub channel: ChannelConfig,
    /// Which tokens are taken.
    pub identity: IdentityConfig,
    /// Logging to standard error.
    pub log: LogConfig,
    /// Bounds on what callers may use up.
    pub limits: Limits,
}

/// Which tokens are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityConfig {
    /// Takes tokens of the authority key from people too, as `asterism token mint` makes them. Otherwise they are good only for
    /// services, over the channel of their own key, and people log in.
    pub accept_authority_tokens: bool,
    /// Seconds without a word from kms after which access tokens are refused.
    pub trust_max_age_seconds: u64,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            accept_authority_tokens: true,
            trust_max_age_seconds: 30,
        }
    }
}

/// Logging to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Lines for people or JSON objects for machines.
    pub format: LogFormat,
    /// `tracing` directives, e.g. `info,h2=warn`.
    pub filter: String,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Bounds on what callers may use up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests worked on at once, over all connections.
    pub max_in_flight: usize,
    /// Requests that may wait for a place; more are answered RESOURCE_EXHAUSTED.
    pub queue: usize,
    /// Bytes of one message, either way; give it to `max_decoding_message_size` and `max_encoding_message_size`.
    pub max_message_bytes: usize,
    /// Milliseconds for a call whose caller set no deadline.
    pub default_deadline_ms: u64,
    /// Milliseconds that a caller may ask for at most.
    pub max_deadline_ms: u64,
    /// Open connections.
    pub max_connections: usize,
    /// Open connections from one IPv4 address or one IPv6 /64 network.
    pub max_connections_per_ip: usize,
    /// Seconds after which a connection takes no new calls, and ends with those that it has: callers connect anew, over the
    /// channel with fresh keys.
    pub max_connection_age_seconds: u64,
}

impl Limits {
    /// Time for a call whose caller set no deadline.
    pub fn default_deadline(&self) -> Duration {
        Duration::from_millis(self.default_deadline_ms.min(WEEK_MS))
    }

    /// Time that a caller may ask for at most.
    pub fn max_deadline(&self) -> Duration {
        Duration::from_millis(self.max_deadline_ms.min(WEEK_MS))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_in_flight: 32,
            queue: 256,
            max_message_bytes: 4 * 1024 * 1024,
            default_deadline_ms: 30_000,
            max_deadline_ms: 600_000,
            max_connections: 1024,
            max_connections_per_ip: 256,
            max_connection_age_seconds: 1800,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info,h2=warn,hyper=warn,tonic=warn".to_owned(),
        }
    }
}

impl Common {
    /// The defaults of a service: `kms` listens on 127.0.0.1:7001, `ingest` on 7002, `inference` on 7003, `audit`
    /// on 7004, any other on a free port.
    pub fn for_service(service: &str) -> Self {
        let port = match service {
            "kms" => 7001,
            "ingest" => 7002,
            "inference" => 7003,
            "audit" => 7004,
            _ => 0,
        };
        let root = Path::new("asterism-data");
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
            allow_remote_plaintext: false,
            data_dir: root.join(service),
            credentials_dir: root.join("credentials"),
            kms_addr: None,
            audit_addr: None,
            ingest_addr: None,
            otlp_endpoint: None,
            outbox_max_events: 100_000,
            channel: ChannelConfig::default(),
            identity: IdentityConfig::default(),
            log: LogConfig::default(),
            limits: Limits::default(),
        }
    }

    /// The defaults of `service` with its state in `root/<service>`, credentials in `root/credentials` and a free
    /// loopback port: what embedded mode and tests start from.
    pub fn embedded(service: &str, root: &Path) -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            data_dir: root.join(service),
            credentials_dir: root.join("credentials"),
            ..Self::for_service(service)
        }
    }

    /// Refuses settings that are well formed but unsound. `load` has called it already.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_addresses()?;
        tracing_subscriber::EnvFilter::try_new(&self.log.filter).map_err(|_| {
            ConfigError::invalid("log.filter", "must be tracing directives such as `info,h2=warn`")
        })?;
        self.limits.check()?;
        let identity = &self.identity;
        at_least(
            "identity.trust_max_age_seconds",
            identity.trust_max_age_seconds,
            2,
        )?;
        if !identity.accept_authority_tokens && !self.channel.is_on() {
            let key = "identity.accept_authority_tokens";
            let needed =
                "may be false only with channel.static_key_file: services prove themselves over the channel";
            return Err(ConfigError::invalid(key, needed));
        }
        at_least("outbox_max_events", self.outbox_max_events, 1)
    }

    fn peers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("kms_addr", self.kms_addr.as_deref()),
            ("audit_addr", self.audit_addr.as_deref()),
            ("ingest_addr", self.ingest_addr.as_deref()),
        ]
        .into_iter()
        .filter_map(|(key, address)| address.map(|address| (key, address)))
    }
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        at_least("limits.max_in_flight", self.max_in_flight as u64, 1)?;
        at_least(
            "limits.max_message_bytes",
            self.max_message_bytes as u64,
            64 * 1024,
        )?;
        at_least("limits.default_deadline_ms", self.default_deadline_ms, 1)?;
        at_least("limits.max_connections", self.max_connections as u64, 1)?;
        at_least(
            "limits.max_connections_per_ip",
            self.max_connections_per_ip as u64,
            1,
        )?;
        at_least(
            "limits.max_connection_age_seconds",
            self.max_connection_age_seconds,
            1,
        )?;
        if self.max_connection_age_seconds > WEEK_MS / 1000 {
            return Err(ConfigError::invalid(
                "limits.max_connection_age_seconds",
                "must be at most 604800 (a week)",
            ));
        }
        if self.max_in_flight > MAX_PERMITS || self.max_connections > MAX_PERMITS || self.queue > MAX_PERMITS
        {
            return Err(ConfigError::invalid("limits", "counts must be at most 1000000"));
        }
        if self.max_message_bytes > 64 * 1024 * 1024 {
            return Err(ConfigError::invalid(
                "limits.max_message_bytes",
                "must be at most 67108864 (64 MiB)",
            ));
        }
        if self.max_deadline_ms < self.default_deadline_ms {
            return Err(ConfigError::invalid(
                "limits.max_deadline_ms",
                "must be at least limits.default_deadline_ms",
            ));
        }
        if self.max_deadline_ms > WEEK_MS {
            return Err(ConfigError::invalid(
                "limits.max_deadline_ms",
                "must be at most 604800000 (a week)",
            ));
        }
        Ok(())
    }
}

/// Longer deadlines are mistakes, and far longer ones overflow the clock.
const WEEK_MS: u64 = 7 * 24 * 3_600_000;
/// Far below what a tokio semaphore holds, far above what a machine does.
const MAX_PERMITS: usize = 1_000_000;

/// Why settings were refused. The text is for the operator and says what to change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings file {path}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{place} is not valid TOML: {message}")]
    Syntax {
        /// File and line.
        place: String,
        /// What the parser expected.
        message: String,
    },
    /// No setting has this name.
    #[error("unknown setting `{key}` {origin}{}", hint(.nearest.as_deref()))]
    Unknown {
        /// The name as given.
        key: String,
        /// Where it was given.
        origin: String,
        /// The known name that looks most alike.
        nearest: Option<String>,
    },
    /// A setting has a wrong value.
    #[error("setting `{key}`{} {message}", place(.origin))]
    Invalid {
        /// The setting.
        key: String,
        /// Where it was given; empty when several layers may have given it.
        origin: String,
        /// What it must be.
        message: String,
    },
    /// Another machine would be talked to in the clear.
    #[error(
        "setting `{key}` leaves this machine, and plain HTTP/2 carries tokens and data in the clear: \
         use a loopback address, or set allow_remote_plaintext = true where the network itself is trusted"
    )]
    RemotePlaintext {
        /// The setting.
        key: String,
    },
    /// The configuration type itself is wrong: a programming mistake.
    #[error("the settings type cannot be used: {0}")]
    Type(String),
}

impl ConfigError {
    /// A wrong value of the setting `key`; `message` says what it must be.
    pub fn invalid(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid {
            key: key.into(),
            origin: String::new(),
            message: message.into(),
        }
    }

    fn remote_plaintext(key: &str) -> Self {
        Self::RemotePlaintext { key: key.to_owned() }
    }
}

fn hint(nearest: Option<&str>) -> String {
    nearest
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

fn place(origin: &str) -> String {
    if origin.is_empty() {
        String::new()
    } else {
        format!(" {origin}")
    }
}

fn at_least(key: &str, value: u64, least: u64) -> Result<(), ConfigError> {
    if value >= least {
        Ok(())
    } else {
        Err(ConfigError::invalid(key, format!("must be at least {least}")))
    }
}
