//! Health, and how a server ends.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use asterism_proto::audit::WatchEventsRequest;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::task::TaskTracker;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::support::{Fixture, channel, common, fixture, fixture_with, list};
use crate::server::ServerBuilder;

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

async fn check(health: &mut HealthClient<Channel>, service: &str) -> ServingStatus {
    health.check(of(service)).await.unwrap().into_inner().status()
}

#[tokio::test]
async fn health_knows_the_whole_and_every_service() {
    let Fixture { running, .. } = fixture().await;
    let mut health = HealthClient::new(channel(&running));
    for service in ["", "asterism.audit.v1.AuditService"] {
        assert_eq!(check(&mut health, service).await, ServingStatus::Serving);
    }
    assert_eq!(
        health
            .check(of("asterism.kms.v1.Nonsense"))
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn health_follows_the_service() {
    let (serving, follow) = watch::channel(false);
    let Fixture { running, .. } = fixture_with(&common(), |builder| builder.serving(follow)).await;
    let mut health = HealthClient::new(channel(&running));
    let mut statuses = health
        .watch(of("asterism.audit.v1.AuditService"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        statuses.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    serving.send(true).unwrap();
    assert_eq!(
        statuses.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    serving.send(false).unwrap();
    assert_eq!(
        statuses.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    assert_eq!(check(&mut health, "").await, ServingStatus::NotServing);
    serving.send(true).unwrap();
    assert_eq!(
        statuses.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    drop(serving);
    assert_eq!(
        check(&mut health, "").await,
        ServingStatus::Serving,
        "who no longer tells has not failed"
    );
}

#[tokio::test]
async fn health_says_serving_only_while_nothing_speaks_against_it() {
    let (outbox, unsealed) = (watch::Sender::new(true), watch::Sender::new(false));
    let follow = [outbox.subscribe(), unsealed.subscribe()];
    let Fixture { running, .. } = fixture_with(&common(), |builder| {
        follow.into_iter().fold(builder, ServerBuilder::serving)
    })
    .await;
    let mut health = HealthClient::new(channel(&running));
    let mut statuses = health.watch(of("")).await.unwrap().into_inner();
    let mut next = async || statuses.message().await.unwrap().unwrap().status();
    assert_eq!(next().await, ServingStatus::NotServing);
    unsealed.send_replace(true);
    assert_eq!(next().await, ServingStatus::Serving);
    outbox.send_replace(false);
    assert_eq!(next().await, ServingStatus::NotServing);
    outbox.send_replace(true);
    assert_eq!(next().await, ServingStatus::Serving);
    drop(outbox);
    unsealed.send_replace(false);
    assert_eq!(next().await, ServingStatus::NotServing);
}

#[tokio::test]
async fn a_drain_says_so_lets_calls_end_and_ends_watches() {
    let Fixture {
        running,
        stage,
        mut client,
    } = fixture().await;
    let addr = running.addr;
    let mut watch = client
        .clone()
        .watch_events(WatchEventsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut health = HealthClient::new(channel(&running));
    let mut statuses = health.watch(of("")).await.unwrap().into_inner();
    assert_eq!(
        statuses.message().await.unwrap().unwrap().status(),
        ServingStatus::Serving
    );
    let call = tokio::spawn(async move { client.list_events(list("wait")).await });
    stage.begun.notified().await;

    let draining = running.draining();
    let shutdown = tokio::spawn(running.shutdown());
    draining.cancelled().await;
    assert_eq!(
        statuses.message().await.unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    assert_eq!(statuses.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(watch.message().await.unwrap_err().code(), Code::Unavailable);
    assert!(!shutdown.is_finished(), "the open call is waited for");
    stage.release.notify_one();
    call.await.unwrap().expect("a call that had begun ends in peace");
    shutdown.await.unwrap();
    TcpListener::bind(addr).await.expect("the port is free again");
}

#[tokio::test]
async fn a_call_that_does_not_end_is_cut_off_at_the_bound() {
    let Fixture {
        running,
        stage,
        mut client,
    } = fixture_with(&common(), |builder| {
        builder.drain_within(Duration::from_millis(100))
    })
    .await;
    let call = tokio::spawn(async move { client.list_events(list("wait")).await });
    stage.begun.notified().await;
    tokio::time::timeout(Duration::from_secs(20), running.shutdown())
        .await
        .expect("the drain is bounded");
    call.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_frozen_peer_without_a_call_does_not_hold_up_the_end() {
    let Fixture { running, .. } = fixture().await; // drains for 10 s
    let stream = tokio::net::TcpStream::connect(running.addr).await.unwrap();
    let (_sender, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    tokio::select! {
        _ = &mut connection => panic!("closed early"),
        pong = pings.ping(h2::Ping::opaque()) => drop(pong.unwrap()),
    }
    // From here on nobody reads for the client: GOAWAY goes unanswered.
    tokio::time::timeout(Duration::from_secs(8), running.shutdown())
        .await
        .expect("it does not wait for the drain");
}

#[tokio::test]
async fn detached_work_ends_before_the_hooks_run() {
    let tracker = TaskTracker::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |text: &'static str| {
        let order = Arc::clone(&order);
        move || order.lock().unwrap().push(text)
    };
    let (hook, late_hook, work) = (note("hook"), note("late hook"), note("work"));
    let Fixture { mut running, .. } = fixture_with(&common(), |builder| {
        builder
            .tracker(tracker.clone())
            .on_shutdown(move || async move { hook() })
    })
    .await;
    running.on_shutdown(move || async move { late_hook() });
    let draining = running.draining();
    tracker.spawn(async move {
        draining.cancelled().await;
        tokio::task::yield_now().await;
        work();
    });
    running.shutdown().await;
    assert_eq!(*order.lock().unwrap(), ["work", "hook", "late hook"]);
}

#[tokio::test]
async fn dropping_it_closes_everything_and_runs_no_hook() {
    let ran = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ran);
    let Fixture {
        running,
        stage,
        mut client,
    } = fixture_with(&common(), |builder| {
        builder.on_shutdown(move || async move { seen.store(true, Ordering::SeqCst) })
    })
    .await;
    let addr = running.addr;
    let call = tokio::spawn(async move { client.list_events(list("wait")).await });
    stage.begun.notified().await;
    drop(running);
    call.await.unwrap().unwrap_err();
    assert!(!ran.load(Ordering::SeqCst));
    // The aborted task drops the listener at its next turn.
    let rebind = async { while TcpListener::bind(addr).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), rebind)
        .await
        .expect("the port is free again");
}

#[tokio::test]
async fn serve_ends_when_told() {
    let common = common();
    let listener = TcpListener::bind(common.listen).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let shutdown = async { drop(stopped.await) };
        crate::server::Server::builder("audit", &common)
            .serve(listener, shutdown)
            .await
    });
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}
