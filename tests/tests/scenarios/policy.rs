//! Grants and approvals across services, in the log, and from the command line.

use std::{
    process::Command,
    time::{Duration, SystemTime},
};

use asterism_chassis::identity::Role;
use asterism_client::proto::{
    audit::EventFilter,
    kms::KeyType,
    policy::{Effect, Grant},
};
use serde_json::Value;

use crate::support::{World, fresh_id, reason, small_csv, upload};

fn grant(effect: Effect, subject: &str, verb: &str, resource: &str) -> Grant {
    Grant {
        effect: effect.into(),
        subject: subject.to_owned(),
        verbs: vec![verb.to_owned()],
        resource: resource.to_owned(),
        ..Grant::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_owner_opens_their_own_dataset_until_that_is_denied() {
    let world = World::start().await;
    let alice = world.as_principal("user/alice", &[Role::DataOwner]);
    let dataset = upload(&alice, small_csv(20)).await.unwrap();
    let open = || {
        alice
            .ingest
            .open_dataset(&alice.kms, &dataset.name, "manifest-signer", |_| Ok(()))
    };
    let manifest = open().await.unwrap().manifest;
    let bob = world.as_principal("user/bob", &[Role::DataOwner]);
    let key = &manifest.data_key;
    let context = manifest.context();
    let stolen = bob.kms.unwrap_data_key(&key.key, &key.wrapped, &context);
    assert_eq!(reason(stolen.await.map(drop)), "KEY_NOT_FOUND");

    let admin = world.admin();
    let resource = format!("keys/{}", key.key);
    let denial = grant(Effect::Deny, "user/alice", "decrypt", &resource);
    let denial = admin.policy.create_grant(denial, &fresh_id()).await.unwrap();
    assert!(open().await.is_err());
    admin.policy.delete_grant(&denial.name, "").await.unwrap();
    open().await.unwrap();
    let changes = |operation: &str| EventFilter {
        operation: operation.to_owned(),
        ..EventFilter::default()
    };
    for operation in ["policy.CreateGrant", "policy.DeleteGrant"] {
        let mut events = vec![];
        for _ in 0..200 {
            events = admin.audit.list_all(changes(operation)).await.unwrap();
            if !events.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let event = events[0].event.clone().unwrap();
        assert_eq!(event.resource, format!("{}/{resource}", denial.name));
    }
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_grants_explains_and_approves() {
    let world = World::start().await;
    let admin = world.admin();
    admin
        .kms
        .create_key("mine", KeyType::Aes256Gcm, [], &fresh_id())
        .await
        .unwrap();
    let keeper = world.as_principal("user/keeper", &[Role::KeyAdmin]);
    let token = world.dir.path().join("cli.token");
    let minted = world.constellation.authority().mint(
        &"user/admin".parse().unwrap(),
        &[Role::Admin],
        Duration::from_secs(600),
        SystemTime::now(),
    );
    asterism_store::files::write_atomic(&token, minted.as_bytes(), 0o600).unwrap();
    let addr = world
        .constellation
        .endpoints()
        .kms
        .trim_start_matches("http://")
        .to_owned();
    let run = move |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_asterism-under-test"))
            .args(args)
            .args(["--json", "--addr", &addr, "--token-file"])
            .arg(&token)
            .output()
            .unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Value> = told
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (output.status.code(), lines)
    };
    let run = std::sync::Arc::new(run);
    let cli = |args: &'static [&'static str]| {
        let run = run.clone();
        async move { tokio::task::spawn_blocking(move || run(args)).await.unwrap() }
    };
    let explain = ["policy", "explain", "user/bob", "decrypt", "keys/mine"];
    let explain: &'static [&'static str] = Vec::leak(explain.to_vec());
    assert_eq!(cli(explain).await.1[0]["allowed"], false);
    let given = cli(&["policy", "grant", "user/bob", "decrypt,get", "keys/mine"]).await;
    assert_eq!(given.0, Some(0));
    let why = cli(explain).await.1[0].clone();
    assert_eq!(why["allowed"], true);
    assert_eq!(why["steps"][0]["source"], given.1[0]["name"]);
    let elsewhere = [
        "policy",
        "deny",
        "everyone",
        "decrypt",
        "keys/*",
        "--network",
        "10.0.0.0/8",
    ];
    assert_eq!(cli(Vec::leak(elsewhere.to_vec())).await.0, Some(0));
    let inside = [explain, &["--network", "10.0.0.1"]].concat();
    assert_eq!(cli(Vec::leak(inside)).await.1[0]["allowed"], false);
    let outside = [explain, &["--network", "192.0.2.1"]].concat();
    assert_eq!(cli(Vec::leak(outside)).await.1[0]["allowed"], true);
    assert_eq!(
        cli(&["policy", "list", "--resource", "keys/mine"]).await.1.len(),
        1
    );

    cli(&["keys", "update", "mine", "--approvals", "1"]).await;
    assert_eq!(cli(&["keys", "destroy", "mine", "1"]).await.0, Some(1));
    let waiting = cli(&["policy", "approvals"]).await.1;
    assert_eq!(waiting[0]["state"], "pending");
    let name = waiting[0]["name"].as_str().unwrap();
    let own: Vec<&'static str> = vec!["policy", "approve", String::leak(name.to_owned())];
    assert_eq!(cli(Vec::leak(own)).await.0, Some(5), "nobody approves their own");
    keeper.policy.approve(name).await.unwrap();
    assert_eq!(cli(&["keys", "destroy", "mine", "1"]).await.0, Some(0));
    assert_eq!(cli(&["policy", "approvals"]).await.1[0]["state"], "used");
    world.constellation.shutdown().await;
}
