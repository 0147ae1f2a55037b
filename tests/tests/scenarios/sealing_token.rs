//! A PKCS #11 token as the seal, from the command line, against SoftHSM 2: `apt-get install softhsm2`, then
//! `cargo test -p asterism-tests --features pkcs11-tests --test scenarios sealing_token`.

use std::{path::Path, process::Command};

use serde_json::json;

use crate::sealing::{World, enrol_and_log_in, is};

const MODULES: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

fn module() -> &'static str {
    let found = MODULES.into_iter().find(|path| Path::new(path).exists());
    found.expect("SoftHSM 2 is installed: apt-get install softhsm2")
}

/// A world whose programs see a token of their own, and the options that name it.
fn with_token() -> (World, Vec<String>) {
    let mut world = World::new();
    std::fs::create_dir(world.path("tokens")).unwrap();
    let conf = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\n",
        world.text("tokens")
    );
    world.environment = vec![("SOFTHSM2_CONF", world.private("softhsm2.conf", &conf))];
    let made = Command::new("softhsm2-util")
        .args([
            "--init-token",
            "--free",
            "--label",
            "asterism",
            "--so-pin",
            "87654321",
            "--pin",
            "12345678",
        ])
        .envs(world.environment.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let pin = world.private("pin", "12345678\n");
    let options = [
        "--pkcs11-module",
        module(),
        "--token-label",
        "asterism",
        "--pin-file",
        &pin,
    ];
    (world, options.map(str::to_owned).to_vec())
}

fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[test]
fn a_token_opens_the_seal_at_each_start_and_nothing_does_without_it() {
    let (mut world, token) = with_token();
    let (dir, invitation) = (world.text("data/kms"), world.text("invitation"));
    let init = [
        "kms",
        "init",
        "--data-dir",
        &dir,
        "--seal",
        "token",
        "--invitation-out",
        &invitation,
    ];
    let made = world.value("nobody", &[&init[..], &strs(&token)].concat());
    is(&made, &json!({ "kind": "token", "automatic": true }));
    let seal = std::fs::read_to_string(world.path("data/kms/seal.json")).unwrap();
    assert!(!seal.contains("12345678"));

    // Without the token in its settings it comes up, and stays sealed.
    is(&world.start(), &json!({ "sealed": true }));
    world.refused("nobody", &["kms", "unseal"], 1, "TOKEN_NOT_SET");
    world.options = token;
    is(&world.restart(), &json!({ "sealed": false }));
    enrol_and_log_in(&world);
    world.value("admin", &["keys", "create", "mine"]);
    let kept = world.encrypt("admin", "mine", "under a token");

    is(
        &world.value("admin", &["kms", "seal"]),
        &json!({ "sealed": true }),
    );
    is(
        &world.value("nobody", &["kms", "unseal"]),
        &json!({ "sealed": false }),
    );
    let rotated = world.value("admin", &["kms", "rotate-root"]);
    is(&rotated, &json!({ "root_version": 2, "rotation": null }));
    world.decrypts("admin", "mine", &kept, "under a token");

    // To a passphrase, and back to the token.
    let passphrase = world.private("passphrase", "correct horse battery");
    let away = [
        "kms",
        "rekey",
        "--to",
        "passphrase",
        "--new-passphrase-file",
        &passphrase,
    ];
    is(&world.value("admin", &away), &json!({ "kind": "passphrase" }));
    is(&world.restart(), &json!({ "sealed": true }));
    let unseal = ["kms", "unseal", "--passphrase-file", &passphrase];
    is(&world.value("nobody", &unseal), &json!({ "sealed": false }));
    let back = ["kms", "rekey", "--to", "token", "--passphrase-file", &passphrase];
    is(
        &world.value("admin", &back),
        &json!({ "kind": "token", "automatic": true }),
    );
    is(&world.restart(), &json!({ "sealed": false }));
    world.decrypts("admin", "mine", &kept, "under a token");
}
