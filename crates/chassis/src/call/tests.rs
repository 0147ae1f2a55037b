#![allow(clippy::panic)]

use std::{sync::Arc, time::Duration};

use asterism_proto::audit::{Event, Outcome as WireOutcome};
use asterism_store::{MemoryRecords, Records as _};
use prost::Message as _;
use tonic::{Code, Request};

use super::*;
use crate::{
    config::Limits,
    identity::Authority,
    outbox::{OutboxLimits, Sink},
    server::{Deadline, MethodPath, TraceId},
};

const ENCRYPT: &str = "asterism.kms.v1.KeyManagementService/Encrypt";

struct Fixture {
    gate: Gate,
    authority: Arc<Authority>,
    records: Arc<MemoryRecords>,
    _dir: tempfile::TempDir,
}

fn fixture(limits: Limits, max_events: u64) -> Fixture {
    let dir = tempfile::tempdir().expect("directory");
    let authority = Arc::new(Authority::load_or_create(dir.path()).expect("authority"));
    let records = Arc::new(MemoryRecords::new());
    let outbox =
        Outbox::open(records.clone(), "kms", OutboxLimits { max_events }, Sink::Hold).expect("outbox");
    Fixture {
        gate: Gate::new(authority.clone(), outbox, &limits),
        authority,
        records,
        _dir: dir,
    }
}

impl Fixture {
    fn request(&self, principal: &str, roles: &[Role]) -> Request<()> {
        let id = principal.parse().expect("principal");
        let now = std::time::SystemTime::now();
        let token = self.authority.mint(&id, roles, Duration::from_secs(60), now);
        let mut request = Request::new(());
        request.metadata_mut().insert(
            "authorization",
            format!("Bearer {token}").parse().expect("header"),
        );
        request.extensions_mut().insert(MethodPath(ENCRYPT.into()));
        request
    }

    /// Everything that was recorded, in order.
    fn events(&self) -> Vec<Event> {
        let records = self.records.scan(&[0xE0], &[0xE0], 1_000).expect("scan");
        records
            .iter()
            .map(|(_, value)| Event::decode(value.as_slice()).expect("an event"))
            .collect()
    }

    fn last(&self) -> Event {
        self.events().pop().expect("an event")
    }

    /// Waits for work that goes on without its caller.
    async fn settled(&self) {
        self.gate.tracker().close();
        self.gate.tracker().wait().await;
    }

    async fn call(&self, request: Request<()>) -> Result<(), tonic::Status> {
        self.gate
            .blocking("kms.Encrypt", request, |_, (), _| Ok(()))
            .await
            .map(|_| ())
    }
}

#[tokio::test]
async fn every_end_of_an_operation_is_an_event_and_silence_only_hides_success() {
    let f = fixture(Limits::default(), 100);
    let outbox = f.gate.outbox().clone();
    f.call(f.request("user/admin", &[Role::Admin]))
        .await
        .expect("allowed");
    assert_eq!(outbox.depth(), 1);

    let denied = f
        .call(f.request("user/viewer", &[Role::Viewer]))
        .await
        .expect_err("denied");
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert_eq!(outbox.depth(), 2);

    let mut stranger = Request::new(());
    stranger.extensions_mut().insert(MethodPath(ENCRYPT.into()));
    assert_eq!(
        f.call(stranger).await.expect_err("unknown").code(),
        Code::Unauthenticated
    );
    assert_eq!(outbox.depth(), 3);

    let silent = |result: Result<(), Failure>| {
        let request = f.request("user/admin", &[Role::Admin]);
        f.gate.blocking("kms.Encrypt", request, move |_, (), trail| {
            trail.silent();
            result
        })
    };
    silent(Ok(())).await.expect("silent");
    assert_eq!(outbox.depth(), 3);
    silent(Err(Failure::invalid("f", "is wrong")))
        .await
        .expect_err("fails");
    assert_eq!(outbox.depth(), 4);
}

#[tokio::test]
async fn a_panic_fails_one_request_and_is_an_event() {
    let f = fixture(Limits::default(), 100);
    let request = f.request("user/admin", &[Role::Admin]);
    let status = f
        .gate
        .blocking::<(), (), _>("kms.Encrypt", request, |_, (), _| panic!("the secret is 42"))
        .await
        .expect_err("panicked");
    assert_eq!(status.code(), Code::Internal);
    assert!(!status.message().contains("42"));
    assert_eq!(f.gate.outbox().depth(), 1);
    f.call(f.request("user/admin", &[Role::Admin]))
        .await
        .expect("the next one works");
}

