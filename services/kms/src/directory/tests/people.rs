//! Invitations, and the directory itself.

use super::*;

#[test]
fn an_invitation_serves_once_and_in_time() {
    let world = World::new();
    let invitation = world.invite("user/alice", &[Role::Analyst, Role::Analyst]);
    assert!(!holds(&everything(&world.records), invitation.as_bytes()));
    let alice = world.enrol_password(&invitation, PASSWORD).expect("enrolled");
    assert_eq!((alice.id, alice.roles), (id("user/alice"), vec![Role::Analyst]));
    assert_eq!(
        reason(world.enrol_password(&invitation, PASSWORD)),
        "INVITATION_INVALID",
        "used"
    );
    let late = world.invite("user/bob", &[Role::Viewer]);
    world.advance(HOUR);
    assert_eq!(
        reason(world.enrol_password(&late, PASSWORD)),
        "INVITATION_EXPIRED"
    );
    for wrong in [
        "",
        "asi1-",
        "asi1-00000000000000000000000000000000",
        "asi1-zz",
        "x",
    ] {
        assert_eq!(
            reason(world.enrol_password(wrong, PASSWORD)),
            "INVITATION_INVALID",
            "{wrong}"
        );
    }
}

#[test]
fn of_many_who_use_one_invitation_at_once_one_enrols() {
    let world = World::new();
    let invitation = world.invite("user/alice", &[Role::Analyst]);
    let enrolled = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|_| {
                let key = SigningKey::generate().expect("key");
                let (world, invitation) = (&world, &invitation);
                scope.spawn(move || world.enrol_key(invitation, &key).is_ok())
            })
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().expect("joined"))
            .filter(|enrolled| *enrolled)
            .count()
    });
    assert_eq!(enrolled, 1);
    assert_eq!(
        world
            .directory
            .principal(&id("user/alice"))
            .expect("there")
            .login_keys
            .len(),
        1
    );
}

#[test]
fn who_is_known_is_invited_to_another_password_which_ends_what_was() {
    let world = World::new();
    world.enrolled("user/alice", Role::Analyst);
    let before = world.tokens("user/alice");
    let again = world
        .directory
        .invite(&id("user/alice"), &[Role::Admin], HOUR, "user/admin", world.now());
    assert_eq!(reason(again), "PRINCIPAL_EXISTS");
    let invitation = world.invite("user/alice", &[]);
    world
        .enrol_password(&invitation, "another long password")
        .expect("enrolled");
    assert_eq!(world.judge(&before.access).err(), Some("TOKEN_REVOKED"));
    let refreshed = world
        .directory
        .refresh(&before.refresh, &Sender::Loopback, world.now());
    assert_eq!(reason(refreshed), "SESSION_ENDED");
    assert_eq!(reason(world.login("user/alice", PASSWORD)), "LOGIN_FAILED");
    let tokens = done(world.login("user/alice", "another long password")).expect("logged in");
    assert_eq!(tokens.roles, [Role::Analyst], "the roles stay");
    // Without roles nobody new is invited.
    let nobody = world
        .directory
        .invite(&id("user/nobody"), &[], HOUR, "user/admin", world.now());
    assert_eq!(reason(nobody), "INVALID_FIELD");
}

#[test]
fn a_key_is_enrolled_by_who_has_its_private_half() {
    let world = World::new();
    let (key, other) = (
        SigningKey::generate().expect("key"),
        SigningKey::generate().expect("key"),
    );
    let invitation = world.invite("service/scorer", &[Role::Service]);
    let public = key.verifying_key();
    let finish = |public: Vec<u8>, signature: Vec<u8>| {
        let credential = Credential::Key { public, signature };
        world
            .directory
            .finish_enrolment(&invitation, &credential, None, HOME, world.now())
    };
    let statement = login_key::enrolment_statement(&invitation, "service/scorer", &public);
    let stolen = other.sign(&statement).to_der();
    assert_eq!(reason(finish(public.to_spki_der(), stolen)), "INVALID_FIELD");
    assert_eq!(
        reason(finish(vec![1, 2, 3], key.sign(&statement).to_der())),
        "INVALID_FIELD"
    );
    let elsewhere = login_key::enrolment_statement("asi1-0", "service/scorer", &public);
    assert_eq!(
        reason(finish(public.to_spki_der(), key.sign(&elsewhere).to_der())),
        "INVALID_FIELD"
    );
    // None of that has used the invitation up.
    world.enrol_key(&invitation, &key).expect("enrolled");
}

#[test]
fn the_role_service_goes_with_services() {
    let world = World::new();
    for (principal, roles) in [
        ("user/alice", vec![Role::Service]),
        ("service/scorer", vec![Role::Admin]),
        ("user/alice", vec![]),
    ] {
        let invited = world
            .directory
            .invite(&id(principal), &roles, HOUR, "user/admin", world.now());
        assert_eq!(reason(invited), "INVALID_FIELD", "{principal}");
    }
    for lifetime in [0, 59 * SECOND, 31 * 24 * HOUR] {
        let invited = world.directory.invite(
            &id("user/a"),
            &[Role::Viewer],
            lifetime,
            "user/admin",
            world.now(),
        );
        assert_eq!(reason(invited), "INVALID_FIELD", "{lifetime}");
    }
}

