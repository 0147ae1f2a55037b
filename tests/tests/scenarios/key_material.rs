//! Key types, batches, import and export from the command line, and what the log says of them.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use asterism_chassis::identity::Role;
use asterism_client::proto::audit::{Event, EventFilter, Outcome};
use asterism_crypto::{DecryptionKey, Digest, transfer::export_info};
use serde_json::Value;

use crate::support::World;

/// `asterism` with these arguments and this input: exit code and output.
type Run = Box<dyn Fn(&[&str], &[u8]) -> (Option<i32>, String) + Send>;

fn command_line(world: &World) -> Run {
    let admin = "user/admin".parse().unwrap();
    let token = world.dir.path().join("cli.token");
    let lifetime = Duration::from_secs(600);
    let authority = world.constellation.authority();
    let minted = authority.mint(&admin, &[Role::Admin], lifetime, SystemTime::now());
    asterism_store::files::write_atomic(&token, minted.as_bytes(), 0o600).unwrap();
    let endpoint = &world.constellation.endpoints().kms;
    let addr = endpoint.trim_start_matches("http://").to_owned();
    Box::new(move |args, input| {
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
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    })
}

/// The one event of an operation.
async fn event(world: &World, operation: &str) -> Event {
    let filter = EventFilter {
        operation: operation.into(),
        ..EventFilter::default()
    };
    for _ in 0..200 {
        let mut entries = world.admin().audit.list_all(filter.clone()).await.unwrap();
        if entries.len() == 1 {
            return entries.remove(0).event.unwrap();
        }
        assert!(entries.is_empty(), "{operation}: {entries:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{operation} is not in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn material_comes_works_and_goes_by_the_command_line() {
    let world = World::start().await;
    let run = command_line(&world);
    let recipient = DecryptionKey::generate().unwrap();
    let pem = world.dir.path().join("recipient.pem");
    std::fs::write(&pem, recipient.encryption_key().to_pem()).unwrap();
    let pem = pem.to_str().unwrap().to_owned();
    let sealed = tokio::task::spawn_blocking(move || {
        let ok = |args: &[&str], input: &[u8]| {
            let (code, text) = run(args, input);
            assert_eq!(code, Some(0), "{args:?}: {text}");
            text
        };
        // 32 bytes of 7.
        let material = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
        let import = [
            "--json",
            "keys",
            "import",
            "mine",
            "--type",
            "hmac-sha256",
            "--exportable",
        ];
        let made: Value = serde_json::from_str(&ok(&import, material.as_bytes())).unwrap();
        assert_eq!(
            (&made["exportable"], &made["versions"][0]["imported"]),
            (&true.into(), &true.into())
        );
        let mac = ok(&["keys", "mac", "mine"], b"data");
        ok(&["keys", "verify-mac", "mine", "--mac", mac.trim()], b"data");
        assert_eq!(
            run(&["keys", "verify-mac", "mine", "--mac", mac.trim()], b"other").0,
            Some(3)
        );
        assert_eq!(ok(&["keys", "export", "mine", "1"], b"").trim(), material);
        let sealed = ok(&["keys", "export", "mine", "1", "--to", &pem], b"");
        assert_eq!(
            run(
                &["keys", "import", "mine", "--type", "hmac-sha512"],
                material.as_bytes()
            )
            .0,
            Some(1)
        );

        ok(&["keys", "create", "box", "--type", "ec-p256-hpke"], b"");
        let letter = ok(&["keys", "seal", "box", "--info", "i"], b"a letter");
        assert_eq!(
            ok(&["keys", "open", "box", "--info", "i"], letter.as_bytes()),
            "a letter"
        );
        assert_eq!(run(&["keys", "open", "box"], letter.as_bytes()).0, Some(1));
        assert_eq!(
            run(&["keys", "export", "box", "1"], b"").0,
            Some(1),
            "not exportable"
        );
        ok(&["keys", "create", "dh", "--type", "ec-p256-ecdh"], b"");
        let public = ok(&["keys", "public-key", "dh"], b"");
        assert_eq!(ok(&["keys", "agree", "dh"], public.as_bytes()).trim().len(), 44);
        ok(&["keys", "create", "wrapper", "--type", "aes256-kwp"], b"");
        let wrapped = ok(&["keys", "wrap", "wrapper"], material.as_bytes());
        assert_eq!(
            ok(&["keys", "unwrap", "wrapper"], wrapped.as_bytes()).trim(),
            material
        );
        assert_eq!(ok(&["keys", "random", "16"], b"").trim().len(), 24);
        let far = ["keys", "create", "later", "--active-from", "2099-01-01T00:00:00Z"];
        assert_eq!(run(&far, b"").0, Some(1), "more than ten years ahead");
        let next_year = format!("{}-01-01T00:00:00Z", year() + 1);
        ok(&["keys", "create", "later", "--active-from", &next_year], b"");
        assert_eq!(
            run(&["keys", "encrypt", "later"], b"text").0,
            Some(1),
            "not active yet"
        );
        sealed
    });
    let sealed = sealed.await.unwrap();
    let bytes = decode(sealed.trim());
    let opened = recipient
        .open(&export_info("mine", 1, "HMAC_SHA256"), b"", &bytes)
        .unwrap();
    assert_eq!(opened.expose(), [7; 32]);
    let imported = event(&world, "kms.ImportKeyVersion").await;
    assert_eq!(
        (imported.resource.as_str(), imported.key_version),
        ("keys/mine", 1)
    );
    world.constellation.shutdown().await;
}

/// This year, or one beside it.
fn year() -> u64 {
    1970 + SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() / (365 * 24 * 3600)
}

fn decode(text: &str) -> Vec<u8> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.decode(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_a_batch_and_the_log_counts_them() {
    let world = World::start().await;
    let run = command_line(&world);
    tokio::task::spawn_blocking(move || {
        let ok = |args: &[&str], input: &[u8]| {
            let (code, text) = run(args, input);
            assert_eq!(code, Some(0), "{args:?}: {text}");
            text
        };
        ok(&["keys", "create", "lines"], b"");
        let sealed = ok(&["keys", "encrypt", "lines", "--lines"], b"b25l\n\ndGhyZWU=\n");
        assert_eq!(sealed.lines().count(), 3);
        let mut lines: Vec<&str> = sealed.lines().collect();
        lines.insert(1, "bm90aGluZw==");
        let (code, opened) = run(
            &["keys", "decrypt", "lines", "--lines"],
            lines.join("\n").as_bytes(),
        );
        assert_eq!(code, Some(1), "one failed");
        let opened: Vec<&str> = opened.lines().collect();
        assert_eq!((opened[0], opened[2], opened[3]), ("b25l", "", "dGhyZWU="));
        assert!(
            opened[1].starts_with('!') && opened[1].contains("INVALID_FIELD"),
            "{}",
            opened[1]
        );

        ok(
            &["keys", "create", "signer", "--type", "ec-sign-p256-sha256"],
            b"",
        );
        let signed = ok(
            &["keys", "sign", "signer", "--lines", "--encoding", "fixed"],
            b"b25l\ndHdv\n",
        );
        let signatures: Vec<&str> = signed.lines().collect();
        let claims = format!("b25l {}\ndHdv {}\n", signatures[0], signatures[1]);
        let verify = ["keys", "verify", "signer", "--lines", "--encoding", "fixed"];
        assert_eq!(ok(&verify, claims.as_bytes()), "valid\nvalid\n");
        let claims = format!("b25l {}\ndHdv {}\n", signatures[1], signatures[1]);
        assert_eq!(
            run(&verify, claims.as_bytes()),
            (Some(3), "not valid\nvalid\n".to_owned())
        );
        let keys = ok(&["keys", "data-key", "lines", "--count", "2", "--plaintext"], b"");
        assert!(keys.lines().all(|line| line.split(' ').count() == 2), "{keys}");
    })
    .await
    .unwrap();
    let decrypted = event(&world, "kms.BatchDecrypt").await;
    assert_eq!(decrypted.outcome(), Outcome::Failed, "some failed");
    assert_eq!(decrypted.reason, "BATCH succeeded=3 failed=1");
    assert_eq!(
        (decrypted.resource.as_str(), decrypted.key_version),
        ("keys/lines", 1)
    );
    assert_eq!(decrypted.input_sha256.len(), Digest::of(b"").as_bytes().len());
    let encrypted = event(&world, "kms.BatchEncrypt").await;
    assert_eq!(encrypted.outcome(), Outcome::Succeeded);
    assert_eq!(encrypted.reason, "BATCH succeeded=3 failed=0");
    world.constellation.shutdown().await;
}
