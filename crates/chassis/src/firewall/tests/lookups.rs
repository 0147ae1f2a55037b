//! What is looked up is what a reading of all rules, one after the other, finds.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::{
    super::{compiled::Compiled, meter::Limit},
    *,
};

/// Few bits differ, so that networks lie in each other, and addresses in them; the first and the last of all are among them.
fn address() -> impl Strategy<Value = IpAddr> {
    let bits = prop_oneof![
        Just(0_u32),
        Just(u32::MAX),
        any::<u32>().prop_map(|bits| bits & 0xC003_0101)
    ];
    (bits, any::<bool>()).prop_map(|(bits, v4)| {
        if v4 {
            return Ipv4Addr::from(bits).into();
        }
        let wide = u128::from(bits) * 0x0001_0000_0001_0000_0000_0000_0001;
        Ipv6Addr::from(if bits == u32::MAX { u128::MAX } else { wide }).into()
    })
}

fn subject() -> impl Strategy<Value = Subject> {
    let network = (address(), 0..=128_u8).prop_map(|(address, length)| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let net = IpNet::new(address, length.min(most)).expect("a length of the family");
        Subject::Network(net.trunc())
    });
    prop_oneof![
        8 => network,
        2 => (0..4_u8).prop_map(|number| Subject::Principal(format!("user/u{number}"))),
        1 => prop_oneof![Just("user"), Just("device")].prop_map(|kind| Subject::Kind(kind.to_owned())),
        1 => Just(Subject::Everybody),
    ]
}

/// Of which some have expired.
fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (subject(), proptest::option::of(0..2_u64)).prop_map(|(subject, left)| Entry {
        subject,
        expires: left.map(|left| START / SECOND + left),
        comment: String::new(),
    });
    proptest::collection::vec(entry, 0..40).prop_map(|mut entries| {
        let mut seen = std::collections::BTreeSet::new();
        entries.retain(|entry| seen.insert(entry.subject.clone()));
        entries
    })
}

fn rules() -> impl Strategy<Value = Rules> {
    let lists = (entries(), entries(), entries());
    (lists, any::<bool>(), any::<bool>()).prop_map(|((allow, block, limited), blocks, exempt_loopback)| {
        let limits = limited.iter().zip(1_u32..);
        let exempt = limited.iter().rev().filter_map(|entry| match entry.subject {
            Subject::Network(net) => Some(net),
            _ => None,
        });
        Rules {
            default: if blocks {
                DefaultAction::Block
            } else {
                DefaultAction::Allow
            },
            limits: limits
                .map(|(entry, number)| RateLimit {
                    subject: entry.subject.clone(),
                    requests_per_second: f64::from(number),
                    burst: number,
                })
                .collect(),
            bans: BanRules {
                exempt: exempt.take(5).collect(),
                ..BanRules::default()
            },
            allow,
            block,
            exempt_loopback,
        }
    })
}

/// How closely a subject names who calls; `None` when it does not.
fn close_to_address(subject: &Subject, address: IpAddr) -> Option<u8> {
    match subject {
        Subject::Network(net) if net.contains(&address) => Some(net.prefix_len()),
        _ => None,
    }
}

fn close_to_principal(subject: &Subject, principal: &str) -> Option<u8> {
    match subject {
        Subject::Principal(id) if id == principal => Some(2),
        Subject::Kind(kind) if principal.starts_with(&format!("{kind}/")) => Some(1),
        Subject::Everybody => Some(0),
        _ => None,
    }
}

fn listed(entries: &[Entry], close: impl Fn(&Subject) -> Option<u8>, now: Nanos) -> bool {
    let holds = |entry: &Entry| entry.expires.is_none_or(|at| at * SECOND > now);
    entries
        .iter()
        .any(|entry| holds(entry) && close(&entry.subject).is_some())
}

fn closest(limits: &[RateLimit], close: impl Fn(&Subject) -> Option<u8>) -> Option<Limit> {
    let found = limits
        .iter()
        .filter_map(|limit| Some((close(&limit.subject)?, limit)));
    let (_, limit) = found.max_by_key(|(close, _)| *close)?;
    Some(Limit::new(limit.requests_per_second, limit.burst))
}

/// Whether the rules let a call pass, rates aside, as their documentation says it: the block wins.
fn passes(rules: &Rules, address: IpAddr, principal: &str, now: Nanos) -> bool {
    let by_address = |entries: &[Entry]| listed(entries, |subject| close_to_address(subject, address), now);
    let by_principal =
        |entries: &[Entry]| listed(entries, |subject| close_to_principal(subject, principal), now);
    let exempt = rules.exempt_loopback && address.is_loopback();
    let blocked = !exempt && by_address(&rules.block) || by_principal(&rules.block);
    let allowed = exempt || by_address(&rules.allow) || by_principal(&rules.allow);
    !blocked && (allowed || rules.default == DefaultAction::Allow)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn look_ups_find_what_a_reading_of_every_rule_finds(
        rules in rules(),
        callers in proptest::collection::vec((address(), 0..6_u8), 1..20),
    ) {
        let compiled = Compiled::new(rules.clone());
        let unlimited = Engine::new(Rules { limits: vec![], ..rules.clone() }, vec![]);
        for (address, number) in callers {
            let principal = format!("{}/u{number}", if number < 5 { "user" } else { "device" });
            let at = |subject: &Subject| close_to_address(subject, address);
            let by = |subject: &Subject| close_to_principal(subject, &principal);
            for now in [START - 1, START, START + SECOND] {
                prop_assert_eq!(compiled.blocks_address(address, now), listed(&rules.block, at, now));
                prop_assert_eq!(compiled.allows_address(address, now), listed(&rules.allow, at, now));
                prop_assert_eq!(compiled.blocks_principal(&principal, now), listed(&rules.block, by, now));
                prop_assert_eq!(compiled.allows_principal(&principal, now), listed(&rules.allow, by, now));
                let passage = unlimited.network(Some(address), now);
                let passed = passage.is_ok_and(|passage| unlimited.principal(&principal, passage, now).is_ok());
                // An address in the clothes of the other family is judged as what it is.
                prop_assert_eq!(passed, passes(&rules, address.to_canonical(), &principal, now));
            }
            let (of_address, of_principal) = (closest(&rules.limits, at), closest(&rules.limits, by));
            prop_assert_eq!(compiled.limit_of_address(address), of_address.as_ref());
            prop_assert_eq!(compiled.limit_of_principal(&principal), of_principal.as_ref());
            let exempt = rules.bans.exempt.iter().any(|net| net.contains(&address));
            let loopback = rules.exempt_loopback && address.is_loopback();
            prop_assert_eq!(compiled.never_bans(address), exempt || loopback);
        }
    }
}
