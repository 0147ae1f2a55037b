//! Who may come, and how often: in front of every call of every service.
//!
//! * [`rules`]: lists of the allowed and the blocked, by network and by principal, rate limits, when to ban.
//! * `engine`: the decisions, of bounded memory and free of clocks; `compiled` and `ranges` what they look up, `meter` the rates, `bans` the bans.
//! * `alarms`: refusals become events, few however many there are.
//! * `files`: rules are durable before they are acknowledged, bans within a second.
//! * `service`: `asterism.firewall.v1.FirewallService`, on every service, for its own rules.
//!
//! It stands at two places. Where connections are accepted, a blocked or banned network is dropped before its handshake. At
//! the gate, every call is held against the network's rules before anybody looks at its token, and against its principal's
//! after. Of several rules the block wins; a rate limit is the one that names the caller most closely.

mod alarms;
mod bans;
mod compiled;
mod engine;
mod files;
mod meter;
mod ranges;
pub mod rules;
mod service;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    net::IpAddr,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use asterism_store::StoreError;

pub use bans::{Ban, Cause};
pub(crate) use engine::{Passage, Refusal};
pub(crate) use rules::network_of;
pub use service::adapter;

use alarms::{Alarm, Alarms};
use engine::Engine;
use files::{Files, StoredRules, etag};
use rules::{Rules, text_of};

use crate::{
    call::Caller,
    error::{Classify, ErrorClass, Failure, FieldViolation},
    identity::{Principal, Role},
    outbox::{AuditEvent, Outbox, Outcome},
};

/// Nanoseconds since 1970.
pub(crate) type Nanos = u64;
pub(crate) const SECOND: Nanos = 1_000_000_000;

/// How often bans are stored and counts are told.
const TICK: Duration = Duration::from_secs(1);
/// How often what has no effect any more is forgotten.
const TICKS_PER_TIDY: u64 = 30;

/// Why the firewall refuses, or does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirewallError {
    /// The caller's network or principal is blocked, or not allowed.
    #[error("the firewall does not let you call this service; ask an administrator")]
    Blocked,
    /// Too many calls.
    #[error("too many calls; try again in {} ms", .0.as_millis().max(1))]
    Limited(Duration),
    /// Rules that cannot be meant.
    #[error("{field}: {problem}")]
    Rules {
        /// Where.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The rules are others than the caller knows.
    #[error("the rules were changed meanwhile; read them again, and change those")]
    Stale,
    /// The request id was used for other rules.
    #[error("the request id belongs to a change that is in force and says something else; use a fresh one")]
    RequestReused,
    /// The caller would turn itself away.
    #[error(
        "the rules would turn away the address or the principal that this call comes from; set force if that is meant"
    )]
    Lockout,
    /// Nobody is banned there.
    #[error("{0} is not banned")]
    NotBanned(String),
    /// A file is not what this service wrote.
    #[error("{path} cannot be used: {problem}; restore it, or delete it to start without what is in it")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// A file cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Classify for FirewallError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Blocked => ErrorClass::Denied,
            Self::Limited(_) => ErrorClass::Exhausted,
            Self::Rules { .. } => ErrorClass::Invalid,
            Self::Stale | Self::Lockout => ErrorClass::Precondition,
            Self::RequestReused => ErrorClass::Conflict,
            Self::NotBanned(_) => ErrorClass::NotFound,
            Self::Damaged { .. } => ErrorClass::Internal,
            Self::Store(error) => error.class(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Blocked => "FIREWALL_BLOCKED",
            Self::Limited(_) => "RATE_LIMITED",
            Self::Rules { .. } => "INVALID_FIELD",
            Self::Stale => "ETAG_MISMATCH",
            Self::RequestReused => "REQUEST_ID_REUSED",
            Self::Lockout => "FIREWALL_LOCKOUT",
            Self::NotBanned(_) => "NOT_BANNED",
            Self::Damaged { .. } => "FIREWALL_DAMAGED",
            Self::Store(error) => error.reason(),
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        match self {
            Self::Rules { field, problem } => vec![FieldViolation {
                field: (*field).to_owned(),
                description: problem.clone(),
            }],
            _ => vec![],
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Limited(wait) => Some(*wait),
            Self::Store(error) => error.retry_after(),
            _ => None,
        }
    }
}

/// The decisions by a set of rules alone, without a service around them.
pub struct Decisions(Engine);

