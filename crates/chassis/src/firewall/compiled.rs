//! Rules as they are looked up: by the ranges that networks are, and by name.

use std::{collections::HashMap, net::IpAddr};

use super::{
    Nanos, SECOND,
    meter::Limit,
    ranges::Networks,
    rules::{DefaultAction, Entry, Rules, Subject},
};

/// Values by subject; a look-up costs one search for an address, at most two hashes for a principal.
struct Table<T> {
    networks: Networks<T>,
    principals: HashMap<String, T>,
    kinds: HashMap<String, T>,
    everybody: Option<T>,
}

impl<T> Table<T> {
    fn new(values: impl Iterator<Item = (Subject, T)>) -> Self {
        let mut networks = Vec::new();
        let (mut principals, mut kinds, mut everybody) = (HashMap::new(), HashMap::new(), None);
        for (subject, value) in values {
            match subject {
                Subject::Network(net) => networks.push((net, value)),
                Subject::Principal(id) => {
                    principals.insert(id, value);
                }
                Subject::Kind(kind) => {
                    kinds.insert(kind, value);
                }
                Subject::Everybody => everybody = Some(value),
            }
        }
        Self {
            networks: Networks::new(networks),
            principals,
            kinds,
            everybody,
        }
    }

    /// What is said of an address, the closest first.
    fn of_address(&self, address: IpAddr) -> impl Iterator<Item = &T> {
        self.networks.of(address)
    }

    /// What is said of a principal, the closest first.
    fn of_principal(&self, id: &str) -> impl Iterator<Item = &T> {
        let kind = id.split_once('/').map_or("", |(kind, _)| kind);
        let exact = self.principals.get(id).into_iter();
        exact.chain(self.kinds.get(kind)).chain(&self.everybody)
    }

    fn names_principals(&self) -> bool {
        !self.principals.is_empty() || !self.kinds.is_empty() || self.everybody.is_some()
    }
}

/// A set of rules, ready for use.
pub(super) struct Compiled {
    pub(super) rules: Rules,
    /// Until when an entry counts.
    allow: Table<Nanos>,
    block: Table<Nanos>,
    limits: Table<Limit>,
    never_banned: Networks<()>,
}

impl Compiled {
    pub(super) fn new(rules: Rules) -> Self {
        let until = |entry: &Entry| {
            let until = entry.expires.map_or(Nanos::MAX, |at| at.saturating_mul(SECOND));
            (entry.subject.clone(), until)
        };
        Self {
            allow: Table::new(rules.allow.iter().map(until)),
            block: Table::new(rules.block.iter().map(until)),
            limits: Table::new((rules.limits.iter()).map(|limit| {
                (
                    limit.subject.clone(),
                    Limit::new(limit.requests_per_second, limit.burst),
                )
            })),
            never_banned: Networks::new(rules.bans.exempt.iter().map(|net| (*net, ()))),
            rules,
        }
    }

    /// Whether there is anything to look up for a call.
    pub(super) fn is_idle(&self) -> bool {
        let rules = &self.rules;
        rules.default == DefaultAction::Allow && rules.block.is_empty() && rules.limits.is_empty()
    }

    pub(super) fn blocks_by_default(&self) -> bool {
        self.rules.default == DefaultAction::Block
    }

    /// Whether rules about networks do not concern this address.
    pub(super) fn exempts(&self, address: IpAddr) -> bool {
        self.rules.exempt_loopback && address.is_loopback()
    }

    pub(super) fn blocks_address(&self, address: IpAddr, now: Nanos) -> bool {
        self.block.of_address(address).any(|until| *until > now)
    }

    pub(super) fn allows_address(&self, address: IpAddr, now: Nanos) -> bool {
        self.allow.of_address(address).any(|until| *until > now)
    }

    pub(super) fn blocks_principal(&self, id: &str, now: Nanos) -> bool {
        self.block.of_principal(id).any(|until| *until > now)
    }

    pub(super) fn allows_principal(&self, id: &str, now: Nanos) -> bool {
        self.allow.of_principal(id).any(|until| *until > now)
    }

    /// Whether who comes from anywhere may still turn out to be allowed.
    pub(super) fn allows_principals(&self) -> bool {
        self.allow.names_principals()
    }

    pub(super) fn limit_of_address(&self, address: IpAddr) -> Option<&Limit> {
        self.limits.of_address(address).next()
    }

    pub(super) fn limit_of_principal(&self, id: &str) -> Option<&Limit> {
        self.limits.of_principal(id).next()
    }

    /// Whether a failure from here never leads to a ban.
    pub(super) fn never_bans(&self, address: IpAddr) -> bool {
        self.rules.bans.failures == 0
            || self.exempts(address)
            || self.never_banned.of(address).next().is_some()
    }
}
