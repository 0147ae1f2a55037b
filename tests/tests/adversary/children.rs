//! All four services in a process of their own, with all that they log in a file.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use asterism::connect::Endpoints;

/// A process that does not outlive the test.
pub struct Logged {
    child: Child,
    pub endpoints: Endpoints,
    log: PathBuf,
}

impl Logged {
    pub fn start(data: &Path, log: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_asterism-under-test"))
            .args(["up", "--json", "--port", "0", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(File::create(log).unwrap())
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
        Self {
            child,
            endpoints,
            log: log.to_owned(),
        }
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
