//! `asterism fhe`: files in, files out, without a service and with one.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use asterism::{
    commands::token::{authority, mint},
    constellation::{Constellation, Options},
};
use asterism_chassis::identity::Role;
use asterism_client::proto::inference::Algorithm;
use asterism_crypto::Digest;
use serde_json::Value;

use crate::support::{BREAST_CANCER, order, train, upload};

/// Models that XGBoost saved, and rows of their data.
const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/fhe/tests/data");

fn fhe(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_asterism-under-test"))
        .args(["fhe", "--json"])
        .args(args)
        .env_remove("ASTERISM_ADDR")
        .env_remove("ASTERISM_DATA")
        .output()
        .unwrap()
}

/// The lines of JSON of a command that succeeds.
fn lines(args: &[&str]) -> Vec<Value> {
    let output = fhe(args);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stdout}\n{stderr}");
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The last line of a command that is refused as wrong usage.
fn refusal(args: &[&str]) -> String {
    let output = fhe(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// A model and rows of its data, as CSV; rows with missing values are left out.
    fn of(model: &str) -> (Self, Vec<Vec<f64>>) {
        let files = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let from = PathBuf::from(FILES);
        std::fs::copy(from.join(format!("{model}.json")), files.at("model.json")).unwrap();
        let expected = std::fs::read(from.join(format!("{model}.expected.json"))).unwrap();
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let mut csv = String::new();
        let (mut margins, mut width) = (vec![], 0);
        for (row, margin) in std::iter::zip(
            expected["rows"].as_array().unwrap(),
            expected["margins"].as_array().unwrap(),
        ) {
            let row = row.as_array().unwrap();
            width = row.len();
            if row.iter().all(Value::is_number) {
                let cells: Vec<String> = row.iter().map(Value::to_string).collect();
                csv.push_str(&format!("{}\n", cells.join(",")));
                margins.push(
                    margin
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|m| m.as_f64().unwrap())
                        .collect(),
                );
            }
        }
        let header: Vec<String> = (0..width).map(|feature| format!("f{feature}")).collect();
        std::fs::write(files.at("rows.csv"), format!("{}\n{csv}", header.join(","))).unwrap();
        (files, margins)
    }
}

/// Encrypts a row, has it evaluated, and decrypts: each a command of its own.
fn ask(files: &Files, key: &str, row: usize, evaluation_key: Option<&str>) -> Value {
    let at = |name: &str| files.at(name);
    let (bundle, query, reply) = (at("model.bundle.json"), at("query"), at("reply"));
    let row = row.to_string();
    lines(&[
        "encrypt",
        "--bundle",
        &bundle,
        "--key",
        key,
        "--csv",
        &at("rows.csv"),
        "--row",
        &row,
        "--out",
        &query,
    ]);
    let model = at("model.json");
    let mut evaluate = vec!["evaluate", &model, "--query", &query, "--out", &reply];
    if let Some(file) = evaluation_key {
        evaluate.extend(["--evaluation-key", file]);
    }
    lines(&evaluate);
    let decrypt = [
        "decrypt", "--bundle", &bundle, "--key", key, "--query", &query, "--reply", &reply,
    ];
    lines(&decrypt).remove(0)
}

