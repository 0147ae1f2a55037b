//! Who may speak over the channel, and that its bounds are those of every connection.

use std::{path::Path, sync::Arc, time::Duration};

use asterism_channel::{ChannelError, Connector, Pin, StaticKey, initiate};
use asterism_proto::audit::audit_service_client::AuditServiceClient;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tonic::{Code, transport::Endpoint};

use super::support::{Fixture, common, fixture_with, list};
use crate::{
    channel::{Channel, provision},
    config::{ChannelConfig, Common},
    identity::PrincipalId,
    server::{Listeners, Running, Server, ServerError},
};

const SECOND: Duration = Duration::from_secs(1);

/// Settings of `audit` with the keys of `audit` and `kms` in `dir`.
fn settings(dir: &Path, allow_unknown_peers: bool) -> Common {
    for service in ["audit", "kms"] {
        let principal = PrincipalId::service(service);
        provision(&dir.join(service), &dir.join("peers"), &principal).unwrap();
    }
    let mut common = common();
    common.channel = ChannelConfig {
        static_key_file: Some(dir.join("audit")),
        authorized_peers_dir: Some(dir.join("peers")),
        allow_unknown_peers,
        listen: None,
    };
    common
}

async fn secured(common: &Common) -> Fixture {
    let channel = Channel::open(&common.channel).unwrap();
    fixture_with(common, |builder| {
        builder.channel(channel).handshake_within(SECOND / 2)
    })
    .await
}

fn key(dir: &Path, name: &str) -> Arc<StaticKey> {
    Arc::new(StaticKey::read(&dir.join(name)).unwrap())
}

fn pin(dir: &Path, own: Arc<StaticKey>) -> Pin {
    Pin {
        own,
        service_key: key(dir, "audit").public(),
        service: "audit".into(),
    }
}

fn client(running: &Running, pin: Pin) -> AuditServiceClient<tonic::transport::Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", running.addr)).unwrap();
    AuditServiceClient::new(endpoint.connect_with_connector_lazy(Connector::new(pin)))
}

#[tokio::test]
async fn known_keys_are_served_and_others_hear_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = secured(&settings(dir.path(), false)).await;
    let running = &fixture.running;
    assert!(running.url().starts_with("noise://"));
    let mut known = client(running, pin(dir.path(), key(dir.path(), "kms")));
    let seen = known
        .list_events(list(""))
        .await
        .unwrap()
        .into_inner()
        .next_page_token;
    assert!(seen.ends_with("127.0.0.1"), "{seen}");

    let stranger = Arc::new(StaticKey::generate().unwrap());
    let refused = client(running, pin(dir.path(), stranger.clone()))
        .list_events(list(""))
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    let stream = TcpStream::connect(running.addr).await.unwrap();
    let public = key(dir.path(), "audit").public();
    let hung_up = initiate(stream, &stranger, &public, "audit", SECOND).await;
    assert!(matches!(hung_up.err(), Some(ChannelError::HungUp)));

    // In the clear there is nothing at all.
    let mut plain = TcpStream::connect(running.addr).await.unwrap();
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
}

#[tokio::test]
async fn strangers_are_let_in_where_people_are() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = secured(&settings(dir.path(), true)).await;
    let stranger = Arc::new(StaticKey::generate().unwrap());
    let mut client = client(&fixture.running, pin(dir.path(), stranger));
    client.list_events(list("")).await.unwrap();
}

#[tokio::test]
async fn handshakes_hold_places_end_in_time_and_hold_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut common = settings(dir.path(), false);
    common.limits.max_connections = 2;
    let fixture = secured(&common).await;
    let silent = TcpStream::connect(fixture.running.addr).await.unwrap();
    let mut served = client(&fixture.running, pin(dir.path(), key(dir.path(), "kms")));
    tokio::time::timeout(SECOND / 4, served.list_events(list("")))
        .await
        .expect("while another still shakes hands")
        .unwrap();
    // Both places are taken, one by a handshake.
    let mut third = TcpStream::connect(fixture.running.addr).await.unwrap();
    let mut byte = [0];
    let closed = tokio::time::timeout(SECOND / 4, third.read(&mut byte)).await;
    assert!(matches!(closed.expect("closed at once"), Ok(0) | Err(_)));
    let mut silent = silent;
    let closed = tokio::time::timeout(2 * SECOND, silent.read(&mut byte)).await;
    assert!(matches!(closed.expect("closed in time"), Ok(0) | Err(_)));
    let mut again = client(&fixture.running, pin(dir.path(), key(dir.path(), "kms")));
    again
        .list_events(list(""))
        .await
        .expect("its place is free again");
}

#[tokio::test]
async fn a_channel_needs_no_consent_and_a_plain_listener_beside_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let common = settings(dir.path(), false);
    let channel = || Channel::open(&common.channel).unwrap();
    let everywhere = || async { TcpListener::bind("0.0.0.0:0").await.unwrap() };
    let builder = || Server::builder("audit", &common);
    let running = builder().channel(channel()).spawn(everywhere().await).unwrap();
    running.shutdown().await;
    let beside = Listeners::from(everywhere().await).and_channel(everywhere().await);
    let refused = builder().channel(channel()).spawn(beside).err();
    assert!(matches!(refused, Some(ServerError::RemotePlaintext)));
    // A key that was forgotten never means plaintext.
    let refused = builder().spawn(everywhere().await).err();
    assert!(matches!(refused, Some(ServerError::ChannelKey)));
}

#[tokio::test]
async fn both_doors_lead_to_the_same_service_within_the_same_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let mut common = settings(dir.path(), false);
    common.channel.listen = Some("127.0.0.1:0".parse().unwrap());
    common.limits.max_connections = 2;
    let beside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = beside.local_addr().unwrap();
    let main = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = Server::builder("audit", &common)
        .channel(Channel::open(&common.channel).unwrap())
        .spawn(Listeners::from(main).and_channel(beside))
        .unwrap();
    assert!(running.url().starts_with("http://"));
    let _plain = TcpStream::connect(running.addr).await.unwrap();
    let stream = TcpStream::connect(at).await.unwrap();
    let public = key(dir.path(), "audit").public();
    let own = key(dir.path(), "kms");
    let _secured = initiate(stream, &own, &public, "audit", SECOND).await.unwrap();
    let third = TcpStream::connect(at).await.unwrap();
    let refused = initiate(third, &own, &public, "audit", SECOND).await;
    assert!(refused.is_err());
    running.shutdown().await;
}
