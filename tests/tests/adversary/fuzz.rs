//! Every method with malformed and extreme messages: refused with a reason or done, never an accident.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use asterism::connect::Endpoints;
use asterism_chassis::{
    config::Common,
    identity::{Authority, Role},
    policy,
};
use asterism_client::{Audit, Connection, Credentials, proto::kms::KeyType};
use asterism_proto::audit::{AppendEventsRequest, Event, EventFilter, Outcome};
use futures::{StreamExt as _, stream};
use prost::Message as _;
use tokio::net::TcpListener;
use tonic::{Code, Status};

use crate::{
    children::Logged,
    messages::{Names, altered, delimited, extremes, garbage, plausible},
    raw::{Contracts, Method, call},
    support::{fresh_id, small_csv, upload},
};

/// What a message of nothing but unknown fields is enough for: kms is sealed by it, and is so last of all.
const SEAL: &str = "asterism.kms.v1.SystemService/Seal";
/// Calls at once.
const TOGETHER: usize = 24;

struct Target {
    services: Logged,
    authority: Authority,
    /// Goes away with it.
    _dir: tempfile::TempDir,
}

impl Target {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let services = Logged::start(&data, &dir.path().join("log"));
        let authority = Authority::load_or_create(&data.join("credentials")).unwrap();
        Self {
            services,
            authority,
            _dir: dir,
        }
    }

    fn token(&self, principal: &str, role: Role) -> String {
        let lifetime = Duration::from_secs(600);
        let principal = principal.parse().unwrap();
        self.authority
            .mint(&principal, &[role], lifetime, SystemTime::now())
    }
}

fn connection(endpoints: &Endpoints, method: &Method, token: &str) -> Connection {
    Connection::lazy(method.endpoint(endpoints), Credentials::token(token)).unwrap()
}

/// Which type of key a method needs.
fn key_type(method: &str) -> KeyType {
    match method {
        _ if method.contains("AsymmetricDecrypt") => KeyType::EcP256Hpke,
        _ if method.contains("SharedSecret") => KeyType::EcP256Ecdh,
        _ if method.contains("wrapKey") || method.contains("WrapKey") => KeyType::Aes256Kwp,
        _ if method.contains("Asymmetric") || method.contains("PublicKey") => KeyType::EcSignP256Sha256,
        _ if method.contains("Mac") => KeyType::HmacSha256,
        _ => KeyType::Aes256Gcm,
    }
}

