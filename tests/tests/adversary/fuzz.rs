//! Every method with malformed and extreme messages: refused with a reason or done, never an accident.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use asterism::connect::Endpoints;
use asterism_chassis::{
    identity::{Authority, Role},
    policy,
};
use asterism_client::{Connection, Credentials, proto::kms::KeyType};
use futures::{StreamExt as _, stream};
use tonic::{Code, Status};

use crate::{
    children::Logged,
    messages::{Names, extremes, garbage, plausible},
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
