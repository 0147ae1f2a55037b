use std::{sync::Arc, time::Duration};

use asterism_store::MemoryRecords;
use tonic::{Code, Request};

use super::*;
use crate::{
    config::Limits,
    identity::Authority,
    outbox::{OutboxLimits, Sink},
    server::MethodPath,
};

const ENCRYPT: &str = "asterism.kms.v1.KeyManagementService/Encrypt";

struct Fixture {
    gate: Gate,
    authority: Arc<Authority>,
    _dir: tempfile::TempDir,
}

fn fixture(limits: Limits, max_events: u64) -> Fixture {
    let dir = tempfile::tempdir().expect("directory");
    let authority = Arc::new(Authority::load_or_create(dir.path()).expect("authority"));
    let records = Arc::new(MemoryRecords::new());
    let outbox = Outbox::open(records, "kms", OutboxLimits { max_events }, Sink::Hold).expect("outbox");
    Fixture { gate: Gate::new(authority.clone(), outbox, &limits), authority, _dir: dir }
}

impl Fixture {
    fn request(&self, principal: &str, roles: &[Role]) -> Request<()> {
        let id = principal.parse().expect("principal");
        let now = std::time::SystemTime::now();
        let token = self.authority.mint(&id, roles, Duration::from_secs(60), now);
        let mut request = Request::new(());
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("header"));
        request.extensions_mut().insert(MethodPath(ENCRYPT.into()));
        request
    }

    async fn call(&self, request: Request<()>) -> Result<(), tonic::Status> {
        self.gate.blocking("kms.Encrypt", request, |_, (), _| Ok(())).await.map(|_| ())
    }
}

#[tokio::test]
async fn every_end_of_an_operation_is_an_event_and_silence_only_hides_success() {
    let f = fixture(Limits::default(), 100);
    let outbox = f.gate.outbox().clone();
    f.call(f.request("user/admin", &[Role::Admin])).await.expect("allowed");
    assert_eq!(outbox.depth(), 1);

    let denied = f.call(f.request("user/viewer", &[Role::Viewer])).await.expect_err("denied");
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert_eq!(outbox.depth(), 2);

    let mut stranger = Request::new(());
    stranger.extensions_mut().insert(MethodPath(ENCRYPT.into()));
    assert_eq!(f.call(stranger).await.expect_err("unknown").code(), Code::Unauthenticated);
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
    silent(Err(Failure::invalid("f", "is wrong"))).await.expect_err("fails");
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
    f.call(f.request("user/admin", &[Role::Admin])).await.expect("the next one works");
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
    tokio::task::spawn_blocking(move || has_begun.recv()).await.expect("joined").expect("begun");
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
    let f = fixture(Limits { max_in_flight: 1, queue: 0, ..Limits::default() }, 100);
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
    tokio::task::spawn_blocking(move || has_begun.recv()).await.expect("joined").expect("begun");
    let refused = f.call(f.request("user/admin", &[Role::Admin])).await.expect_err("refused");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.get_details_retry_info().expect("retry info").retry_delay.is_some());
    finish.send(()).expect("the first waits");
    first.await.expect("joined").expect("done");
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done() {
    let f = fixture(Limits::default(), 2);
    for _ in 0..2 {
        f.call(f.request("user/admin", &[Role::Admin])).await.expect("room for two");
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
        request.metadata_mut().insert("x-asterism-on-behalf-of", "user/alice".parse().expect("header"));
        let seen = f
            .gate
            .blocking("kms.Encrypt", request, |caller, (), _| Ok(caller.owner().to_string()))
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
        .stream("ingest.ReadRows", request, move |_, (), emitter: Emitter<u64>| async move {
            emitter.release().await?;
            emitter.send(watched.depth()).await?;
            Err(Failure::invalid("row", "is damaged"))
        })
        .await
        .expect("begun");
    let mut items = reply.into_inner();
    assert_eq!(items.next().await.expect("an item").expect("no error"), 1);
    assert_eq!(items.next().await.expect("the end").expect_err("failed").code(), Code::InvalidArgument);
    // Released, and then failed: both are recorded before the end leaves.
    assert_eq!(outbox.depth(), 2);
    assert!(items.next().await.is_none());
}
