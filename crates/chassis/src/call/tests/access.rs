//! Access tokens at the gate.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use asterism_channel::StaticKey;
use asterism_crypto::SigningKey;
use futures::StreamExt as _;
use tonic::{Status, transport::server::TcpConnectInfo};
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    channel::ChannelPeer,
    identity::{
        Trust, TrustView,
        access::{Claims, EVERYWHERE, ISSUER},
    },
};

const NOW: u64 = 1_800_000_000;

struct World {
    f: Fixture,
    trust: Arc<Trust>,
    key: SigningKey,
}

fn world() -> World {
    let mut f = fixture(Limits::default(), 100);
    let trust = Arc::new(Trust::new("kms", Duration::from_secs(30)));
    f.gate = f.gate.clone().trusting(trust.clone());
    let world = World {
        f,
        trust,
        key: SigningKey::generate().expect("a key"),
    };
    world.say(|_| ());
    world
}

impl World {
    /// What kms says holds.
    fn say(&self, change: impl FnOnce(&mut TrustView)) {
        let mut view = TrustView {
            revision: self.trust.view().revision + 1,
            keys: HashMap::from([("k1".to_owned(), self.key.verifying_key())]),
            ..TrustView::default()
        };
        change(&mut view);
        self.trust.hear(Some(view), NOW * 1000, Instant::now());
    }

    fn request(&self, network: [u8; 4]) -> Request<()> {
        let claims = Claims {
            iss: ISSUER.into(),
            sub: "user/alice".into(),
            aud: vec![EVERYWHERE.into()],
            iat: NOW,
            nbf: NOW,
            exp: NOW + 600,
            jti: "token-1".into(),
            sid: "session-1".into(),
            generation: 7,
            roles: vec![Role::DataOwner],
            amr: vec!["pwd".into()],
            cnf: None,
        };
        let bearer = format!("Bearer {}", claims.sign(&self.key, "k1"));
        let mut request = self.f.request("user/alice", &[Role::DataOwner]);
        request
            .metadata_mut()
            .insert("authorization", bearer.parse().expect("header"));
        request.extensions_mut().insert(TcpConnectInfo {
            local_addr: None,
            remote_addr: Some((IpAddr::from(network), 1).into()),
        });
        request
    }
}

const HOME: [u8; 4] = Ipv4Addr::LOCALHOST.octets();

fn reason(status: &Status) -> String {
    status.get_details_error_info().expect("info").reason
}

#[tokio::test]
async fn a_token_that_was_taken_before_is_refused_once_it_is_revoked() {
    let world = world();
    for _ in 0..2 {
        world.f.call(world.request(HOME)).await.expect("good");
    }
    let event = world.f.last();
    assert_eq!(
        (event.principal.as_str(), event.token_id.as_str()),
        ("user/alice", "token-1")
    );
    assert_eq!(event.network, "127.0.0.1");
    world.say(|view| view.cuts = HashMap::from([("user/alice".to_owned(), 8)]));
    let refused = world.f.call(world.request(HOME)).await.expect_err("revoked");
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::Unauthenticated, "TOKEN_REVOKED".into())
    );
    assert_eq!(world.f.last().reason, "TOKEN_REVOKED");
    // A token that is remembered is not good from elsewhere for that.
    world.say(|_| ());
    world.f.call(world.request(HOME)).await.expect("good again");
    let elsewhere = world
        .f
        .call(world.request([192, 0, 2, 7]))
        .await
        .expect_err("elsewhere");
    assert_eq!(reason(&elsewhere), "CHANNEL_MISMATCH");
}

#[tokio::test]
async fn without_a_word_of_kms_tokens_of_the_authority_go_on_and_others_wait() {
    let f = fixture(Limits::default(), 100);
    let mut world = world();
    world.trust = Arc::new(Trust::new("kms", Duration::from_secs(30)));
    world.f.gate = f.gate.clone().trusting(world.trust.clone());
    let refused = world.f.call(world.request(HOME)).await.expect_err("stale");
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::Unavailable, "TRUST_STALE".into())
    );
    f.call(f.request("user/admin", &[Role::Admin]))
        .await
        .expect("taken");
}

#[tokio::test]
async fn tokens_of_the_authority_are_for_services_over_their_own_channel_when_people_log_in() {
    let mut world = world();
    world.f.gate = world
        .f
        .gate
        .clone()
        .sender_constrained(true)
        .taking_authority_tokens(false);
    let f = &world.f;
    let refused = |status: Status| assert_eq!(reason(&status), "AUTHORITY_TOKEN_REFUSED");
    refused(
        f.call(f.request("user/admin", &[Role::Admin]))
            .await
            .expect_err("a person"),
    );
    let key = StaticKey::generate().expect("a key").public();
    let from = |token: &str, principal: Option<&str>| {
        let mut request = f.request(token, &[Role::Service]);
        request.extensions_mut().insert(ChannelPeer {
            key,
            principal: principal.map(|id| id.parse().expect("principal")),
        });
        request
    };
    f.call(from("service/ingest", Some("service/ingest")))
        .await
        .expect("its own channel");
    refused(
        f.call(from("service/ingest", Some("service/audit")))
            .await
            .expect_err("another's"),
    );
    refused(f.call(from("service/ingest", None)).await.expect_err("unknown"));
    f.call(world.request(HOME)).await.expect("who logged in");
}

#[tokio::test]
async fn a_stream_without_an_end_ends_when_its_token_is_revoked() {
    let world = world();
    let reply = world
        .f
        .gate
        .watch(
            "audit.WatchEvents",
            world.request(HOME),
            |_, (), emitter: Emitter<u64>| async move {
                emitter.send(1).await?;
                emitter.closed().await;
                Ok(())
            },
        )
        .await
        .expect("begun");
    let mut items = reply.into_inner();
    assert_eq!(items.next().await.expect("an item").expect("no error"), 1);
    world.say(|view| _ = view.revoked.insert("session-1".into()));
    let end = items.next().await.expect("an end").expect_err("revoked");
    assert_eq!(reason(&end), "TOKEN_REVOKED");
    assert!(items.next().await.is_none());
}
