//! The `asterism` command as people and scripts use it.

use std::process::{Command, Output};

use serde_json::Value;

fn asterism(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_asterism-under-test"))
        .args(args)
        .env_remove("ASTERISM_ADDR")
        .env_remove("ASTERISM_DATA")
        .output()
        .unwrap()
}

#[test]
fn the_demo_ends_with_one_object_that_says_what_came_out() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let output = asterism(&["demo", "--json", "--data", data.to_str().unwrap()]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{stdout}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let last: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["ok"], true, "{last}");
    assert_eq!(last["log_verified"], true, "{last}");
    assert!(last["accuracy"].as_f64().unwrap() >= 0.95, "{last}");
    assert!(last["roc_auc"].as_f64().unwrap() >= 0.98, "{last}");
    assert_eq!(last["fhe_rows"], 171, "{last}");
    assert!(last["fhe_agreement"].as_f64().unwrap() >= 0.98, "{last}");
    assert!(last["fhe_ms_per_row"].as_f64().unwrap() > 0.0, "{last}");
    assert!(last["audit_events"].as_u64().unwrap() >= 20, "{last}");
    for step in last["steps"].as_array().unwrap() {
        assert!(
            step["name"].is_string() && step["ms"].as_f64().unwrap() >= 0.0 && step["ok"] == true,
            "{step}"
        );
    }
    let svg = std::fs::read_to_string(data.join("asterism-demo.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("accuracy"));
    let root_key = data.join("kms").join("root.key");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&root_key).unwrap());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn exit_codes_tell_scripts_what_went_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "t").unwrap();
    let token = token.to_str().unwrap();
    assert_eq!(asterism(&["no-such-verb"]).status.code(), Some(2));
    assert_eq!(
        asterism(&["keys", "list", "--addr", "nonsense"]).status.code(),
        Some(2)
    );
    let train = |algorithm| {
        let there = ["--addr", "127.0.0.1:9", "--token-file", token];
        let what = [
            "models",
            "train",
            "datasets/x",
            "--label",
            "y",
            "--algorithm",
            algorithm,
        ];
        asterism(&[&what[..], &there[..]].concat()).status.code()
    };
    // Known ways to learn are read, and then nobody answers.
    for algorithm in ["logistic", "trees", "neural", "tree", "forest"] {
        assert_eq!(train(algorithm), Some(4), "{algorithm}");
    }
    assert_eq!(train("bush"), Some(2));
    let nobody = asterism(&["keys", "list", "--addr", "127.0.0.1:9", "--token-file", token]);
    assert_eq!(nobody.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("asterism up"));
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = asterism(&["completions", shell]);
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("asterism"));
    }
}
