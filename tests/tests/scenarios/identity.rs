//! People who log in, and what their tokens are good for, over real services.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use asterism::connect::{Endpoints, Services};
use asterism_chassis::identity::Role;
use asterism_client::{
    ClientError, Connection, Credentials, Identity, Ingest, Kms, LoginOutcome, NewCredential,
    channel::{Pin, StaticKey},
    proto::{
        audit::{EventFilter, ListEventsRequest},
        identity::{Principal, PrincipalState, Tokens},
    },
};
use asterism_crypto::SigningKey;
use futures::StreamExt as _;
use tokio::net::TcpListener;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    recorder::Recorder,
    support::{World, files, reason},
};

pub const ALICE: &str = "user/alice";
pub const PASSWORD: &str = "swordfish in a bowl";
pub const ROLES: [&str; 3] = ["data-owner", "analyst", "auditor"];

pub fn password() -> NewCredential {
    NewCredential::Password(PASSWORD.as_bytes().to_vec().into())
}

fn admin(world: &World) -> Identity {
    let credentials = world
        .constellation
        .credentials("user/admin", &[Role::Admin])
        .unwrap();
    at(&world.constellation.endpoints().kms, credentials)
}

pub fn at(kms: &str, credentials: Credentials) -> Identity {
    Identity::new(Connection::lazy(kms, credentials).unwrap())
}

pub async fn invited(admin: &Identity, principal: &str, roles: &[&str]) -> String {
    let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
    admin.invite(principal, &roles, None).await.unwrap().invitation
}

fn done(step: LoginOutcome) -> Tokens {
    match step {
        LoginOutcome::Done(tokens) => tokens,
        LoginOutcome::SecondFactor(_) => panic!("a second factor is due"),
    }
}

pub async fn login(client: &Identity, principal: &str, password: &str) -> Result<Tokens, ClientError> {
    let password = password.as_bytes().to_vec().into();
    client
        .login_with_password(principal, password, &[])
        .await
        .map(done)
}

/// Alice, enrolled and logged in on this machine.
pub async fn alice(world: &World) -> Tokens {
    let admin = admin(world);
    let client = at(&world.constellation.endpoints().kms, Credentials::anonymous());
    let invitation = invited(&admin, ALICE, &ROLES).await;
    client.enrol(&invitation, password(), false).await.unwrap();
    login(&client, ALICE, PASSWORD).await.unwrap()
}

fn as_holder(endpoints: &Endpoints, token: &str) -> Services {
    endpoints.connect(&Credentials::token(token), None).unwrap()
}

/// What each service answers.
async fn everywhere(services: &Services) -> [Result<(), ClientError>; 4] {
    [
        services.kms.list_keys(1, "").await.map(|_| ()),
        services.ingest.list(1, "").await.map(|_| ()),
        services.inference.list(1, "").await.map(|_| ()),
        services
            .audit
            .list(ListEventsRequest::default())
            .await
            .map(|_| ()),
    ]
}