#[test]
fn updates_are_guarded_by_etags_and_end_tokens() {
    let world = World::new();
    let alice = world.enrolled("user/alice", Role::Analyst);
    let tokens = world.tokens("user/alice");
    let update = |update: PrincipalUpdate| world.directory.update(&alice.id, &update, world.now());
    let changed = update(PrincipalUpdate {
        etag: alice.etag.clone(),
        roles: Some(vec![Role::Viewer]),
        ..PrincipalUpdate::default()
    })
    .expect("changed");
    assert_eq!(changed.roles, [Role::Viewer]);
    let stale = update(PrincipalUpdate {
        etag: alice.etag.clone(),
        ..PrincipalUpdate::default()
    });
    assert_eq!(reason(stale), "ETAG_MISMATCH");
    assert_eq!(world.judge(&tokens.access).err(), Some("TOKEN_REVOKED"));
    // The session goes on with what is true now.
    let fresh = world
        .directory
        .refresh(&tokens.refresh, &Sender::Loopback, world.now())
        .expect("refreshed");
    assert_eq!(fresh.roles, [Role::Viewer]);
    world.judge(&fresh.access).expect("good");
}

#[test]
fn who_is_disabled_is_told_so_only_with_the_right_password() {
    let world = World::new();
    let alice = world.enrolled("user/alice", Role::Analyst);
    let tokens = world.tokens("user/alice");
    let set = |state| {
        let update = PrincipalUpdate {
            state: Some(state),
            ..PrincipalUpdate::default()
        };
        world.directory.update(&alice.id, &update, world.now())
    };
    set(PrincipalState::Disabled).expect("disabled");
    assert_eq!(world.judge(&tokens.access).err(), Some("TOKEN_REVOKED"));
    assert_eq!(reason(world.login("user/alice", PASSWORD)), "PRINCIPAL_DISABLED");
    assert_eq!(
        reason(world.login("user/alice", "wrong password")),
        "LOGIN_FAILED"
    );
    set(PrincipalState::Enabled).expect("enabled");
    assert_eq!(
        world.judge(&tokens.access).err(),
        Some("TOKEN_REVOKED"),
        "what was stays ended"
    );
    let refreshed = world
        .directory
        .refresh(&tokens.refresh, &Sender::Loopback, world.now());
    assert_eq!(reason(refreshed), "SESSION_ENDED");
    world.tokens("user/alice");
}

#[test]
fn who_was_deleted_and_comes_back_has_nothing_of_before() {
    let world = World::new();
    world.enrolled("user/alice", Role::Admin);
    let tokens = world.tokens("user/alice");
    world
        .directory
        .delete(&id("user/alice"), world.now())
        .expect("deleted");
    assert_eq!(
        reason(world.directory.principal(&id("user/alice"))),
        "PRINCIPAL_NOT_FOUND"
    );
    assert_eq!(world.judge(&tokens.access).err(), Some("TOKEN_REVOKED"));
    assert_eq!(reason(world.login("user/alice", PASSWORD)), "LOGIN_FAILED");
    world.enrolled("user/alice", Role::Viewer);
    assert_eq!(world.judge(&tokens.access).err(), Some("TOKEN_REVOKED"));
    let world = world.restarted();
    assert_eq!(world.judge(&tokens.access).err(), Some("TOKEN_REVOKED"));
    assert_eq!(world.tokens("user/alice").roles, [Role::Viewer]);
}

#[test]
fn principals_are_listed_by_name_in_pages() {
    let world = World::new();
    for name in ["user/c", "user/a", "user/b"] {
        let key = SigningKey::generate().expect("key");
        world
            .enrol_key(&world.invite(name, &[Role::Viewer]), &key)
            .expect("enrolled");
    }
    let list = |after: Option<&PrincipalId>, limit| {
        let page = world.directory.principals(after, limit).expect("listed");
        page.iter().map(|one| one.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list(None, 2), ["user/a", "user/b"]);
    assert_eq!(list(Some(&id("user/b")), 2), ["user/c"]);
}

#[test]
fn nothing_secret_lies_in_the_store_and_another_root_key_opens_nothing() {
    let world = World::new();
    world.enrolled("user/alice", Role::Analyst);
    let tokens = world.tokens("user/alice");
    let stored = everything(&world.records);
    assert!(holds(&stored, b"user/alice"), "the search finds what is there");
    let secret = tokens.refresh.rsplit('-').next().expect("secret");
    for hidden in [PASSWORD, &tokens.access, secret, "BEGIN"] {
        assert!(!holds(&stored, hidden.as_bytes()), "{hidden}");
    }
    let other = SecretKey::from_bytes([8; 32]);
    let trust = Arc::new(Trust::new("kms", std::time::Duration::from_secs(30)));
    let opened = Directory::open(world.records.clone(), &other, trust, world.now());
    assert_eq!(reason(opened), "DIRECTORY_DAMAGED");
}