impl Decisions {
    /// By these rules, and nobody banned.
    ///
    /// # Errors
    /// [`FirewallError::Rules`]
    pub fn by(rules: Rules) -> Result<Self, FirewallError> {
        rules.check()?;
        Ok(Self(Engine::new(rules, vec![])))
    }

    /// Whether a call from `address` by `principal` passes at `now`, in nanoseconds since 1970. It counts as a call.
    pub fn admits(&self, address: IpAddr, principal: &str, now: u64) -> bool {
        let passage = self.0.network(Some(address), now);
        passage.is_ok_and(|passage| self.0.principal(principal, passage, now).is_ok())
    }
}

/// The firewall of one service. Cheap to clone.
#[derive(Clone)]
pub struct Firewall {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    alarms: Mutex<Alarms>,
    outbox: Outbox,
    files: Files,
    /// What is on the disk; held while rules change.
    stored: Mutex<StoredRules>,
    unsaved_bans: AtomicBool,
    ticks: AtomicU64,
}

impl Firewall {
    /// Reads rules and bans in `dir`, and keeps them there; alarms go to `outbox`.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`FirewallError::Damaged`] and [`FirewallError::Store`]: a service does not start without the rules that it had.
    pub fn open(dir: &Path, outbox: Outbox) -> Result<Self, FirewallError> {
        let files = Files::within(dir);
        let stored = files.read_rules()?;
        let bans = files.read_bans()?;
        let shared = Arc::new(Shared {
            engine: Engine::new(stored.rules.clone(), bans),
            alarms: Mutex::default(),
            outbox,
            files,
            stored: Mutex::new(stored),
            unsaved_bans: AtomicBool::new(false),
            ticks: AtomicU64::new(0),
        });
        tokio::spawn(keep(Arc::downgrade(&shared)));
        Ok(Self { shared })
    }

    /// Whether a connection is worth a handshake.
    pub(crate) fn admits_connection(&self, address: IpAddr) -> bool {
        match self.shared.engine.connection(address, now()) {
            Ok(()) => true,
            Err(_) => {
                self.shared
                    .tell("firewall.Blocked", networks(address), "FIREWALL_BLOCKED");
                false
            }
        }
    }

    /// The network's part of the rules.
    pub(crate) fn admits_network(&self, address: Option<IpAddr>) -> Result<Passage, Failure> {
        let engine = &self.shared.engine;
        engine.network(address, now()).map_err(|refusal| {
            let resource = address.map_or_else(String::new, networks);
            self.refused(refusal, resource)
        })
    }

    /// The principal's part.
    pub(crate) fn admits_principal(&self, principal: &Principal, passage: Passage) -> Result<(), Failure> {
        let id = principal.id.as_str();
        let engine = &self.shared.engine;
        (engine.principal(id, passage, now()))
            .map_err(|refusal| self.refused(refusal, format!("principals/{id}")))
    }

    fn refused(&self, refusal: Refusal, resource: String) -> Failure {
        let error = match refusal {
            Refusal::NetworkRate(wait) | Refusal::PrincipalRate(wait) => FirewallError::Limited(wait),
            Refusal::Network | Refusal::Banned | Refusal::Principal => FirewallError::Blocked,
        };
        self.shared.tell("firewall.Blocked", resource, error.reason());
        error.into()
    }

    /// Counts a failure of somebody at `address`, which may lead to a ban.
    pub(crate) fn failed(&self, address: IpAddr, cause: Cause) {
        if let Some(ban) = self.shared.engine.failed(address, cause, now()) {
            self.shared.unsaved_bans.store(true, Ordering::Release);
            tracing::warn!(network = %ban.network, until = ban.until, strikes = ban.strikes, cause = cause.reason(), "a network is banned");
            self.shared
                .tell("firewall.Ban", networks(address), cause.reason());
        }
    }

    /// Counts how a call ended that got as far as its work. Services ask for others, and do not answer for them.
    pub(crate) fn ended(&self, caller: &Caller, failure: &Failure) {
        let cause = match failure.class() {
            ErrorClass::Unauthenticated => Cause::Authentication,
            ErrorClass::Denied => Cause::Denial,
            _ => return,
        };
        if let Some(address) = caller.network.filter(|_| !caller.principal.is(Role::Service)) {
            self.failed(address, cause);
        }
    }

    /// The rules in force, and the name of this state of them.
    pub fn rules(&self) -> (Rules, String) {
        let rules = self.shared.engine.rules();
        let etag = etag(&rules);
        (rules, etag)
    }

