//! Rows 8 and 9: who sends too much, too slowly, or well-formed nonsense; everybody else goes on working.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use asterism::connect::Services;
use asterism_chassis::identity::Role;
use asterism_client::{
    EncryptedModel,
    fhe::{self, keys::SecretKey},
    proto::inference::{Algorithm, Plan},
};
use futures::future::join_all;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream},
};
use tonic::Code;

use crate::support::{BREAST_CANCER, World, order, reason, small_csv, train, upload};

/// Longer than anything takes that need not wait for a flooder.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection from another address of this machine.
async fn from_elsewhere(to: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let connected = tokio::time::timeout(Duration::from_secs(2), socket.connect(to)).await;
    connected.ok()?.ok()
}

async fn everybody_works(services: &Services) {
    let begun = Instant::now();
    upload(services, small_csv(20)).await.unwrap();
    services.kms.list_keys(1, "").await.unwrap();
    services.inference.list(1, "").await.unwrap();
    services.audit.verify().await.unwrap();
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_slow_senders_and_large_messages_leave_others_working() {
    let world = World::start().await;
    let services = world.as_principal("user/owner", &[Role::Admin]);
    everybody_works(&services).await;
    let at = world.constellation.endpoints();
    let plain: Vec<SocketAddr> = [&at.kms, &at.ingest, &at.inference, &at.audit]
        .map(|endpoint| endpoint["http://".len()..].parse().unwrap())
        .into();
    let channels = world.constellation.channels().iter();
    let channels: Vec<SocketAddr> = channels
        .map(|end| end.address.split_once("://").unwrap().1.parse().unwrap())
        .collect();

    // More than one address may have, on every door; some silent, some in the middle of a word, some talking nonsense.
    let mut held = vec![];
    for (index, to) in plain.iter().chain(&channels).enumerate() {
        for connection in 0..300 {
            let Some(mut stream) = from_elsewhere(*to).await else {
                continue;
            };
            let said: &[u8] = match (connection + index) % 4 {
                0 => b"",
                1 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                2 => b"PRI * H",
                _ => b"ASNC\x01\x01 and then nothing for ever",
            };
            let _ = stream.write_all(said).await;
            held.push(stream);
        }
    }
    assert!(held.len() > 500, "{} connections", held.len());
    // Fresh connections from here, and the one that was open.
    everybody_works(&world.as_principal("user/other", &[Role::Admin])).await;
    everybody_works(&services).await;

    // Messages over the limit are refused with a way out, many calls at once are answered or shed, and nobody else waits.
    let flooder = world.as_principal("user/flooder", &[Role::Admin]);
    let begun = flooder
        .ingest
        .begin_upload("flood", &crate::support::fresh_id(), false)
        .await
        .unwrap();
    let large = || flooder.ingest.put_chunk(&begun.upload_id, 0, vec![0; 6 << 20]);
    let flood = join_all((0..16).map(|_| large()));
    let calls = join_all((0..400).map(|_| flooder.kms.list_keys(100, "")));
    let (large, calls, ()) = tokio::join!(flood, calls, everybody_works(&services));
    for refused in large {
        assert_eq!(reason(refused), "MESSAGE_TOO_LARGE");
    }
    for answer in calls {
        if let Err(error) = answer {
            assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
        }
    }
    drop(held);
    everybody_works(&services).await;
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn well_formed_garbage_under_fhe_crashes_nothing_and_changes_no_other_tenants_answer() {
    let world = World::start().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner, Role::Analyst]);
    let mallory = world.as_principal("user/mallory", &[Role::DataOwner, Role::Analyst]);
    let mut models = vec![];
    for services in [&alice, &mallory] {
        let dataset = upload(services, BREAST_CANCER).await.unwrap().name;
        let model = train(services, order(&dataset, Algorithm::LogisticRegression))
            .await
            .unwrap()
            .name;
        services
            .encrypted
            .compile(&model, Plan::Unspecified, false)
            .await
            .unwrap();
        models.push(model);
    }
    let opened = EncryptedModel::open(&alice.encrypted, &models[0]).await.unwrap();
    let row = vec![0.5; opened.bundle().features().len()];
    let before = opened.predict_row(row.clone()).await.unwrap().prediction;

    let bundle = mallory.encrypted.bundle(&models[1]).await.unwrap();
    let secret = SecretKey::generate(bundle.params_id()).unwrap();
    let good = fhe::client::encrypt(&bundle, &secret, &row).unwrap().bytes;
    // From the end of the header on, whatever that is: every query keeps a true head and has noise for the rest.
    let queries: Vec<Vec<u8>> = (0..48_usize)
        .map(|index| {
            let mut query = good.clone();
            let from = good.len() / 2 + index;
            let mut state = index as u64 * 2 + 1;
            for byte in &mut query[from..] {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = if index % 3 == 0 { 0xFF } else { (state >> 33) as u8 };
            }
            query
        })
        .collect();
    let hers = join_all(
        queries
            .into_iter()
            .map(|query| mallory.encrypted.predict(&models[1], "", query)),
    );
    let ours = async {
        let mut answers = vec![];
        for _ in 0..8 {
            answers.push(opened.predict_row(row.clone()).await.unwrap().prediction);
        }
        answers
    };
    let (hers, ours) = tokio::join!(hers, ours);
    let mut evaluated = 0;
    for answer in hers {
        match answer {
            Ok(_) => evaluated += 1,
            Err(error) => {
                let code = error.code();
                assert!(
                    matches!(code, Code::InvalidArgument | Code::ResourceExhausted),
                    "{error}"
                );
            }
        }
    }
    assert!(evaluated > 0, "no garbage was well-formed");
    for answer in ours {
        assert_eq!(answer, before, "another tenant's garbage changed an answer");
    }
    // Nor does it reach what is not hers.
    assert_eq!(
        reason(mallory.encrypted.predict(&models[0], "", good.clone()).await),
        "MODEL_NOT_FOUND"
    );
    world.constellation.shutdown().await;
}
