//! What is on the disk.

use std::{fs, net::Ipv6Addr};

use super::{
    super::files::{Files, StoredRules},
    *,
};

fn rules() -> Rules {
    Rules {
        default: DefaultAction::Block,
        allow: vec![entry("10.0.0.0/8"), entry("user/*")],
        block: vec![Entry {
            subject: subject("2001:db8::/32"),
            expires: Some(1_900_000_000),
            comment: "a test network".to_owned(),
        }],
        limits: vec![limit("user/alice", 0.25, 7)],
        ..strict()
    }
}

#[test]
fn rules_and_bans_come_back_as_they_were() {
    let dir = tempfile::tempdir().expect("directory");
    let files = Files::within(dir.path());
    assert_eq!(files.read_rules().expect("none yet").rules, Rules::default());
    assert_eq!(files.read_bans().expect("none yet"), []);
    let stored = StoredRules::new(rules(), "r1".to_owned());
    files.write_rules(&stored).expect("written");
    assert_eq!(Files::within(dir.path()).read_rules().expect("read"), stored);
    let ban = Ban {
        network: Ipv6Addr::LOCALHOST.into(),
        since: START / SECOND,
        until: START / SECOND + 60,
        strikes: 2,
        cause: Cause::Handshake,
    };
    files.write_bans(vec![ban.clone()]).expect("written");
    let bans = files.read_bans().expect("read");
    assert_eq!(bans, [ban]);
    let engine = Engine::new(
        Rules {
            exempt_loopback: false,
            ..Rules::default()
        },
        bans,
    );
    assert_eq!(
        call(&engine, "::1", "user/alice", START),
        Err(Refusal::Banned),
        "still banned"
    );
}

#[test]
fn a_damaged_file_is_refused_with_its_name() {
    let dir = tempfile::tempdir().expect("directory");
    let files = Files::within(dir.path());
    files
        .write_rules(&StoredRules::new(rules(), String::new()))
        .expect("written");
    let path = dir.path().join("firewall.json");
    let good = fs::read_to_string(&path).expect("text");
    let cases = [
        ("cut off", good[..good.len() / 2].to_owned()),
        ("empty", String::new()),
        ("another format", good.replace("\"format\": 1", "\"format\": 2")),
        (
            "an unknown field",
            good.replace("\"format\": 1", "\"format\": 1, \"x\": 1"),
        ),
        (
            "a network that is none",
            good.replace("10.0.0.0/8", "10.0.0.0/99"),
        ),
        ("a rate that is none", good.replace("0.25", "-0.25")),
        ("twice the same", good.replace("10.0.0.0/8", "user/*")),
    ];
    for (what, text) in cases {
        assert_ne!(text, good, "{what}");
        fs::write(&path, text).expect("written");
        let error = files.read_rules().expect_err(what);
        assert!(matches!(error, FirewallError::Damaged { .. }), "{what}: {error}");
        assert!(error.to_string().contains("firewall.json"), "{what}: {error}");
    }
    fs::write(dir.path().join("firewall-bans.json"), "[]").expect("written");
    assert!(matches!(files.read_bans(), Err(FirewallError::Damaged { .. })));
}
