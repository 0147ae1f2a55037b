//! Row 1: who hears every packet learns nothing, and who alters, repeats or reorders them ends the connection.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use asterism::connect::Services;
use asterism_chassis::identity::Role;
use asterism_client::{
    Audit, Connection, Credentials, EncryptedInference, Inference, Ingest, Kms, Policy,
    channel::{Pin, StaticKey},
    proto::{
        audit::EventFilter,
        inference::{Algorithm, TrainRequest},
        kms::KeyType,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    people::{PASSWORD, PERSON, Person, enrolled},
    recorder::Recorder,
    support::{World, fresh_id, order, train, upload},
};

/// A cell, in a table of an uploader's.
const CELL: &str = "porcupine-in-a-cell";

/// What the caller says first on the channel: preamble and handshake (docs/formats.md).
const HELLO: usize = 6 + 96;
/// What the service answers, and its first frame: length, a SETTINGS frame of four settings, tag.
const HANDSHAKE: usize = 48;
const SETTINGS: usize = 2 + (9 + 4 * 6) + 16;

/// Somebody on the wire before each of the four.
struct Tapped {
    recorders: Vec<Recorder>,
    connections: Vec<Connection>,
}

impl Tapped {
    /// Over the channel, or in the clear to see that what is searched for can be found.
    async fn before(world: &World, channel: bool) -> Self {
        let own = Arc::new(StaticKey::generate().unwrap());
        let plain = world.constellation.endpoints();
        let plain = [&plain.kms, &plain.ingest, &plain.inference, &plain.audit];
        let (mut recorders, mut connections) = (vec![], vec![]);
        for (service, plain) in ["kms", "ingest", "inference", "audit"].into_iter().zip(plain) {
            let ends = world.constellation.channels();
            let end = ends.iter().find(|end| end.service == service).unwrap();
            let to = if channel { &end.address } else { plain };
            let recorder = Recorder::before(socket(to)).await;
            let scheme = if channel { "noise" } else { "http" };
            let pin = channel.then(|| Pin {
                own: own.clone(),
                service_key: end.key,
                service: service.into(),
            });
            let at = format!("{scheme}://{}", recorder.at);
            connections.push(Connection::pinned(&at, pin, Credentials::anonymous()).unwrap());
            recorders.push(recorder);
        }
        Self {
            recorders,
            connections,
        }
    }

    fn services(&self, token: &str) -> Services {
        let to = |at: usize| {
            self.connections[at]
                .clone()
                .with_credentials(Credentials::token(token))
        };
        let kms = Kms::new(to(0));
        Services {
            encrypted: EncryptedInference::new(to(2), kms.clone()),
            kms,
            policy: Policy::new(to(0)),
            ingest: Ingest::new(to(1)),
            inference: Inference::new(to(2)),
            audit: Audit::new(to(3)),
        }
    }

    fn saw(&self, needle: &[u8]) -> bool {
        self.recorders.iter().any(|recorder| recorder.saw(needle))
    }
}

fn socket(endpoint: &str) -> SocketAddr {
    endpoint.split_once("://").unwrap().1.parse().unwrap()
}

/// Enrolment, login, and work with the token that it gave.
async fn work(world: &World, tapped: &Tapped) -> Vec<(&'static str, Vec<u8>)> {
    let Person { invitation, tokens } = enrolled(
        world,
        &tapped.connections[0],
        &["data-owner", "analyst", "auditor"],
    )
    .await;
    let services = tapped.services(&tokens.access_token);
    let mut csv = String::from("a,b,label\n");
    for row in 0..60 {
        let label = if row % 2 == 0 { CELL } else { "other" };
        csv += &format!("{}.5,{},{label}\n", row % 2 * 10 + row % 3, row % 7);
    }
    // A service hears within a second of the key that signs tokens.
    let dataset = loop {
        match upload(&services, &csv).await {
            Ok(dataset) => break dataset,
            Err(error) if error.code() == tonic::Code::Unauthenticated => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    let request = TrainRequest {
        label: "label".into(),
        ..order(&dataset.name, Algorithm::LogisticRegression)
    };
    let model = train(&services, request).await.unwrap();
    let value = 7.123_456_789_012_345_f64;
    services
        .inference
        .predict(&model.name, vec![vec![value, value]])
        .await
        .unwrap();
    services
        .kms
        .create_key("wire", KeyType::Aes256Gcm, [], &fresh_id())
        .await
        .unwrap();
    let data_key = services.kms.generate_data_key("wire", b"aad").await.unwrap();
    for recorder in &tapped.recorders[..3] {
        assert!(recorder.bytes() > 1000, "this wire was not used");
    }
    vec![
        ("a cell", CELL.into()),
        ("a row to predict", value.to_le_bytes().into()),
        ("a data key", data_key.key.expose().to_vec()),
        ("an access token", tokens.access_token.clone().into_bytes()),
        ("a refresh token", tokens.refresh_token.clone().into_bytes()),
        ("an invitation", invitation.into_bytes()),
        ("a principal", PERSON.into()),
        ("HTTP/2", b"PRI * HTTP/2.0".to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hears_every_packet_finds_no_cell_password_key_or_token() {
    let world = World::start().await;
    let tapped = Tapped::before(&world, true).await;
    for (secret, bytes) in work(&world, &tapped).await {
        assert!(!tapped.saw(&bytes), "{secret} crossed the wire in the clear");
    }
    assert!(!tapped.saw(PASSWORD.as_bytes()));
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_channel_all_of_it_is_found_but_the_password() {
    let world = World::start().await;
    let tapped = Tapped::before(&world, false).await;
    for (secret, bytes) in work(&world, &tapped).await {
        assert!(tapped.saw(&bytes), "{secret} is looked for in the wrong form");
    }
    assert!(!tapped.saw(PASSWORD.as_bytes()), "a login says the password");
    world.constellation.shutdown().await;
}

/// What is done to a frame of the caller's.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meddling {
    Flip,
    Repeat,
    /// An older frame comes first.
    Replay,
    /// It comes after the next.
    Swap,
    Drop,
    Lengthen,
    Shorten,
}

/// Knows the frames of the channel, and does something to one of them when told to.
struct Meddler {
    at: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    next: Mutex<Option<Meddling>>,
    connections: AtomicUsize,
    /// All that the caller of the latest connection said.
    said: Mutex<Vec<u8>>,
}

impl Meddler {
    async fn before(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let mut serving = JoinSet::new();
        let kept = shared.clone();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                kept.connections.fetch_add(1, Ordering::SeqCst);
                kept.said.lock().unwrap().clear();
                connections.spawn(meddle(near, to, kept.clone()));
            }
        });
        Self {
            at,
            shared,
            _serving: serving,
        }
    }

    fn arm(&self, meddling: Meddling) {
        *self.shared.next.lock().unwrap() = Some(meddling);
    }

    fn has_meddled(&self) -> bool {
        self.shared.next.lock().unwrap().is_none()
    }

    fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

async fn meddle(near: TcpStream, to: SocketAddr, shared: Arc<Shared>) {
    let Ok(far) = TcpStream::connect(to).await else {
        return;
    };
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    let (mut near_reads, mut near_writes) = near.into_split();
    let (mut far_reads, mut far_writes) = far.into_split();
    let back = async {
        let _ = tokio::io::copy(&mut far_reads, &mut near_writes).await;
        let _ = near_writes.shutdown().await;
    };
    let there = async {
        let mut hello = vec![0; HELLO];
        if near_reads.read_exact(&mut hello).await.is_err() {
            return;
        }
        shared.said.lock().unwrap().extend_from_slice(&hello);
        if far_writes.write_all(&hello).await.is_err() {
            return;
        }
        let (mut older, mut held): (Vec<u8>, Option<Vec<u8>>) = (vec![], None);
        loop {
            let mut head = [0; 2];
            if near_reads.read_exact(&mut head).await.is_err() {
                break;
            }
            let mut frame = head.to_vec();
            frame.resize(2 + usize::from(u16::from_be_bytes(head)), 0);
            if near_reads.read_exact(&mut frame[2..]).await.is_err() {
                break;
            }
            shared.said.lock().unwrap().extend_from_slice(&frame);
            let meddling = shared.next.lock().unwrap().take();
            let mut altered = frame.clone();
            let out = match meddling {
                Some(Meddling::Flip) => {
                    let middle = frame.len() / 2 + 1;
                    altered[middle] ^= 1;
                    altered
                }
                Some(Meddling::Repeat) => frame.repeat(2),
                Some(Meddling::Replay) => [older.clone(), frame.clone()].concat(),
                Some(Meddling::Swap) => {
                    held = Some(frame.clone());
                    continue;
                }
                Some(Meddling::Drop) => {
                    // The one after it tells.
                    continue;
                }
                Some(Meddling::Lengthen) => {
                    altered.push(0);
                    let length = (altered.len() - 2) as u16;
                    altered[..2].copy_from_slice(&length.to_be_bytes());
                    altered
                }
                Some(Meddling::Shorten) => {
                    altered.pop();
                    let length = (altered.len() - 2) as u16;
                    altered[..2].copy_from_slice(&length.to_be_bytes());
                    altered
                }
                None => frame.clone(),
            };
            older = frame;
            if far_writes.write_all(&out).await.is_err() {
                break;
            }
            if let Some(frame) = held.take()
                && far_writes.write_all(&frame).await.is_err()
            {
                break;
            }
        }
        let _ = far_writes.shutdown().await;
    };
    tokio::join!(there, back);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_altered_repeated_reordered_or_dropped_end_the_connection() {
    let world = World::start().await;
    let ends = world.constellation.channels();
    let end = ends.iter().find(|end| end.service == "kms").unwrap();
    let meddler = Meddler::before(socket(&end.address)).await;
    let pin = Pin {
        own: Arc::new(StaticKey::generate().unwrap()),
        service_key: end.key,
        service: "kms".into(),
    };
    let credentials = world
        .constellation
        .credentials("user/admin", &[Role::Admin])
        .unwrap();
    let connection = Connection::pinned(&format!("noise://{}", meddler.at), Some(pin), credentials).unwrap();
    let kms = Kms::new(connection);
    let all = [
        Meddling::Flip,
        Meddling::Repeat,
        Meddling::Replay,
        Meddling::Swap,
        Meddling::Drop,
        Meddling::Lengthen,
        Meddling::Shorten,
    ];
    for meddling in all {
        let name = format!("{meddling:?}").to_lowercase();
        // Two quiet calls first, so that there is an older frame and nothing else under way.
        kms.list_keys(1, "").await.unwrap();
        kms.list_keys(1, "").await.unwrap();
        let connections = meddler.connections();
        meddler.arm(meddling);
        // Without a request id each is tried once only.
        let (first, second) = (format!("{name}-1"), format!("{name}-2"));
        let one = kms.create_key(&first, KeyType::Aes256Gcm, [], "");
        let two = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            kms.create_key(&second, KeyType::Aes256Gcm, [], "").await
        };
        let (one, two) = tokio::join!(one, two);
        assert!(meddler.has_meddled());
        // What was sent twice was heard once, and may have been answered before the repeat came.
        let may_pass = matches!(meddling, Meddling::Repeat);
        assert!(may_pass || one.is_err(), "{meddling:?} went unnoticed: {two:?}");
        kms.list_keys(1, "").await.unwrap();
        assert!(
            meddler.connections() > connections,
            "{meddling:?} did not end the connection"
        );
    }
    // Nothing happened twice, and nothing that nobody asked for.
    let admin = world.admin();
    let filter = EventFilter {
        operation: "kms.CreateKey".into(),
        ..EventFilter::default()
    };
    let mut made: Vec<String> = admin
        .audit
        .list_all(filter)
        .await
        .unwrap()
        .into_iter()
        .map(|entry| entry.event.unwrap().resource)
        .collect();
    let number = made.len();
    made.sort();
    made.dedup();
    assert_eq!(made.len(), number, "{made:?}");
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_connection_cannot_be_played_again() {
    let world = World::start().await;
    let ends = world.constellation.channels();
    let end = ends.iter().find(|end| end.service == "kms").unwrap();
    let to = socket(&end.address);
    let meddler = Meddler::before(to).await;
    let pin = Pin {
        own: Arc::new(StaticKey::generate().unwrap()),
        service_key: end.key,
        service: "kms".into(),
    };
    let credentials = world
        .constellation
        .credentials("user/admin", &[Role::Admin])
        .unwrap();
    let kms =
        Kms::new(Connection::pinned(&format!("noise://{}", meddler.at), Some(pin), credentials).unwrap());
    kms.create_key("once", KeyType::Aes256Gcm, [], "").await.unwrap();
    kms.rotate_key("once", "").await.unwrap();
    let said = meddler.shared.said.lock().unwrap().clone();
    assert!(said.len() > HELLO + 200, "{} bytes", said.len());

    let mut again = TcpStream::connect(to).await.unwrap();
    again.write_all(&said).await.unwrap();
    let mut answer = vec![];
    let end = tokio::time::timeout(Duration::from_secs(10), again.read_to_end(&mut answer));
    // Closed, or reset since it was closed with bytes unread.
    let _ = end.await.expect("the connection is closed");
    // Its half of the handshake, and the settings of HTTP/2 under keys that only the first caller could have had.
    assert!(
        answer.len() <= HANDSHAKE + SETTINGS,
        "more was answered: {} bytes",
        answer.len()
    );
    let key = kms.key("once").await.unwrap();
    assert_eq!(key.primary_version, 2, "a rotation was played again");
    world.constellation.shutdown().await;
}
