//! A backup from the command line, and a constellation that starts from it.

use std::{
    path::Path,
    process::{Command, Output},
};

use asterism::constellation::{Constellation, Options};
use asterism_chassis::identity::Role;
use asterism_client::proto::{
    audit::{EventFilter, Outcome},
    kms::KeyType,
};
use asterism_crypto::DecryptionKey;
use serde_json::Value;

use crate::{
    processes::Embedded,
    support::{fresh_id, reason},
};

const PASSPHRASE: &str = "correct horse battery";

fn asterism(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_asterism-under-test"))
        .args(args)
        .env_remove("ASTERISM_ADDR")
        .env_remove("ASTERISM_DATA")
        .output()
        .unwrap()
}

#[track_caller]
fn answer(args: &[&str]) -> Value {
    let output = asterism(args);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn refused(code: i32, args: &[&str], says: &str) {
    let output = asterism(args);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(errors.contains(says), "{errors}");
}

fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

fn private(path: &Path, text: &[u8]) {
    asterism_store::files::write_atomic(path, text, 0o600).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constellation_comes_back_from_a_backup_that_was_taken_while_it_served() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let text = |name: &str| at(name).to_str().unwrap().to_owned();
    let before = Embedded::start(&at("before"));
    let kms = &before.services.kms;
    kms.create_key("aes", KeyType::Aes256Gcm, [], &fresh_id())
        .await
        .unwrap();
    let (ciphertext, _) = kms.encrypt("aes", b"a text to be kept", b"").await.unwrap();
    private(&at("passphrase"), format!("{PASSPHRASE}\n").as_bytes());
    let addr = kms.endpoint().trim_start_matches("http://").to_owned();
    let reach = ["--json", "--addr", &addr, "--data", &text("before")].map(str::to_owned);
    let create = |args: &[&str]| {
        let mut all = vec!["backup".to_owned(), "create".to_owned()];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        all.extend(reach.iter().cloned());
        tokio::task::spawn_blocking(move || answer(&strs(&all)))
    };
    let made = create(&["-o", &text("backup"), "--passphrase-file", &text("passphrase")])
        .await
        .unwrap();
    let signer = made["signer_fingerprint"].as_str().unwrap().to_owned();
    let key = DecryptionKey::generate().unwrap();
    private(&at("private.pem"), key.to_pem().as_bytes());
    private(&at("public.pem"), key.encryption_key().to_pem().as_bytes());
    let sealed = create(&["-o", &text("sealed"), "--recipient", &text("public.pem")])
        .await
        .unwrap();
    assert_eq!(sealed["signer_fingerprint"], signer.as_str(), "the same kms");
    kms.create_key("later", KeyType::Aes256Gcm, [], &fresh_id())
        .await
        .unwrap();
    kms.rotate_key("aes", &fresh_id()).await.unwrap();
    before.kill();

    let shown = answer(&["--json", "backup", "inspect", &text("backup")]);
    assert_eq!(shown["sha256"], made["sha256"]);
    let restore = |file: &str, more: &[&str]| -> Vec<String> {
        let mut args = ["--json", "backup", "restore", file, "--data", &text("after")]
            .map(str::to_owned)
            .to_vec();
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args
    };
    let by = ["--passphrase-file", &text("passphrase")];
    let pinned = ["--signer-fingerprint", &"0".repeat(64)];
    refused(
        3,
        &strs(&restore(&text("backup"), &[by, pinned].concat())),
        "was signed by",
    );
    private(&at("wrong"), b"correct horse batterY");
    let wrong = restore(&text("backup"), &["--passphrase-file", &text("wrong")]);
    refused(2, &strs(&wrong), "not the one");
    refused(2, &strs(&restore(&text("sealed"), &by)), "to a public key");
    let mut newer = std::fs::read(at("backup")).unwrap();
    newer[9] += 1;
    private(&at("newer"), &newer);
    refused(2, &strs(&restore(&text("newer"), &by)), "restore it with");
    newer.truncate(newer.len() - 9);
    newer[9] -= 1;
    private(&at("cut"), &newer);
    refused(3, &strs(&restore(&text("cut"), &by)), "too soon");
    assert!(!at("after").join("kms").exists());
    let pinned = ["--signer-fingerprint", &signer];
    let restored = answer(&strs(&restore(&text("backup"), &[by, pinned].concat())));
    assert_eq!(restored["sha256"], made["sha256"]);
    refused(2, &strs(&restore(&text("backup"), &by)), "not empty");
    let elsewhere = [
        "--kms-dir",
        &text("elsewhere"),
        "--private-key-file",
        &text("private.pem"),
    ];
    answer(&strs(&restore(&text("sealed"), &elsewhere)));

    let root = at("before").join("kms/root.key");
    std::fs::copy(root, at("after").join("kms/root.key")).unwrap();
    let after = Constellation::start(&at("after"), &Options::default())
        .await
        .unwrap();
    let services = after.connect("user/admin", &[Role::Admin], None).unwrap();
    let opened = services.kms.decrypt("aes", &ciphertext, b"").await.unwrap();
    assert_eq!(opened.expose(), b"a text to be kept");
    assert_eq!(reason(services.kms.key("later").await), "KEY_NOT_FOUND");
    assert_eq!(services.kms.key("aes").await.unwrap().versions.len(), 1);
    let filter = EventFilter {
        operation: "kms.Restored".into(),
        ..EventFilter::default()
    };
    let mut events = vec![];
    for _ in 0..100 {
        events = services.audit.list_all(filter.clone()).await.unwrap();
        if !events.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let event = events.first().unwrap().event.clone().unwrap();
    assert_eq!(event.outcome(), Outcome::Succeeded);
    let sha256: asterism_crypto::Digest = made["sha256"].as_str().unwrap().parse().unwrap();
    assert_eq!(event.input_sha256, sha256.as_bytes());
    after.shutdown().await;
}