#[tokio::test]
async fn work_goes_on_and_is_recorded_when_its_caller_leaves() {
    let f = fixture(Limits::default(), 100);
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (finish, may_finish) = std::sync::mpsc::channel::<()>();
    let gate = f.gate.clone();
    let request = f.request("user/admin", &[Role::Admin]);
    let call = tokio::spawn(async move {
        gate.blocking("kms.Encrypt", request, move |_, (), _| {
            begun.send(()).expect("the test listens");
            may_finish.recv().expect("the test says when");
            Ok(())
        })
        .await
    });
    tokio::task::spawn_blocking(move || has_begun.recv())
        .await
        .expect("joined")
        .expect("begun");
    call.abort();
    assert!(call.await.expect_err("aborted").is_cancelled());
    assert_eq!(f.gate.outbox().depth(), 0);
    finish.send(()).expect("the work still waits");
    f.gate.tracker().close();
    f.gate.tracker().wait().await;
    assert_eq!(f.gate.outbox().depth(), 1);
}

#[tokio::test]
async fn too_many_at_once_are_refused_with_a_time_to_try_again() {
    use tonic_types::StatusExt as _;
    let f = fixture(
        Limits {
            max_in_flight: 1,
            queue: 0,
            ..Limits::default()
        },
        100,
    );
    let (finish, may_finish) = std::sync::mpsc::channel::<()>();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (gate, request) = (f.gate.clone(), f.request("user/admin", &[Role::Admin]));
    let first = tokio::spawn(async move {
        gate.blocking("kms.Encrypt", request, move |_, (), _| {
            begun.send(()).expect("the test listens");
            may_finish.recv().expect("the test says when");
            Ok(())
        })
        .await
    });
    tokio::task::spawn_blocking(move || has_begun.recv())
        .await
        .expect("joined")
        .expect("begun");
    let refused = f
        .call(f.request("user/admin", &[Role::Admin]))
        .await
        .expect_err("refused");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        refused
            .get_details_retry_info()
            .expect("retry info")
            .retry_delay
            .is_some()
    );
    finish.send(()).expect("the first waits");
    first.await.expect("joined").expect("done");
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done() {
    let f = fixture(Limits::default(), 2);
    for _ in 0..2 {
        f.call(f.request("user/admin", &[Role::Admin]))
            .await
            .expect("room for two");
    }
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = done.clone();
    let request = f.request("user/admin", &[Role::Admin]);
    let status = f
        .gate
        .blocking("kms.Encrypt", request, move |_, (), _| {
            flag.store(true, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        })
        .await
        .expect_err("refused");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(!done.load(std::sync::atomic::Ordering::SeqCst));
    assert!(!*f.gate.outbox().serving().borrow());
}

#[tokio::test]
async fn only_services_act_for_others() {
    let f = fixture(Limits::default(), 100);
    for (roles, owner) in [([Role::Service], "user/alice"), ([Role::Admin], "user/x")] {
        let mut request = f.request("user/x", &roles);
        request
            .metadata_mut()
            .insert("x-asterism-on-behalf-of", "user/alice".parse().expect("header"));
        let seen = f
            .gate
            .blocking("kms.Encrypt", request, |caller, (), _| {
                Ok(caller.owner().to_string())
            })
            .await
            .expect("allowed");
        assert_eq!(seen.into_inner(), owner);
    }
}

#[tokio::test]
async fn a_stream_is_recorded_before_what_it_releases() {
    use futures::StreamExt as _;
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
async fn an_event_says_who_what_and_how_it_ended() {
    let f = fixture(Limits::default(), 100);
    let mut request = f.request("service/ingest", &[Role::Service]);
    request
        .metadata_mut()
        .insert("x-asterism-on-behalf-of", "user/alice".parse().expect("header"));
    request
        .metadata_mut()
        .insert("x-request-id", "request-7".parse().expect("header"));
    request
        .extensions_mut()
        .insert(TraceId("0af7651916cd43dd8448eb211c80319c".into()));
    let work = |_: &Caller, (), trail: &mut Trail| {
        trail
            .resource("keys/k")
            .key_version(3)
            .input(b"in")
            .output(b"out");
        Ok(())
    };
    f.gate.blocking("kms.Encrypt", request, work).await.expect("done");
    let event = f.last();
    assert_eq!((event.source.as_str(), event.source_sequence), ("kms", 1));
    assert_eq!(
        (event.principal.as_str(), event.on_behalf_of.as_str()),
        ("service/ingest", "user/alice")
    );
    assert_eq!(
        (event.operation.as_str(), event.resource.as_str()),
        ("kms.Encrypt", "keys/k")
    );
    assert_eq!((event.key_version, event.outcome()), (3, WireOutcome::Succeeded));
    assert_eq!(
        (event.request_id.as_str(), event.reason.as_str()),
        ("request-7", "")
    );
    assert_eq!(event.trace_id, "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(event.input_sha256, Digest::of(b"in").as_bytes());
    assert_eq!(event.output_sha256, Digest::of(b"out").as_bytes());
}

#[tokio::test]
async fn refusals_say_whom_they_refused_and_why() {
    use tonic_types::StatusExt as _;
    let f = fixture(Limits::default(), 100);
    let denied = f
        .call(f.request("user/viewer", &[Role::Viewer]))
        .await
        .expect_err("denied");
    assert_eq!(
        denied.get_details_error_info().expect("info").reason,
        "POLICY_DENIED"
    );
    let event = f.last();
    assert_eq!(
        (event.principal.as_str(), event.outcome()),
        ("user/viewer", WireOutcome::Denied)
    );
    assert_eq!(event.reason, "POLICY_DENIED");

    let mut forged = f.request("user/admin", &[Role::Admin]);
    forged
        .metadata_mut()
        .insert("authorization", "Bearer v1.bm8.bm8".parse().expect("header"));
    let refused = f.call(forged).await.expect_err("refused");
    assert_eq!(
        refused.get_details_error_info().expect("info").reason,
        "TOKEN_INVALID"
    );
    let event = f.last();
    assert_eq!(
        (event.principal.as_str(), event.outcome()),
        ("", WireOutcome::Denied)
    );

    let mut confused = f.request("service/ingest", &[Role::Service]);
    confused
        .metadata_mut()
        .insert("x-asterism-on-behalf-of", "Alice".parse().expect("header"));
    assert_eq!(
        f.call(confused).await.expect_err("refused").code(),
        Code::InvalidArgument
    );
    assert_eq!(f.last().principal, "service/ingest");

    let mut unknown = f.request("user/admin", &[Role::Admin]);
    unknown
        .extensions_mut()
        .insert(MethodPath("asterism.kms.v1.KeyManagementService/Destroy".into()));
    assert_eq!(
        f.call(unknown).await.expect_err("refused").code(),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn a_token_that_expires_while_it_is_remembered_is_refused() {
    let f = fixture(Limits::default(), 100);
    let id = "user/admin".parse().expect("principal");
    let begun = std::time::SystemTime::now() - Duration::from_secs(59);
    let token = f
        .authority
        .mint(&id, &[Role::Admin], Duration::from_secs(60), begun);
    let request = || {
        let mut request = f.request("user/admin", &[Role::Admin]);
        request.metadata_mut().insert(
            "authorization",
            format!("Bearer {token}").parse().expect("header"),
        );
        request
    };
    // Good for a second at most: sooner or later it is refused, and never accepted again.
    let mut refused = f.call(request()).await.is_err();
    while !refused {
        tokio::task::yield_now().await;
        refused = f.gate.enter("kms.Encrypt", &request()).is_err();
    }
    assert_eq!(
        f.call(request()).await.expect_err("expired").code(),
        Code::Unauthenticated
    );
}

#[tokio::test]
async fn work_that_nobody_waits_for_is_not_begun() {
    let f = fixture(Limits::default(), 100);
    let mut request = f.request("user/admin", &[Role::Admin]);
    request.extensions_mut().insert(Deadline(Instant::now()));
    let status = f
        .gate
        .blocking::<(), (), _>("kms.Encrypt", request, |_, (), _| panic!("begun"))
        .await
        .expect_err("too late");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(f.last().reason, "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn strangers_are_turned_away_while_every_place_is_taken() {
    let f = fixture(
        Limits {
            max_in_flight: 1,
            queue: 0,
            ..Limits::default()
        },
        100,
    );
    let mut held = f
        .gate
        .stream(
            "kms.Encrypt",
            f.request("user/admin", &[Role::Admin]),
            |_, (), emitter: Emitter<()>| async move {
                emitter.send(()).await?;
                emitter.closed().await;
                Ok(())
            },
        )
        .await
        .expect("begun")
        .into_inner();
    futures::StreamExt::next(&mut held)
        .await
        .expect("an item")
        .expect("no error");
    let overloaded = f
        .call(f.request("user/admin", &[Role::Admin]))
        .await
        .expect_err("no place");
    assert_eq!(overloaded.code(), Code::ResourceExhausted);
    let mut stranger = Request::new(());
    stranger.extensions_mut().insert(MethodPath(ENCRYPT.into()));
    assert_eq!(
        f.call(stranger).await.expect_err("unknown").code(),
        Code::Unauthenticated
    );
    drop(held);
    f.settled().await;
    f.call(f.request("user/admin", &[Role::Admin]))
        .await
        .expect("the place is free again");
}

#[tokio::test]
async fn a_flow_that_panics_is_an_event_and_one_that_is_left_goes_on() {
    let f = fixture(Limits::default(), 100);
    let request = f.request("user/admin", &[Role::Admin]);
    let panicked = f
        .gate
        .flow::<(), (), _, _>("inference.Predict", request, |_, (), _| async {
            panic!("the secret is 42")
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
    futures::StreamExt::next(&mut items)
        .await
        .expect("an item")
        .expect("no error");
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
    use futures::StreamExt as _;
    let f = fixture(Limits::default(), 100);
    let request = f.request("user/admin", &[Role::Admin]);
    let mut items = f
        .gate
        .stream("ingest.ReadRows", request, |_, (), _: Emitter<u64>| async {
            panic!("the secret is 42")
        })
        .await
        .expect("begun")
        .into_inner();
    let status = items.next().await.expect("an end").expect_err("panicked");
    assert_eq!(status.code(), Code::Internal);
    assert!(!status.message().contains("42"));
    assert!(items.next().await.is_none());
    assert_eq!(f.last().reason, "INTERNAL");
}

#[tokio::test]
async fn many_releases_of_a_stream_are_one_event() {
    use futures::StreamExt as _;
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
    use futures::StreamExt as _;
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

#[tokio::test]
async fn metadata_is_read_while_the_outbox_is_full() {
    let f = fixture(Limits::default(), 1);
    f.call(f.request("user/admin", &[Role::Admin]))
        .await
        .expect("room for one");
    let read = || {
        let mut request = f.request("user/viewer", &[Role::Viewer]);
        request
            .extensions_mut()
            .insert(MethodPath("asterism.kms.v1.KeyManagementService/GetKey".into()));
        request
    };
    let silent = |_: &Caller, (), trail: &mut Trail| {
        trail.silent();
        Ok(())
    };
    f.gate
        .blocking("kms.GetKey", read(), silent)
        .await
        .expect("needs no event");
    let loud = f
        .gate
        .blocking("kms.GetKey", read(), |_, (), _| Ok(()))
        .await
        .expect_err("needs one");
    assert_eq!(loud.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_call_that_is_composed_by_hand_is_let_in_and_recorded() {
    let f = fixture(Limits::default(), 100);
    let request = f.request("user/admin", &[Role::Admin]);
    let caller = f.gate.enter("kms.Encrypt", &request).expect("let in");
    assert_eq!(f.gate.outbox().depth(), 0);
    let mut trail = Trail::default();
    trail.resource("keys/k");
    let sum = f.gate.runtime_blocking(|| Ok(1 + 1)).await.expect("computed");
    assert_eq!(sum, 2);
    let panicked = f
        .gate
        .runtime_blocking::<(), _>(|| panic!("the secret is 42"))
        .await
        .expect_err("panicked");
    assert_eq!(panicked.class(), ErrorClass::Internal);
    f.gate
        .record("kms.Encrypt", &caller, &trail, Err(&panicked))
        .await
        .expect("recorded");
    assert_eq!(
        (f.last().resource.as_str(), f.last().outcome()),
        ("keys/k", WireOutcome::Failed)
    );

    let denied = f
        .gate
        .enter("kms.Encrypt", &f.request("user/viewer", &[Role::Viewer]))
        .expect_err("denied");
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert_eq!(
        (f.last().principal.as_str(), f.last().outcome()),
        ("user/viewer", WireOutcome::Denied)
    );
}

#[test]
fn owners_admins_and_services_have_access() {
    let caller = |id: &str, role, behalf: Option<&str>| Caller {
        principal: Principal {
            id: id.parse().expect("principal"),
            roles: vec![role],
        },
        on_behalf_of: behalf.map(|id| id.parse().expect("principal")),
        request_id: String::new(),
        trace_id: String::new(),
        deadline: None,
    };
    let alice = "user/alice";
    assert!(caller(alice, Role::Analyst, None).may_access(alice));
    assert!(!caller("user/bob", Role::DataOwner, None).may_access(alice));
    assert!(caller("user/root", Role::Admin, None).may_access(alice));
    assert!(caller("service/ingest", Role::Service, Some(alice)).may_access(alice));
    assert_eq!(
        caller("service/ingest", Role::Service, Some(alice))
            .owner()
            .as_str(),
        alice
    );
}
