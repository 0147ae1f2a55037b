//! Proofs, attempts and second factors.

use asterism_crypto::totp::TotpSecret;

use super::*;

#[test]
fn the_right_password_logs_in_and_nothing_else_does() {
    let world = World::new();
    world.enrolled("user/alice", Role::Analyst);
    let tokens = world.tokens("user/alice");
    let access = world.judge(&tokens.access).expect("good");
    assert_eq!(access.principal.id, id("user/alice"));
    assert_eq!(access.principal.roles, [Role::Analyst]);
    assert_eq!(access.claims.amr, ["pwd"]);
    assert_eq!(access.claims.exp - access.claims.iat, 600);
    assert_eq!(
        reason(world.login("user/alice", "correct horse batterY")),
        "LOGIN_FAILED"
    );
    assert_eq!(reason(world.login("user/bob", PASSWORD)), "LOGIN_FAILED");
    let world = world.restarted();
    world.judge(&tokens.access).expect("good after a restart");
    world.tokens("user/alice");
}

#[test]
fn a_proof_serves_once_in_time_and_from_where_the_login_began() {
    let world = World::new();
    world.enrolled("user/alice", Role::Analyst);
    let (login, proof) = world.begin("user/alice", PASSWORD).expect("begun");
    done(world.finish(&login, &proof)).expect("first");
    assert_eq!(reason(world.finish(&login, &proof)), "LOGIN_UNKNOWN", "replayed");
    let (another, _) = world.begin("user/alice", PASSWORD).expect("begun");
    assert_eq!(
        reason(world.finish(&another, &proof)),
        "LOGIN_FAILED",
        "of another login"
    );
    let (late, proof) = world.begin("user/alice", PASSWORD).expect("begun");
    world.advance(2 * MINUTE);
    assert_eq!(reason(world.finish(&late, &proof)), "LOGIN_UNKNOWN", "late");
    let (moved, proof) = world.begin("user/alice", PASSWORD).expect("begun");
    let elsewhere = Sender::Channel(channel_key());
    let finished =
        world
            .directory
            .finish_login(&moved, &Proof::Password(&proof), &elsewhere, HOME, world.now());
    assert_eq!(reason(finished), "CHANNEL_MISMATCH");
    assert_eq!(reason(world.finish("", &proof)), "LOGIN_UNKNOWN");
}

