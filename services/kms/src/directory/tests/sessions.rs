//! Sessions, revocation, and the keys that sign.

use super::*;

#[test]
fn a_refresh_token_is_good_from_its_own_sender_until_the_session_ends() {
    let world = World::new();
    world.enrolled("user/alice", Role::Analyst);
    let tokens = world.tokens("user/alice");
    let refresh = |token: &str, sender: Sender| world.directory.refresh(token, &sender, world.now());
    world.advance(20 * MINUTE);
    assert_eq!(world.judge(&tokens.access).err(), Some("TOKEN_EXPIRED"));
    let fresh = refresh(&tokens.refresh, Sender::Loopback).expect("refreshed");
    world.judge(&fresh.access).expect("good");
    assert_ne!(fresh.token_id, tokens.token_id);
    assert_eq!(
        reason(refresh(&tokens.refresh, Sender::Channel(channel_key()))),
        "CHANNEL_MISMATCH"
    );
    let mut forged = tokens.refresh.clone();
    let last = if forged.pop() == Some('0') { '1' } else { '0' };
    forged.push(last);
    for wrong in [forged.as_str(), "", "asr1-", "asr1-x-y", &tokens.access] {
        assert_eq!(
            reason(refresh(wrong, Sender::Loopback)),
            "SESSION_ENDED",
            "{wrong}"
        );
    }
    world.advance(SESSION_MS - 21 * MINUTE);
    let last = refresh(&tokens.refresh, Sender::Loopback).expect("refreshed");
    assert_eq!(
        last.expires_in,
        std::time::Duration::from_secs(60),
        "not beyond the session"
    );
    world.advance(MINUTE);
    assert_eq!(
        reason(refresh(&tokens.refresh, Sender::Loopback)),
        "SESSION_ENDED"
    );
}

#[test]
fn a_logout_ends_one_session_and_no_other() {
    let world = World::new();
    world.enrolled("user/alice", Role::Analyst);
    let (first, second) = (world.tokens("user/alice"), world.tokens("user/alice"));
    let session = world.judge(&first.access).expect("good").claims.sid;
    world
        .directory
        .end_session(&session, &id("user/alice"), world.now())
        .expect("ended");
    assert_eq!(world.judge(&first.access).err(), Some("TOKEN_REVOKED"));
    world.judge(&second.access).expect("another session");
    let refreshed = world
        .directory
        .refresh(&first.refresh, &Sender::Loopback, world.now());
    assert_eq!(reason(refreshed), "SESSION_ENDED");
    let third = world.tokens("user/alice");
    let log_out = |sender| world.directory.log_out(&third.refresh, &sender, world.now());
    assert_eq!(
        reason(log_out(Sender::Channel(channel_key()))),
        "CHANNEL_MISMATCH"
    );
    assert_eq!(log_out(Sender::Loopback).expect("ended"), id("user/alice"));
    assert_eq!(reason(log_out(Sender::Loopback)), "SESSION_ENDED");
    assert_eq!(world.judge(&third.access).err(), Some("TOKEN_REVOKED"));
    let world = world.restarted();
    assert_eq!(
        world.judge(&first.access).err(),
        Some("TOKEN_REVOKED"),
        "after a restart"
    );
    world
        .directory
        .revoke_token(&second.token_id, world.now())
        .expect("revoked");
    assert_eq!(world.judge(&second.access).err(), Some("TOKEN_REVOKED"));
    world
        .directory
        .refresh(&second.refresh, &Sender::Loopback, world.now())
        .expect("the session goes on");
    for wrong in ["", "a b", &"a".repeat(65)] {
        assert_eq!(
            reason(world.directory.revoke_token(wrong, world.now())),
            "INVALID_FIELD"
        );
    }
}

