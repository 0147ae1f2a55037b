//! The decisions under a clock that the tests hold.

#![allow(clippy::panic, clippy::print_stdout)]

mod files;
mod lookups;
mod meters;

use std::{net::IpAddr, time::Duration};

use super::{
    bans::Cause,
    engine::{Engine, Passage, Refusal, admits},
    rules::{BanRules, DefaultAction, Entry, RateLimit, Rules, Subject},
    *,
};

/// Some time in 2027.
const START: Nanos = 1_800_000_000 * SECOND;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn subject(text: &str) -> Subject {
    text.parse().expect("a subject")
}

fn entry(text: &str) -> Entry {
    Entry {
        subject: subject(text),
        expires: None,
        comment: String::new(),
    }
}

fn limit(text: &str, requests_per_second: f64, burst: u32) -> RateLimit {
    RateLimit {
        subject: subject(text),
        requests_per_second,
        burst,
    }
}

fn call(engine: &Engine, address: &str, principal: &str, now: Nanos) -> Result<(), Refusal> {
    let passage = engine.network(Some(ip(address)), now)?;
    engine.principal(principal, passage, now)
}

#[test]
fn subjects_are_read_as_they_are_written_and_nonsense_is_refused() {
    for text in [
        "10.0.0.0/8",
        "2001:db8::/32",
        "192.0.2.7/32",
        "user/alice",
        "user/*",
        "*",
    ] {
        assert_eq!(subject(text).to_string(), text);
    }
    assert_eq!(subject("192.0.2.7"), subject("192.0.2.7/32"));
    for bad in [
        "",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "alice",
        "USER/*",
        "/*",
        "user/",
        "::ffff:10.0.0.0/104",
        "user/a b",
    ] {
        assert!(bad.parse::<Subject>().is_err(), "{bad}");
    }
}

#[test]
fn a_block_wins_over_everything_else_said_of_a_caller() {
    let engine = Engine::new(
        Rules {
            allow: vec![entry("192.0.2.7"), entry("user/mallory")],
            block: vec![
                entry("192.0.2.0/24"),
                entry("user/mallory"),
                entry("device/*"),
                entry("2001:db8:1::/48"),
            ],
            ..Rules::default()
        },
        vec![],
    );
    assert_eq!(
        call(&engine, "192.0.2.7", "user/alice", START),
        Err(Refusal::Network)
    );
    assert_eq!(
        call(&engine, "::ffff:192.0.2.7", "user/alice", START),
        Err(Refusal::Network),
        "in IPv6 clothes"
    );
    assert_eq!(
        call(&engine, "2001:db8:1:2::3", "user/alice", START),
        Err(Refusal::Network)
    );
    assert_eq!(
        call(&engine, "198.51.100.1", "user/mallory", START),
        Err(Refusal::Principal)
    );
    assert_eq!(
        call(&engine, "198.51.100.1", "device/7", START),
        Err(Refusal::Principal)
    );
    assert_eq!(call(&engine, "198.51.100.1", "user/alice", START), Ok(()));
    assert_eq!(call(&engine, "2001:db8:2::3", "user/alice", START), Ok(()));
    assert!(engine.connection(ip("192.0.2.7"), START).is_err());
    assert!(engine.connection(ip("198.51.100.1"), START).is_ok());
}

#[test]
fn by_default_blocked_a_call_needs_its_network_or_its_principal_on_the_list() {
    let rules = |allow: &[&str]| Rules {
        default: DefaultAction::Block,
        allow: allow.iter().map(|text| entry(text)).collect(),
        ..Rules::default()
    };
    let engine = Engine::new(rules(&["10.0.0.0/8", "user/alice"]), vec![]);
    assert_eq!(call(&engine, "10.1.2.3", "user/bob", START), Ok(()));
    assert_eq!(call(&engine, "192.0.2.1", "user/alice", START), Ok(()));
    assert_eq!(
        call(&engine, "192.0.2.1", "user/bob", START),
        Err(Refusal::Principal)
    );
    assert_eq!(
        engine.network(None, START),
        Ok(Passage::IfPrincipal),
        "an address that nobody knows is on no list"
    );
    assert!(
        engine.connection(ip("192.0.2.1"), START).is_ok(),
        "alice may be at its other end"
    );
    let engine = Engine::new(rules(&["10.0.0.0/8"]), vec![]);
    assert!(
        engine.connection(ip("192.0.2.1"), START).is_err(),
        "nobody may be"
    );
    assert!(
        engine.connection(ip("127.0.0.1"), START).is_ok(),
        "this machine is exempt"
    );
}

