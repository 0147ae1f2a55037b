//! Keys that come and go while a service runs.

use std::{fs, path::Path, sync::Arc, time::Duration};

use asterism_channel::{Connector, Pin, Pins, StaticKey, initiate};
use asterism_proto::audit::audit_service_client::AuditServiceClient;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Code, transport::Endpoint};

use super::support::{Fixture, common, fixture_with, list};
use crate::{
    channel::{Channel, ChannelSetupError, Step, provision, rotate},
    config::ChannelConfig,
    identity::PrincipalId,
};

const SECOND: Duration = Duration::from_secs(1);
/// A look at the files, and some patience with a busy machine.
const FOLLOWED: Duration = Duration::from_secs(10);

type Client = AuditServiceClient<tonic::transport::Channel>;

fn config(dir: &Path, service: &str) -> ChannelConfig {
    ChannelConfig {
        static_key_file: Some(dir.join(service)),
        authorized_peers_dir: Some(dir.join("peers")),
        allow_unknown_peers: false,
        listen: None,
    }
}

fn provisioned(dir: &Path, service: &str) {
    provision(
        &dir.join(service),
        &dir.join("peers"),
        &PrincipalId::service(service),
    )
    .unwrap();
}

async fn served(dir: &Path) -> Fixture {
    provisioned(dir, "audit");
    provisioned(dir, "kms");
    let mut common = common();
    common.channel = config(dir, "audit");
    let channel = Channel::open(&common.channel).unwrap();
    fixture_with(&common, |builder| {
        builder.channel(channel).handshake_within(SECOND)
    })
    .await
}

fn client(fixture: &Fixture, pins: impl Into<Pins>) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{}", fixture.running.addr)).unwrap();
    AuditServiceClient::new(endpoint.connect_with_connector_lazy(Connector::new(pins)))
}

fn pin(dir: &Path, own: &Path, audit: &Path) -> Pin {
    Pin {
        own: Arc::new(StaticKey::read(&dir.join(own)).unwrap()),
        service_key: StaticKey::read(&dir.join(audit)).unwrap().public(),
        service: "audit".into(),
    }
}

/// Calls until the answer is as wanted.
async fn until(what: &str, client: &mut Client, served: bool) {
    let begun = std::time::Instant::now();
    while client.list_events(list("")).await.is_ok() != served {
        assert!(begun.elapsed() < FOLLOWED, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_withdrawn_key_loses_its_open_connection_and_an_added_one_is_admitted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let fixture = served(dir).await;
    let public = dir.join("peers/service/kms.pub");
    let mut kms = client(&fixture, pin(dir, "kms".as_ref(), "audit".as_ref()));
    kms.list_events(list("")).await.unwrap();
    let text = fs::read(&public).unwrap();
    fs::remove_file(&public).unwrap();
    until(
        "withdrawn: the open connection ends and a new one does not begin",
        &mut kms,
        false,
    )
    .await;
    let refused = kms.list_events(list("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    fs::write(&public, text).unwrap();
    until("added again", &mut kms, true).await;
    // Another principal's from now on: what the open connection was admitted as does not hold any more.
    let open = pin(dir, "kms".as_ref(), "audit".as_ref());
    let stream = TcpStream::connect(fixture.running.addr).await.unwrap();
    let mut stream = initiate(stream, &open.own, &open.service_key, "audit", SECOND)
        .await
        .unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let renamed = dir.join("peers/user");
    fs::create_dir(&renamed).unwrap();
    fs::rename(&public, renamed.join("kim.pub")).unwrap();
    let mut rest = vec![];
    // Cut off: an error, or the end of the stream.
    let _ = tokio::time::timeout(FOLLOWED, stream.read_to_end(&mut rest))
        .await
        .expect("the open connection ends");
    until("and a new one is admitted", &mut kms, true).await;
    fs::rename(renamed.join("kim.pub"), &public).unwrap();
    tokio::time::sleep(2 * SECOND).await;
    until("and back again", &mut kms, true).await;
    // A file that nobody can read withdraws that key, and no other.
    fs::write(&public, "asx1nonsense").unwrap();
    until("damaged", &mut kms, false).await;
    provision(
        &dir.join("ingest"),
        &dir.join("peers"),
        &PrincipalId::service("ingest"),
    )
    .unwrap_err();
    fs::remove_file(&public).unwrap();
    provisioned(dir, "ingest");
    let mut ingest = client(&fixture, pin(dir, "ingest".as_ref(), "audit".as_ref()));
    until("added", &mut ingest, true).await;
}

#[tokio::test]
async fn during_a_rotation_a_service_answers_to_both_keys_and_callers_accept_both() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let fixture = served(dir).await;
    let step = |step| {
        rotate(
            step,
            &dir.join("audit"),
            &dir.join("peers"),
            &PrincipalId::service("audit"),
        )
    };
    assert!(
        matches!(step(Step::Promote), Err(ChannelSetupError::Rotation(_))),
        "nothing is prepared"
    );
    assert!(
        matches!(step(Step::Retire), Err(ChannelSetupError::Rotation(_))),
        "nothing to retire"
    );
    let old = pin(dir, "kms".as_ref(), "audit".as_ref());
    let new = step(Step::Prepare).unwrap();
    assert_eq!(step(Step::Prepare).unwrap(), new, "again is the same");
    assert!(dir.join("peers/service/audit+2.pub").exists());
    let new = Pin {
        service_key: new,
        ..old.clone()
    };
    until("the next key", &mut client(&fixture, new.clone()), true).await;
    until("the current key", &mut client(&fixture, old.clone()), true).await;
    let caller = Channel::open(&config(dir, "kms")).unwrap().unwrap();
    let keys: Vec<_> = caller
        .pin("audit")
        .unwrap()
        .now()
        .iter()
        .map(|pin| pin.service_key)
        .collect();
    assert_eq!(keys, [new.service_key, old.service_key], "the newest first");

    assert_eq!(step(Step::Promote).unwrap(), new.service_key);
    assert!(
        matches!(step(Step::Prepare), Err(ChannelSetupError::Rotation(_))),
        "one at a time"
    );
    tokio::time::sleep(2 * SECOND).await;
    until("the current key", &mut client(&fixture, new.clone()), true).await;
    until("the key before", &mut client(&fixture, old.clone()), true).await;

    assert_eq!(step(Step::Retire).unwrap(), old.service_key);
    assert!(!dir.join("audit.previous").exists() && !dir.join("peers/service/audit.pub").exists());
    // A connection that began with that key may go on: only new ones tell.
    tokio::time::sleep(2 * SECOND).await;
    until(
        "the key before, retired",
        &mut client(&fixture, old.clone()),
        false,
    )
    .await;
    // A caller that knows an old key too falls back to one that is right.
    let both = Pins::source(move || vec![old.clone(), new.clone()]);
    until("the second of two", &mut client(&fixture, both), true).await;
    provisioned(dir, "audit");
}
