//! Who and what is turned away, and how.

use tonic_types::StatusExt as _;

use super::*;

#[tokio::test]
async fn too_many_at_once_are_refused_with_a_time_to_try_again() {
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
async fn refusals_say_whom_they_refused_and_why() {
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
async fn a_sealed_service_refuses_all_but_what_is_exempt_and_asks_nobody_who_they_are() {
    const UNSEAL: &str = "asterism.kms.v1.SystemService/Unseal";
    const STATUS: &str = "asterism.kms.v1.SystemService/GetSealStatus";
    let mut f = fixture(Limits::default(), 100);
    let unsealed = tokio::sync::watch::Sender::new(false);
    f.gate = f.gate.sealed_unless(unsealed.subscribe(), &[UNSEAL]);
    let at = |method: &str, token: Option<&str>| {
        let mut request = Request::new(());
        request.extensions_mut().insert(MethodPath(method.into()));
        if let Some(token) = token {
            let header = token.parse().expect("header");
            request.metadata_mut().insert("authorization", header);
        }
        request
    };
    let nonsense = Some("Bearer v1.bm8.bm8");
    for request in [
        f.request("user/admin", &[Role::Admin]),
        at(ENCRYPT, None),
        at(ENCRYPT, nonsense),
        at(STATUS, None),
        at("asterism.kms.v1.SystemService/Nothing", None),
    ] {
        let refused = f.call(request).await.expect_err("refused");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(refused.get_details_error_info().expect("info").reason, "SEALED");
    }
    let streamed = f
        .gate
        .watch::<(), (), _, _>("kms.Watch", at(ENCRYPT, None), |_, (), _| async { Ok(()) });
    assert_eq!(
        streamed.await.err().expect("refused").code(),
        Code::FailedPrecondition
    );
    assert_eq!(f.gate.outbox().depth(), 0, "nothing was attempted");
    f.call(at(UNSEAL, None)).await.expect("answered");
    f.call(at(UNSEAL, nonsense)).await.expect("tokens are not judged");
    assert_eq!(f.gate.outbox().depth(), 2);

    unsealed.send_replace(true);
    f.call(f.request("user/admin", &[Role::Admin]))
        .await
        .expect("open");
    f.call(at(STATUS, None)).await.expect("needs no token");
    f.call(at(UNSEAL, nonsense)).await.expect_err("judged again");
    unsealed.send_replace(false);
    f.call(f.request("user/admin", &[Role::Admin]))
        .await
        .expect_err("sealed again");
}
