//! The command as it is run.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    fs, io,
    path::Path,
    process::{Command, Output},
};

use asterism_crypto::SecretKey;
use asterism_tlog::{Checkpoint, Exporter, NoteSigner, SignedCheckpoint, export::CHECKPOINT};

#[test]
fn a_whole_log_passes_and_a_changed_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let (log, key) = (directory.path().join("log"), directory.path().join("key"));
    export(&log, &key, 600);

    let output = verify(&log, &["--key", key.to_str().unwrap(), "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        r#""ok": true"#,
        r#""size": 600"#,
        r#""checkpoints": 1"#,
        r#""problems": []"#,
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }

    let bundle = log.join("tile/entries/001");
    let mut bytes = fs::read(&bundle).unwrap();
    bytes[5] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    let output = verify(&log, &["--key", key.to_str().unwrap(), "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [r#""ok": false"#, r#""kind": "altered""#, r#""index": 256"#] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let output = verify(&log, &["--key", key.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("entry 256 was altered"), "{text}");
}

#[test]
fn what_cannot_be_looked_at_ends_with_2_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let (log, key) = (directory.path().join("log"), directory.path().join("key"));
    export(&log, &key, 3);
    let refused = |log: &Path, key: &Path| {
        let output = verify(log, &["--key", key.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&directory.path().join("other"), &key).contains("cannot be read"));
    assert!(refused(&log, &directory.path().join("no-key")).contains("no-key cannot be read"));
    assert!(refused(&log, &log.join(CHECKPOINT)).contains("line 1"));
    let empty = directory.path().join("empty");
    fs::write(&empty, "# none\n").unwrap();
    assert!(refused(&log, &empty).contains("no key was given"));
    assert_eq!(verify(&log, &[]).status.code(), Some(2), "the key is required");
}

#[test]
fn the_verifier_links_neither_a_store_nor_a_network() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--package",
        ])
        .arg(env!("CARGO_PKG_NAME"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).unwrap();
    let names: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"asterism-tlog"), "{tree}");
    for name in [
        "sled",
        "tonic",
        "tokio",
        "hyper",
        "h2",
        "prost",
        "rustls",
        "asterism-store",
        "asterism-audit",
        "asterism-chassis",
    ] {
        assert!(!names.contains(&name), "{name} in\n{tree}");
    }
}

fn verify(log: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_asterism-audit-verify"))
        .arg(log)
        .args(args)
        .output()
        .unwrap()
}

/// Writes a signed log of `size` entries, and its key.
fn export(log: &Path, key: &Path, size: u64) {
    let signer = NoteSigner::new("audit.example".parse().unwrap(), &SecretKey::from_bytes([1; 32]));
    let mut exporter = Exporter::new(|path: &str, bytes: &[u8]| {
        let path = log.join(path);
        fs::create_dir_all(path.parent().unwrap())?;
        fs::write(path, bytes)
    });
    for index in 0..size {
        exporter.push(format!("event {index}").as_bytes()).unwrap();
    }
    let root = exporter
        .finish()
        .map_err(|error| io::Error::other(error.to_string()))
        .unwrap()
        .root();
    let checkpoint = Checkpoint::new(signer.verifier().name(), size, root);
    let signed = SignedCheckpoint::new(&checkpoint, vec![signer.sign(&checkpoint.to_string())]).unwrap();
    fs::write(log.join(CHECKPOINT), signed.to_string()).unwrap();
    fs::write(key, format!("# the log's key\n{}\n", signer.verifier())).unwrap();
}
