//! What the edge does for one call.

use asterism_proto::audit::{AppendEventsRequest, Event, VerifyLogRequest, WatchEventsRequest};
use bytes::{BufMut as _, Bytes, BytesMut};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use super::support::{Fixture, channel, common, fixture, fixture_with, list};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::test]
async fn a_handler_sees_method_trace_deadline_and_peer() {
    let Fixture {
        running: _running,
        mut client,
        ..
    } = fixture().await;
    let mut request = Request::new(list(""));
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    request
        .metadata_mut()
        .insert("traceparent", parent.parse().unwrap());
    let answer = client
        .list_events(request)
        .await
        .unwrap()
        .into_inner()
        .next_page_token;
    assert_eq!(
        answer,
        format!("asterism.audit.v1.AuditService/ListEvents {TRACE} Some(true) 127.0.0.1")
    );

    let fresh = client
        .list_events(list(""))
        .await
        .unwrap()
        .into_inner()
        .next_page_token;
    let trace = fresh.split(' ').nth(1).unwrap();
    assert!(
        trace.len() == 32 && trace != TRACE && trace != "0".repeat(32),
        "{fresh}"
    );
}

#[tokio::test]
async fn the_default_deadline_ends_a_call_with_its_own_code() {
    let mut common = common();
    common.limits.default_deadline_ms = 50;
    let Fixture {
        running: _running,
        mut client,
        ..
    } = fixture_with(&common, |builder| builder).await;
    let status = client.list_events(list("hang")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(
        status.get_details_error_info().unwrap().reason,
        "DEADLINE_EXCEEDED"
    );
    client.list_events(list("")).await.unwrap();
}

#[tokio::test]
async fn a_caller_cannot_ask_for_more_than_the_longest_deadline() {
    let mut common = common();
    common.limits.default_deadline_ms = 10;
    common.limits.max_deadline_ms = 50;
    let Fixture {
        running: _running,
        mut client,
        ..
    } = fixture_with(&common, |builder| builder).await;
    let mut request = Request::new(list("hang"));
    request.set_timeout(std::time::Duration::from_secs(3600));
    assert_eq!(
        client.list_events(request).await.unwrap_err().code(),
        Code::DeadlineExceeded
    );
}

/// With a bare HTTP/2 client: tonic's own would cut the call off by itself and hide what the server answered.
#[tokio::test]
async fn a_caller_s_deadline_is_answered_as_such_and_not_as_cancelled() {
    let Fixture { running, .. } = fixture().await;
    let stream = tokio::net::TcpStream::connect(running.addr).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let message = framed(&list("hang"));
    for timeout in ["0n", "1n", "1999u", "2m", "4m", "9m", "50m", "200m"] {
        let request = http::Request::post(format!(
            "{}/asterism.audit.v1.AuditService/ListEvents",
            running.url()
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .body(())
        .unwrap();
        let (response, mut body) = sender.send_request(request, false).unwrap();
        body.send_data(message.clone(), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers().get("grpc-status").unwrap(), "4", "{timeout}");
    }
    connection.abort();
}

fn framed(message: &impl prost::Message) -> Bytes {
    let encoded = message.encode_to_vec();
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(encoded.len()).unwrap());
    frame.put_slice(&encoded);
    frame.freeze()
}

#[tokio::test]
async fn a_watch_without_a_deadline_has_none() {
    let Fixture {
        running: _running,
        mut client,
        ..
    } = fixture().await;
    let open = client.watch_events(WatchEventsRequest::default()).await.unwrap();
    assert_eq!(open.metadata().get("has-deadline").unwrap(), "no");
    let mut request = Request::new(WatchEventsRequest::default());
    request.set_timeout(std::time::Duration::from_secs(30));
    let bounded = client.watch_events(request).await.unwrap();
    assert_eq!(bounded.metadata().get("has-deadline").unwrap(), "yes");
}

#[tokio::test]
async fn a_panic_fails_one_call_and_nothing_else() {
    let Fixture {
        running: _running,
        mut client,
        stage,
    } = fixture().await;
    let mut other = client.clone();
    let waiting = tokio::spawn(async move { other.list_events(list("wait")).await });
    stage.begun.notified().await;
    let status = client.list_events(list("panic")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Internal, "internal error")
    );
    stage.release.notify_one();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_message_over_the_limit_is_told_the_way_out() {
    let mut common = common();
    common.limits.max_message_bytes = 64 * 1024;
    let Fixture {
        running: _running,
        mut client,
        ..
    } = fixture_with(&common, |builder| builder).await;
    let event = Event {
        resource: "x".repeat(70_000),
        ..Event::default()
    };
    let status = client
        .append_events(AppendEventsRequest {
            events: vec![event],
            receipts: false,
        })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(
        status.message().contains("65536 bytes") && status.message().contains("PutChunk"),
        "{status}"
    );
    assert_eq!(
        status.get_details_error_info().unwrap().reason,
        "MESSAGE_TOO_LARGE"
    );
}

#[tokio::test]
async fn a_handler_s_own_status_passes_unchanged() {
    let Fixture {
        running: _running,
        mut client,
        ..
    } = fixture().await;
    let status = client.verify_log(VerifyLogRequest {}).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "as asked"));
}

#[tokio::test]
async fn reflection_lists_what_is_served_in_both_versions() {
    let Fixture { running, .. } = fixture().await;
    let expected = [
        "asterism.audit.v1.AuditService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    let mut found = reflect_v1(channel(&running)).await;
    found.sort();
    assert_eq!(found, expected);
    let mut found = reflect_v1alpha(channel(&running)).await;
    found.sort();
    assert_eq!(found, expected);
}

macro_rules! reflect {
    ($name:ident, $version:ident) => {
        async fn $name(channel: tonic::transport::Channel) -> Vec<String> {
            use tonic_reflection::pb::$version::{
                ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
                server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
            };
            let request = ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let asked = futures::stream::iter([request]);
            let mut client = ServerReflectionClient::new(channel);
            let mut answers = client
                .server_reflection_info(asked)
                .await
                .unwrap()
                .into_inner();
            match answers.message().await.unwrap().unwrap().message_response {
                Some(MessageResponse::ListServicesResponse(list)) => list
                    .service
                    .into_iter()
                    .map(|service| service.name)
                    .collect(),
                other => panic!("{other:?}"),
            }
        }
    };
}

reflect!(reflect_v1, v1);
reflect!(reflect_v1alpha, v1alpha);
