//! Streams, and work across services.

use futures::StreamExt as _;

use super::*;

#[tokio::test]
async fn a_stream_is_recorded_before_what_it_releases() {
    let f = fixture(Limits::default(), 100);
    let outbox = f.gate.outbox().clone();
    let request = f.request("user/admin", &[Role::Admin]);
    let watched = outbox.clone();
    let reply = f
        .gate
        .stream(
            "ingest.ReadRows",
            request,
            move |_, (), emitter: Emitter<u64>| async move {
                emitter.release().await?;
                emitter.send(watched.depth()).await?;
                Err(Failure::invalid("row", "is damaged"))
            },
        )
        .await
        .expect("begun");
    let mut items = reply.into_inner();
    assert_eq!(items.next().await.expect("an item").expect("no error"), 1);
    assert_eq!(
        items.next().await.expect("the end").expect_err("failed").code(),
        Code::InvalidArgument
    );
    // Released, and then failed: both are recorded before the end leaves.
    assert_eq!(outbox.depth(), 2);
    assert!(items.next().await.is_none());
}

#[tokio::test]
async fn a_flow_that_panics_is_an_event_and_one_that_is_left_goes_on() {
    let f = fixture(Limits::default(), 100);
    let request = f.request("user/admin", &[Role::Admin]);
    let panicked = f
        .gate
        .flow::<(), (), _, _>("inference.Predict", request, |_, (), _| async {
            panic!("it is swordfish")
        })
        .await
        .expect_err("panicked");
    assert_eq!(panicked.code(), Code::Internal);
    assert_eq!(
        (f.last().operation.as_str(), f.last().outcome()),
        ("inference.Predict", WireOutcome::Failed)
    );

    let (finish, may_finish) = tokio::sync::oneshot::channel::<()>();
    let (begun, has_begun) = tokio::sync::oneshot::channel::<()>();
    let (gate, request) = (f.gate.clone(), f.request("user/admin", &[Role::Admin]));
    let call = tokio::spawn(async move {
        gate.flow("inference.Predict", request, move |_, (), mut trail| async move {
            begun.send(()).expect("the test listens");
            may_finish.await.expect("the test says when");
            trail.resource("models/m");
            (trail, Ok(()))
        })
        .await
    });
    has_begun.await.expect("begun");
    call.abort();
    assert!(call.await.expect_err("aborted").is_cancelled());
    finish.send(()).expect("the work still waits");
    f.settled().await;
    assert_eq!(
        (f.last().resource.as_str(), f.last().outcome()),
        ("models/m", WireOutcome::Succeeded)
    );
}

#[tokio::test]
async fn a_stream_that_its_caller_leaves_is_recorded_as_cancelled() {
    let f = fixture(Limits::default(), 100);
    let request = f.request("user/admin", &[Role::Admin]);
    let reply = f
        .gate
        .stream(
            "ingest.ReadRows",
            request,
            |_, (), emitter: Emitter<u64>| async move {
                emitter.trail(|trail| {
                    trail.resource("datasets/d");
                });
                emitter.release().await?;
                for item in 0.. {
                    emitter.send(item).await?;
                }
                Ok(())
            },
        )
        .await
        .expect("begun");
    let mut items = reply.into_inner();
    items.next().await.expect("an item").expect("no error");
    drop(items);
    f.settled().await;
    let ends: Vec<_> = f
        .events()
        .iter()
        .map(|e| (e.resource.clone(), e.outcome(), e.reason.clone()))
        .collect();
    let resource = "datasets/d".to_owned();
    let released = (resource.clone(), WireOutcome::Succeeded, String::new());
    assert_eq!(
        ends,
        [released, (resource, WireOutcome::Failed, "CANCELLED".to_owned())]
    );
}

#[tokio::test]
async fn a_stream_that_panics_ends_with_an_error_and_an_event() {
    let f = fixture(Limits::default(), 100);
    let request = f.request("user/admin", &[Role::Admin]);
    let mut items = f
        .gate
        .stream("ingest.ReadRows", request, |_, (), _: Emitter<u64>| async {
            panic!("it is swordfish")
        })
        .await
        .expect("begun")
        .into_inner();
    let status = items.next().await.expect("an end").expect_err("panicked");
    assert_eq!(status.code(), Code::Internal);
    assert!(!status.message().contains("swordfish"));
    assert!(items.next().await.is_none());
    assert_eq!(f.last().reason, "INTERNAL");
}

#[tokio::test]
async fn many_releases_of_a_stream_are_one_event() {
    let f = fixture(Limits::default(), 100);
    let watched = f.gate.outbox().clone();
    let request = f.request("user/admin", &[Role::Admin]);
    let mut items = f
        .gate
        .stream(
            "ingest.ReadRows",
            request,
            move |_, (), emitter: Emitter<u64>| async move {
                let releases = (0..8).map(|_| {
                    let (emitter, watched) = (emitter.clone(), watched.clone());
                    // Nobody passes before the event is there.
                    async move { emitter.release().await.map(|()| watched.depth()) }
                });
                for depth in futures::future::join_all(releases).await {
                    emitter.send(depth?).await?;
                }
                Ok(())
            },
        )
        .await
        .expect("begun")
        .into_inner();
    let mut seen = vec![];
    while let Some(item) = items.next().await {
        seen.push(item.expect("no error"));
    }
    assert_eq!(seen, [1; 8]);
    // The end of the stream left after its own event.
    assert_eq!(f.events().len(), 2);
}

#[tokio::test]
async fn nothing_is_released_that_cannot_be_recorded() {
    let f = fixture(Limits::default(), 1);
    let request = f.request("user/admin", &[Role::Admin]);
    let mut items = f
        .gate
        .stream(
            "ingest.ReadRows",
            request,
            |_, (), emitter: Emitter<u64>| async move {
                // The one place in the outbox is promised to the end of this call.
                emitter.release().await?;
                emitter.send(42).await
            },
        )
        .await
        .expect("begun")
        .into_inner();
    assert_eq!(
        items.next().await.expect("an end").expect_err("refused").code(),
        Code::Unavailable
    );
    assert!(items.next().await.is_none());
    assert_eq!(f.last().reason, "AUDIT_UNAVAILABLE");
}
