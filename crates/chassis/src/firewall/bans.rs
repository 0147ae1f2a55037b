//! Networks that are turned away for a while because of what they did.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use super::{
    Nanos, SECOND,
    rules::{BanRules, network_of},
};

/// What somebody did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A token that is missing or wrong, or another failure to prove who calls.
    Authentication,
    /// A handshake or a preface of garbage, too slow, or from a key that is not admitted.
    Handshake,
    /// A call that is refused to its caller.
    Denial,
}

impl Cause {
    /// As events say it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Authentication => "AUTHENTICATION_FAILURES",
            Self::Handshake => "HANDSHAKE_FAILURES",
            Self::Denial => "DENIALS",
        }
    }
}

/// A network that is turned away, in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ban {
    /// An address; of IPv6, the first one of a /64.
    pub network: IpAddr,
    /// When it began.
    pub since: u64,
    /// When it ends, or ended.
    pub until: u64,
    /// How many there were, those that are forgotten left out.
    pub strikes: u32,
    /// Of the last failure before it.
    pub cause: Cause,
}

/// What is known of a network.
struct Standing {
    /// When the window began.
    opened: Nanos,
    failures: u32,
    /// The last ban, running or over.
    ban: Option<Ban>,
}

impl Standing {
    fn is_banned(&self, now: Nanos) -> bool {
        self.ban
            .as_ref()
            .is_some_and(|ban| ban.until.saturating_mul(SECOND) > now)
    }
}

/// All networks of which something is known. Of bounded size: the harmless are forgotten first, the banned last.
pub(super) struct Bans {
    standings: Mutex<HashMap<IpAddr, Standing>>,
    /// How many have a ban; while there is none, nobody has to look.
    banned: AtomicUsize,
    bound: usize,
}

impl Bans {
    pub(super) fn new(bound: usize) -> Self {
        Self {
            standings: Mutex::default(),
            banned: AtomicUsize::new(0),
            bound,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.banned.load(Ordering::Relaxed) == 0
    }

    pub(super) fn is_banned(&self, network: IpAddr, now: Nanos) -> bool {
        !self.is_empty()
            && self
                .standings()
                .get(&network)
                .is_some_and(|standing| standing.is_banned(now))
    }

    /// Counts a failure; answers the ban that it leads to.
    pub(super) fn failed(&self, network: IpAddr, cause: Cause, rules: &BanRules, now: Nanos) -> Option<Ban> {
        let mut standings = self.standings();
        if standings.len() >= self.bound && !standings.contains_key(&network) {
            make_room(&mut standings, rules, now);
        }
        let standing = standings.entry(network).or_insert(Standing {
            opened: now,
            failures: 0,
            ban: None,
        });
        if standing.is_banned(now) {
            return None;
        }
        // The clock may have been set back.
        if standing.opened > now || now - standing.opened > rules.window.saturating_mul(SECOND) {
            standing.opened = now;
            standing.failures = 0;
        }
        standing.failures += 1;
        if standing.failures < rules.failures {
            return None;
        }
        let earlier = standing
            .ban
            .as_ref()
            .map_or(0, |ban| strikes_left(ban, rules, now));
        let seconds = rules
            .first
            .saturating_mul(1 << earlier.min(32))
            .min(rules.longest);
        let since = now / SECOND;
        let ban = Ban {
            network,
            since,
            until: (now.div_ceil(SECOND)).saturating_add(seconds),
            strikes: earlier.saturating_add(1),
            cause,
        };
        standing.failures = 0;
        standing.ban = Some(ban.clone());
        self.recount(&standings);
        Some(ban)
    }

    /// Those that run, and with `all` also those that are over and not forgotten.
    pub(super) fn list(&self, now: Nanos, all: bool) -> Vec<Ban> {
        let standings = self.standings();
        let shown = standings
            .values()
            .filter(|standing| all || standing.is_banned(now));
        let mut bans: Vec<Ban> = shown.filter_map(|standing| standing.ban.clone()).collect();
        bans.sort_by_key(|ban| (ban.until, ban.network));
        bans
    }

    /// Forgets what is known of a network; tells whether it was banned.
    pub(super) fn lift(&self, network: IpAddr, now: Nanos) -> bool {
        let mut standings = self.standings();
        let banned = standings
            .remove(&network)
            .is_some_and(|standing| standing.is_banned(now));
        self.recount(&standings);
        banned
    }

    pub(super) fn restore(&self, bans: Vec<Ban>) {
        let mut standings = self.standings();
        for ban in bans.into_iter().take(self.bound) {
            let network = network_of(ban.network);
            let standing = Standing {
                opened: 0,
                failures: 0,
                ban: Some(Ban { network, ..ban }),
            };
            standings.insert(network, standing);
        }
        self.recount(&standings);
    }

    /// Forgets the harmless.
    pub(super) fn tidy(&self, rules: &BanRules, now: Nanos) {
        let mut standings = self.standings();
        standings.retain(|_, standing| !is_harmless(standing, rules, now));
        self.recount(&standings);
    }

    pub(super) fn len(&self) -> usize {
        self.standings().len()
    }

    fn standings(&self) -> MutexGuard<'_, HashMap<IpAddr, Standing>> {
        self.standings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recount(&self, standings: &HashMap<IpAddr, Standing>) {
        let banned = standings
            .values()
            .filter(|standing| standing.ban.is_some())
            .count();
        self.banned.store(banned, Ordering::Relaxed);
    }
}

/// Earlier bans that still count: one less for every time without a failure that is as long as the longest ban.
fn strikes_left(ban: &Ban, rules: &BanRules, now: Nanos) -> u32 {
    let quiet = (now / SECOND).saturating_sub(ban.until);
    let forgotten = quiet / rules.longest.max(1);
    ban.strikes
        .saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
}

fn is_harmless(standing: &Standing, rules: &BanRules, now: Nanos) -> bool {
    let over = now.saturating_sub(standing.opened) > rules.window.saturating_mul(SECOND);
    let forgotten = |ban: &Ban| strikes_left(ban, rules, now) == 0;
    over && !standing.is_banned(now) && standing.ban.as_ref().is_none_or(forgotten)
}

/// Frees an eighth at least, so that this happens seldom.
fn make_room(standings: &mut HashMap<IpAddr, Standing>, rules: &BanRules, now: Nanos) {
    let wanted = standings.len() - (standings.len() / 8).max(1);
    standings.retain(|_, standing| !is_harmless(standing, rules, now));
    if standings.len() <= wanted {
        return;
    }
    let weight = |standing: &Standing| {
        let ban = standing.ban.as_ref();
        let until = ban.map_or(0, |ban| ban.until);
        (
            standing.is_banned(now),
            ban.is_some(),
            until,
            standing.failures,
            standing.opened,
        )
    };
    let mut order: Vec<_> = standings
        .iter()
        .map(|(network, standing)| (weight(standing), *network))
        .collect();
    order.sort_unstable();
    for (_, network) in order.iter().take(standings.len() - wanted) {
        standings.remove(network);
    }
}
