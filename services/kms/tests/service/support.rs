//! The service on a free port, and clients of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use asterism_chassis::{
    StartError,
    config::Common,
    identity::{Authority, Role},
    server::Running,
};
use asterism_client::{ClientError, Connection, Credentials, Identity, Kms, Policy};
use asterism_kms::{Clock, Config, LifecycleConfig, RootKeyConfig};
use asterism_proto::kms::{KeyType, key_management_service_client::KeyManagementServiceClient};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::{
    Code, Request,
    transport::{Channel, Endpoint},
};

pub struct World {
    pub dir: TempDir,
    root_key: RootKeyConfig,
    running: Running,
    endpoint: String,
    now_ms: Arc<AtomicU64>,
}

/// When every world begins: some time in 2027.
const BEGIN_MS: u64 = 1_800_000_000_000;
pub const DAY: Duration = Duration::from_secs(24 * 3600);

impl World {
    pub async fn start() -> Self {
        Self::start_with(tempfile::tempdir().unwrap(), RootKeyConfig::default())
            .await
            .unwrap()
    }

    pub async fn start_with(dir: TempDir, root_key: RootKeyConfig) -> Result<Self, StartError> {
        Self::start_at(dir, root_key, Arc::new(AtomicU64::new(BEGIN_MS))).await
    }

    async fn start_at(
        dir: TempDir,
        root_key: RootKeyConfig,
        now_ms: Arc<AtomicU64>,
    ) -> Result<Self, StartError> {
        let config = Config {
            common: Common::embedded("kms", dir.path()),
            root_key: root_key.clone(),
            lifecycle: LifecycleConfig {
                sweep_seconds: 1,
                ..LifecycleConfig::default()
            },
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shown = now_ms.clone();
        let clock: Clock = Arc::new(move || shown.load(Ordering::Acquire));
        let running = asterism_kms::start_with_clock(config, listener, clock).await?;
        Ok(Self {
            dir,
            root_key,
            running,
            endpoint,
            now_ms,
        })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The service's clock goes on.
    pub fn advance(&self, by: Duration) {
        self.now_ms.fetch_add(by.as_millis() as u64, Ordering::AcqRel);
    }

    /// The service ends; gives its directory.
    pub async fn stop(self) -> TempDir {
        self.running.shutdown().await;
        self.dir
    }

    pub async fn restart(self) -> Self {
        let (root_key, now_ms) = (self.root_key.clone(), self.now_ms.clone());
        Self::start_at(self.stop().await, root_key, now_ms).await.unwrap()
    }

    fn token(&self, principal: &str, roles: &[Role]) -> String {
        let authority = Authority::load_or_create(&self.dir.path().join("credentials")).unwrap();
        let lifetime = Duration::from_secs(600);
        authority.mint(&principal.parse().unwrap(), roles, lifetime, SystemTime::now())
    }

    pub fn admin(&self) -> Kms {
        self.as_principal("user/admin", &[Role::Admin])
    }

    pub fn as_principal(&self, principal: &str, roles: &[Role]) -> Kms {
        let credentials = Credentials::token(self.token(principal, roles));
        Kms::new(Connection::lazy(&self.endpoint, credentials).unwrap())
    }

    /// The directory, as somebody with a token of the authority key.
    pub fn identity(&self, principal: &str, roles: &[Role]) -> Identity {
        self.identity_with(&self.token(principal, roles))
    }

    pub fn identity_with(&self, token: &str) -> Identity {
        Identity::new(Connection::lazy(&self.endpoint, Credentials::token(token)).unwrap())
    }

    pub fn policy_of(&self, principal: &str, roles: &[Role]) -> Policy {
        let credentials = Credentials::token(self.token(principal, roles));
        Policy::new(Connection::lazy(&self.endpoint, credentials).unwrap())
    }

    /// A client that sends exactly what it is given.
    pub async fn raw(&self) -> KeyManagementServiceClient<Channel> {
        let endpoint = Endpoint::from_shared(self.endpoint.clone()).unwrap();
        KeyManagementServiceClient::new(endpoint.connect().await.unwrap())
    }

    /// `message` from the administrator.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let bearer = format!("Bearer {}", self.token("user/admin", &[Role::Admin]));
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", bearer.parse().unwrap());
        request
    }
}

/// A key of each type: `aes`, `mac`, `sign`.
pub async fn make_keys(kms: &Kms) {
    for (id, key_type) in [
        ("aes", KeyType::Aes256Gcm),
        ("mac", KeyType::HmacSha256),
        ("sign", KeyType::EcSignP256Sha256),
    ] {
        kms.create_key(id, key_type, [], &format!("make-{id}"))
            .await
            .unwrap();
    }
}

/// The code and the reason of a refusal.
#[track_caller]
pub fn refusal<T>(result: Result<T, ClientError>) -> (Code, String) {
    match result {
        Ok(_) => panic!("not refused"),
        Err(error) => {
            let reason = error.reason().unwrap_or("none");
            (error.code(), reason.to_owned())
        }
    }
}

pub fn refused(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

/// The end of something that the service does by itself, soon.
pub async fn eventually<F: Future<Output = bool>>(mut done: impl FnMut() -> F) {
    for _ in 0..200 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it did not happen within 10 seconds");
}
