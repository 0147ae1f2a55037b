//! What every service stands on: its store, its identity, its outbox and its gate.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use asterism_channel::Pins;
use asterism_store::{FileSpool, Records, SledOptions, SledRecords, SpoolOptions, StoreError, files};

use crate::{
    call::Gate,
    channel::{Channel, ChannelSetupError, is_channel},
    config::Common,
    firewall::{self, Firewall, FirewallError},
    identity::{Authority, PrincipalId, Role, Trust, follow},
    outbox::{Outbox, OutboxLimits, Sink},
    server::{Server, ServerBuilder, ServerError},
};

/// Lifetime of the tokens that a service makes for its own calls.
const TOKEN_LIFETIME: Duration = Duration::from_secs(600);
/// How long a start waits for a predecessor that is still letting go of its store.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How long a shutdown waits for audit to take the last events; the rest go at the next start.
const FLUSH: Duration = Duration::from_secs(2);

/// Why a service does not start. The text tells the next step.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The encrypted channel cannot be used.
    #[error(transparent)]
    Channel(#[from] ChannelSetupError),
    /// The rules of the firewall cannot be used.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// The server cannot run.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Anything that only this service can say.
    #[error("{0}")]
    Other(String),
}

/// What every service stands on.
pub struct Foundation {
    /// The service's records.
    pub records: Arc<dyn Records>,
    /// Makes and checks tokens.
    pub authority: Arc<Authority>,
    /// The way in for requests.
    pub gate: Gate,
    /// Judges access tokens.
    pub trust: Arc<Trust>,
    channel: Option<Channel>,
    firewall: Firewall,
    name: &'static str,
}

impl Foundation {
    /// Opens the store and the outbox of the service `name`, which sends its events to the configured audit service.
    ///
    /// Must be called within a tokio runtime, through [`off_runtime`].
    ///
    /// # Errors
    /// [`StartError::Store`], [`StartError::Channel`]
    pub fn open(name: &'static str, common: &Common) -> Result<Self, StartError> {
        let records = open_records(common)?;
        let authority = Arc::new(Authority::load_or_create(&common.credentials_dir)?);
        let channel = Channel::open(&common.channel)?;
        let sink = match &common.audit_addr {
            Some(endpoint) => Sink::Grpc {
                endpoint: endpoint.clone(),
                pin: pin(channel.as_ref(), endpoint, "audit")?,
                token: token_source(&authority, name),
            },
            None => Sink::Hold,
        };
        Self::assemble(name, common, records, authority, sink, channel)
    }

    /// As [`Foundation::open`], over records that are open already and with another place for events.
    ///
    /// # Errors
    /// [`StartError::Store`], [`StartError::Channel`]
    pub fn with(
        name: &'static str,
        common: &Common,
        records: Arc<dyn Records>,
        authority: Arc<Authority>,
        sink: Sink,
    ) -> Result<Self, StartError> {
        let channel = Channel::open(&common.channel)?;
        Self::assemble(name, common, records, authority, sink, channel)
    }

    fn assemble(
        name: &'static str,
        common: &Common,
        records: Arc<dyn Records>,
        authority: Arc<Authority>,
        sink: Sink,
        channel: Option<Channel>,
    ) -> Result<Self, StartError> {
        let limits = OutboxLimits {
            max_events: common.outbox_max_events,
        };
        let options = SpoolOptions {
            lock_patience: LOCK_PATIENCE,
            ..SpoolOptions::default()
        };
        let spool = FileSpool::open(&common.data_dir.join("outbox"), options)?;
        let outbox = Outbox::new(Arc::new(spool), name, limits, sink);
        let firewall = Firewall::open(&common.data_dir, outbox.clone())?;
        let bound = Duration::from_secs(common.identity.trust_max_age_seconds);
        let trust = Arc::new(Trust::new(name, bound));
        let gate = Gate::new(authority.clone(), outbox, &common.limits)
            .sender_constrained(channel.is_some())
            .trusting(trust.clone())
            .taking_authority_tokens(common.identity.accept_authority_tokens)
            .behind(firewall.clone());
        Ok(Self {
            records,
            authority,
            gate,
            trust,
            channel,
            firewall,
            name,
        })
    }