#[test]
fn known_and_unknown_are_told_apart_by_nothing() {
    let world = World::new();
    world.enrolled("user/alice", Role::Analyst);
    let mut seen = Vec::new();
    for principal in ["user/alice", "user/nobody"] {
        let (_, request) = opaque::Login::start(b"a guess of mine").expect("started");
        let (login, answer) = world.attempt(principal, &request).expect("answered");
        let end = world.finish(&login, &[0; 64]).err().expect("refused");
        let mut waits = Vec::new();
        for _ in 0..12 {
            waits.push(reason(world.guess(principal)));
            world.advance(SECOND);
        }
        seen.push((answer.len(), end.reason(), end.to_string(), waits));
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn failures_slow_down_then_lock_and_a_success_forgets_them() {
    let world = World::new();
    world.enrolled("user/alice", Role::Analyst);
    let fail = |world: &World| reason(world.guess("user/alice"));
    for _ in 0..3 {
        assert_eq!(fail(&world), "none");
    }
    world.tokens("user/alice");
    for _ in 0..4 {
        assert_eq!(fail(&world), "none", "forgotten");
    }
    assert_eq!(fail(&world), "LOGIN_BACKOFF");
    // The right password waits as well, and waiting forgets nothing over a restart.
    assert_eq!(reason(world.login("user/alice", PASSWORD)), "LOGIN_BACKOFF");
    let world = world.restarted();
    assert_eq!(fail(&world), "LOGIN_BACKOFF");
    for wait in [1, 2, 4, 8, 16, 32] {
        world.advance(wait * SECOND - 1);
        assert_eq!(fail(&world), "LOGIN_BACKOFF", "{wait}");
        world.advance(1);
        assert_eq!(fail(&world), "none", "{wait}");
    }
    let locked = world.login("user/alice", PASSWORD).err().expect("locked");
    assert_eq!(locked.reason(), "LOGIN_LOCKED");
    assert_eq!(locked.retry_after(), Some(std::time::Duration::from_secs(900)));
    world.advance(15 * MINUTE);
    world.tokens("user/alice");
}

#[test]
fn a_network_that_fails_much_waits_whoever_it_tries() {
    let world = World::new();
    for guess in 0..31 {
        let begun = world.guess(&format!("user/{guess}"));
        assert_eq!(reason(begun), "none", "{guess}");
    }
    assert_eq!(reason(world.guess("user/x")), "LOGIN_BACKOFF");
    // Wrong invitations count too.
    let invited = world.directory.start_enrolment("asi1-0", None, HOME, world.now());
    assert_eq!(reason(invited), "LOGIN_BACKOFF");
    let elsewhere = "192.0.2.9".parse().ok();
    let invited = world
        .directory
        .start_enrolment("asi1-0", None, elsewhere, world.now());
    assert_eq!(reason(invited), "INVITATION_INVALID");
}

fn key_login(
    world: &World,
    principal: &str,
    sender: Sender,
    sign: impl FnOnce(&[u8; 32]) -> Vec<u8>,
) -> Result<Tokens, DirectoryError> {
    let audience = ["ingest".to_owned()];
    let begun = world
        .directory
        .start_login(&id(principal), None, &audience, sender, HOME, world.now())?;
    let (login, Challenge::Key(challenge)) = begun else {
        panic!("not a challenge for a key")
    };
    let proof = sign(&challenge);
    done(
        world
            .directory
            .finish_login(&login, &Proof::Key(&proof), &sender, HOME, world.now()),
    )
}

#[test]
fn a_key_signs_for_one_challenge_principal_audience_and_sender() {
    let world = World::new();
    let (key, other) = (
        SigningKey::generate().expect("key"),
        SigningKey::generate().expect("key"),
    );
    world
        .enrol_key(&world.invite("user/alice", &[Role::Analyst]), &key)
        .expect("enrolled");
    let bound = channel_key();
    let sender = Sender::Channel(bound);
    let audience = ["ingest".to_owned()];
    let right = |challenge: &[u8; 32]| {
        login_key::login_statement(challenge, "user/alice", &audience, &bound.to_string())
    };
    let tokens = key_login(&world, "user/alice", sender, |challenge| {
        key.sign(&right(challenge)).to_der()
    })
    .expect("logged in");
    let claims = {
        let ingest = Trust::new("ingest", std::time::Duration::from_secs(1));
        ingest.hear(
            Some((*world.trust.view()).clone()),
            world.now(),
            std::time::Instant::now(),
        );
        let access = ingest.verify(&tokens.access).expect("for ingest");
        ingest.admit(&access, Some(&bound), HOME).expect("from there");
        access.claims
    };
    assert_eq!(
        (claims.aud.as_slice(), claims.amr.as_slice()),
        (&audience[..], &["pop".to_owned()][..])
    );
    assert!(claims.cnf.is_some());
    assert_eq!(world.judge(&tokens.access).err(), Some("TOKEN_AUDIENCE"));

    let refused = |sign: &dyn Fn(&[u8; 32]) -> Vec<u8>, what: &str| {
        let login = key_login(&world, "user/alice", sender, sign);
        assert_eq!(reason(login), "LOGIN_FAILED", "{what}");
    };
    refused(&|challenge| other.sign(&right(challenge)).to_der(), "another key");
    refused(&|_| key.sign(&right(&[0; 32])).to_der(), "another challenge");
    let statement = |principal: &'static str, audience: &'static [&'static str], sender: String| {
        let key = &key;
        move |challenge: &[u8; 32]| {
            let audience: Vec<String> = audience.iter().map(|name| (*name).to_owned()).collect();
            key.sign(&login_key::login_statement(
                challenge, principal, &audience, &sender,
            ))
            .to_der()
        }
    };
    refused(
        &statement("user/bob", &["ingest"], bound.to_string()),
        "another principal",
    );
    refused(
        &statement("user/alice", &[], bound.to_string()),
        "another audience",
    );
    refused(
        &statement("user/alice", &["ingest"], channel_key().to_string()),
        "another sender",
    );
    refused(&|_| vec![], "no signature");
    assert_eq!(
        reason(key_login(&world, "user/nobody", sender, |challenge| key
            .sign(&right(challenge))
            .to_der())),
        "LOGIN_FAILED"
    );
    // An unknown audience is a mistake.
    let begun = world.directory.start_login(
        &id("user/alice"),
        None,
        &["moon".into()],
        sender,
        HOME,
        world.now(),
    );
    assert_eq!(reason(begun), "INVALID_FIELD");
}

/// The secret in an `otpauth` URI, as an app reads it.
fn secret_in(uri: &str) -> TotpSecret {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let text = uri
        .split("secret=")
        .nth(1)
        .expect("secret")
        .split('&')
        .next()
        .expect("value");
    let bits: String = text
        .chars()
        .map(|character| format!("{:05b}", ALPHABET.find(character).expect("base32")))
        .collect();
    let bytes: Vec<u8> = bits
        .as_bytes()
        .chunks_exact(8)
        .map(|byte| u8::from_str_radix(str::from_utf8(byte).expect("ascii"), 2).expect("bits"))
        .collect();
    TotpSecret::from_bytes(&bytes).expect("secret")
}

#[test]
fn a_second_factor_is_due_once_it_is_confirmed_and_each_code_serves_once() {
    let world = World::new();
    let alice = id("user/alice");
    world.enrolled("user/alice", Role::Analyst);
    let (factor, uri) = world
        .directory
        .add_factor(&alice, FactorKind::Totp, world.now())
        .expect("made");
    assert!(!holds(&everything(&world.records), uri.as_bytes()));
    let secret = secret_in(&uri);
    assert!(
        !holds(&everything(&world.records), secret.expose()),
        "the secret lies in the clear"
    );
    let code = |world: &World| secret.code(world.now() / 30_000);
    world.tokens("user/alice");
    let confirm = |code: &str| {
        world
            .directory
            .confirm_factor(&alice, &factor.id, code, world.now())
    };
    assert_eq!(reason(confirm("000000")), "SECOND_FACTOR_FAILED");
    confirm(&code(&world)).expect("confirmed");

    let answer = |login: &str, code: &str| {
        world.directory.answer_second_factor(
            login,
            FactorKind::Totp,
            code,
            &Sender::Loopback,
            HOME,
            world.now(),
        )
    };
    let login = due(world.login("user/alice", PASSWORD));
    assert_eq!(
        reason(answer(&login, &code(&world))),
        "SECOND_FACTOR_FAILED",
        "used to confirm"
    );
    world.advance(30 * SECOND);
    let tokens = answer(&login, &code(&world)).expect("logged in");
    let access = world.judge(&tokens.access).expect("good");
    assert_eq!(access.claims.amr, ["pwd", "otp"]);
    assert_eq!(reason(answer(&login, &code(&world))), "LOGIN_UNKNOWN");
    let login = due(world.login("user/alice", PASSWORD));
    assert_eq!(
        reason(answer(&login, &code(&world))),
        "SECOND_FACTOR_FAILED",
        "replayed"
    );
    // The first step's proof is no way round the second.
    assert_eq!(reason(world.finish(&login, &[0; 64])), "LOGIN_FAILED");

    let remove = |code| {
        world
            .directory
            .remove_factor(&alice, &factor.id, code, world.now())
    };
    assert_eq!(reason(remove(Some("123456"))), "SECOND_FACTOR_FAILED");
    remove(None).expect("by an administrator");
    world.advance(MINUTE);
    world.tokens("user/alice");
}

#[test]
fn a_code_is_taken_at_once_however_long_the_next_login_would_have_to_wait() {
    let world = World::new();
    let alice = id("user/alice");
    world.enrolled("user/alice", Role::Analyst);
    let (factor, uri) = world
        .directory
        .add_factor(&alice, FactorKind::Totp, world.now())
        .expect("made");
    let code = |world: &World| secret_in(&uri).code(world.now() / 30_000);
    world
        .directory
        .confirm_factor(&alice, &factor.id, &code(&world), world.now())
        .expect("confirmed");
    for _ in 0..12 {
        world.advance(15 * MINUTE);
        world.guess("user/alice").expect("begun");
    }
    world.advance(15 * MINUTE);
    let login = due(world.login("user/alice", PASSWORD));
    world
        .directory
        .answer_second_factor(
            &login,
            FactorKind::Totp,
            &code(&world),
            &Sender::Loopback,
            HOME,
            world.now(),
        )
        .expect("logged in");
    assert_eq!(reason(world.guess("user/alice")), "none", "forgotten");
}

#[test]
fn guessing_codes_ends_after_three_and_counts_as_failures() {
    let world = World::new();
    let alice = id("user/alice");
    world.enrolled("user/alice", Role::Analyst);
    let (factor, uri) = world
        .directory
        .add_factor(&alice, FactorKind::Totp, world.now())
        .expect("made");
    let code = secret_in(&uri).code(world.now() / 30_000);
    world
        .directory
        .confirm_factor(&alice, &factor.id, &code, world.now())
        .expect("confirmed");
    let login = due(world.login("user/alice", PASSWORD));
    let guess = || {
        let sender = Sender::Loopback;
        world
            .directory
            .answer_second_factor(&login, FactorKind::Totp, "000000", &sender, HOME, world.now())
    };
    let answers: Vec<_> = (0..4).map(|_| reason(guess())).collect();
    let failed = "SECOND_FACTOR_FAILED";
    assert_eq!(answers, [failed, failed, failed, "LOGIN_UNKNOWN"]);
    // One for the login that led nowhere, three for the answers.
    assert_eq!(reason(world.login("user/alice", PASSWORD)), "LOGIN_BACKOFF");
}