#[test]
fn what_expired_is_forgotten() {
    let world = World::new();
    world.enrolled("user/alice", Role::Analyst);
    world.invite("user/bob", &[Role::Viewer]);
    world.guess("user/carol").expect("begun");
    let tokens = world.tokens("user/alice");
    let access = world.judge(&tokens.access).expect("good");
    let logout = world
        .directory
        .end_session(&access.claims.sid, &id("user/alice"), world.now());
    logout.expect("ended");
    world.tokens("user/alice");
    world
        .directory
        .revoke_all(&id("user/alice"), world.now())
        .expect("revoked");
    let view = world.trust.view();
    assert_eq!((view.revoked.len(), view.cuts.len()), (1, 1));
    world.advance(TOKEN_MS - SECOND);
    world.directory.sweep(world.now()).expect("swept");
    assert_eq!(
        world.judge(&tokens.access).err(),
        Some("TOKEN_REVOKED"),
        "forgotten too soon"
    );
    world.advance(2 * MINUTE);
    world.directory.sweep(world.now()).expect("swept");
    let view = world.trust.view();
    assert_eq!((view.revoked.len(), view.cuts.len()), (0, 0));
    world.advance(48 * HOUR);
    world.directory.sweep(world.now()).expect("swept");
    let kinds: Vec<Vec<u8>> = world
        .records
        .scan(b"i", b"i", 100)
        .expect("read")
        .into_iter()
        .map(|(at, _)| at[..2].to_vec())
        .collect();
    // The vault's key, OPAQUE's keys, the principal, the key that signs, the password.
    assert_eq!(kinds, [b"ik", b"io", b"ip", b"it", b"iw"]);
}

#[test]
fn a_new_key_is_told_before_it_signs_and_the_old_one_stays_for_its_tokens() {
    let world = World::new();
    world.enrolled("user/alice", Role::Analyst);
    let kids = |world: &World| world.trust.view().keys.len();
    assert_eq!(kids(&world), 1);
    world.advance(30 * 24 * HOUR);
    world.directory.sweep(world.now()).expect("swept");
    assert_eq!(kids(&world), 2, "told");
    let before = world.tokens("user/alice");
    world.advance(MINUTE);
    let after = world.tokens("user/alice");
    let header = |token: &str| token.split('.').next().expect("header").to_owned();
    assert_ne!(header(&before.access), header(&after.access), "the new key signs");
    world.directory.sweep(world.now()).expect("swept");
    world.judge(&before.access).expect("the old one is known still");
    let world = world.restarted();
    world.judge(&before.access).expect("after a restart too");
    world.advance(TOKEN_MS + MINUTE);
    world.directory.sweep(world.now()).expect("swept");
    assert_eq!(kids(&world), 1);
    world.judge(&world.tokens("user/alice").access).expect("good");
}

#[test]
fn a_principal_that_is_bound_to_a_channel_key_logs_in_from_there_only() {
    let world = World::new();
    let alice = world.enrolled("user/alice", Role::Analyst);
    let update = PrincipalUpdate {
        channel_keys: Some(vec![channel_key()]),
        ..PrincipalUpdate::default()
    };
    world
        .directory
        .update(&alice.id, &update, world.now())
        .expect("bound");
    assert_eq!(reason(world.login("user/alice", PASSWORD)), "CHANNEL_MISMATCH");
    assert_eq!(
        reason(world.login("user/alice", "wrong password")),
        "LOGIN_FAILED"
    );
}

#[test]
fn tokens_are_for_the_channel_or_for_this_machine() {
    let key = channel_key();
    let elsewhere = "192.0.2.7".parse().ok();
    assert_eq!(Sender::of(Some(key), elsewhere).ok(), Some(Sender::Channel(key)));
    assert_eq!(Sender::of(None, HOME).ok(), Some(Sender::Loopback));
    assert_eq!(reason(Sender::of(None, elsewhere)), "CHANNEL_REQUIRED");
    assert_eq!(reason(Sender::of(None, None)), "CHANNEL_REQUIRED");
}
