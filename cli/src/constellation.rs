//! All four services in one process.

mod doors;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use asterism_chassis::{
    config::Common,
    identity::{Authority, PrincipalId, Role},
    server::Running,
};
use asterism_client::Credentials;
use asterism_kms::RootKeyConfig;
use tokio::net::TcpListener;

pub use doors::ChannelEndpoint;
use doors::Doors;

use crate::{
    commands::token,
    connect::{Endpoints, Services},
    error::CliError,
};

/// Lifetime of the tokens that embedded clients make for themselves, one per call.
const TOKEN_LIFETIME: Duration = Duration::from_secs(600);

/// How the constellation starts.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// First of four consecutive ports on loopback; `None` takes free ones.
    pub port: Option<u16>,
    /// Where traces and metrics go.
    pub otlp_endpoint: Option<String>,
    /// What opens the seal of the root key of kms; a new one is made with it.
    pub root_key: RootKeyConfig,
    /// Has the services call each other in the clear, as people do: to see what the channel costs.
    pub without_channel: bool,
}

/// Four running services, each with its own store under one data directory.
pub struct Constellation {
    endpoints: Endpoints,
    channels: Vec<ChannelEndpoint>,
    authority: Arc<Authority>,
    data: PathBuf,
    /// In the order in which they are shut down: callers before those whom they call.
    running: Vec<Running>,
}

impl Constellation {
    /// Starts all four on loopback with their data under `data`. They call each other over the encrypted channel.
    ///
    /// # Errors
    /// [`CliError::Start`] naming the service that cannot start, and why.
    pub async fn start(data: &Path, options: &Options) -> Result<Self, CliError> {
        asterism_store::files::create_private_dir(data).map_err(|error| CliError::Start {
            service: "asterism",
            problem: error.to_string(),
        })?;
        // Made before the services start, so that no two of them race to make it.
        let authority = Arc::new(token::authority(data)?);
        let (kms_at, ingest_at) = (listen(options.port, 0).await?, listen(options.port, 1).await?);
        let (inference_at, audit_at) = (listen(options.port, 2).await?, listen(options.port, 3).await?);
        let endpoints = Endpoints {
            kms: endpoint(&kms_at)?,
            ingest: endpoint(&ingest_at)?,
            inference: endpoint(&inference_at)?,
            audit: endpoint(&audit_at)?,
        };
        let mut doors = if options.without_channel {
            Doors::default()
        } else {
            Doors::open(data).await?
        };
        let channels = doors.endpoints();
        let between = doors.between(&endpoints);
        let common = |service: &str, listener: &TcpListener| -> Result<Common, CliError> {
            let mut common = Common::embedded(service, data);
            common.listen = address(listener)?;
            common.kms_addr = Some(between.kms.clone());
            common.ingest_addr = Some(between.ingest.clone());
            common.audit_addr = Some(between.audit.clone());
            common.channel = doors.config(service);
            common.otlp_endpoint.clone_from(&options.otlp_endpoint);
            Ok(common)
        };
        let kms = asterism_kms::Config {
            common: common("kms", &kms_at)?,
            root_key: options.root_key.clone(),
            ..Default::default()
        };
        let ingest = asterism_ingest::Config {
            common: common("ingest", &ingest_at)?,
            ..Default::default()
        };
        let inference = asterism_inference::Config {
            common: common("inference", &inference_at)?,
            ..Default::default()
        };
        let audit = asterism_audit::Config {
            common: common("audit", &audit_at)?,
        };
        let mut listeners = |service, plain| doors.listeners(service, plain);
        let (kms, ingest, inference, audit) = tokio::join!(
            asterism_kms::start(kms, listeners("kms", kms_at)),
            asterism_ingest::start(ingest, listeners("ingest", ingest_at)),
            asterism_inference::start(inference, listeners("inference", inference_at)),
            asterism_audit::start(audit, listeners("audit", audit_at)),
        );
        let running = vec![
            inference.map_err(|error| failed("inference", &error))?,
            ingest.map_err(|error| failed("ingest", &error))?,
            kms.map_err(|error| failed("kms", &error))?,
            audit.map_err(|error| failed("audit", &error))?,
        ];
        Ok(Self {
            endpoints,
            channels,
            authority,
            data: data.to_owned(),
            running,
        })
    }

    /// Where the services listen in the clear, on loopback.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Where the services are reached over the encrypted channel.
    pub fn channels(&self) -> &[ChannelEndpoint] {
        &self.channels
    }

    /// Where everything is kept.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Makes tokens for the principals of this constellation.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Credentials of `principal`; a fresh short-lived token for each call.
    ///
    /// # Errors
    /// [`CliError::Usage`] when that is not a principal.
    pub fn credentials(&self, principal: &str, roles: &[Role]) -> Result<Credentials, CliError> {
        let id: PrincipalId = principal
            .parse()
            .map_err(|_| CliError::Usage(format!("`{principal}` is not a principal like user/alice")))?;
        let (authority, roles) = (self.authority.clone(), roles.to_vec());
        Ok(Credentials::source(move || {
            Ok(authority.mint(&id, &roles, TOKEN_LIFETIME, SystemTime::now()))
        }))
    }

    /// Clients of all four as `principal`.
    ///
    /// # Errors
    /// [`CliError::Usage`] when that is not a principal.
    pub fn connect(
        &self,
        principal: &str,
        roles: &[Role],
        trace_id: Option<&str>,
    ) -> Result<Services, CliError> {
        self.endpoints
            .connect(&self.credentials(principal, roles)?, trace_id)
    }

    /// Drains and stops the services, callers first.
    pub async fn shutdown(self) {
        for service in self.running {
            service.shutdown().await;
        }
    }
}

async fn listen(first: Option<u16>, offset: u16) -> Result<TcpListener, CliError> {
    let port = first.map_or(0, |first| first.saturating_add(offset));
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|error| CliError::Start {
            service: "asterism",
            problem: format!("port {port}: {error}; choose others with --port"),
        })
}

fn address(listener: &TcpListener) -> Result<SocketAddr, CliError> {
    listener
        .local_addr()
        .map_err(|error| CliError::Other(format!("a listener has no address: {error}")))
}

fn endpoint(listener: &TcpListener) -> Result<String, CliError> {
    Ok(format!("http://{}", address(listener)?))
}

fn failed(service: &'static str, error: &dyn std::fmt::Display) -> CliError {
    CliError::Start {
        service,
        problem: error.to_string(),
    }
}