fn accident(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Internal | Code::Unknown | Code::Unimplemented
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_takes_malformed_and_extreme_messages_without_an_accident() {
    let mut target = Target::start();
    let endpoints = target.services.endpoints.clone();
    let contracts = Contracts::load();
    let methods = contracts.methods();
    assert!(methods.len() > 100, "the walk finds {} methods", methods.len());
    let admin = target.token("user/fuzzer", Role::Admin);
    let services = endpoints.connect(&Credentials::token(&*admin), None).unwrap();
    let dataset = upload(&services, small_csv(40)).await.unwrap().name;

    let mut calls = vec![];
    for (at, method) in methods
        .iter()
        .enumerate()
        .filter(|(_, method)| method.name != SEAL)
    {
        let id = format!("fuzz-{at}");
        services
            .kms
            .create_key(&id, key_type(&method.name), [], &fresh_id())
            .await
            .unwrap();
        let names = Names {
            key: format!("keys/{id}"),
            dataset: dataset.clone(),
            model: format!("models/{}", fresh_id()),
            principal: "principals/user/victim".into(),
        };
        let connection = connection(&endpoints, method, &admin);
        let mut messages = garbage();
        messages.push(plausible(&contracts, &method.input, &names));
        messages.extend(extremes(&contracts, &method.input, &names));
        for message in messages {
            calls.push((connection.clone(), method.clone(), message));
        }
    }
    let begun = Instant::now();
    let number = calls.len();
    let answers: Vec<(Method, Vec<u8>, Status)> = stream::iter(calls)
        .map(|(connection, method, message)| async move {
            let status = call(&connection, &method, message.clone()).await;
            (method, message, status)
        })
        .buffer_unordered(TOGETHER)
        .collect()
        .await;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut accidents: BTreeMap<String, String> = BTreeMap::new();
    for (method, message, status) in &answers {
        *seen.entry(format!("{:?}", status.code())).or_default() += 1;
        if accident(status) {
            let start = &message[..message.len().min(48)];
            accidents
                .entry(format!("{} {}", method.name, status.message()))
                .or_insert_with(|| format!("{:?} after {} bytes {start:02x?}", status.code(), message.len()));
        }
    }
    eprintln!(
        "{number} calls of {} methods in {:?}: {seen:?}",
        methods.len(),
        begun.elapsed()
    );
    assert!(
        accidents.is_empty(),
        "{} accidents: {accidents:#?}",
        accidents.len()
    );
    // The messages are not all refused for the same reason, or nothing was tried.
    assert!(seen.get("Ok").is_some_and(|ok| *ok > 100), "{seen:?}");

    assert!(target.services.is_running());
    let log = target.services.log();
    assert!(!log.contains("panicked"), "{log}");
    // All still work, for somebody else.
    let other = target.token("user/checker", Role::Admin);
    let services = endpoints.connect(&Credentials::token(other), None).unwrap();
    upload(&services, small_csv(20)).await.unwrap();
    services.inference.list(1, "").await.unwrap();
    let report = services.audit.verify().await.unwrap();
    assert!(report.verified, "{}", report.problem);

    let method = methods.iter().find(|method| method.name == SEAL).unwrap();
    let connection = connection(&endpoints, method, &admin);
    for message in garbage() {
        let status = call(&connection, method, message).await;
        assert!(!accident(&status), "{status:?}");
    }
    let refused = services.kms.list_keys(1, "").await.unwrap_err();
    assert_eq!(refused.reason(), Some("SEALED"));
    assert!(target.services.is_running());
    assert!(!target.services.log().contains("panicked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_unauthenticated_from_every_method_that_is_not_open() {
    let target = Target::start();
    let endpoints = target.services.endpoints.clone();
    let contracts = Contracts::load();
    let good = target.token("user/fuzzer", Role::Admin);
    let tokens = ["", "garbage", "v1.e30.AAAA", &good[..good.len() - 5], &good[..20]];
    let names = Names {
        key: "keys/none".into(),
        dataset: format!("datasets/{}", fresh_id()),
        model: format!("models/{}", fresh_id()),
        principal: "principals/user/victim".into(),
    };
    let mut open = 0;
    for method in contracts.methods() {
        for token in tokens {
            let connection = connection(&endpoints, &method, token);
            for message in [vec![], plausible(&contracts, &method.input, &names)] {
                let status = call(&connection, &method, message).await;
                if policy::is_open(&method.name) {
                    open += 1;
                    assert!(!accident(&status), "{}: {status:?}", method.name);
                } else {
                    assert_eq!(
                        status.code(),
                        Code::Unauthenticated,
                        "{} as `{token}`",
                        method.name
                    );
                }
            }
            let malformed = if token.is_empty() { garbage() } else { vec![] };
            for message in malformed {
                let status = call(&connection, &method, message).await;
                let refused = matches!(
                    status.code(),
                    Code::Unauthenticated | Code::InvalidArgument | Code::ResourceExhausted
                );
                assert!(
                    refused || policy::is_open(&method.name) && !accident(&status),
                    "{} as `{token}`: {status:?}",
                    method.name
                );
            }
        }
    }
    assert!(open > 0, "no method is open");
    assert!(!target.services.log().contains("panicked"));
}

/// An event as kms reports it.
fn event(sequence: u64) -> Event {
    Event {
        event_id: uuid::Uuid::now_v7().to_string(),
        source: "kms".into(),
        source_sequence: sequence,
        occurred_at: Some(SystemTime::now().into()),
        principal: "user/alice".into(),
        operation: "kms.Encrypt".into(),
        resource: "keys/k".into(),
        key_version: 1,
        outcome: Outcome::Succeeded.into(),
        input_sha256: vec![7; 32],
        ..Event::default()
    }
}

fn append(events: &[Event]) -> Vec<u8> {
    let events = events.to_vec();
    AppendEventsRequest {
        events,
        ..Default::default()
    }
    .encode_to_vec()
}

/// Events with one thing wrong, many, none, repeated and from others, besides what no service would send.
fn appends(contracts: &Contracts) -> Vec<Vec<u8>> {
    let good = event(1);
    let mut messages = garbage();
    messages.extend(
        altered(contracts, ".asterism.audit.v1.Event", || event(1).encode_to_vec())
            .iter()
            .map(|event| delimited(1, event)),
    );
    let all: Vec<Event> = (2..1002).map(event).collect();
    messages.push(append(&all));
    messages.push(append(&all[..999]));
    messages.push(append(&[all, vec![event(1002)]].concat()));
    messages.push(append(&[good.clone(), good.clone()]));
    let other = Event {
        source: "ingest".into(),
        ..event(1003)
    };
    messages.push(append(&[event(1004), other]));
    let long = |bytes: usize| Event {
        resource: "r".repeat(bytes),
        ..event(1005)
    };
    messages.extend([512, 513, 1 << 20].map(|bytes| append(&[long(bytes)])));
    messages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_reports_malformed_and_extreme_events_is_refused_and_the_log_stays_whole() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let config = asterism_audit::Config {
        common: Common::embedded("audit", dir.path()),
    };
    let running = asterism_audit::start(config, listener).await.unwrap();
    let authority = Authority::load_or_create(&dir.path().join("credentials")).unwrap();
    let token = |principal: &str, role| {
        let lifetime = Duration::from_secs(600);
        authority.mint(&principal.parse().unwrap(), &[role], lifetime, SystemTime::now())
    };
    let connected =
        |principal, role| Connection::lazy(&endpoint, Credentials::token(token(principal, role))).unwrap();

    let contracts = Contracts::load();
    let method = "asterism.audit.v1.AuditService/AppendEvents";
    let method = contracts.methods().into_iter().find(|found| found.name == method);
    let method = method.unwrap();
    let calls = appends(&contracts);
    let number = calls.len();
    let kms = connected("service/kms", Role::Service);
    let answers: Vec<(Vec<u8>, Status)> = stream::iter(calls)
        .map(|message| async {
            let status = call(&kms, &method, message.clone()).await;
            (message, status)
        })
        .buffer_unordered(TOGETHER)
        .collect()
        .await;
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut taken = BTreeMap::new();
    for (message, status) in answers {
        *seen.entry(format!("{:?}", status.code())).or_default() += 1;
        assert!(!accident(&status), "{status:?} after {} bytes", message.len());
        if status.code() == Code::Ok {
            let events = AppendEventsRequest::decode(message.as_slice()).unwrap().events;
            taken.extend(events.into_iter().map(|event| (event.event_id, event.source)));
        }
    }
    eprintln!("{number} appends: {seen:?}");
    for (code, least) in [("Ok", 10), ("InvalidArgument", 10), ("PermissionDenied", 1)] {
        assert!(
            seen.get(code).is_some_and(|times| *times >= least),
            "{code}: {seen:?}"
        );
    }
    assert!(taken.len() >= 1000, "{}", taken.len());
    assert!(taken.values().all(|source| source == "kms"));

    // All of those that were taken are there once, and none of the others. The log has events of its own.
    let audit = Audit::new(connected("user/auditor", Role::Auditor));
    let report = audit.verify().await.unwrap();
    assert!(report.verified, "{}", report.problem);
    let entries = audit.list_all(EventFilter::default()).await.unwrap();
    let events = entries.into_iter().filter_map(|entry| entry.event);
    let of_kms = events.filter(|event| event.source == "kms");
    let mut kept: Vec<String> = of_kms.map(|event| event.event_id).collect();
    kept.sort();
    assert!(
        kept.iter().eq(taken.keys()),
        "{} kept, {} taken",
        kept.len(),
        taken.len()
    );
    // Nobody but a service appends, whatever it is.
    let admin = connected("user/admin", Role::Admin);
    let refused = call(&admin, &method, append(&[event(1)])).await;
    assert_eq!(refused.code(), Code::PermissionDenied);
    running.shutdown().await;
}
