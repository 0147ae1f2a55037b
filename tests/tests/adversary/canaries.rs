//! Secrets that went through every service occur in no log line at the finest level, no span, no measurement and no event.

use std::{
    fs::{self, File},
    net::TcpListener as StdListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use asterism::connect::Endpoints;
use asterism_chassis::identity::{Authority, Role};
use asterism_client::{
    Connection, Credentials, Identity,
    proto::{
        audit::EventFilter,
        inference::{Algorithm, Plan, TrainRequest},
        kms::{
            KeyType, PassphraseSeal, RekeyRequest, SealRequest, SharesSeal, UnsealRequest, UnsealSecret,
            rekey_request::NewSeal, system_service_client::SystemServiceClient, unseal_secret::Secret,
        },
    },
};
use asterism_crypto::{SecretKey, shares};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use opentelemetry_proto::tonic::collector::{
    metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use crate::{
    people::{PASSWORD, PERSON, enrolled_by},
    support::{fresh_id, order, small_csv, train, upload},
};

const CELL: &str = "porcupine-in-a-trace";
const PLAINTEXT: &[u8] = b"plum-jam-plaintext-0451";
const WRONG_TOKEN: &str = "asr1-quince-token-that-nobody-made";
const PASSPHRASE: &str = "gooseberry fool with cream 0815";
const WRONG_PASSPHRASE: &str = "rhubarb crumble with custard 4711";
const SERVICES: [&str; 4] = ["kms", "ingest", "inference", "audit"];

/// Keeps all that is exported, as text and as bytes.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<(String, Vec<u8>)>>);

impl Collector {
    fn keep(&self, export: &(impl prost::Message + std::fmt::Debug)) {
        let mut kept = self.0.lock().unwrap();
        kept.0 += &format!("{export:?}\n");
        kept.1.extend(export.encode_to_vec());
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.keep(request.get_ref());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.keep(request.get_ref());
        Ok(Response::new(Default::default()))
    }
}

/// A service that logs everything.
struct Traced(Child);

impl Traced {
    fn start(data: &Path, index: usize, endpoints: &[String], otlp: &str) -> Self {
        let service = SERVICES[index];
        let ready = data.join(format!("{service}.ready"));
        let child = Command::new(env!("CARGO_BIN_EXE_asterism-under-test"))
            .args(["service", service, "--listen"])
            .arg(endpoints[index].trim_start_matches("http://"))
            .arg("--data-dir")
            .arg(data.join(service))
            .arg("--credentials-dir")
            .arg(data.join("credentials"))
            .args(["--kms-addr", &endpoints[0]])
            .args(["--ingest-addr", &endpoints[1]])
            .args(["--audit-addr", &endpoints[3]])
            .args(["--set", "log.filter=trace"])
            .args(["--set", &format!("otlp_endpoint={otlp}")])
            .arg("--ready-file")
            .arg(&ready)
            .stdout(Stdio::null())
            .stderr(File::create(data.join(format!("{service}.log"))).unwrap())
            .spawn()
            .unwrap();
        let child = Self(child);
        let begun = Instant::now();
        while !ready.exists() {
            let log = || fs::read_to_string(data.join(format!("{service}.log"))).unwrap();
            assert!(begun.elapsed() < Duration::from_secs(30), "{service}: {}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }

    /// Ends it as an operator would, so that everything is exported.
    fn end(mut self) {
        let told = Command::new("kill")
            .args(["-TERM", &self.0.id().to_string()])
            .status()
            .unwrap();
        assert!(told.success());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The forms in which text and bytes get into logs.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let debug = format!("{secret:?}");
    vec![
        secret.to_vec(),
        hex.to_uppercase().into_bytes(),
        hex.into_bytes(),
        debug.trim_matches(['[', ']']).as_bytes().to_vec(),
        secret.escape_ascii().to_string().into_bytes(),
        STANDARD_NO_PAD.encode(secret).into_bytes(),
        URL_SAFE_NO_PAD.encode(secret).into_bytes(),
    ]
}

/// Where `needle` begins. Quick in a debug build: logs at the finest level are long.
fn place_of(text: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle.first()?;
    let mut from = 0;
    while let Some(at) = text[from..].iter().position(|byte| byte == first) {
        if text[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// Puts kms under a passphrase, then under shares, with tries that fail in between; gives one of the shares.
async fn sealed_and_unsealed(anybody: &Connection, admin: &Connection) -> String {
    let mut open = SystemServiceClient::new(anybody.service());
    let mut admin = SystemServiceClient::new(admin.service());
    let passphrase = |text: &str| UnsealSecret {
        secret: Some(Secret::Passphrase(text.to_owned())),
    };
    let unseal = |secret| UnsealRequest { secret: Some(secret) };
    let rekey = |secrets, new_seal| RekeyRequest {
        secrets,
        new_seal: Some(new_seal),
    };
    let by_passphrase = NewSeal::Passphrase(PassphraseSeal {
        passphrase: PASSPHRASE.to_owned(),
    });
    admin.rekey(rekey(vec![], by_passphrase.clone())).await.unwrap();
    let wrong = rekey(vec![passphrase(WRONG_PASSPHRASE)], by_passphrase);
    assert!(admin.rekey(wrong).await.is_err());
    admin.seal(SealRequest {}).await.unwrap();
    assert!(open.unseal(unseal(passphrase(WRONG_PASSPHRASE))).await.is_err());
    open.unseal(unseal(passphrase(PASSPHRASE))).await.unwrap();

    let key = SecretKey::generate().unwrap();
    let shares = shares::split(&key, 2, 3).unwrap();
    let by_shares = NewSeal::Shares(SharesSeal {
        unseal_key: key.expose().to_vec(),
        threshold: 2,
        share_sha256: shares
            .iter()
            .map(|share| share.digest().as_bytes().to_vec())
            .collect(),
    });
    let request = rekey(vec![passphrase(PASSPHRASE)], by_shares);
    admin.rekey(request).await.unwrap();
    admin.seal(SealRequest {}).await.unwrap();
    let texts: Vec<String> = shares.iter().map(|share| share.to_text().to_string()).collect();
    let damaged = format!("{}A", texts[0]);
    for (text, good) in [(&damaged, false), (&texts[0], true), (&texts[2], true)] {
        let secret = UnsealSecret {
            secret: Some(Secret::Share(text.clone())),
        };
        assert_eq!(open.unseal(unseal(secret)).await.is_ok(), good);
    }
    texts[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_occurs_in_logs_at_trace_spans_measurements_or_events() {
    let collector = Collector::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let otlp = format!("http://{}", listener.local_addr().unwrap());
    let router = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .add_service(MetricsServiceServer::new(collector.clone()));
    tokio::spawn(router.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));

    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let authority = Authority::load_or_create(&data.join("credentials")).unwrap();
    let bound: Vec<StdListener> = (0..4)
        .map(|_| StdListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let at: Vec<String> = bound
        .iter()
        .map(|listener| format!("http://{}", listener.local_addr().unwrap()))
        .collect();
    drop(bound);
    // Ended the other way round: callers before those whom they call.
    let children = [3, 0, 1, 2].map(|index| Traced::start(data, index, &at, &otlp));
    let endpoints = Endpoints {
        kms: at[0].clone(),
        ingest: at[1].clone(),
        inference: at[2].clone(),
        audit: at[3].clone(),
    };

    let lifetime = Duration::from_secs(600);
    let admin_token = authority.mint(
        &"user/admin".parse().unwrap(),
        &[Role::Admin],
        lifetime,
        SystemTime::now(),
    );
    let admin = Identity::new(Connection::lazy(&at[0], Credentials::token(&*admin_token)).unwrap());
    let kms = Connection::lazy(&at[0], Credentials::anonymous()).unwrap();
    let person = enrolled_by(&admin, &kms, &["data-owner", "analyst", "auditor"]).await;
    let anonymous = Identity::new(kms.clone());
    let wrong = || format!("{PASSWORD}!").into_bytes().into();
    assert!(anonymous.login_with_password(PERSON, wrong(), &[]).await.is_err());
    assert!(anonymous.refresh(WRONG_TOKEN).await.is_err());
    let stranger = endpoints.connect(&Credentials::token(WRONG_TOKEN), None).unwrap();
    assert!(stranger.kms.list_keys(1, "").await.is_err());
    assert!(stranger.ingest.list(1, "").await.is_err());

    let services = endpoints
        .connect(&Credentials::token(person.tokens.access_token.as_str()), None)
        .unwrap();
    services.kms.list_keys(1, "").await.unwrap();
    let services = endpoints
        .connect(&Credentials::token(&*admin_token), None)
        .unwrap();
    let dataset = upload(&services, small_csv(60).replace("even", CELL))
        .await
        .unwrap();
    // Damaged input of which an error might speak.
    assert!(
        upload(&services, format!("a,b\n1,{CELL}\n1,2,{CELL}\n"))
            .await
            .is_err()
    );
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
    // A refusal that might repeat the row.
    assert!(
        services
            .inference
            .predict(&model.name, vec![vec![value; 3]])
            .await
            .is_err()
    );
    services
        .encrypted
        .compile(&model.name, Plan::Unspecified, false)
        .await
        .unwrap();
    let share = sealed_and_unsealed(
        &kms,
        &Connection::lazy(&at[0], Credentials::token(&*admin_token)).unwrap(),
    )
    .await;
    services
        .kms
        .create_key("canary", KeyType::Aes256Gcm, [], &fresh_id())
        .await
        .unwrap();
    let (sealed, _) = services.kms.encrypt("canary", PLAINTEXT, b"").await.unwrap();
    services.kms.decrypt("canary", &sealed, b"").await.unwrap();
    assert!(services.kms.decrypt("canary", &sealed, b"other").await.is_err());
    let data_key = services.kms.generate_data_key("canary", b"").await.unwrap();

    // Events of one source are in order: with its last, all of kms are on the log.
    let last = EventFilter {
        operation: "kms.GenerateDataKey".into(),
        resource: "keys/canary".into(),
        ..EventFilter::default()
    };
    for _ in 0..500 {
        if !services.audit.list_all(last.clone()).await.unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let events = format!(
        "{:?}",
        services.audit.list_all(EventFilter::default()).await.unwrap()
    );
    for wanted in [
        "keys/canary",
        "LOGIN_FAILED",
        "inference.Predict",
        "ingest.CommitUpload",
        "WRONG_PASSPHRASE",
        "SHARE_TAKEN",
        "kms.Rekey",
    ] {
        assert!(events.contains(wanted), "{wanted} is not on the log");
    }
    tokio::task::spawn_blocking(move || children.into_iter().rev().for_each(Traced::end))
        .await
        .unwrap();

    let mut places: Vec<(String, Vec<u8>)> = SERVICES
        .map(|service| {
            let name = format!("{service}.log");
            let log = fs::read(data.join(&name)).unwrap();
            (name, log)
        })
        .into();
    for (name, log) in &places {
        assert!(
            place_of(log, b"TRACE").is_some(),
            "{name} is not at the finest level"
        );
    }
    let (text, bytes) = collector.0.lock().unwrap().clone();
    assert!(
        text.contains("KeyManagementService") && text.contains("rpc.server"),
        "nothing was exported"
    );
    places.push(("exports as text".into(), text.into_bytes()));
    places.push(("exports as bytes".into(), bytes));
    places.push(("events".into(), events.into_bytes()));
    let secrets: [(&str, &[u8]); 14] = [
        ("a cell", CELL.as_bytes()),
        ("a plaintext", PLAINTEXT),
        ("a password", PASSWORD.as_bytes()),
        ("an invitation", person.invitation.as_bytes()),
        ("an access token", person.tokens.access_token.as_bytes()),
        ("a refresh token", person.tokens.refresh_token.as_bytes()),
        ("a token of the authority", admin_token.as_bytes()),
        ("a token that was refused", WRONG_TOKEN.as_bytes()),
        ("a data key", data_key.key.expose()),
        ("a passphrase of the seal", PASSPHRASE.as_bytes()),
        ("a wrong passphrase", WRONG_PASSPHRASE.as_bytes()),
        ("a share of the seal", share.as_bytes()),
        ("a row to predict", &value.to_le_bytes()),
        ("a row in text", b"7.123456789012345"),
    ];
    for (secret, bytes) in secrets {
        for form in forms(bytes) {
            for (place, text) in &places {
                if let Some(found) = place_of(text, &form) {
                    let line = &text[found.saturating_sub(300)..(found + form.len() + 50).min(text.len())];
                    panic!("{secret} in {place}: {}", String::from_utf8_lossy(line));
                }
            }
        }
    }
}
