//! The command lines of `asterism channel` and `asterism proxy`.

use std::{net::SocketAddr, path::PathBuf};

use asterism_client::channel::PublicKey;
use clap::{Args, Subcommand, ValueEnum};

/// `asterism channel`
#[derive(Subcommand, Debug)]
pub enum ChannelCommand {
    /// Makes the static keys of the four services in the data directory, and the directory of their public keys, where
    /// they are missing; shows the public keys.
    Init,
    /// Replaces the static key of a service while it runs: prepare, promote and retire, with some seconds between them.
    Rotate {
        /// Whose.
        #[arg(value_enum)]
        service: ServiceName,
        /// What to do now.
        #[arg(value_enum)]
        step: RotationStep,
    },
    /// Makes a static key for a person, and shows its public half.
    Keygen {
        /// Where to write it (mode 0600); never over a file that is there.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// A service that has a key.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceName {
    /// Key management.
    Kms,
    /// Datasets.
    Ingest,
    /// Models.
    Inference,
    /// The log.
    Audit,
}

/// A step of a rotation.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationStep {
    /// Makes the next key and publishes it: the service answers to both, the others accept both.
    Prepare,
    /// Calls with the next key from now on; the one before still counts.
    Promote,
    /// Withdraws and shreds the key before.
    Retire,
}

/// `asterism proxy`
#[derive(Args, Debug)]
pub struct ProxyArgs {
    /// The service's address: noise://HOST:PORT.
    #[arg(long, value_name = "URL")]
    pub to: String,
    /// The public key that the service has to have: asx1….
    #[arg(long, value_name = "KEY")]
    pub pin: PublicKey,
    /// Which service it is: kms, ingest, inference or audit. Another one's door does not open.
    #[arg(long)]
    pub service: String,
    /// Where to listen, on the loopback interface: what comes there is in the clear. Port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// The static key to call with; a fresh one otherwise, which only services take that admit unknown keys.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}