    /// Replaces the rules, durably, and in force when this returns. Blocks.
    ///
    /// # Errors
    /// [`FirewallError::Rules`], [`FirewallError::Stale`], [`FirewallError::Lockout`], [`FirewallError::RequestReused`],
    /// [`FirewallError::Store`]
    pub fn replace(&self, change: Change, caller: &Caller) -> Result<(Rules, String), FirewallError> {
        change.rules.check()?;
        let now = now();
        let rules = change.rules.current(now);
        let shared = &*self.shared;
        let mut stored = shared.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if !change.request_id.is_empty() && stored.request_id == change.request_id {
            let same = etag(&stored.rules) == etag(&rules);
            return same.then(|| self.rules()).ok_or(FirewallError::RequestReused);
        }
        if etag(&stored.rules) != change.etag {
            return Err(FirewallError::Stale);
        }
        if !change.force && !engine::admits(&rules, caller.network, caller.principal.id.as_str(), now) {
            return Err(FirewallError::Lockout);
        }
        let next = StoredRules::new(rules.clone(), change.request_id);
        shared.files.write_rules(&next)?;
        *stored = next;
        shared.engine.replace(rules);
        Ok(self.rules())
    }

    /// The networks that are banned now; with `all`, also those whose ban is over and not forgotten.
    pub fn bans(&self, all: bool) -> Vec<Ban> {
        self.shared.engine.bans().list(now(), all)
    }

    /// Ends a ban, durably, and forgets what led to it. Blocks.
    ///
    /// # Errors
    /// [`FirewallError::NotBanned`], [`FirewallError::Store`]
    pub fn lift(&self, address: IpAddr) -> Result<(), FirewallError> {
        let network = network_of(address);
        if !self.shared.engine.bans().lift(network, now()) {
            return Err(FirewallError::NotBanned(text_of(network)));
        }
        self.shared.save_bans()
    }

    /// Tells what is counted and stores what is not stored: before the outbox closes. Blocks.
    pub fn settle(&self) {
        self.shared.tick(true);
    }
}

/// A change of all rules.
#[derive(Clone, Debug)]
pub struct Change {
    /// What holds from now on.
    pub rules: Rules,
    /// The state that they come after.
    pub etag: String,
    /// Names the request, so that it can be repeated; may be empty.
    pub request_id: String,
    /// Even if the caller turns itself away by it.
    pub force: bool,
}

impl Shared {
    /// Makes an event of it, now or with others later.
    fn tell(&self, operation: &'static str, resource: String, reason: &'static str) {
        let alarm = Alarm {
            operation,
            resource,
            reason,
        };
        let told = self.alarms().count(alarm, now());
        if let Some(alarm) = told {
            self.note(alarm, 1);
        }
    }

    fn note(&self, alarm: Alarm, count: u64) {
        self.outbox.note(AuditEvent {
            outcome: Outcome::Denied,
            reason: format!("{} count={count}", alarm.reason).into(),
            ..AuditEvent::unasked(alarm.operation, alarm.resource)
        });
    }

    fn tick(&self, last: bool) {
        let now = now();
        let due = self.alarms().due(now, last);
        for (alarm, count) in due {
            self.note(alarm, count);
        }
        if self.ticks.fetch_add(1, Ordering::Relaxed) % TICKS_PER_TIDY == TICKS_PER_TIDY - 1 {
            self.engine.tidy(now);
        }
        if self.unsaved_bans.swap(false, Ordering::AcqRel)
            && let Err(error) = self.save_bans()
        {
            tracing::warn!(%error, "bans could not be stored; they hold until a restart");
            self.unsaved_bans.store(true, Ordering::Release);
        }
    }

    fn save_bans(&self) -> Result<(), FirewallError> {
        self.files.write_bans(self.engine.bans().list(now(), true))
    }

    fn alarms(&self) -> MutexGuard<'_, Alarms> {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stores and tells from time to time, as long as the firewall is there.
async fn keep(shared: Weak<Shared>) {
    let mut every = tokio::time::interval(TICK);
    loop {
        every.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        // The next tick takes what this one could not.
        let _ = tokio::task::spawn_blocking(move || shared.tick(false)).await;
    }
}

fn networks(address: IpAddr) -> String {
    format!("networks/{}", text_of(network_of(address)))
}

fn now() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(Nanos::MAX)
}
