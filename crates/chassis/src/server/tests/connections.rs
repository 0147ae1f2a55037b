//! Who may connect, how many, and for how long without a word.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::support::{Fixture, channel, common, fixture_with, list};
use crate::{
    config::Limits,
    server::{Server, ServerError, accept::Places},
};

type Speaking = (h2::client::SendRequest<bytes::Bytes>, tokio::task::JoinHandle<()>);

/// A connection that has spoken HTTP/2 and got the server's answer.
async fn speak(addr: SocketAddr) -> Option<Speaking> {
    let stream = TcpStream::connect(addr).await.ok()?;
    let (sender, mut connection) = h2::client::handshake(stream).await.ok()?;
    let mut ping = connection.ping_pong()?;
    let task = tokio::spawn(async move {
        let _ = connection.await;
    });
    ping.ping(h2::Ping::opaque()).await.ok()?;
    Some((sender, task))
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 1024];
    let end = async {
        // The server may greet before it goes.
        while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
    };
    tokio::time::timeout(Duration::from_secs(20), end).await.is_ok()
}

#[tokio::test]
async fn connections_over_the_cap_of_their_address_are_turned_away() {
    let mut common = common();
    common.limits.max_connections_per_ip = 2;
    let Fixture { running, .. } = fixture_with(&common, |builder| builder).await;
    let first = speak(running.addr).await.unwrap();
    let second = speak(running.addr).await.unwrap();
    assert!(speak(running.addr).await.is_none());

    let (sender, task) = first;
    drop(sender);
    task.abort();
    // The server notices the end of a connection in its own time.
    let third = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Some(speaking) = speak(running.addr).await {
                return speaking;
            }
        }
    });
    third.await.expect("a place that became free is given again");
    drop(second);
}

#[tokio::test]
async fn connections_over_the_total_are_turned_away() {
    let mut common = common();
    common.limits.max_connections = 1;
    let Fixture { running, .. } = fixture_with(&common, |builder| builder).await;
    let first = speak(running.addr).await.unwrap();
    assert!(speak(running.addr).await.is_none());
    drop(first);
}

#[tokio::test]
async fn places_are_counted_by_network_and_given_back() {
    let limits = Limits {
        max_connections: 4,
        max_connections_per_ip: 1,
        ..Limits::default()
    };
    let places = Places::new(&limits);
    let take = |address: &str| places.take(address.parse().unwrap());
    let first = take("10.0.0.1").ok().unwrap();
    assert_eq!(take("10.0.0.1").err(), Some("per_ip"));
    assert_eq!(
        take("::ffff:10.0.0.1").err(),
        Some("per_ip"),
        "the same address in another dress"
    );
    let _second = take("2001:db8::1").ok().unwrap();
    assert_eq!(
        take("2001:db8::2:3:4:5").err(),
        Some("per_ip"),
        "one /64 is one caller"
    );
    let _third = take("2001:db8:0:1::1").ok().unwrap();
    let _fourth = take("10.0.0.2").ok().unwrap();
    assert_eq!(take("10.0.0.3").err(), Some("total"));
    drop(first);
    assert!(take("10.0.0.1").is_ok());
}

#[tokio::test]
async fn a_connection_that_does_not_speak_is_dropped() {
    let fixture = fixture_with(&common(), |builder| {
        builder.handshake_within(Duration::from_millis(100))
    })
    .await;
    let mut speaking = fixture.client.clone();
    speaking.list_events(list("")).await.unwrap();
    let mut silent = TcpStream::connect(fixture.running.addr).await.unwrap();
    assert!(is_closed(&mut silent).await);
    // One byte is not a word either.
    let mut slow = TcpStream::connect(fixture.running.addr).await.unwrap();
    slow.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    assert!(is_closed(&mut slow).await);
    speaking
        .list_events(list(""))
        .await
        .expect("who spoke in time stays");
}

#[tokio::test]
async fn garbage_is_dropped_and_others_are_served() {
    let Fixture { running, .. } = fixture_with(&common(), |builder| builder).await;
    for bytes in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], &[0; 4096], &[0xff; 64]] {
        let mut stream = TcpStream::connect(running.addr).await.unwrap();
        let _ = stream.write_all(bytes).await;
        assert!(is_closed(&mut stream).await);
    }
    let mut client = asterism_proto::audit::audit_service_client::AuditServiceClient::new(channel(&running));
    client.list_events(list("")).await.unwrap();
}

#[tokio::test]
async fn a_listener_for_other_machines_needs_consent() {
    let mut common = common();
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let refused = Server::builder("audit", &common).spawn(listener);
    assert!(matches!(refused.err(), Some(ServerError::RemotePlaintext)));
    common.allow_remote_plaintext = true;
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    Server::builder("audit", &common)
        .spawn(listener)
        .unwrap()
        .shutdown()
        .await;
}