/// Until a service has heard of what kms says.
async fn taken_everywhere(services: &Services) {
    let begun = Instant::now();
    loop {
        let answers = everywhere(services).await;
        if answers.iter().all(Result::is_ok) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{answers:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How long until every service refuses, and that all do so for `expected`.
async fn refused_everywhere(services: &Services, expected: &str) -> Duration {
    let begun = Instant::now();
    loop {
        let answers = everywhere(services).await;
        if answers.iter().all(Result::is_err) {
            for answer in answers {
                assert_eq!(reason(answer), expected);
            }
            return begun.elapsed();
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{answers:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_is_refused_by_every_service_within_two_seconds() {
    let world = World::start().await;
    let (admin, endpoints) = (admin(&world), world.constellation.endpoints().clone());
    let kms = at(&endpoints.kms, Credentials::anonymous());
    let first = alice(&world).await;
    let bound = Duration::from_secs(2);
    let disabled = Principal {
        state: PrincipalState::Disabled.into(),
        ..Principal::default()
    };
    let enabled = Principal {
        state: PrincipalState::Enabled.into(),
        ..Principal::default()
    };

    let services = as_holder(&endpoints, &first.access_token);
    taken_everywhere(&services).await;
    let mut events = services.audit.watch(EventFilter::default(), None).await.unwrap();
    admin.update(ALICE, disabled, &["state"]).await.unwrap();
    let took = refused_everywhere(&services, "TOKEN_REVOKED").await;
    assert!(took < bound, "a disabled principal: {took:?}");
    eprintln!("a disabled principal was refused everywhere after {took:?}");
    // Nor does the stream that was open go on.
    let end = tokio::time::timeout(bound, async {
        loop {
            match events.next().await {
                Some(Ok(_)) => {}
                other => return other,
            }
        }
    });
    let end = end.await.expect("the stream ends").expect("with a reason");
    let info = end.expect_err("refused").get_details_error_info().unwrap();
    assert_eq!(info.reason, "TOKEN_REVOKED");
    assert_eq!(reason(login(&kms, ALICE, PASSWORD).await), "PRINCIPAL_DISABLED");
    assert_eq!(reason(kms.refresh(&first.refresh_token).await), "SESSION_ENDED");
    admin.update(ALICE, enabled, &["state"]).await.unwrap();

    // A logout, of one of two sessions.
    let (one, two) = (
        login(&kms, ALICE, PASSWORD).await.unwrap(),
        login(&kms, ALICE, PASSWORD).await.unwrap(),
    );
    let (services, others) = (
        as_holder(&endpoints, &one.access_token),
        as_holder(&endpoints, &two.access_token),
    );
    taken_everywhere(&services).await;
    at(&endpoints.kms, Credentials::token(one.access_token.as_str()))
        .logout()
        .await
        .unwrap();
    let took = refused_everywhere(&services, "TOKEN_REVOKED").await;
    assert!(took < bound, "a logout: {took:?}");
    taken_everywhere(&others).await;

    // One token by its id, which the log has.
    admin.revoke_token(&two.token_id).await.unwrap();
    let took = refused_everywhere(&others, "TOKEN_REVOKED").await;
    assert!(took < bound, "a token: {took:?}");
    let fresh = kms.refresh(&two.refresh_token).await.unwrap();
    let services = as_holder(&endpoints, &fresh.access_token);
    taken_everywhere(&services).await;

    // Roles that are taken away are gone from tokens; the session gets what is true now.
    let viewer = Principal {
        roles: vec!["viewer".into()],
        ..Principal::default()
    };
    admin.update(ALICE, viewer, &["roles"]).await.unwrap();
    let took = refused_everywhere(&services, "TOKEN_REVOKED").await;
    assert!(took < bound, "roles: {took:?}");
    let fresh = kms.refresh(&two.refresh_token).await.unwrap();
    assert_eq!(fresh.roles, ["viewer"]);
    let services = as_holder(&endpoints, &fresh.access_token);
    services.kms.list_keys(1, "").await.unwrap();
    assert_eq!(
        reason(services.audit.list(ListEventsRequest::default()).await),
        "POLICY_DENIED"
    );
    admin.delete(ALICE).await.unwrap();
    let took = refused_everywhere(&services, "TOKEN_REVOKED").await;
    assert!(took < bound, "a deleted principal: {took:?}");
    world.constellation.shutdown().await;
}

/// A connection over the channel to a service of a constellation.
fn over(world: &World, service: &str, own: &Arc<StaticKey>, credentials: Credentials) -> Connection {
    let channels = world.constellation.channels();
    let there = channels
        .iter()
        .find(|channel| channel.service == service)
        .unwrap();
    let pin = Pin {
        own: own.clone(),
        service_key: there.key,
        service: service.into(),
    };
    Connection::pinned(&there.address, Some(pin), credentials).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_only_over_the_channel_that_it_was_given_over() {
    let world = World::start().await;
    let endpoints = world.constellation.endpoints().clone();
    let [own, thief] = [(); 2].map(|()| Arc::new(StaticKey::generate().unwrap()));
    let invitation = invited(&admin(&world), ALICE, &ROLES).await;
    let key = SigningKey::generate().unwrap();
    let enrolled = SigningKey::from_bytes(key.to_secret_bytes().expose()).unwrap();
    let client = Identity::new(over(&world, "kms", &own, Credentials::anonymous()));
    let principal = client
        .enrol(&invitation, NewCredential::Key(enrolled), true)
        .await
        .unwrap();
    assert_eq!(principal.channel_keys, [own.public().to_string()]);
    let tokens = done(client.login_with_key(ALICE, &key, &[]).await.unwrap());
    let token = || Credentials::token(tokens.access_token.as_str());
    let me = Identity::new(over(&world, "kms", &own, token()))
        .who_am_i()
        .await
        .unwrap();
    assert_eq!(
        (me.principal.as_str(), me.methods.as_slice()),
        ("principals/user/alice", &["pop".to_owned()][..])
    );
    assert_eq!(me.channel_key, own.public().to_string());

    let ingest = |own: &Arc<StaticKey>, token: Credentials| Ingest::new(over(&world, "ingest", own, token));
    let begun = Instant::now();
    while ingest(&own, token()).list(1, "").await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "never taken");
    }
    let mismatch = "CHANNEL_MISMATCH";
    assert_eq!(
        reason(ingest(&thief, token()).list(1, "").await),
        mismatch,
        "stolen"
    );
    let plain = as_holder(&endpoints, &tokens.access_token);
    for answer in everywhere(&plain).await {
        assert_eq!(reason(answer), mismatch, "in the clear");
    }
    // The refresh token is bound as well, and the principal to this key.
    let from = |own: &Arc<StaticKey>| Identity::new(over(&world, "kms", own, Credentials::anonymous()));
    assert_eq!(
        reason(from(&thief).refresh(&tokens.refresh_token).await),
        mismatch
    );
    assert_eq!(
        reason(
            at(&endpoints.kms, Credentials::anonymous())
                .refresh(&tokens.refresh_token)
                .await
        ),
        mismatch
    );
    from(&own).refresh(&tokens.refresh_token).await.unwrap();
    let elsewhere = from(&thief).login_with_key(ALICE, &key, &[]).await;
    assert_eq!(reason(elsewhere.map(done)), mismatch);

    // A proxy with the key is as good as the key; a login by key says whose it is.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let door = format!("http://{}", listener.local_addr().unwrap());
    let there = world
        .constellation
        .channels()
        .iter()
        .find(|channel| channel.service == "kms")
        .unwrap();
    let pin = Pin {
        own: own.clone(),
        service_key: there.key,
        service: "kms".into(),
    };
    let to = there.address["noise://".len()..].to_owned();
    tokio::spawn(asterism::commands::proxy::serve(listener, to, pin));
    let through = Connection::lazy(&door, Credentials::anonymous()).unwrap();
    let unsaid = Identity::new(through.clone())
        .login_with_key(ALICE, &key, &[])
        .await;
    assert_eq!(reason(unsaid.map(done)), "LOGIN_FAILED");
    let said = Identity::new(through.through(own.public()));
    done(said.login_with_key(ALICE, &key, &[]).await.unwrap());
    at(&door, token()).who_am_i().await.unwrap();

    // A service that is enrolled needs no file in a directory of keys: its token is bound to its key.
    let scorer = SigningKey::generate().unwrap();
    let invitation = invited(&admin(&world), "service/scorer", &["service"]).await;
    let enrolled = SigningKey::from_bytes(scorer.to_secret_bytes().expose()).unwrap();
    client
        .enrol(&invitation, NewCredential::Key(enrolled), false)
        .await
        .unwrap();
    let service = done(
        client
            .login_with_key("service/scorer", &scorer, &[])
            .await
            .unwrap(),
    );
    let kms_of = |own: &Arc<StaticKey>| {
        let token = Credentials::token(service.access_token.as_str());
        Kms::new(over(&world, "kms", own, token))
    };
    kms_of(&own).list_keys(1, "").await.unwrap();
    assert_eq!(reason(kms_of(&thief).list_keys(1, "").await), mismatch);
    // In the clear it has no token that is good: services come over channels.
    let plain = at(&endpoints.kms, Credentials::anonymous());
    let clear = done(
        plain
            .login_with_key("service/scorer", &scorer, &[])
            .await
            .unwrap(),
    );
    assert_eq!(
        reason(
            as_holder(&endpoints, &clear.access_token)
                .kms
                .list_keys(1, "")
                .await
        ),
        mismatch
    );

    // A token from this machine is none over a channel.
    let client = at(&endpoints.kms, Credentials::anonymous());
    let invitation = invited(&admin(&world), "user/bob", &["analyst"]).await;
    client.enrol(&invitation, password(), false).await.unwrap();
    let bob = login(&client, "user/bob", PASSWORD).await.unwrap();
    as_holder(&endpoints, &bob.access_token)
        .kms
        .list_keys(1, "")
        .await
        .unwrap();
    let over_channel = Kms::new(over(
        &world,
        "kms",
        &own,
        Credentials::token(bob.access_token.as_str()),
    ));
    assert_eq!(reason(over_channel.list_keys(1, "").await), mismatch);
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_for_the_services_that_they_name() {
    let world = World::start().await;
    let endpoints = world.constellation.endpoints().clone();
    let first = alice(&world).await;
    taken_everywhere(&as_holder(&endpoints, &first.access_token)).await;
    let kms = at(&endpoints.kms, Credentials::anonymous());
    let password = || PASSWORD.as_bytes().to_vec().into();
    let step = kms
        .login_with_password(ALICE, password(), &["ingest".into()])
        .await
        .unwrap();
    let limited = done(step);
    let services = as_holder(&endpoints, &limited.access_token);
    services.ingest.list(1, "").await.unwrap();
    assert_eq!(reason(services.kms.list_keys(1, "").await), "TOKEN_AUDIENCE");
    assert_eq!(reason(services.inference.list(1, "").await), "TOKEN_AUDIENCE");
    // It ends by its refresh token, being none for kms itself.
    kms.end_session(&limited.refresh_token).await.unwrap();
    assert_eq!(reason(kms.refresh(&limited.refresh_token).await), "SESSION_ENDED");
    let wrong = kms
        .login_with_password(ALICE, password(), &["elsewhere".into()])
        .await;
    assert_eq!(reason(wrong.map(done)), "INVALID_FIELD");
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_wire_nor_disk_nor_log_ever_holds_the_password() {
    let world = World::start().await;
    let plain: SocketAddr = world.constellation.endpoints().kms["http://".len()..]
        .parse()
        .unwrap();
    let recorder = Recorder::before(plain).await;
    let client = at(&format!("http://{}", recorder.at), Credentials::anonymous());
    let invitation = invited(&admin(&world), ALICE, &ROLES).await;
    client.enrol(&invitation, password(), false).await.unwrap();
    let tokens = login(&client, ALICE, PASSWORD).await.unwrap();
    let wrong = login(&client, ALICE, "swordfish in a bowI").await;
    let unknown = login(&client, "user/nobody", PASSWORD).await;
    let text = |refused: Result<Tokens, ClientError>| match refused {
        Err(ClientError::Refused {
            code,
            reason,
            message,
            ..
        }) => (code, reason, message),
        other => panic!("not refused: {:?}", other.map(|_| ())),
    };
    let (wrong, unknown) = (text(wrong), text(unknown));
    assert_eq!(wrong, unknown, "who is unknown is told apart");
    assert_eq!(
        (wrong.0, wrong.1.as_str()),
        (Code::Unauthenticated, "LOGIN_FAILED")
    );
    assert!(recorder.saw(b"principals/user/alice"), "nothing was recorded");
    assert!(!recorder.saw(PASSWORD.as_bytes()) && !recorder.saw(b"swordfish"));

    // The log has the failures, also of the login that the client itself saw fail.
    let audit = world.admin().audit;
    let begun = Instant::now();
    let failed = loop {
        let filter = EventFilter {
            operation: "kms.FinishLogin".into(),
            ..EventFilter::default()
        };
        let events = audit
            .list_all(filter)
            .await
            .unwrap()
            .into_iter()
            .filter_map(|entry| entry.event);
        let failed: Vec<String> = events
            .filter(|event| event.reason == "LOGIN_FAILED")
            .map(|event| event.resource)
            .collect();
        if failed.len() >= 2 || begun.elapsed() > Duration::from_secs(5) {
            break failed;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(failed, ["principals/user/alice", "principals/user/nobody"]);

    world.constellation.shutdown().await;
    let secrets = [PASSWORD, &tokens.access_token, &tokens.refresh_token, &invitation];
    let mut named = false;
    for file in files(world.dir.path()) {
        let bytes = std::fs::read(&file).unwrap();
        let holds = |secret: &str| {
            bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes())
        };
        for secret in secrets {
            assert!(!holds(secret), "{} holds a secret", file.display());
        }
        named |= holds(ALICE);
    }
    assert!(named, "the search finds nothing");
}
