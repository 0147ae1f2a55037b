//! A disk that is really full: a small file system of its own.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use asterism::connect::{Endpoints, Services};
use asterism_client::Credentials;
use tonic::Code;

use crate::support::{small_csv, upload};

const DISK: &str = "160m";

/// A shell that alone sees a small file system, mounted in a directory of its own.
struct SmallDisk {
    shell: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    mount: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where this user may not mount anything, not even in a namespace of its own.
    fn mount() -> Option<Self> {
        let mount = tempfile::tempdir().unwrap();
        let mut shell = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut disk = Self {
            input: shell.stdin.take().unwrap(),
            output: BufReader::new(shell.stdout.take().unwrap()).lines(),
            shell,
            mount,
        };
        let path = disk.mount.path().display();
        let line = format!("mount -t tmpfs -o size={DISK} tmpfs {path} && echo mounted || exit 1");
        (disk.ask(&line)? == "mounted").then_some(disk)
    }

    /// Runs a line; gives the next line of output.
    fn ask(&mut self, line: &str) -> Option<String> {
        writeln!(self.input, "{line}").ok()?;
        self.output.next()?.ok()
    }

    fn start(&mut self) -> Services {
        let path = self.mount.path().display().to_string();
        let program = env!("CARGO_BIN_EXE_asterism-under-test");
        let ready = self
            .ask(&format!("{program} up --json --port 0 --data {path}/data &"))
            .unwrap();
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap_or_else(|_| panic!("{ready}"));
        let at = |service: &str| ready[service].as_str().unwrap().to_owned();
        let endpoints = Endpoints {
            kms: at("kms"),
            ingest: at("ingest"),
            inference: at("inference"),
            audit: at("audit"),
        };
        let token = self.ask(&format!("cat {path}/data/admin.token; echo")).unwrap();
        endpoints.connect(&Credentials::token(token), None).unwrap()
    }

    fn kill(&mut self) {
        assert_eq!(
            self.ask("kill -9 $!; wait $!; echo killed").as_deref(),
            Some("killed")
        );
    }

    /// How many files ingest keeps for its datasets.
    fn files(&mut self) -> usize {
        let path = self.mount.path().display().to_string();
        let line = self.ask(&format!("ls -A {path}/data/ingest/blobs | wc -l"));
        line.unwrap().trim().parse().unwrap()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = writeln!(self.input, "kill -9 $!; exit");
        let _ = self.shell.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_loses_nothing_and_goes_on_once_there_is_room() {
    let Some(mut disk) = SmallDisk::mount() else {
        // Lack of space is also tested where the stores are, without a real disk.
        eprintln!(
            "SKIPPED: this user may not mount a file system; run on Linux with user namespaces, or as root"
        );
        return;
    };
    let services = disk.start();
    let csv = small_csv(1_000_000);
    let (mut kept, mut files) = (Vec::new(), 0);
    let refusal = loop {
        match upload(&services, &csv).await {
            Ok(dataset) => {
                kept.push(dataset);
                files = disk.files();
            }
            Err(error) => break error,
        }
        assert!(kept.len() < 100, "the disk does not fill");
    };
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
    assert_eq!(refusal.reason(), Some("STORAGE_FULL"), "{refusal}");
    assert!(!kept.is_empty(), "there was no room at all");
    // Small things have room when large ones have none: keys, and the log.
    let key = services.kms.generate_data_key("dataset-kek", b"still").await;
    key.expect("kms goes on");

    let check = async |services: &Services, kept: &[asterism_client::proto::ingest::Dataset]| {
        assert_eq!(services.ingest.list(100, "").await.unwrap().0.len(), kept.len());
        for dataset in kept {
            let report = services.ingest.verify(&dataset.name).await.unwrap();
            assert!(report.verified, "{:?}", report.checks);
        }
        assert!(services.audit.verify().await.unwrap().verified);
    };
    check(&services, &kept).await;
    disk.kill();
    let services = disk.start();
    check(&services, &kept).await;
    assert_eq!(disk.files(), files, "something half-stored was left");

    let gone = kept.pop().unwrap();
    services.ingest.delete(&gone.name).await.unwrap();
    kept.push(upload(&services, &csv).await.expect("there is room again"));
    check(&services, &kept).await;
}
