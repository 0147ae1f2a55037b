//! What the firewall is told: who may come, how often, and who is turned away for a while.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{FirewallError, Nanos, SECOND};
use crate::identity::PrincipalId;

/// Entries that one set of rules may have, of all kinds together.
pub const MAX_ENTRIES: usize = 4096;
/// Networks that may be exempt from bans; each is looked at for every failure.
const MAX_EXEMPT: usize = 256;
const MAX_COMMENT_BYTES: usize = 200;
const RATES: std::ops::RangeInclusive<f64> = 0.01..=1_000_000.0;
const MAX_BURST: u32 = 1_000_000;
const DAY: u64 = 24 * 3600;

/// Whom a rule is about: a network (`10.0.0.0/8`, `2001:db8::/32`, one address), or principals (`user/alice`, `user/*`, `*`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Subject {
    /// Callers from this network.
    Network(IpNet),
    /// One principal.
    Principal(String),
    /// Every principal of a kind: `user`, `service`, …
    Kind(String),
    /// Every principal.
    Everybody,
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > 160 {
            return Err("is longer than 160 bytes".to_owned());
        }
        let net = text.parse::<IpNet>().ok();
        if let Some(net) = net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)) {
            return network(net).map(Self::Network);
        }
        if text == "*" {
            return Ok(Self::Everybody);
        }
        let wrong = || {
            format!(
                "`{text}` is neither a network like 10.0.0.0/8 nor a principal like user/alice, user/* or *"
            )
        };
        if let Some(kind) = text.strip_suffix("/*") {
            let decent = (1..=16).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_lowercase());
            return decent.then(|| Self::Kind(kind.to_owned())).ok_or_else(wrong);
        }
        let id: PrincipalId = text.parse().map_err(|_| wrong())?;
        Ok(Self::Principal(id.to_string()))
    }
}

impl TryFrom<String> for Subject {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.to_string()
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(net) => net.fmt(f),
            Self::Principal(id) => f.write_str(id),
            Self::Kind(kind) => write!(f, "{kind}/*"),
            Self::Everybody => f.write_str("*"),
        }
    }
}

/// Networks are written as what they are: a rule that means another network than it says is a mistake.
fn network(net: IpNet) -> Result<IpNet, String> {
    if net != net.trunc() {
        return Err(format!(
            "{net} has bits set behind its prefix: {} is the network",
            net.trunc()
        ));
    }
    match net {
        IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() => {
            Err(format!("{net} is an IPv4 network: write it as one"))
        }
        net => Ok(net),
    }
}

/// Whoever is on no list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DefaultAction {
    /// May come.
    #[default]
    Allow,
    /// May not: a call passes when its network or its principal is on the list of the allowed.
    Block,
}

/// A line of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Whom it is about.
    pub subject: Subject,
    /// Seconds since 1970 after which it counts no more.
    pub expires: Option<u64>,
    /// For people.
    pub comment: String,
}

/// How often each one may call: every principal that matches, or every address (of IPv6, every /64) in the network. Of
/// several that match, the one that names it most closely counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Whom it is about.
    pub subject: Subject,
    /// Sustained.
    pub requests_per_second: f64,
    /// At once, after a rest.
    pub burst: u32,
}

/// When a network is turned away for a while. Failures are: a token that is missing or wrong, a method that its principal
/// may not call, and a handshake that fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanRules {
    /// Failures within the window that lead to a ban; 0: nobody is banned.
    pub failures: u32,
    /// Counts from the first failure, in seconds.
    pub window: u64,
    /// Seconds of the first ban; each further one is twice as long …
    pub first: u64,
    /// … up to this. After as long without a failure, one earlier ban is forgotten.
    pub longest: u64,
    /// Networks that are never banned.
    pub exempt: Vec<IpNet>,
}

impl Default for BanRules {
    fn default() -> Self {
        Self {
            failures: 20,
            window: 60,
            first: 60,
            longest: 3600,
            exempt: vec![],
        }
    }
}

/// Everything that the firewall is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Whoever is on no list.
    pub default: DefaultAction,
    /// Those who may come when the default is to block.
    pub allow: Vec<Entry>,
    /// Those who may not, whatever else is said of them.
    pub block: Vec<Entry>,
    /// How often they may call.
    pub limits: Vec<RateLimit>,
    /// When networks are turned away.
    pub bans: BanRules,
    /// Callers on this machine are not subject to rules about networks, nor banned.
    pub exempt_loopback: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            default: DefaultAction::default(),
            allow: vec![],
            block: vec![],
            limits: vec![],
            bans: BanRules::default(),
            exempt_loopback: true,
        }
    }
}

impl Rules {
    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// [`FirewallError::Rules`]
    pub fn check(&self) -> Result<(), FirewallError> {
        if self.allow.len() + self.block.len() + self.limits.len() > MAX_ENTRIES {
            return wrong("rules", format!("there are more than {MAX_ENTRIES} entries"));
        }
        for (field, entries) in [("rules.allow", &self.allow), ("rules.block", &self.block)] {
            distinct(field, entries.iter().map(|entry| &entry.subject))?;
            if entries
                .iter()
                .any(|entry| entry.comment.len() > MAX_COMMENT_BYTES)
            {
                return wrong(
                    field,
                    format!("a comment is longer than {MAX_COMMENT_BYTES} bytes"),
                );
            }
        }
        distinct("rules.limits", self.limits.iter().map(|limit| &limit.subject))?;
        for limit in &self.limits {
            if !RATES.contains(&limit.requests_per_second) {
                return wrong(
                    "rules.limits",
                    "requests per second must be between 0.01 and 1000000",
                );
            }
            if !(1..=MAX_BURST).contains(&limit.burst) {
                return wrong("rules.limits", "a burst must be between 1 and 1000000");
            }
        }
        let bans = &self.bans;
        if bans.exempt.len() > MAX_EXEMPT {
            return wrong(
                "rules.bans.exempt",
                format!("there are more than {MAX_EXEMPT} networks"),
            );
        }
        if let Some(Err(problem)) = bans.exempt.iter().map(|net| network(*net)).find(Result::is_err) {
            return wrong("rules.bans.exempt", problem);
        }
        if bans.failures == 0 {
            return Ok(());
        }
        if !(1..=DAY).contains(&bans.window) {
            return wrong("rules.bans.window", "must be between a second and a day");
        }
        if bans.first == 0 || bans.first > bans.longest || bans.longest > 30 * DAY {
            return wrong(
                "rules.bans",
                "the first ban takes at least a second, and at most the longest: 30 days at most",
            );
        }
        Ok(())
    }

    /// Without the entries that count no more.
    #[must_use]
    pub fn current(mut self, now: Nanos) -> Self {
        let holds = |entry: &Entry| entry.expires.is_none_or(|at| at.saturating_mul(SECOND) > now);
        self.allow.retain(holds);
        self.block.retain(holds);
        self
    }
}

fn wrong<T>(field: &'static str, problem: impl Into<String>) -> Result<T, FirewallError> {
    Err(FirewallError::Rules {
        field,
        problem: problem.into(),
    })
}

fn distinct<'a>(
    field: &'static str,
    subjects: impl Iterator<Item = &'a Subject>,
) -> Result<(), FirewallError> {
    let mut seen = BTreeSet::new();
    for subject in subjects {
        if !seen.insert(subject) {
            return wrong(field, format!("{subject} is there twice"));
        }
    }
    Ok(())
}

/// One IPv6 caller commands a whole /64, so that is what counts.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// The network of [`network_of`] as people write it.
pub(super) fn text_of(network: IpAddr) -> String {
    match network {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{address}/64"),
    }
}