#[test]
fn an_entry_counts_until_it_expires() {
    let expiring = |text: &str| Entry {
        expires: Some(START / SECOND + 10),
        ..entry(text)
    };
    let engine = Engine::new(
        Rules {
            block: vec![
                expiring("192.0.2.0/24"),
                expiring("user/bob"),
                entry("203.0.0.0/16"),
            ],
            ..Rules::default()
        },
        vec![],
    );
    let later = START + 10 * SECOND;
    assert!(call(&engine, "192.0.2.1", "user/alice", later - 1).is_err());
    assert!(call(&engine, "192.0.2.1", "user/alice", later).is_ok());
    assert!(call(&engine, "198.51.100.1", "user/bob", later - 1).is_err());
    assert!(call(&engine, "198.51.100.1", "user/bob", later).is_ok());
    assert!(
        call(&engine, "203.0.1.1", "user/alice", later).is_err(),
        "the other one holds"
    );
    assert_eq!(engine.rules().current(later).block, [entry("203.0.0.0/16")]);
    assert_eq!(engine.rules().current(later - 1).block.len(), 3);
}

#[test]
fn of_several_limits_the_closest_counts_and_each_caller_has_its_own() {
    let engine = Engine::new(
        Rules {
            limits: vec![
                limit("*", 1.0, 3),
                limit("user/*", 1.0, 2),
                limit("user/alice", 1.0, 1),
                limit("0.0.0.0/0", 1.0, 100),
                limit("192.0.2.0/24", 1.0, 4),
                limit("::/0", 1.0, 2),
            ],
            ..Rules::default()
        },
        vec![],
    );
    let passes = |address: &str, principal: &str| {
        (0..200)
            .filter(|_| call(&engine, address, principal, START).is_ok())
            .count()
    };
    assert_eq!(passes("198.51.100.1", "user/alice"), 1);
    assert_eq!(passes("198.51.100.2", "user/bob"), 2);
    assert_eq!(passes("198.51.100.3", "user/carol"), 2, "not bob's");
    assert_eq!(passes("198.51.100.4", "service/ingest"), 3);
    let by_network = |address: &str| {
        (0..200)
            .filter(|_| engine.network(Some(ip(address)), START).is_ok())
            .count()
    };
    assert_eq!(by_network("192.0.2.1"), 4);
    assert_eq!(by_network("192.0.2.2"), 4, "another address");
    assert_eq!(by_network("198.51.100.9"), 100);
    assert_eq!(by_network("2001:db8::1"), 2);
    assert_eq!(by_network("2001:db8::2"), 0, "the same /64");
    assert_eq!(by_network("2001:db8:0:1::1"), 2, "another /64");
    assert_eq!(by_network("127.0.0.1"), 200, "this machine is exempt");
    let refused = call(&engine, "198.51.100.5", "user/alice", START + SECOND / 4);
    assert_eq!(
        refused,
        Err(Refusal::PrincipalRate(Duration::from_millis(750))),
        "exactly as long"
    );
    assert_eq!(
        call(&engine, "198.51.100.5", "user/alice", START + SECOND),
        Ok(())
    );
}

fn strict() -> Rules {
    Rules {
        bans: BanRules {
            failures: 3,
            window: 10,
            first: 60,
            longest: 200,
            exempt: vec!["203.0.113.0/24".parse().expect("a network")],
        },
        ..Rules::default()
    }
}

fn fail(engine: &Engine, address: &str, times: usize, now: Nanos) -> Option<Ban> {
    (0..times).fold(None, |ban, _| {
        engine.failed(ip(address), Cause::Authentication, now).or(ban)
    })
}

#[test]
fn bans_come_after_so_many_failures_double_up_to_a_bound_end_and_are_forgotten() {
    let engine = Engine::new(strict(), vec![]);
    let mut now = START;
    assert_eq!(fail(&engine, "192.0.2.1", 2, now), None);
    assert_eq!(
        fail(&engine, "192.0.2.1", 2, now + 11 * SECOND),
        None,
        "another window"
    );
    now += 30 * SECOND;
    for (seconds, strikes) in [(60, 1), (120, 2), (200, 3), (200, 4)] {
        let ban = fail(&engine, "192.0.2.1", 3, now).expect("a ban");
        assert_eq!((ban.until - ban.since, ban.strikes), (seconds, strikes));
        assert_eq!(
            call(&engine, "192.0.2.1", "user/alice", now),
            Err(Refusal::Banned)
        );
        assert_eq!(engine.connection(ip("192.0.2.1"), now), Err(Refusal::Banned));
        assert!(
            call(&engine, "192.0.2.2", "user/alice", now).is_ok(),
            "its neighbour is not banned"
        );
        let end = now + seconds * SECOND;
        assert!(call(&engine, "192.0.2.1", "user/alice", end - 1).is_err());
        assert!(call(&engine, "192.0.2.1", "user/alice", end).is_ok());
        now = end + SECOND;
    }
    now += 2 * 200 * SECOND;
    let ban = fail(&engine, "192.0.2.1", 3, now).expect("a ban");
    assert_eq!(ban.strikes, 3, "two of four were forgotten");
    now += 1000 * 200 * SECOND;
    engine.tidy(now);
    assert_eq!(engine.tracked(), (0, 0), "and in the end all of it");
}

