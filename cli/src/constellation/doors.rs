//! The encrypted channel between the services of a constellation: each listens for it beside its plain address.

use std::{net::Ipv4Addr, path::Path};

use asterism_chassis::{channel::provision, config::ChannelConfig, identity::PrincipalId, server::Listeners};
use asterism_client::channel::PublicKey;
use tokio::net::TcpListener;

use super::{address, failed};
use crate::{
    commands::channel::{key_file, peers_dir},
    connect::Endpoints,
    error::CliError,
};

/// Where a service is reached over the channel.
#[derive(Clone, Debug)]
pub struct ChannelEndpoint {
    /// Its name: `kms`, `ingest`, `inference`, `audit`.
    pub service: &'static str,
    /// `noise://host:port`
    pub address: String,
    /// The key that it has.
    pub key: PublicKey,
}

/// The channel's listener of a service, bound already.
pub(super) struct Door {
    pub(super) endpoint: ChannelEndpoint,
    pub(super) config: ChannelConfig,
    listener: TcpListener,
}

impl Door {
    /// On a free port of the loopback interface, with a key that is made at the first start.
    pub(super) async fn open(service: &'static str, data: &Path) -> Result<Self, CliError> {
        let (key_file, peers_dir) = (key_file(data, service), peers_dir(data));
        let key = provision(&key_file, &peers_dir, &PrincipalId::service(service))
            .map_err(|error| failed(service, &error))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(|error| failed(service, &error))?;
        let at = address(&listener)?;
        Ok(Self {
            endpoint: ChannelEndpoint {
                service,
                address: format!("noise://{at}"),
                key,
            },
            config: ChannelConfig {
                static_key_file: Some(key_file),
                authorized_peers_dir: Some(peers_dir),
                // People come with tokens, from keys of their own.
                allow_unknown_peers: true,
                listen: Some(at),
            },
            listener,
        })
    }
}

/// The channels of all four; empty when they call each other in the clear.
#[derive(Default)]
pub(super) struct Doors(Vec<Door>);

impl Doors {
    pub(super) async fn open(data: &Path) -> Result<Self, CliError> {
        let mut doors = Vec::new();
        // All keys are there before the first service reads the directory.
        for service in ["kms", "ingest", "inference", "audit"] {
            doors.push(Door::open(service, data).await?);
        }
        Ok(Self(doors))
    }

    pub(super) fn endpoints(&self) -> Vec<ChannelEndpoint> {
        self.0.iter().map(|door| door.endpoint.clone()).collect()
    }

    /// Where services call each other, `plain` being where people call them.
    pub(super) fn between(&self, plain: &Endpoints) -> Endpoints {
        let at = |service: &str, plain: &String| {
            self.find(service)
                .map_or_else(|| plain.clone(), |door| door.endpoint.address.clone())
        };
        Endpoints {
            kms: at("kms", &plain.kms),
            ingest: at("ingest", &plain.ingest),
            inference: at("inference", &plain.inference),
            audit: at("audit", &plain.audit),
        }
    }

    pub(super) fn config(&self, service: &str) -> ChannelConfig {
        self.find(service)
            .map(|door| door.config.clone())
            .unwrap_or_default()
    }

    /// The plain listener of a service, and its channel's.
    pub(super) fn listeners(&mut self, service: &str, plain: TcpListener) -> Listeners {
        let at = self.0.iter().position(|door| door.endpoint.service == service);
        match at.map(|at| self.0.swap_remove(at)) {
            Some(door) => Listeners::from(plain).and_channel(door.listener),
            None => plain.into(),
        }
    }

    fn find(&self, service: &str) -> Option<&Door> {
        self.0.iter().find(|door| door.endpoint.service == service)
    }
}
