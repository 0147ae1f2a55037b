//! kms and ingest on free ports, and clients of them.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use asterism_chassis::{
    config::Common,
    identity::{Authority, Role},
    server::Running,
};
use asterism_client::{
    ClientError, Connection, Credentials, Ingest, Kms, UploadSource,
    proto::{audit::Event, ingest::Dataset},
};
use asterism_store::{FileSpool, Spool as _, SpoolOptions};
use prost::Message as _;
use tempfile::TempDir;
use tokio::net::TcpListener;

pub const OWNER: &[Role] = &[Role::DataOwner];

pub struct World {
    pub dir: TempDir,
    pub authority: Arc<Authority>,
    pub kms_url: String,
    pub kms: Option<Running>,
    pub ingest: Running,
}

impl World {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut asterism_ingest::Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::load_or_create(&dir.path().join("credentials")).unwrap());
        let kms = start_kms(&dir).await;
        let kms_url = kms.url();
        let ingest = start_ingest(&dir, &kms_url, change).await;
        Self {
            dir,
            authority,
            kms_url,
            kms: Some(kms),
            ingest,
        }
    }

    /// Ingest ends and starts again over the same data.
    pub async fn restart(self) -> Self {
        let Self {
            dir,
            authority,
            kms_url,
            kms,
            ingest,
        } = self;
        ingest.shutdown().await;
        let ingest = start_ingest(&dir, &kms_url, |_| {}).await;
        Self {
            dir,
            authority,
            kms_url,
            kms,
            ingest,
        }
    }

    pub fn credentials(&self, principal: &str, roles: &[Role]) -> Credentials {
        let (authority, id) = (self.authority.clone(), principal.parse().unwrap());
        let roles = roles.to_vec();
        Credentials::source(move || {
            Ok(authority.mint(&id, &roles, Duration::from_secs(60), SystemTime::now()))
        })
    }

    pub fn connection(&self, principal: &str, roles: &[Role]) -> Connection {
        Connection::lazy(&self.ingest.url(), self.credentials(principal, roles)).unwrap()
    }

    pub fn client(&self, principal: &str, roles: &[Role]) -> Ingest {
        Ingest::new(self.connection(principal, roles))
    }

    pub fn alice(&self) -> Ingest {
        self.client("user/alice", OWNER)
    }

    pub fn kms_client(&self) -> Kms {
        Kms::new(Connection::lazy(&self.kms_url, self.credentials("user/admin", &[Role::Admin])).unwrap())
    }

    pub fn blobs(&self) -> PathBuf {
        self.dir.path().join("ingest/blobs")
    }

    pub fn files(&self) -> usize {
        std::fs::read_dir(self.blobs()).unwrap().count()
    }

    /// Ends ingest and gives what it recorded, in order.
    pub async fn events(self) -> Vec<Event> {
        self.ingest.shutdown().await;
        // Connections that were cut off let go of the store a moment later.
        let options = SpoolOptions {
            lock_patience: Duration::from_secs(10),
            ..SpoolOptions::default()
        };
        let spool = FileSpool::open(&self.dir.path().join("ingest/outbox"), options).unwrap();
        let found = spool.read(0, 10_000).unwrap();
        found
            .iter()
            .map(|(_, value)| Event::decode(value.as_slice()).unwrap())
            .collect()
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn start_kms(dir: &TempDir) -> Running {
    let common = Common::embedded("kms", dir.path());
    asterism_kms::start(
        asterism_kms::Config {
            common,
            ..Default::default()
        },
        listener().await,
    )
    .await
    .unwrap()
}

async fn start_ingest(
    dir: &TempDir,
    kms: &str,
    change: impl FnOnce(&mut asterism_ingest::Config),
) -> Running {
    let mut common = Common::embedded("ingest", dir.path());
    common.kms_addr = Some(kms.to_owned());
    let mut config = asterism_ingest::Config {
        common,
        ..Default::default()
    };
    change(&mut config);
    asterism_ingest::start(config, listener().await).await.unwrap()
}

pub async fn upload(ingest: &Ingest, csv: &[u8], request_id: &str) -> Result<Dataset, ClientError> {
    let mut reader = csv;
    ingest
        .upload(
            UploadSource {
                display_name: "test",
                request_id,
                with_sha256: false,
                reader: &mut reader,
            },
            |_| {},
        )
        .await
}

pub fn csv(rows: usize) -> Vec<u8> {
    let mut text = String::from("id,value,label\n");
    for row in 0..rows {
        text.push_str(&format!(
            "{row},{}.5,{}\n",
            row % 97,
            if row % 3 == 0 { "yes" } else { "no" }
        ));
    }
    text.into_bytes()
}

#[track_caller]
pub fn reason<T>(result: Result<T, ClientError>) -> String {
    match result {
        Ok(_) => panic!("not refused"),
        Err(error) => error
            .reason()
            .unwrap_or_else(|| panic!("no reason: {error}"))
            .to_owned(),
    }
}
