//! The decisions. Pure: no clock, no disk, no network.

use std::{
    net::IpAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    Nanos,
    bans::{Ban, Bans, Cause},
    compiled::Compiled,
    meter::Meters,
    rules::{Rules, network_of},
};

/// Networks, and principals, of which something is remembered at most.
const MAX_TRACKED: usize = 65_536;

/// Why somebody is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The network is blocked, or not allowed where it has to be.
    Network,
    /// The network is banned.
    Banned,
    /// The principal is blocked, or neither it nor its network allowed where one has to be.
    Principal,
    /// The network calls too often; for how long it has to wait.
    NetworkRate(Duration),
    /// The principal calls too often; for how long it has to wait.
    PrincipalRate(Duration),
}

/// What a network's part of the rules said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// It may call.
    Allowed,
    /// It may if its principal may.
    IfPrincipal,
}

/// What happened since the start.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) connections_refused: AtomicU64,
    pub(super) blocked: AtomicU64,
    pub(super) rate_limited: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) bans: AtomicU64,
}

/// Rules, and what is remembered of callers.
pub(crate) struct Engine {
    compiled: RwLock<Arc<Compiled>>,
    /// Whether there are rules that a call has to be held against.
    strict: AtomicBool,
    networks: Meters<IpAddr>,
    principals: Meters<String>,
    bans: Bans,
    pub(super) counters: Counters,
}

impl Engine {
    pub(super) fn new(rules: Rules, bans: Vec<Ban>) -> Self {
        Self::bounded(rules, bans, MAX_TRACKED)
    }

    pub(super) fn bounded(rules: Rules, bans: Vec<Ban>, bound: usize) -> Self {
        let compiled = Compiled::new(rules);
        let engine = Self {
            strict: AtomicBool::new(!compiled.is_idle()),
            compiled: RwLock::new(Arc::new(compiled)),
            networks: Meters::new(bound),
            principals: Meters::new(bound),
            bans: Bans::new(bound),
            counters: Counters::default(),
        };
        engine.bans.restore(bans);
        engine
    }

    pub(super) fn rules(&self) -> Rules {
        self.compiled().rules.clone()
    }

    pub(super) fn replace(&self, rules: Rules) {
        let compiled = Compiled::new(rules);
        let strict = !compiled.is_idle();
        *self.compiled.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(compiled);
        self.strict.store(strict, Ordering::Release);
    }

    /// Whether there is nothing to look up: the common case, one or two loads.
    fn is_idle(&self) -> bool {
        !self.strict.load(Ordering::Acquire) && self.bans.is_empty()
    }

    /// Whether a connection from `address` is worth a handshake.
    pub(crate) fn connection(&self, address: IpAddr, now: Nanos) -> Result<(), Refusal> {
        if self.is_idle() {
            return Ok(());
        }
        let rules = self.compiled();
        let passage = self.passage(&rules, address.to_canonical(), now);
        let refused = match passage {
            Ok(Passage::IfPrincipal) if !rules.allows_principals() => Some(Refusal::Network),
            Ok(_) => None,
            Err(refusal) => Some(refusal),
        };
        refused.map_or(Ok(()), |refusal| {
            self.counters.connections_refused.fetch_add(1, Ordering::Relaxed);
            Err(refusal)
        })
    }

    /// The network's part, before anybody knows who calls.
    pub(crate) fn network(&self, address: Option<IpAddr>, now: Nanos) -> Result<Passage, Refusal> {
        if self.is_idle() {
            return Ok(Passage::Allowed);
        }
        let rules = self.compiled();
        let Some(address) = address.map(|address| address.to_canonical()) else {
            return Ok(if rules.blocks_by_default() {
                Passage::IfPrincipal
            } else {
                Passage::Allowed
            });
        };
        let passage = self
            .passage(&rules, address, now)
            .inspect_err(|_| self.count_blocked())?;
        match rules
            .limit_of_address(address)
            .filter(|_| !rules.exempts(address))
        {
            Some(limit) => {
                let taken = self.networks.take(&network_of(address), limit, now);
                taken.map_err(|wait| self.limited(Refusal::NetworkRate(wait)))?;
                Ok(passage)
            }
            None => Ok(passage),
        }
    }

    /// The principal's part.
    pub(crate) fn principal(&self, id: &str, passage: Passage, now: Nanos) -> Result<(), Refusal> {
        if !self.strict.load(Ordering::Acquire) {
            return Ok(());
        }
        let rules = self.compiled();
        let unwanted = passage == Passage::IfPrincipal && !rules.allows_principal(id, now);
        if unwanted || rules.blocks_principal(id, now) {
            self.count_blocked();
            return Err(Refusal::Principal);
        }
        let Some(limit) = rules.limit_of_principal(id) else {
            return Ok(());
        };
        (self.principals.take(id, limit, now)).map_err(|wait| self.limited(Refusal::PrincipalRate(wait)))
    }

    /// Counts a failure; answers the ban that it leads to.
    pub(crate) fn failed(&self, address: IpAddr, cause: Cause, now: Nanos) -> Option<Ban> {
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        let rules = self.compiled();
        let address = address.to_canonical();
        if rules.never_bans(address) {
            return None;
        }
        let ban = self
            .bans
            .failed(network_of(address), cause, &rules.rules.bans, now);
        if ban.is_some() {
            self.counters.bans.fetch_add(1, Ordering::Relaxed);
        }
        ban
    }

    pub(super) fn bans(&self) -> &Bans {
        &self.bans
    }

    /// Networks and principals of which something is remembered.
    pub(super) fn tracked(&self) -> (usize, usize) {
        (self.networks.len().max(self.bans.len()), self.principals.len())
    }

    /// Forgets what has no effect any more.
    pub(super) fn tidy(&self, now: Nanos) {
        self.networks.tidy(now);
        self.principals.tidy(now);
        self.bans.tidy(&self.compiled().rules.bans, now);
    }

    fn passage(&self, rules: &Compiled, address: IpAddr, now: Nanos) -> Result<Passage, Refusal> {
        if rules.exempts(address) {
            return Ok(Passage::Allowed);
        }
        if self.bans.is_banned(network_of(address), now) && !rules.never_bans(address) {
            return Err(Refusal::Banned);
        }
        if rules.blocks_address(address, now) {
            return Err(Refusal::Network);
        }
        if !rules.blocks_by_default() || rules.allows_address(address, now) {
            return Ok(Passage::Allowed);
        }
        Ok(Passage::IfPrincipal)
    }

    fn compiled(&self) -> Arc<Compiled> {
        self.compiled
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn count_blocked(&self) {
        self.counters.blocked.fetch_add(1, Ordering::Relaxed);
    }

    fn limited(&self, refusal: Refusal) -> Refusal {
        self.counters.rate_limited.fetch_add(1, Ordering::Relaxed);
        refusal
    }
}

/// Whether a caller would get through under `rules`, leaving rates aside.
pub(super) fn admits(rules: &Rules, address: Option<IpAddr>, principal: &str, now: Nanos) -> bool {
    let unlimited = Rules {
        limits: vec![],
        ..rules.clone()
    };
    let engine = Engine::bounded(unlimited, vec![], 1);
    let reachable = address.is_none_or(|address| engine.connection(address, now).is_ok());
    let passage = engine.network(address, now);
    reachable && passage.is_ok_and(|passage| engine.principal(principal, passage, now).is_ok())
}
