//! `asterism firewall` against running services.

use std::process::{Command, Output};

use asterism_chassis::identity::Role;
use serde_json::Value;

use crate::support::{World, fresh_id, reason};

struct Operator {
    addr: String,
    token: std::path::PathBuf,
}

impl Operator {
    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_asterism-under-test"));
        command
            .args(["--json", "--addr", &self.addr, "--token-file"])
            .arg(&self.token)
            .arg("firewall")
            .args(arguments)
            .env_remove("ASTERISM_ADDR")
            .env_remove("ASTERISM_DATA");
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    async fn rows(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.run(arguments).await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// Four services on ports in a row, as `--addr` wants them.
async fn in_a_row() -> (World, Operator) {
    use asterism::constellation::{Constellation, Options};
    for first in (20_000..60_000_u16).step_by(97) {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            port: Some(first),
            ..Options::default()
        };
        if let Ok(constellation) = Constellation::start(dir.path(), &options).await {
            let operator = Operator {
                addr: format!("127.0.0.1:{first}"),
                token: dir.path().join("operator.token"),
            };
            let token = asterism::commands::token::mint(
                constellation.authority(),
                "user/root",
                &[Role::Admin],
                std::time::Duration::from_secs(600),
            );
            std::fs::write(&operator.token, token.unwrap()).unwrap();
            return (World { constellation, dir }, operator);
        }
    }
    panic!("no four free ports in a row");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_blocks_limits_and_allows_again_while_services_run() {
    let (world, operator) = in_a_row().await;
    let mallory = world.as_principal("user/mallory", &[Role::Admin]);
    mallory.kms.key("none").await.unwrap_err();
    let changed = operator
        .rows(&["block", "user/mallory", "--comment", "until she explains"])
        .await;
    assert_eq!(changed.len(), 4, "all four services");
    assert_eq!(reason(mallory.kms.key("none").await), "FIREWALL_BLOCKED");
    assert_eq!(
        reason(mallory.audit.verify().await.map(|_| ())),
        "FIREWALL_BLOCKED"
    );
    let rules = operator.rows(&["list", "--service", "kms"]).await;
    let block = rules.iter().find(|rule| rule["rule"] == "block").unwrap();
    assert_eq!(
        (&block["subject"], &block["comment"]),
        (&"user/mallory".into(), &"until she explains".into())
    );
    operator.rows(&["block", "--remove", "user/mallory"]).await;
    assert_eq!(reason(mallory.kms.key("none").await), "KEY_NOT_FOUND");
    let again = operator.run(&["block", "--remove", "user/mallory"]).await;
    assert_eq!(again.status.code(), Some(2), "not on the list");

    operator
        .rows(&[
            "limit",
            "user/busy",
            "--rate",
            "5",
            "--burst",
            "2",
            "--service",
            "kms",
        ])
        .await;
    let busy = world.as_principal("user/busy", &[Role::Admin]);
    let begun = std::time::Instant::now();
    for _ in 0..5 {
        // Over its rate the SDK waits as long as it is told, and tries again.
        assert_eq!(reason(busy.kms.key("none").await), "KEY_NOT_FOUND");
    }
    assert!(
        begun.elapsed() >= std::time::Duration::from_millis(550),
        "{:?}",
        begun.elapsed()
    );
    let stats = operator.rows(&["stats", "--service", "kms"]).await;
    assert!(stats[0]["calls_rate_limited"].as_u64().unwrap() >= 3, "{stats:?}");
    assert_eq!(stats[0]["calls_blocked"], 1, "{stats:?}");

    operator
        .rows(&["set", "--failures", "7", "--exempt", "192.0.2.0/24"])
        .await;
    assert_eq!(operator.rows(&["bans"]).await, Vec::<Value>::new());
    let none = operator.run(&["lift", "192.0.2.1"]).await;
    assert!(!none.status.success(), "nobody is banned");
    let locked = operator.run(&["block", "user/*"]).await;
    assert!(!locked.status.success(), "the operator would be turned away");
    assert!(String::from_utf8_lossy(&locked.stderr).contains("force"));
    world
        .admin()
        .kms
        .create_key(
            "k",
            asterism_client::proto::kms::KeyType::Aes256Gcm,
            [],
            &fresh_id(),
        )
        .await
        .unwrap();
    world.constellation.shutdown().await;
}
