//! A connection has an age, after which it ends, and nobody notices.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use asterism_chassis::{
    channel::provision,
    config::{ChannelConfig, Common},
    identity::{Authority, PrincipalId, Role},
    server::Listeners,
};
use asterism_client::{
    Connection, Credentials, Kms,
    channel::{Pin, StaticKey},
};
use asterism_kms::{Config, LifecycleConfig, RootKeyConfig};
use asterism_proto::kms::KeyType;
use tokio::net::{TcpListener, TcpStream};

/// Passes everything on, and counts connections.
struct Counter {
    at: SocketAddr,
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Counter {
    async fn before(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let counter = Self {
            at: listener.local_addr().unwrap(),
            begun: Arc::default(),
            ended: Arc::default(),
        };
        let (begun, ended) = (counter.begun.clone(), counter.ended.clone());
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                begun.fetch_add(1, Ordering::AcqRel);
                let ended = ended.clone();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    ended.fetch_add(1, Ordering::AcqRel);
                });
            }
        });
        counter
    }

    fn begun(&self) -> usize {
        self.begun.load(Ordering::Acquire)
    }

    fn ended(&self) -> usize {
        self.ended.load(Ordering::Acquire)
    }
}

/// Calls without a pause, several at a time, until connections were renewed twice; every call succeeds.
async fn goes_on(kms: Kms, counter: &Counter) -> usize {
    let patience = Instant::now() + Duration::from_secs(60);
    let mut calls = tokio::task::JoinSet::new();
    let (ended, begun) = (counter.ended.clone(), counter.begun());
    for _ in 0..4 {
        let (kms, ended) = (kms.clone(), ended.clone());
        calls.spawn(async move {
            let mut number = 0_usize;
            while ended.load(Ordering::Acquire) < 2 && Instant::now() < patience {
                kms.encrypt("aes", b"text", b"")
                    .await
                    .unwrap_or_else(|error| panic!("call {number}: {error}"));
                number += 1;
            }
            number
        });
    }
    let made = calls.join_all().await.into_iter().sum();
    assert!(
        counter.ended() >= 2,
        "{} connections ended, of {begun} at first",
        counter.ended()
    );
    assert!(counter.begun() > begun + 1, "{} after {begun}", counter.begun());
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_ends_gracefully_and_the_client_goes_on_without_a_failed_call() {
    let dir = tempfile::tempdir().unwrap();
    let (key_file, peers) = (
        dir.path().join("channel/kms.key"),
        dir.path().join("channel/peers"),
    );
    let service_key = provision(&key_file, &peers, &PrincipalId::service("kms")).unwrap();
    let mut common = Common::embedded("kms", dir.path());
    common.limits.max_connection_age_seconds = 1;
    common.channel = ChannelConfig {
        static_key_file: Some(key_file),
        authorized_peers_dir: Some(peers),
        allow_unknown_peers: true,
        listen: None,
    };
    let config = Config {
        common,
        root_key: RootKeyConfig::default(),
        lifecycle: LifecycleConfig::default(),
    };
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channel = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let before_plain = Counter::before(plain.local_addr().unwrap()).await;
    let before_channel = Counter::before(channel.local_addr().unwrap()).await;
    let listeners = Listeners::from(plain).and_channel(channel);
    let running = asterism_kms::start(config, listeners).await.unwrap();

    let authority = Authority::load_or_create(&dir.path().join("credentials")).unwrap();
    let admin = "user/admin".parse().unwrap();
    let lifetime = Duration::from_secs(600);
    let token = authority.mint(&admin, &[Role::Admin], lifetime, SystemTime::now());
    let endpoint = format!("http://{}", before_plain.at);
    let kms = Kms::new(Connection::lazy(&endpoint, Credentials::token(&*token)).unwrap());
    kms.create_key("aes", KeyType::Aes256Gcm, [], "make")
        .await
        .unwrap();
    let in_the_clear = goes_on(kms, &before_plain).await;

    let pin = Pin {
        own: Arc::new(StaticKey::generate().unwrap()),
        service_key,
        service: "kms".into(),
    };
    let endpoint = format!("noise://{}", before_channel.at);
    let connection = Connection::pinned(&endpoint, Some(pin), Credentials::token(&*token)).unwrap();
    let kms = Kms::new(connection);
    kms.key("aes").await.unwrap();
    let over_the_channel = goes_on(kms, &before_channel).await;
    // Each of them many, or nothing was under way when a connection ended.
    assert!(
        in_the_clear > 20 && over_the_channel > 20,
        "{in_the_clear} {over_the_channel}"
    );
    running.shutdown().await;
}