    /// Makes a fresh token of this service for each call that it makes.
    pub fn token(&self) -> Arc<dyn Fn() -> String + Send + Sync> {
        token_source(&self.authority, self.name)
    }

    /// Hears from kms at `endpoint` which access tokens hold, as long as this service runs; without, none is taken.
    ///
    /// # Errors
    /// As [`Foundation::pin`].
    pub fn follow_trust(&self, endpoint: Option<&str>) -> Result<(), StartError> {
        let Some(endpoint) = endpoint else { return Ok(()) };
        let source = follow::Source {
            endpoint: endpoint.to_owned(),
            pin: self.pin(endpoint, "kms")?,
            token: self.token(),
        };
        tokio::spawn(follow::follow(Arc::downgrade(&self.trust), source));
        Ok(())
    }

    /// Whom to expect at `endpoint`, where `service` is; none for a plain address.
    ///
    /// # Errors
    /// [`StartError::Channel`] when its key is not known, [`StartError::Other`] when there is no channel to reach it by.
    pub fn pin(&self, endpoint: &str, service: &str) -> Result<Option<Pins>, StartError> {
        pin(self.channel.as_ref(), endpoint, service)
    }

    /// A server whose health follows the outbox, with the firewall in front, and whose shutdown waits for detached work and last events.
    pub fn server(&self, common: &Common) -> ServerBuilder {
        let outbox = self.gate.outbox().clone();
        let (gate, firewall) = (self.gate.clone(), self.firewall.clone());
        let max = common.limits.max_message_bytes;
        Server::builder(self.name, common)
            .channel(self.channel.clone())
            .firewall(firewall.clone())
            .add(firewall::adapter(gate, firewall.clone(), max))
            .tracker(self.gate.tracker())
            .serving(outbox.serving())
            .on_shutdown(move || async move {
                // What it still has to tell goes with the last events.
                let _ = tokio::task::spawn_blocking(move || firewall.settle()).await;
                outbox.close(FLUSH).await;
            })
    }
}

/// Runs what opens files beside the runtime's threads: a store that a predecessor is still letting go of is waited for,
/// and other services of the same process go on meanwhile.
///
/// # Errors
/// What `open` answers; [`StartError::Other`] when it panics.
pub async fn off_runtime<T: Send + 'static>(
    open: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    tokio::task::spawn_blocking(open)
        .await
        .map_err(|error| StartError::Other(error.to_string()))?
}

/// Opens the records of a service in its data directory.
///
/// # Errors
/// [`StartError::Store`]
pub fn open_records(common: &Common) -> Result<Arc<dyn Records>, StartError> {
    files::create_private_dir(&common.data_dir)?;
    let options = SledOptions {
        lock_patience: LOCK_PATIENCE,
        ..SledOptions::default()
    };
    Ok(Arc::new(SledRecords::open(
        &common.data_dir.join("records"),
        options,
    )?))
}

fn pin(channel: Option<&Channel>, endpoint: &str, service: &str) -> Result<Option<Pins>, StartError> {
    if !is_channel(endpoint) {
        return Ok(None);
    }
    let channel = channel.ok_or_else(|| {
        StartError::Other(format!(
            "{endpoint} is reached over the channel, which has no key"
        ))
    })?;
    Ok(Some(channel.pin(service)?))
}

fn token_source(authority: &Arc<Authority>, name: &'static str) -> Arc<dyn Fn() -> String + Send + Sync> {
    let (authority, id) = (authority.clone(), PrincipalId::service(name));
    Arc::new(move || authority.mint(&id, &[Role::Service], TOKEN_LIFETIME, SystemTime::now()))
}
