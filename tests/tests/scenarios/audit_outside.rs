//! What somebody does who trusts none of the machines: keeps the key and a checkpoint, takes the log home as plain files, and
//! verifies it there with the command line.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use asterism::constellation::{Constellation, Options};
use asterism_chassis::identity::Role;
use serde_json::Value;
use tempfile::TempDir;

/// Four services on ports in a row, as `--addr` wants them, and an auditor's token.
struct Auditor {
    _constellation: Constellation,
    dir: TempDir,
    addr: String,
}

impl Auditor {
    async fn start() -> Self {
        for first in (21_000..60_000_u16).step_by(89) {
            let dir = tempfile::tempdir().unwrap();
            let options = Options {
                port: Some(first),
                ..Options::default()
            };
            let Ok(constellation) = Constellation::start(dir.path(), &options).await else {
                continue;
            };
            let lifetime = Duration::from_secs(600);
            let roles = [Role::Auditor, Role::Admin];
            let token =
                asterism::commands::token::mint(constellation.authority(), "user/auditor", &roles, lifetime)
                    .unwrap();
            fs::write(dir.path().join("auditor.token"), token).unwrap();
            return Self {
                _constellation: constellation,
                dir,
                addr: format!("127.0.0.1:{first}"),
            };
        }
        panic!("no four ports in a row");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn audit(&self, arguments: &[&str]) -> Value {
        let output = run(
            &["--addr", &self.addr, "--token-file"],
            &self.path("auditor.token"),
            arguments,
        )
        .await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

async fn run(global: &[&str], last: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_asterism-under-test"));
    command.arg("--json").args(global);
    if !global.is_empty() {
        command.arg(last);
    }
    command
        .arg("audit")
        .args(arguments)
        .env_remove("ASTERISM_ADDR")
        .env_remove("ASTERISM_DATA");
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

/// Verifies without any service; the exit code, and the report.
async fn offline(directory: &Path, key: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let arguments = [
        "verify",
        directory.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
    ];
    let output = run(&[], key, &[&arguments[..], more].concat()).await;
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), report)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_log_verifies_at_home_and_a_changed_byte_of_it_does_not() {
    let auditor = Auditor::start().await;
    // Something to see: each of these is an event of its own.
    for _ in 0..3 {
        auditor.audit(&["verify"]).await;
    }
    let (key, seen) = (auditor.path("log.key"), auditor.path("seen"));
    let first = auditor
        .audit(&[
            "checkpoint",
            "--out",
            seen.to_str().unwrap(),
            "--key-out",
            key.to_str().unwrap(),
        ])
        .await;
    auditor.audit(&["verify"]).await;
    let home = auditor.path("home");
    let exported = auditor.audit(&["export", home.to_str().unwrap()]).await;
    let size = exported["size"].as_u64().unwrap();
    assert!(size >= first["size"].as_u64().unwrap() && size >= 3, "{exported}");

    let (code, report) = offline(&home, &key, &["--seen", seen.to_str().unwrap()]).await;
    assert_eq!((code, &report["ok"]), (Some(0), &Value::Bool(true)), "{report}");
    assert_eq!(
        (&report["size"], &report["root"]),
        (&exported["size"], &exported["root_sha256"])
    );
    assert_eq!(report["checkpoints"].as_u64(), Some(2), "{report}");

    // Any one byte of any one file.
    for path in files(&home) {
        let whole = fs::read(&path).unwrap();
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            let (code, report) = offline(&home, &key, &[]).await;
            assert_eq!(code, Some(1), "{} byte {at}: {report}", path.display());
            assert_eq!(report["ok"], Value::Bool(false));
            assert!(!report["problems"].as_array().unwrap().is_empty(), "{report}");
        }
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(offline(&home, &key, &[]).await.0, Some(0));
    let again = run(
        &["--addr", &auditor.addr, "--token-file"],
        &auditor.path("auditor.token"),
        &["export", home.to_str().unwrap()],
    )
    .await;
    assert_eq!(again.status.code(), Some(2), "never over what is there");
    assert_eq!(offline(&home, &auditor.path("no.key"), &[]).await.0, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_for_its_entry_and_no_other() {
    let auditor = Auditor::start().await;
    for _ in 0..2 {
        auditor.audit(&["verify"]).await;
    }
    let key = auditor.path("log.key");
    auditor
        .audit(&["checkpoint", "--key-out", key.to_str().unwrap()])
        .await;
    let keys = asterism_tlog::parse_keys(&fs::read_to_string(&key).unwrap()).unwrap();
    let (receipt, entry) = (auditor.path("receipt"), auditor.path("entry"));
    let out = [
        "--out",
        receipt.to_str().unwrap(),
        "--entry-out",
        entry.to_str().unwrap(),
    ];
    let proved = auditor.audit(&[&["prove", "0"][..], &out].concat()).await;
    assert_eq!(proved["index"], 0);
    let receipt = asterism_tlog::Receipt::parse(&fs::read(&receipt).unwrap()).unwrap();
    let leaf = asterism_tlog::leaf_hash(&fs::read(&entry).unwrap());
    receipt.verify(&leaf, &keys).unwrap();
    assert!(
        receipt
            .verify(&asterism_tlog::leaf_hash(b"another"), &keys)
            .is_err()
    );
    let nothing = run(
        &["--addr", &auditor.addr, "--token-file"],
        &auditor.path("auditor.token"),
        &[
            "prove",
            "01900000-0000-7000-8000-000000000000",
            "--out",
            entry.to_str().unwrap(),
        ],
    )
    .await;
    assert_eq!(nothing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("no event"));
}
