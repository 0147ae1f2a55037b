#![allow(clippy::panic)]

mod access;
mod refusals;
mod streams;

use std::{sync::Arc, time::Duration};

use asterism_proto::audit::{Event, Outcome as WireOutcome};
use asterism_store::{FileSpool, Spool as _, SpoolOptions};
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
    spool: Arc<FileSpool>,
    _dir: tempfile::TempDir,
}

fn fixture(limits: Limits, max_events: u64) -> Fixture {
    let dir = tempfile::tempdir().expect("directory");
    let authority = Arc::new(Authority::load_or_create(dir.path()).expect("authority"));
    let spool = FileSpool::open(&dir.path().join("outbox"), SpoolOptions::default()).expect("spool");
    let spool = Arc::new(spool);
    let outbox = Outbox::new(spool.clone(), "kms", OutboxLimits { max_events }, Sink::Hold);
    Fixture {
        gate: Gate::new(authority.clone(), outbox, &limits),
        authority,
        spool,
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
        // What nobody waited for is on its way.
        while self.spool.len() < self.gate.outbox().depth() {
            std::thread::yield_now();
        }
        let records = self.spool.read(0, 1_000).expect("entries");
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
        .blocking::<(), (), _>("kms.Encrypt", request, |_, (), _| panic!("it is swordfish"))
        .await
        .expect_err("panicked");
    assert_eq!(status.code(), Code::Internal);
    assert!(!status.message().contains("swordfish"));
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
async fn the_event_of_a_batch_counts_its_items_and_is_a_failure_when_one_failed() {
    let f = fixture(Limits::default(), 100);
    for (remark, counts, reason, outcome) in [
        ("", (3, 0), "BATCH succeeded=3 failed=0", WireOutcome::Succeeded),
        (
            "KEY_COMPROMISED",
            (97, 3),
            "KEY_COMPROMISED BATCH succeeded=97 failed=3",
            WireOutcome::Failed,
        ),
    ] {
        let work = move |_: &Caller, (), trail: &mut Trail| {
            trail.remark(remark).items(counts.0, counts.1);
            Ok(())
        };
        let request = f.request("user/admin", &[Role::Admin]);
        f.gate
            .blocking("kms.BatchEncrypt", request, work)
            .await
            .expect("done");
        let event = f.last();
        assert_eq!((event.reason.as_str(), event.outcome()), (reason, outcome));
    }
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
        .runtime_blocking::<(), _>(|| panic!("it is swordfish"))
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
        network: None,
        channel_key: None,
        access: None,
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
