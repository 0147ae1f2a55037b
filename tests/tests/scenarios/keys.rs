//! The life of keys across restarts, in the log, and from the command line.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use asterism::constellation::{Constellation, Options};
use asterism_chassis::{config::Common, identity::Role};
use asterism_client::proto::{
    audit::{EventFilter, LogEntry, Outcome},
    kms::{KeyType, KeyVersionState},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::{World, fresh_id, reason};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn key_and_version(entry: &LogEntry) -> (String, u32, String, String) {
    let event = entry.event.clone().unwrap();
    (event.resource, event.key_version, event.principal, event.reason)
}

/// The service alone over the same data, when so much time has passed; what is due is done when it has started.
async fn run_kms_later(dir: &TempDir, later: Duration) {
    let config = asterism_kms::Config {
        common: Common::embedded("kms", dir.path()),
        ..Default::default()
    };
    let clock = asterism_kms::system_clock();
    let later: asterism_kms::Clock = Arc::new(move || clock() + later.as_millis() as u64);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = asterism_kms::start_with_clock(config, listener, later)
        .await
        .unwrap();
    running.shutdown().await;
}

fn has_wrapping_keys(dir: &TempDir, count: usize) -> bool {
    std::fs::read_dir(dir.path().join("kms/version-keys"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some())
        .count()
        == count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_window_of_a_destruction_neither_hastens_nor_forgets_it() {
    let mut world = World::start().await;
    let kms = world.admin().kms;
    kms.create_key("mortal", KeyType::Aes256Gcm, [], &fresh_id())
        .await
        .unwrap();
    let (first, _) = kms.encrypt("mortal", b"first", b"").await.unwrap();
    kms.rotate_key("mortal", &fresh_id()).await.unwrap();
    let (second, _) = kms.encrypt("mortal", b"second", b"").await.unwrap();
    let scheduled = kms
        .destroy_key_version("mortal", 1, Some(7 * DAY), &fresh_id())
        .await
        .unwrap();

    world = world.restart().await;
    let kms = world.admin().kms;
    assert_eq!(kms.key_version("mortal", 1).await.unwrap(), scheduled);
    assert_eq!(
        reason(kms.decrypt("mortal", &first, b"").await.map(drop)),
        "KEY_VERSION_STATE"
    );
    kms.restore_key_version("mortal", 1, &fresh_id()).await.unwrap();
    assert_eq!(
        kms.decrypt("mortal", &first, b"").await.unwrap().expose(),
        b"first"
    );
    kms.set_key_version_state("mortal", 1, KeyVersionState::Compromised, &fresh_id())
        .await
        .unwrap();
    kms.create_key("signer", KeyType::EcSignP256Sha256, [], &fresh_id())
        .await
        .unwrap();
    kms.public_key("signer", 1).await.unwrap();
    kms.set_key_version_state("signer", 1, KeyVersionState::Compromised, &fresh_id())
        .await
        .unwrap();
    kms.public_key("signer", 1).await.unwrap();
    // Still decrypts, and the log says of what.
    let moved = kms.re_encrypt("mortal", &first, b"", "").await.unwrap();
    assert_eq!((moved.source_key_version, moved.key_version), (1, 2));
    kms.destroy_key_version("mortal", 1, Some(7 * DAY), &fresh_id())
        .await
        .unwrap();

    let dir = world.dir;
    world.constellation.shutdown().await;
    run_kms_later(&dir, 6 * DAY).await;
    assert!(has_wrapping_keys(&dir, 3), "not due yet");
    run_kms_later(&dir, 8 * DAY).await;
    assert!(has_wrapping_keys(&dir, 2), "due, and done at the start");
    let constellation = Constellation::start(dir.path(), &Options::default())
        .await
        .unwrap();
    let world = World { constellation, dir };
    let services = world.admin();
    let kms = &services.kms;
    let gone = kms.key_version("mortal", 1).await.unwrap();
    assert_eq!(gone.state(), KeyVersionState::Destroyed);
    assert_eq!(
        reason(kms.decrypt("mortal", &first, b"").await.map(drop)),
        "KEY_VERSION_STATE"
    );
    assert_eq!(
        reason(kms.restore_key_version("mortal", 1, &fresh_id()).await),
        "KEY_VERSION_STATE"
    );
    for (ciphertext, text) in [(&second, b"second".as_slice()), (&moved.ciphertext, b"first")] {
        assert_eq!(
            kms.decrypt("mortal", ciphertext, b"").await.unwrap().expose(),
            text
        );
    }
    let events = |operation: &str| EventFilter {
        operation: operation.to_owned(),
        outcome: Outcome::Succeeded.into(),
        ..EventFilter::default()
    };
    let scheduled = services
        .audit
        .list_all(events("kms.ScheduleKeyVersionDestruction"))
        .await
        .unwrap();
    assert_eq!(scheduled.len(), 2);
    let destroyed = services
        .audit
        .list_all(events("kms.DestroyKeyVersion"))
        .await
        .unwrap();
    let by_itself = (
        "keys/mortal".to_owned(),
        1,
        "service/kms".to_owned(),
        String::new(),
    );
    assert_eq!(
        destroyed.iter().map(key_and_version).collect::<Vec<_>>(),
        [by_itself]
    );
    let moved = services.audit.list_all(events("kms.ReEncrypt")).await.unwrap();
    let compromised = (
        "keys/mortal".to_owned(),
        1,
        "user/admin".to_owned(),
        "KEY_COMPROMISED".to_owned(),
    );
    assert_eq!(
        moved.iter().map(key_and_version).collect::<Vec<_>>(),
        [compromised]
    );
    let given = services.audit.list_all(events("kms.GetPublicKey")).await.unwrap();
    let compromised = (
        "keys/signer".to_owned(),
        1,
        "user/admin".to_owned(),
        "KEY_COMPROMISED".to_owned(),
    );
    assert_eq!(
        given.iter().map(key_and_version).collect::<Vec<_>>(),
        [compromised],
        "of a good version it is no event"
    );
    assert!(services.audit.verify().await.unwrap().verified);
    world.constellation.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_leads_a_key_through_its_life() {
    let world = World::start().await;
    let authority = world.constellation.authority();
    let admin = "user/admin".parse().unwrap();
    let token = world.dir.path().join("cli.token");
    let minted = authority.mint(
        &admin,
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
    let run = move |args: &[&str], input: &[u8]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_asterism-under-test"))
            .args(args)
            .args(["--addr", &addr, "--token-file"])
            .arg(&token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), text)
    };
    let told = tokio::task::spawn_blocking(move || {
        let ok = |args: &[&str], input: &[u8]| {
            let (done, text) = run(args, input);
            assert!(done, "{args:?}");
            text
        };
        ok(&["keys", "create", "cli"], b"");
        let old = ok(&["keys", "encrypt", "cli"], b"text");
        ok(&["keys", "rotate", "cli"], b"");
        let new = ok(&["keys", "reencrypt", "cli"], old.as_bytes());
        assert_ne!(old, new);
        assert_eq!(ok(&["keys", "decrypt", "cli"], new.as_bytes()), "text");
        ok(&["keys", "state", "cli", "1", "deactivated"], b"");
        ok(&["keys", "destroy", "cli", "1", "--window-days", "7"], b"");
        assert!(
            !run(&["keys", "decrypt", "cli"], old.as_bytes()).0,
            "refused while scheduled"
        );
        let table = ok(&["keys", "show", "cli"], b"");
        assert!(
            table.contains("DESTROY_SCHEDULED") && table.contains("ACTIVE"),
            "{table}"
        );
        ok(&["keys", "restore", "cli", "1"], b"");
        assert_eq!(ok(&["keys", "decrypt", "cli"], old.as_bytes()), "text");
        let updated = ok(
            &[
                "--json",
                "keys",
                "update",
                "cli",
                "--label",
                "team=blue",
                "--rotate-every",
                "30",
            ],
            b"",
        );
        let updated: Value = serde_json::from_str(&updated).unwrap();
        assert_eq!(updated["labels"]["team"], "blue");
        assert_eq!(updated["rotation_seconds"], 30 * 86_400);
        assert_eq!(updated["versions"][0]["state"], "DEACTIVATED");
        assert!(!run(&["keys", "update", "cli"], b"").0, "nothing to change");
        let stale = run(&["keys", "update", "cli", "--no-labels", "--etag", "0123"], b"");
        assert!(!stale.0, "another etag");
        ok(&["keys", "update", "cli", "--min-decryption-version", "2"], b"");
        assert!(
            !run(&["keys", "decrypt", "cli"], old.as_bytes()).0,
            "below the minimum"
        );
    });
    told.await.unwrap();
    world.constellation.shutdown().await;
}
