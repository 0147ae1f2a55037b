use asterism_chassis::identity::Role;
use asterism_proto::audit::{EventFilter, Outcome};
use tonic::Code;

use crate::support::{World, assert_refused, event, of};

#[tokio::test]
async fn a_service_appends_events_of_its_own_only() {
    let world = World::start().await;
    assert_refused(
        world.kms().append(vec![of("ingest", 0)]).await,
        Code::PermissionDenied,
        "FOREIGN_SOURCE",
    );
    let mixed = vec![event(0), of("audit", 0)];
    assert_refused(
        world.kms().append(mixed).await,
        Code::PermissionDenied,
        "FOREIGN_SOURCE",
    );
    // Services that are no source, and people with the role.
    for principal in ["service/ledger", "user/kms", "device/kms"] {
        let client = world.client(principal, &[Role::Service]);
        assert_refused(
            client.append(vec![event(0)]).await,
            Code::PermissionDenied,
            "FOREIGN_SOURCE",
        );
    }
    let filter = EventFilter {
        source: "kms".into(),
        ..Default::default()
    };
    assert!(world.auditor().list_all(filter, 0).await.is_empty());
    // The attempt is on the log.
    let denied = EventFilter {
        operation: "audit.AppendEvents".into(),
        principal: "service/ledger".into(),
        ..Default::default()
    };
    let event = world.auditor().await_event(denied).await;
    assert_eq!(
        (event.outcome(), event.reason.as_str()),
        (Outcome::Denied, "FOREIGN_SOURCE")
    );
}

#[tokio::test]
async fn only_services_write_and_only_auditors_and_admins_read() {
    let world = World::start().await;
    for role in [
        Role::Admin,
        Role::DataOwner,
        Role::Analyst,
        Role::Auditor,
        Role::Viewer,
    ] {
        let client = world.client("user/somebody", &[role]);
        assert_refused(
            client.append(vec![event(0)]).await,
            Code::PermissionDenied,
            "POLICY_DENIED",
        );
        let reads = matches!(role, Role::Admin | Role::Auditor);
        assert_eq!(client.list(Default::default()).await.is_ok(), reads, "{role:?}");
        assert_eq!(client.verify().await.is_ok(), reads, "{role:?}");
        assert_eq!(
            client.watch(EventFilter::default(), None).await.is_ok(),
            reads,
            "{role:?}"
        );
    }
    assert_refused(
        world.kms().list(Default::default()).await,
        Code::PermissionDenied,
        "POLICY_DENIED",
    );
    for token in [None, Some("forged".to_owned())] {
        let stranger = world.with_token(token);
        assert_eq!(
            stranger.append(vec![event(0)]).await.unwrap_err().code(),
            Code::Unauthenticated
        );
        assert_eq!(
            stranger.list(Default::default()).await.unwrap_err().code(),
            Code::Unauthenticated
        );
        assert_eq!(stranger.verify().await.unwrap_err().code(), Code::Unauthenticated);
        let watch = stranger.watch(EventFilter::default(), None).await;
        assert_eq!(watch.unwrap_err().code(), Code::Unauthenticated);
    }
}

/// Who verified, and who was refused, is on the log; appends and reads make no events.
#[tokio::test]
async fn the_log_tells_of_itself_without_end_or_noise() {
    let world = World::start().await;
    let auditor = world.auditor();
    world.kms().append(vec![event(0)]).await.unwrap();
    auditor.list(Default::default()).await.unwrap();
    let denied = world
        .client("user/mallory", &[Role::Viewer])
        .list(Default::default())
        .await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    auditor.verify().await.unwrap();

    let verified = EventFilter {
        operation: "audit.VerifyLog".into(),
        ..Default::default()
    };
    let event = auditor.await_event(verified).await;
    assert_eq!(
        (event.source.as_str(), event.principal.as_str()),
        ("audit", "user/auditor")
    );
    assert_eq!(
        (event.outcome(), event.output_sha256.len()),
        (Outcome::Succeeded, 32)
    );

    let own = EventFilter {
        source: "audit".into(),
        ..Default::default()
    };
    let told: Vec<_> = auditor
        .list_all(own, 0)
        .await
        .into_iter()
        .map(|e| e.event.unwrap())
        .collect();
    let told: Vec<_> = told
        .iter()
        .map(|e| (e.operation.as_str(), e.principal.as_str(), e.outcome()))
        .collect();
    let expected = [
        ("audit.ListEvents", "user/mallory", Outcome::Denied),
        ("audit.VerifyLog", "user/auditor", Outcome::Succeeded),
    ];
    assert_eq!(told, expected);
}