#[test]
fn a_whole_64_is_banned_and_exempt_networks_never() {
    let engine = Engine::new(strict(), vec![]);
    for host in 1..=3 {
        fail(&engine, &format!("2001:db8::{host}"), 1, START);
    }
    assert_eq!(
        call(&engine, "2001:db8::99", "user/alice", START),
        Err(Refusal::Banned)
    );
    assert_eq!(fail(&engine, "203.0.113.9", 100, START), None);
    assert_eq!(fail(&engine, "127.0.0.1", 100, START), None);
    assert_eq!(fail(&engine, "::1", 100, START), None);
    engine.replace(Rules {
        exempt_loopback: false,
        ..strict()
    });
    assert!(fail(&engine, "127.0.0.1", 3, START).is_some());
    assert!(engine.bans().lift(ip("127.0.0.1"), START));
    assert!(!engine.bans().lift(ip("127.0.0.1"), START), "once");
    assert_eq!(call(&engine, "127.0.0.1", "user/alice", START), Ok(()));
    engine.replace(Rules {
        bans: BanRules {
            exempt: vec!["2001:db8::/32".parse().expect("a network")],
            ..strict().bans
        },
        ..strict()
    });
    assert_eq!(
        call(&engine, "2001:db8::99", "user/alice", START),
        Ok(()),
        "exempt from now on"
    );
}

#[test]
fn many_addresses_and_names_cannot_fill_the_memory_nor_push_out_the_banned() {
    const BOUND: usize = 64;
    let mut rules = strict();
    rules.limits = vec![
        limit("*", 1.0, 2),
        limit("0.0.0.0/0", 0.01, 2),
        limit("::/0", 1.0, 2),
    ];
    let engine = Engine::bounded(rules, vec![], BOUND);
    let banned = fail(&engine, "192.0.2.1", 3, START).expect("a ban").network;
    for number in 0..5_000_u64 {
        let now = START + number * 1_000;
        let address = IpAddr::from([
            10,
            0,
            u8::try_from(number / 256).expect("small"),
            u8::try_from(number % 256).expect("small"),
        ]);
        let _ = engine.network(Some(address), now);
        let _ = engine.principal(&format!("user/u{number}"), Passage::Allowed, now);
        engine.failed(address, Cause::Handshake, now);
        let (networks, principals) = engine.tracked();
        assert!(
            networks <= BOUND && principals <= BOUND,
            "{networks} {principals}"
        );
    }
    assert!(
        engine.bans().is_banned(banned, START + SECOND),
        "the banned are forgotten last"
    );
}

#[test]
fn who_would_be_turned_away_is_known_before() {
    let mut rules = Rules::default();
    let here = Some(ip("192.0.2.1"));
    assert!(admits(&rules, here, "user/root", START));
    rules.block = vec![entry("192.0.2.0/24")];
    assert!(!admits(&rules, here, "user/root", START));
    assert!(admits(&rules, Some(ip("127.0.0.1")), "user/root", START));
    rules.block = vec![entry("user/*")];
    assert!(!admits(&rules, here, "user/root", START));
    rules.block = vec![];
    rules.default = DefaultAction::Block;
    assert!(!admits(&rules, here, "user/root", START));
    rules.allow = vec![entry("user/root")];
    assert!(admits(&rules, here, "user/root", START));
}

#[test]
fn refusals_are_told_at_once_then_counted_and_of_many_subjects_together() {
    let mut alarms = Alarms::default();
    let alarm = |number: u32| Alarm {
        operation: "firewall.Blocked",
        resource: format!("networks/{number}"),
        reason: "FIREWALL_BLOCKED",
    };
    assert_eq!(alarms.count(alarm(0), START), Some(alarm(0)));
    for _ in 0..999 {
        assert_eq!(alarms.count(alarm(0), START), None);
    }
    assert_eq!(alarms.due(START + 59 * SECOND, false), []);
    assert_eq!(alarms.due(START + 60 * SECOND, false), [(alarm(0), 999)]);
    assert_eq!(
        alarms.due(START + 120 * SECOND, false),
        [],
        "quiet, and forgotten"
    );
    let told = (0..100_000)
        .filter(|number| alarms.count(alarm(*number), START).is_some())
        .count();
    assert_eq!(told, 257, "256 subjects, and the others");
    let counted: u64 = alarms.due(START, true).iter().map(|(_, count)| count).sum();
    assert_eq!(counted, 100_000 - 257, "none is lost");
}
