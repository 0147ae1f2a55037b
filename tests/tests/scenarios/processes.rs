//! Services as processes that can be killed.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use asterism::{
    commands::channel::{key_file, peers_dir},
    connect::{ADMIN_TOKEN, Endpoints, Services},
};
use asterism_chassis::identity::{Authority, Role};
use asterism_client::{Connection, Credentials, Kms};

/// Longer than any start takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A child that does not outlive the test.
struct Guarded(Child);

impl Guarded {
    /// SIGKILL: no handler, no flush, no goodbye.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn under_test() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_asterism-under-test"));
    command.stderr(Stdio::null());
    command
}

/// All four services in one process.
pub struct Embedded {
    child: Guarded,
    pub services: Services,
}

impl Embedded {
    pub fn start(data: &Path) -> Self {
        let mut child = under_test()
            .args(["up", "--json", "--port", "0", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("did not start: {line:?}"));
        let at = |service: &str| ready[service].as_str().unwrap().to_owned();
        let endpoints = Endpoints {
            kms: at("kms"),
            ingest: at("ingest"),
            inference: at("inference"),
            audit: at("audit"),
        };
        let services = endpoints
            .connect(&Credentials::file(data.join(ADMIN_TOKEN)), None)
            .unwrap();
        Self {
            child: Guarded(child),
            services,
        }
    }

    pub fn kill(mut self) {
        self.child.kill();
    }
}

/// kms alone, in a process of its own that tells nobody of its events.
pub struct Alone {
    child: Guarded,
    pub kms: Kms,
}

impl Alone {
    /// Starts it over the directory `kms` in `data`, and waits until it answers.
    pub fn start(data: &Path) -> Self {
        let ready = data.join("kms.ready");
        let _ = std::fs::remove_file(&ready);
        let child = under_test()
            .args(["service", "kms", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data.join("kms"))
            .arg("--credentials-dir")
            .arg(data.join("credentials"))
            .arg("--ready-file")
            .arg(&ready)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let child = Guarded(child);
        let begun = Instant::now();
        while !ready.exists() {
            assert!(begun.elapsed() < PATIENCE, "kms does not start");
            std::thread::sleep(Duration::from_millis(2));
        }
        let address = std::fs::read_to_string(&ready).unwrap();
        let credentials = Credentials::token(admin_token(data));
        let connection = Connection::lazy(&format!("http://{address}"), credentials).unwrap();
        Self {
            child,
            kms: Kms::new(connection),
        }
    }

    pub fn kill(mut self) {
        self.child.kill();
    }
}

/// For the administrator of the services whose credentials lie in `data`.
fn admin_token(data: &Path) -> String {
    let authority = Authority::load_or_create(&data.join("credentials")).unwrap();
    let lifetime = Duration::from_secs(3600);
    authority.mint(
        &"user/admin".parse().unwrap(),
        &[Role::Admin],
        lifetime,
        SystemTime::now(),
    )
}

pub const SERVICES: [&str; 4] = ["kms", "ingest", "inference", "audit"];

/// Each service in a process of its own, on ports that stay the same. They call each other over the encrypted channel.
pub struct Separate {
    data: PathBuf,
    endpoints: [String; 4],
    channels: [String; 4],
    children: Vec<Guarded>,
    pub services: Services,
}

impl Separate {
    pub fn start(data: &Path) -> Self {
        // Bound all at once, so that they differ; free again when the services start.
        let bound: Vec<TcpListener> = (0..8)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let address = |i: usize| bound[i].local_addr().unwrap();
        let endpoints = [0, 1, 2, 3].map(|i| format!("http://{}", address(i)));
        let channels = [4, 5, 6, 7].map(|i| address(i).to_string());
        drop(bound);
        let made = under_test()
            .args(["channel", "init", "--json", "--data"])
            .arg(data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let token = admin_token(data);
        let [kms, ingest, inference, audit] = endpoints.clone();
        let reached = Endpoints {
            kms,
            ingest,
            inference,
            audit,
        };
        let mut all = Self {
            data: data.to_owned(),
            endpoints,
            channels,
            children: vec![],
            services: reached.connect(&Credentials::token(token), None).unwrap(),
        };
        all.children = (0..4).map(|index| all.spawn(index)).collect();
        all
    }

    pub fn kill(&mut self, index: usize) {
        self.children[index].kill();
    }

    pub fn restart(&mut self, index: usize) {
        self.children[index] = self.spawn(index);
    }

    /// Starts a service and waits until it serves.
    fn spawn(&self, index: usize) -> Guarded {
        let [kms, ingest, _, audit] = self.channels.each_ref().map(|at| format!("noise://{at}"));
        let service = SERVICES[index];
        let set = |key: &str, value: String| ["--set".to_owned(), format!("channel.{key}={value}")];
        let path = |path: PathBuf| path.display().to_string();
        let ready = self.data.join(format!("{service}.ready"));
        let _ = std::fs::remove_file(&ready);
        let child = under_test()
            .args(["service", service, "--listen"])
            .arg(self.endpoints[index].trim_start_matches("http://"))
            .arg("--data-dir")
            .arg(self.data.join(service))
            .arg("--credentials-dir")
            .arg(self.data.join("credentials"))
            .args([
                "--kms-addr",
                &kms,
                "--ingest-addr",
                &ingest,
                "--audit-addr",
                &audit,
            ])
            .args(set("static_key_file", path(key_file(&self.data, service))))
            .args(set("authorized_peers_dir", path(peers_dir(&self.data))))
            .args(set("listen", self.channels[index].clone()))
            .arg("--ready-file")
            .arg(&ready)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let child = Guarded(child);
        let begun = Instant::now();
        while !ready.exists() {
            assert!(begun.elapsed() < PATIENCE, "{service} does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }
}
