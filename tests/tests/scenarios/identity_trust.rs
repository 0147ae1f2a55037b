//! What services take and refuse by themselves: without tokens of the authority key, and without a word of kms.

use std::{
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use asterism::commands::channel::{key_file, peers_dir};
use asterism_chassis::{
    config::{ChannelConfig, Common},
    identity::{Authority, Role},
    server::{Listeners, Running},
};
use asterism_client::{
    Audit, Connection, Credentials, Ingest, Kms, UploadSource,
    proto::audit::{EventFilter, ListEventsRequest},
};
use tokio::net::TcpListener;

use crate::{
    identity::{ALICE, PASSWORD, ROLES, alice, at, invited, login, password},
    support::{World, fresh_id, reason, small_csv},
};

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_of_the_authority_key_people_log_in_and_services_come_over_their_channel() {
    // The first administrator is enrolled while they are taken.
    let world = World::start().await;
    alice(&world).await;
    let (authority, dir) = (world.constellation.authority().clone(), world.dir);
    world.constellation.shutdown().await;
    let mut plain = Vec::new();
    let mut secured = Vec::new();
    for _ in 0..3 {
        plain.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        secured.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let address = |listener: &TcpListener| listener.local_addr().unwrap();
    let noise: Vec<String> = secured
        .iter()
        .map(|one| format!("noise://{}", address(one)))
        .collect();
    let http: Vec<String> = plain
        .iter()
        .map(|one| format!("http://{}", address(one)))
        .collect();
    let common = |name: &str| {
        let mut common = Common::embedded(name, dir.path());
        (common.kms_addr, common.audit_addr) = (Some(noise[0].clone()), Some(noise[2].clone()));
        common.identity.accept_authority_tokens = false;
        common.channel = ChannelConfig {
            static_key_file: Some(key_file(dir.path(), name)),
            authorized_peers_dir: Some(peers_dir(dir.path())),
            allow_unknown_peers: true,
            listen: None,
        };
        common
    };
    let mut listeners = plain
        .into_iter()
        .zip(secured)
        .map(|(plain, secured)| Listeners::from(plain).and_channel(secured));
    let mut next = || listeners.next().unwrap();
    let kms = asterism_kms::Config {
        common: common("kms"),
        ..Default::default()
    };
    let ingest = asterism_ingest::Config {
        common: common("ingest"),
        ..Default::default()
    };
    let audit = asterism_audit::Config {
        common: common("audit"),
    };
    let kms = asterism_kms::start(kms, next()).await.unwrap();
    let ingest = asterism_ingest::start(ingest, next()).await.unwrap();
    let audit = asterism_audit::start(audit, next()).await.unwrap();

    let minted = authority.mint(
        &"user/admin".parse().unwrap(),
        &[Role::Admin],
        Duration::from_secs(600),
        SystemTime::now(),
    );
    let refused = Kms::new(Connection::lazy(&http[0], Credentials::token(minted)).unwrap());
    assert_eq!(reason(refused.list_keys(1, "").await), "AUTHORITY_TOKEN_REFUSED");
    let tokens = login(&at(&http[0], Credentials::anonymous()), ALICE, PASSWORD)
        .await
        .unwrap();
    let token = || Credentials::token(tokens.access_token.as_str());
    let client = Ingest::new(Connection::lazy(&http[1], token()).unwrap());
    let begun = Instant::now();
    while client.list(1, "").await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "never taken");
    }
    // ingest asks kms for keys and signatures, and both tell audit.
    let csv = small_csv(40);
    let mut reader = csv.as_bytes();
    let source = UploadSource {
        display_name: "mine",
        request_id: &fresh_id(),
        with_sha256: false,
        reader: &mut reader,
    };
    let dataset = client.upload(source, |_| {}).await.unwrap();
    client.verify(&dataset.name).await.unwrap();
    let log = Audit::new(Connection::lazy(&http[2], token()).unwrap());
    let begun = Instant::now();
    loop {
        let filter = EventFilter {
            source: "ingest".into(),
            principal: ALICE.into(),
            ..EventFilter::default()
        };
        let events = log.list_all(filter).await.unwrap_or_default();
        let mut events = events.into_iter().filter_map(|entry| entry.event);
        // Events say by which token.
        if events.any(|event| event.token_id == tokens.token_id && event.network == "127.0.0.1") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "no event of hers");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for running in [ingest, kms, audit] {
        running.shutdown().await;
    }
}

/// kms and audit, each on its own, with little patience.
struct Two {
    dir: tempfile::TempDir,
    kms_at: SocketAddr,
    kms: Running,
    audit: Running,
    audit_at: String,
}

impl Two {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (kms, audit) = (
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let (kms_at, audit_at) = (kms.local_addr().unwrap(), audit.local_addr().unwrap());
        let mut config = asterism_audit::Config {
            common: Common::embedded("audit", dir.path()),
        };
        config.common.kms_addr = Some(format!("http://{kms_at}"));
        config.common.identity.trust_max_age_seconds = 2;
        let kms = kms_over(&dir, kms).await;
        let audit = asterism_audit::start(config, audit).await.unwrap();
        Self {
            dir,
            kms_at,
            kms,
            audit,
            audit_at: format!("http://{audit_at}"),
        }
    }
}

async fn kms_over(dir: &tempfile::TempDir, listener: TcpListener) -> Running {
    let config = asterism_kms::Config {
        common: Common::embedded("kms", dir.path()),
        ..Default::default()
    };
    asterism_kms::start(config, listener).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_hears_nothing_of_kms_refuses_until_it_does_again() {
    let two = Two::start().await;
    let authority = Authority::load_or_create(&two.dir.path().join("credentials")).unwrap();
    let minted = authority.mint(
        &"user/admin".parse().unwrap(),
        &[Role::Admin],
        Duration::from_secs(600),
        SystemTime::now(),
    );
    let kms_at = format!("http://{}", two.kms_at);
    let admin = at(&kms_at, Credentials::token(minted.as_str()));
    let client = at(&kms_at, Credentials::anonymous());
    let invitation = invited(&admin, ALICE, &ROLES).await;
    client.enrol(&invitation, password(), false).await.unwrap();
    let tokens = login(&client, ALICE, PASSWORD).await.unwrap();
    let ask = async |token: &str| {
        let audit = Audit::new(Connection::lazy(&two.audit_at, Credentials::token(token)).unwrap());
        // Without the patience of the client, which would try again.
        tokio::time::timeout(Duration::from_secs(5), audit.list(ListEventsRequest::default()))
            .await
            .expect("an answer")
            .map(|_| ())
    };
    let until = async |expected: Option<&str>| {
        let begun = Instant::now();
        loop {
            let answer = ask(&tokens.access_token).await;
            let found = answer
                .as_ref()
                .err()
                .map(|error| error.reason().unwrap_or("none").to_owned());
            if found.as_deref() == expected {
                return begun.elapsed();
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{found:?} and not {expected:?}"
            );
        }
    };
    until(None).await;
    two.kms.shutdown().await;
    until(Some("TRUST_STALE")).await;
    ask(&minted)
        .await
        .expect("a token of the authority key needs no word of kms");
    let listener = TcpListener::bind(two.kms_at).await.unwrap();
    let kms = kms_over(&two.dir, listener).await;
    until(None).await;
    kms.shutdown().await;
    two.audit.shutdown().await;
}
