//! What somebody on the wire learns, and what it gets who alters something.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use asterism::{
    commands::{
        channel::{key_file, peers_dir},
        proxy,
    },
    connect::Services,
};
use asterism_chassis::{
    channel::provision,
    config::{ChannelConfig, Common},
    identity::{Authority, PrincipalId, Role},
    server::{Listeners, Running},
};
use asterism_client::{
    Audit, ClientError, Connection, Credentials, EncryptedInference, Inference, Ingest, Kms, Policy,
    channel::{Pin, PublicKey, StaticKey},
    proto::{inference::Algorithm, kms::KeyType},
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::Code;

use crate::{
    recorder::Recorder,
    support::{fresh_id, order, reason, train, upload},
};

const NAMES: [&str; 4] = ["kms", "ingest", "inference", "audit"];
const PLANTED: &str = "swordfish-in-the-clear";

/// Four services with somebody on the wire before each of them.
struct Tapped {
    recorders: Vec<Recorder>,
    /// Where people go who do not use the channel.
    plain: Vec<SocketAddr>,
    keys: Option<Vec<PublicKey>>,
    authority: Authority,
    running: Vec<Running>,
    dir: TempDir,
}

impl Tapped {
    async fn start(channel: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(&dir.path().join("credentials")).unwrap();
        let mut keys = Vec::new();
        let (mut plain, mut secured, mut recorders) = (vec![], vec![], vec![]);
        for name in NAMES {
            keys.push(provisioned(dir.path(), name));
            plain.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
            secured.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
            let before = if channel { &secured } else { &plain };
            recorders.push(Recorder::before(before.last().unwrap().local_addr().unwrap()).await);
        }
        let scheme = if channel { "noise" } else { "http" };
        let through: Vec<String> = recorders
            .iter()
            .map(|recorder| format!("{scheme}://{}", recorder.at))
            .collect();
        let common = |name: &str| {
            let mut common = Common::embedded(name, dir.path());
            common.kms_addr = Some(through[0].clone());
            common.ingest_addr = Some(through[1].clone());
            common.audit_addr = Some(through[3].clone());
            if channel {
                common.channel = ChannelConfig {
                    static_key_file: Some(key_file(dir.path(), name)),
                    authorized_peers_dir: Some(peers_dir(dir.path())),
                    allow_unknown_peers: true,
                    listen: None,
                };
            }
            common
        };
        let addresses = plain
            .iter()
            .map(|listener| listener.local_addr().unwrap())
            .collect();
        let mut listeners = plain.into_iter().zip(secured).map(|(plain, secured)| {
            if channel {
                Listeners::from(plain).and_channel(secured)
            } else {
                plain.into()
            }
        });
        let mut next = || listeners.next().unwrap();
        let kms = asterism_kms::Config {
            common: common("kms"),
            ..Default::default()
        };
        let ingest = asterism_ingest::Config {
            common: common("ingest"),
            ..Default::default()
        };
        let inference = asterism_inference::Config {
            common: common("inference"),
            ..Default::default()
        };
        let audit = asterism_audit::Config {
            common: common("audit"),
        };
        let kms = asterism_kms::start(kms, next()).await.unwrap();
        let ingest = asterism_ingest::start(ingest, next()).await.unwrap();
        let inference = asterism_inference::start(inference, next()).await.unwrap();
        let audit = asterism_audit::start(audit, next()).await.unwrap();
        Self {
            recorders,
            plain: addresses,
            keys: channel.then_some(keys),
            authority,
            running: vec![inference, ingest, kms, audit],
            dir,
        }
    }

    fn token(&self, principal: &str, role: Role) -> String {
        let principal: PrincipalId = principal.parse().unwrap();
        let lifetime = Duration::from_secs(600);
        self.authority
            .mint(&principal, &[role], lifetime, SystemTime::now())
    }

    /// A connection to a service past the recorder.
    fn connection(&self, service: usize, own: &Arc<StaticKey>, token: &str) -> Connection {
        let at = self.recorders[service].at;
        let credentials = Credentials::token(token);
        let Some(keys) = &self.keys else {
            return Connection::lazy(&format!("http://{at}"), credentials).unwrap();
        };
        let pin = Pin {
            own: own.clone(),
            service_key: keys[service],
            service: NAMES[service].into(),
        };
        Connection::pinned(&format!("noise://{at}"), Some(pin), credentials).unwrap()
    }

    fn services(&self, own: &Arc<StaticKey>, token: &str) -> Services {
        let kms = Kms::new(self.connection(0, own, token));
        Services {
            encrypted: EncryptedInference::new(self.connection(2, own, token), kms.clone()),
            kms,
            policy: Policy::new(self.connection(0, own, token)),
            ingest: Ingest::new(self.connection(1, own, token)),
            inference: Inference::new(self.connection(2, own, token)),
            audit: Audit::new(self.connection(3, own, token)),
        }
    }

    fn saw(&self, needle: &[u8]) -> bool {
        self.recorders.iter().any(|recorder| recorder.saw(needle))
    }

    async fn shutdown(self) {
        for running in self.running {
            running.shutdown().await;
        }
    }
}

fn provisioned(data: &Path, service: &str) -> PublicKey {
    let principal = PrincipalId::service(service);
    provision(&key_file(data, service), &peers_dir(data), &principal).unwrap()
}

fn own_key() -> Arc<StaticKey> {
    Arc::new(StaticKey::generate().unwrap())
}

/// A table with the planted word as one of its labels.
fn planted_csv() -> String {
    let mut csv = String::from("a,b,diagnosis\n");
    for row in 0..60 {
        let label = if row % 2 == 0 { PLANTED } else { "other" };
        csv += &format!("{}.5,{},{label}\n", row % 2 * 10 + row % 3, row % 7);
    }
    csv
}

/// A header's value as HPACK writes it (RFC 7541, appendix B), for the characters of a token.
fn huffman(text: &str) -> Vec<u8> {
    const FIVE: &str = "012aceiost";
    const SIX: &str = " %-./3456789=A_bdfghlmnpru";
    const SEVEN: &str = ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz";
    const EIGHT: &str = "&*,;XZ";
    let mut bits = String::new();
    for character in text.chars() {
        let code = |of: &str, first: usize| of.find(character).map(|at| first + at);
        bits += &None
            .or_else(|| code(FIVE, 0).map(|code| format!("{code:05b}")))
            .or_else(|| code(SIX, 0x14).map(|code| format!("{code:06b}")))
            .or_else(|| code(SEVEN, 0x5c).map(|code| format!("{code:07b}")))
            .or_else(|| code(EIGHT, 0xf8).map(|code| format!("{code:08b}")))
            .unwrap();
    }
    // The last bits share a byte with the padding: left out.
    bits.as_bytes()
        .chunks_exact(8)
        .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
        .collect()
}

/// Upload, training, prediction and a data key; then what of it the wire has seen.
async fn secrets_seen(world: &Tapped) -> Vec<(&'static str, bool)> {
    let token = world.token("user/admin", Role::Admin);
    let services = world.services(&own_key(), &token);
    let dataset = upload(&services, planted_csv()).await.unwrap();
    let model = train(&services, order(&dataset.name, Algorithm::LogisticRegression))
        .await
        .unwrap();
    let value: f64 = 7.123_456_789_012_345;
    let answer = services
        .inference
        .predict(&model.name, vec![vec![value, value]])
        .await
        .unwrap();
    assert_eq!(answer.predictions.len(), 1);
    services
        .kms
        .create_key("wire", KeyType::Aes256Gcm, [], &fresh_id())
        .await
        .unwrap();
    let data_key = services.kms.generate_data_key("wire", b"aad").await.unwrap();
    let report = services.audit.verify().await.unwrap();
    assert!(report.verified, "{}", report.problem);
    for recorder in &world.recorders {
        assert!(recorder.bytes() > 1000, "this wire was not used");
    }
    vec![
        ("a cell of the table", world.saw(PLANTED.as_bytes())),
        ("a row to predict", world.saw(&value.to_le_bytes())),
        ("a data key", world.saw(data_key.key.expose())),
        ("a token", world.saw(&huffman(&format!("Bearer {token}")))),
        (
            "a method",
            world.saw(b"GenerateDataKey")
                || world.saw(&huffman("/asterism.kms.v1.KeyManagementService/GenerateDataKey")),
        ),
        ("a principal", world.saw(b"user/admin")),
        ("HTTP/2", world.saw(b"PRI * HTTP/2.0")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn who_records_the_wire_finds_nothing_of_what_was_said() {
    let world = Tapped::start(true).await;
    for (secret, seen) in secrets_seen(&world).await {
        assert!(!seen, "{secret} crossed the wire in the clear");
    }
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_channel_all_of_it_is_found() {
    let world = Tapped::start(false).await;
    for (secret, seen) in secrets_seen(&world).await {
        assert!(seen, "{secret} is looked for in the wrong form");
    }
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_bit_ends_the_call_as_unavailable_and_the_next_one_connects_anew() {
    let world = Tapped::start(true).await;
    let token = world.token("user/admin", Role::Admin);
    let services = world.services(&own_key(), &token);
    let create = |id: String| {
        let kms = services.kms.clone();
        // Without a request id it is tried once only.
        async move { kms.create_key(&id, KeyType::Aes256Gcm, [], "").await }
    };
    create("before".into()).await.unwrap();
    let kms = &world.recorders[0];
    for round in 0..4 {
        let connections = kms.connections();
        kms.flip_a_bit();
        let error = create(format!("during-{round}")).await.expect_err("broken");
        assert!(kms.has_flipped());
        assert_eq!(error.code(), Code::Unavailable, "{error:?}");
        assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
        services.kms.key("before").await.unwrap();
        assert!(
            kms.connections() > connections,
            "round {round}: nothing connected anew"
        );
    }
    // A service recovers by itself as well.
    kms.flip_a_bit();
    upload(&services, planted_csv()).await.unwrap();
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_another_key_is_not_spoken_to() {
    let mut world = Tapped::start(true).await;
    let token = world.token("user/admin", Role::Admin);
    let before = world.recorders[0].bytes();
    world.keys.as_mut().unwrap()[0] = own_key().public();
    let refused = world.services(&own_key(), &token).kms.list_keys(1, "").await;
    assert_eq!(refused.expect_err("refused").code(), Code::Unavailable);
    // Its hello each time, and no answer; nothing of the token.
    assert!(world.recorders[0].bytes() < before + 10 * 102 + 102);
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_services_token_is_good_only_over_that_services_channel() {
    let world = Tapped::start(true).await;
    let stolen = world.token("service/ingest", Role::Service);
    let over_another = world.services(&own_key(), &stolen);
    assert_eq!(
        reason(over_another.kms.list_keys(1, "").await),
        "CHANNEL_MISMATCH"
    );
    let plain = format!("http://{}", world.plain[0]);
    let plain = |token: &str| Kms::new(Connection::lazy(&plain, Credentials::token(token)).unwrap());
    let in_the_clear = plain(&stolen).list_keys(1, "").await;
    assert_eq!(
        in_the_clear.as_ref().expect_err("refused").code(),
        Code::Unauthenticated
    );
    assert_eq!(reason(in_the_clear), "CHANNEL_MISMATCH");
    // The same key file with its own token, and a person with theirs, either way.
    let ingest = Arc::new(StaticKey::read(&key_file(world.dir.path(), "ingest")).unwrap());
    world
        .services(&ingest, &stolen)
        .kms
        .list_keys(1, "")
        .await
        .unwrap();
    let person = world.token("user/admin", Role::Admin);
    world
        .services(&own_key(), &person)
        .kms
        .list_keys(1, "")
        .await
        .unwrap();
    plain(&person).list_keys(1, "").await.unwrap();
    assert_eq!(
        reason(world.services(&ingest, &person).kms.list_keys(1, "").await),
        "CHANNEL_MISMATCH"
    );
    world.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_a_plain_door_into_the_channel_of_the_pinned_service_only() {
    let world = Tapped::start(true).await;
    let person = world.token("user/admin", Role::Admin);
    let keys = world.keys.clone().unwrap();
    let through = async |service_key: PublicKey| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = format!("http://{}", listener.local_addr().unwrap());
        let pin = Pin {
            own: own_key(),
            service_key,
            service: "kms".into(),
        };
        tokio::spawn(proxy::serve(listener, world.recorders[0].at.to_string(), pin));
        let kms = Kms::new(Connection::lazy(&at, Credentials::token(person.clone())).unwrap());
        kms.list_keys(1, "").await
    };
    through(keys[0]).await.unwrap();
    assert!(!world.saw(b"PRI * HTTP/2.0"));
    let refused = through(keys[1]).await.expect_err("another service's key");
    assert_eq!(refused.code(), Code::Unavailable);
    world.shutdown().await;
}
