//! Rows 5 and 6: people with an account, and a service, that want more than is theirs.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use asterism::{commands::channel::key_file, connect::Services};
use asterism_chassis::{
    identity::{PrincipalId, Role},
    policy,
};
use asterism_client::{
    Connection, Credentials, Kms,
    channel::{Pin, StaticKey},
    proto::{
        audit::{AppendEventsRequest, Event, EventFilter, Outcome, audit_service_client::AuditServiceClient},
        kms::KeyType,
    },
};
use tonic::Code;

use crate::{
    raw::{Contracts, Method, call},
    support::{World, fresh_id, reason, small_csv, upload},
};

const ROLES: [Role; 6] = [
    Role::Admin,
    Role::KeyAdmin,
    Role::DataOwner,
    Role::Analyst,
    Role::Auditor,
    Role::Viewer,
];

fn connection(world: &World, method: &Method, roles: &[Role]) -> Connection {
    let credentials = world.constellation.credentials("user/insider", roles).unwrap();
    Connection::lazy(method.endpoint(world.constellation.endpoints()), credentials).unwrap()
}

async fn is_there(services: &Services, operation: &str, principal: &str, outcome: Outcome) -> bool {
    for _ in 0..200 {
        let filter = EventFilter {
            operation: operation.into(),
            principal: principal.into(),
            ..EventFilter::default()
        };
        let entries = services.audit.list_all(filter).await.unwrap();
        if entries
            .iter()
            .any(|e| e.event.as_ref().unwrap().outcome() == outcome)
        {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_is_refused_what_it_may_not_and_the_log_has_it_and_cannot_be_edited() {
    let world = World::start().await;
    let contracts = Contracts::load();
    let methods = contracts.methods();
    let mut refused = 0;
    for method in &methods {
        let allowed = policy::allowed_roles(&method.name);
        for role in ROLES {
            if policy::is_open(&method.name) || allowed.is_some_and(|roles| roles.contains(&role)) {
                continue;
            }
            let status = call(&connection(&world, method, &[role]), method, vec![]).await;
            assert_eq!(
                status.code(),
                Code::PermissionDenied,
                "{} as {role:?}: {status:?}",
                method.name
            );
            refused += 1;
        }
    }
    assert!(refused > 100, "{refused} refusals");

    // What a role may in general is still bounded by whose the thing is.
    let owner = world.as_principal("user/owner", &[Role::DataOwner, Role::Analyst]);
    let rogue = world.as_principal("user/rogue", &[Role::DataOwner, Role::Analyst]);
    owner
        .kms
        .create_key("owners", KeyType::Aes256Gcm, [], &fresh_id())
        .await
        .unwrap();
    let (sealed, _) = owner.kms.encrypt("owners", b"x", b"").await.unwrap();
    assert_eq!(
        reason(rogue.kms.decrypt("owners", &sealed, b"").await.map(drop)),
        "KEY_NOT_FOUND"
    );
    assert_eq!(reason(rogue.kms.rotate_key("owners", "").await), "KEY_NOT_FOUND");
    let dataset = upload(&owner, small_csv(20)).await.unwrap();
    for refused in [
        rogue.ingest.get(&dataset.name).await.map(drop),
        rogue.ingest.delete(&dataset.name).await,
        rogue.ingest.manifest(&dataset.name).await.map(drop),
    ] {
        assert_eq!(reason(refused), "DATASET_NOT_FOUND");
    }
    // A stream says so where its first rows would be.
    let status = match rogue.ingest.read_rows(&dataset.name, 0, 0).await {
        Ok(mut rows) => rows.message().await.expect_err("rows of somebody else").code(),
        Err(error) => error.code(),
    };
    assert_eq!(status, Code::NotFound);

    // Refusals and acts are on the log, which has no method that takes anything away.
    let admin = world.admin();
    // To the rogue the key is not there; the event says that it was refused.
    assert!(is_there(&admin, "kms.Decrypt", "user/rogue", Outcome::Denied).await);
    assert!(is_there(&admin, "kms.Encrypt", "user/owner", Outcome::Succeeded).await);
    let of_log: BTreeSet<&str> = methods
        .iter()
        .filter_map(|method| method.name.strip_prefix("asterism.audit.v1.AuditService/"))
        .collect();
    let only_appends_and_reads = [
        "AppendEvents",
        "GetCheckpoint",
        "GetConsistencyProof",
        "GetInclusionProof",
        "ListEvents",
        "ReadEntries",
        "VerifyLog",
        "WatchEvents",
    ];
    assert_eq!(of_log, only_appends_and_reads.into());
    assert!(admin.audit.verify().await.unwrap().verified);
    world.constellation.shutdown().await;
}

/// A connection to a service over the channel of `whose` key, with the token of `principal`.
fn over_channel(world: &World, to: &str, whose: &str, principal: &str) -> Connection {
    let end = world
        .constellation
        .channels()
        .iter()
        .find(|end| end.service == to)
        .unwrap();
    let own = StaticKey::read(&key_file(world.dir.path(), whose)).unwrap();
    let pin = Pin {
        own: Arc::new(own),
        service_key: end.key,
        service: to.into(),
    };
    let principal: PrincipalId = principal.parse().unwrap();
    let lifetime = Duration::from_secs(600);
    let token =
        world
            .constellation
            .authority()
            .mint(&principal, &[Role::Service], lifetime, SystemTime::now());
    Connection::pinned(&end.address, Some(pin), Credentials::token(token)).unwrap()
}

fn event(source: &str) -> AppendEventsRequest {
    AppendEventsRequest {
        events: vec![Event {
            event_id: uuid::Uuid::now_v7().to_string(),
            source: source.into(),
            source_sequence: 1_000_000,
            occurred_at: Some(SystemTime::now().into()),
            principal: "user/innocent".into(),
            operation: "kms.Decrypt".into(),
            outcome: Outcome::Succeeded.into(),
            request_id: fresh_id(),
            ..Event::default()
        }],
        receipts: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_cannot_pass_for_another_nor_write_its_events() {
    let world = World::start().await;
    // The token of another service over its own channel, its own token in the clear, and a person's over its channel.
    let as_kms = over_channel(&world, "kms", "ingest", "service/inference");
    assert_eq!(
        reason(Kms::new(as_kms).list_keys(1, "").await),
        "CHANNEL_MISMATCH"
    );
    let plain = world
        .constellation
        .connect("service/ingest", &[Role::Service], None)
        .unwrap();
    assert_eq!(reason(plain.kms.list_keys(1, "").await), "CHANNEL_MISMATCH");
    let person = over_channel(&world, "kms", "ingest", "user/admin");
    assert_eq!(
        reason(Kms::new(person).list_keys(1, "").await),
        "CHANNEL_MISMATCH"
    );

    let ingest = over_channel(&world, "audit", "ingest", "service/ingest");
    let mut log = AuditServiceClient::new(ingest.service());
    for source in ["kms", "inference", "audit", "", "ingest2", "INGEST"] {
        let status = log.append_events(event(source)).await.expect_err(source);
        assert!(
            matches!(status.code(), Code::PermissionDenied | Code::InvalidArgument),
            "{source}: {status:?}"
        );
    }
    let admin = world.admin();
    let forged = EventFilter {
        principal: "user/innocent".into(),
        ..EventFilter::default()
    };
    assert!(admin.audit.list_all(forged).await.unwrap().is_empty());
    // Its own events it may write: the refusals above are of the source, not of the form.
    log.append_events(event("ingest")).await.unwrap();
    world.constellation.shutdown().await;
}