#[test]
fn a_model_of_xgboost_goes_from_file_to_decrypted_prediction() {
    for (model, plan, rows) in [("breast_cancer", "pairs", 3), ("wine", "paths", 2)] {
        let (files, margins) = Files::of(model);
        let imported = lines(&["import-xgboost", "--local", &files.at("model.json")]).remove(0);
        assert_eq!(imported["plan"], plan, "{imported}");
        let keys = lines(&[
            "keygen",
            "--bundle",
            &files.at("model.bundle.json"),
            "--out",
            &files.at("keys"),
        ]);
        assert_eq!(keys[0]["evaluation_key_bytes"], imported["key_bytes"]);
        let key = keys[0]["secret_key"].as_str().unwrap();
        let mode = std::fs::metadata(key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let all = lines(&[
            "predict",
            &files.at("model.json"),
            "--file",
            &files.at("rows.csv"),
        ]);
        assert_eq!(all.len(), margins.len());
        for row in 0..rows {
            let one = ask(&files, key, row, keys[0]["evaluation_key"].as_str());
            assert_eq!(one["scores"], all[row]["scores"]);
            assert_eq!(one["class"], all[row]["class"]);
            let bounds = imported["quantisation_error"].as_array().unwrap();
            for ((score, margin), bound) in one["scores"]
                .as_array()
                .unwrap()
                .iter()
                .zip(&margins[row])
                .zip(bounds)
            {
                let off = (score.as_f64().unwrap() - margin).abs();
                assert!(off <= bound.as_f64().unwrap() + 1e-5, "{one} {margin}");
            }
        }
    }
}

#[test]
fn keys_that_others_may_read_and_foreign_files_are_refused() {
    let (files, _) = Files::of("breast_cancer");
    lines(&["import-xgboost", "--local", &files.at("model.json")]);
    let (bundle, keys, csv) = (
        files.at("model.bundle.json"),
        files.at("keys"),
        files.at("rows.csv"),
    );
    lines(&["keygen", "--bundle", &bundle, "--out", &keys]);
    assert!(refusal(&["keygen", "--bundle", &bundle, "--out", &keys]).contains("not overwritten"));
    let key = files.at("keys/secret.key");
    let encrypt = |row: &str, key: &str| {
        let out = files.at("query");
        fhe(&[
            "encrypt", "--bundle", &bundle, "--key", key, "--csv", &csv, "--row", row, "--out", &out,
        ])
        .status
        .code()
    };
    assert_eq!(encrypt("0", &key), Some(0));
    assert_eq!(encrypt("100000", &key), Some(2));
    assert_eq!(encrypt("0", &csv), Some(2));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(encrypt("0", &key), Some(2));
    assert!(!Path::new(&files.at("reply")).exists());
    // Cut off, or not a query at all.
    let query = std::fs::read(files.at("query")).unwrap();
    for wrong in [&query[..query.len() - 1], &query[..10], b"query"] {
        std::fs::write(files.at("query"), wrong).unwrap();
        let (model, query, reply) = (files.at("model.json"), files.at("query"), files.at("reply"));
        refusal(&["evaluate", &model, "--query", &query, "--out", &reply]);
    }
    assert!(refusal(&["import-xgboost", "--local", &csv]).contains("XGBoost"));
    assert!(refusal(&["bench", "--only", "no-such-model"]).contains("trees-100x2"));
}

#[test]
fn the_bench_finds_encrypted_answers_equal_to_those_in_the_clear() {
    let measured = lines(&[
        "bench",
        "--rows",
        "4",
        "--only",
        "logistic-30",
        "--only",
        "trees-100x2",
    ]);
    assert_eq!(measured.len(), 2);
    for line in measured {
        assert_eq!(
            (&line["rows"], &line["agreement"]),
            (&4.into(), &1.0.into()),
            "{line}"
        );
        let number = |name: &str| line[name].as_f64().unwrap();
        assert!(number("max_error") <= number("announced_error"), "{line}");
        assert!(number("server_ms") > 0.0 && number("floor_ms") > 0.0, "{line}");
        assert_eq!(line["key_bytes"], 0, "{line}");
    }
}

/// Services on four consecutive ports, which is how a command line reaches them.
async fn on_consecutive_ports(dir: &Path) -> (Constellation, String) {
    for _ in 0..50 {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let options = Options {
            port: Some(port),
            ..Options::default()
        };
        if let Ok(constellation) = Constellation::start(dir, &options).await {
            return (constellation, format!("127.0.0.1:{port}"));
        }
    }
    panic!("no four consecutive ports are free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_the_service_is_asked_by_files_and_by_rows() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (constellation, addr) = on_consecutive_ports(&data).await;
    let services = constellation.connect("user/admin", &[Role::Admin], None).unwrap();
    let dataset = upload(&services, BREAST_CANCER).await.unwrap();
    let mut request = order(&dataset.name, Algorithm::GradientBoostedTrees);
    request.hyperparameters = [("depth", "3"), ("trees", "10"), ("bins", "32")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let model = train(&services, request).await.unwrap().name;
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let token = mint(
        &authority(&data).unwrap(),
        "user/admin",
        &[Role::Admin],
        std::time::Duration::from_secs(600),
    );
    std::fs::write(at("token"), token.unwrap()).unwrap();
    let token = at("token");
    let ask = |args: &[&str]| lines(&[args, &["--addr", &addr, "--token-file", &token]].concat());
    // Ten rows of the example.
    let csv: Vec<&str> = BREAST_CANCER.lines().take(11).collect();
    std::fs::write(at("rows.csv"), csv.join("\n")).unwrap();

    let compiled = ask(&["compile", &model]).remove(0);
    assert_eq!(compiled["plan"], "paths", "{compiled}");
    assert_eq!(
        ask(&["explain", &model])[0]["compiled_sha256"],
        compiled["compiled_sha256"]
    );
    ask(&["bundle", &model, "--out", &at("bundle")]);
    let keys = lines(&["keygen", "--bundle", &at("bundle"), "--out", &at("keys")]).remove(0);
    assert_eq!(keys["evaluation_key_bytes"], compiled["key_bytes"]);
    let evaluation_key = keys["evaluation_key"].as_str().unwrap();
    let by_rows = ask(&[
        "predict",
        &model,
        "--file",
        &at("rows.csv"),
        "--keys",
        &at("keys"),
    ]);
    assert_eq!(by_rows.len(), 10);
    let (bundle, key, query, reply) = (at("bundle"), at("keys/secret.key"), at("query"), at("reply"));
    lines(&[
        "encrypt",
        "--bundle",
        &bundle,
        "--key",
        &key,
        "--csv",
        &at("rows.csv"),
        "--row",
        "4",
        "--out",
        &query,
    ]);
    let files = [
        "--query",
        &query,
        "--evaluation-key",
        evaluation_key,
        "--out",
        &reply,
    ];
    ask(&[&["evaluate", &model][..], &files[..]].concat());
    let by_files = lines(&[
        "decrypt", "--bundle", &bundle, "--key", &key, "--query", &query, "--reply", &reply,
    ]);
    assert_eq!(by_files[0]["scores"], by_rows[4]["scores"]);
    assert!(by_files[0]["class"].is_string());
    // And with keys that are made and forgotten.
    let forgotten = ask(&["predict", &model, "--file", &at("rows.csv")]);
    assert_eq!(forgotten, by_rows);
    let (kept, _) = services.encrypted.evaluation_keys(10, "").await.unwrap();
    let kept: Vec<&str> = kept.iter().map(|key| key.name.as_str()).collect();
    let own = Digest::of(&std::fs::read(evaluation_key).unwrap());
    assert_eq!(kept, [format!("evaluationKeys/{own}")]);

    // A model of XGBoost's, here and there.
    let (files, _) = Files::of("breast_cancer");
    let imported = ask(&["import-xgboost", &files.at("model.json")]).remove(0);
    let model = imported["model"].as_str().unwrap();
    assert!(model.starts_with("models/"), "{imported}");
    let csv = std::fs::read_to_string(files.at("rows.csv")).unwrap();
    let csv: Vec<&str> = csv.lines().take(6).collect();
    std::fs::write(files.at("rows.csv"), csv.join("\n")).unwrap();
    let there = ask(&["predict", model, "--file", &files.at("rows.csv")]);
    let here = lines(&[
        "predict",
        &files.at("model.json"),
        "--file",
        &files.at("rows.csv"),
    ]);
    assert_eq!((there.len(), &there), (5, &here));
    constellation.shutdown().await;
}
