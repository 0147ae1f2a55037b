//! The seal of the root key, as people use it on the command line.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::{Value, json};

const PASSPHRASE: &str = "correct horse battery";

/// A place for the data of `asterism up`, which may run there, and for files of people.
pub struct World {
    dir: tempfile::TempDir,
    addr: String,
    up: Option<Child>,
    /// What else `up` takes.
    pub options: Vec<String>,
    /// What else the environment has.
    pub environment: Vec<(&'static str, String)>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}

impl World {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            // The same after a restart: sessions are with an address.
            addr: format!("127.0.0.1:{}", four_ports()),
            up: None,
            options: vec![],
            environment: vec![],
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn private(&self, name: &str, text: &str) -> String {
        asterism_store::files::write_atomic(&self.path(name), text.as_bytes(), 0o600).unwrap();
        self.text(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_asterism-under-test"));
        for name in [
            "ASTERISM_ADDR",
            "ASTERISM_DATA",
            "ASTERISM_SESSION",
            "ASTERISM_TOKEN_FILE",
        ] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// `asterism up`; gives what it says when all four services run.
    pub fn start(&mut self) -> Value {
        let port = self.addr.rsplit_once(':').map_or("0", |(_, port)| port);
        let mut up = self
            .command()
            .args(["up", "--json", "--port", port, "--data"])
            .arg(self.path("data"))
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(up.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        self.up = Some(up);
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("did not start: {line:?}"))
    }

    fn stop(&mut self) {
        if let Some(mut up) = self.up.take() {
            let _ = up.kill();
            let _ = up.wait();
        }
    }

    pub fn restart(&mut self) -> Value {
        self.stop();
        self.start()
    }

    /// A command of somebody with that session, and without a terminal.
    fn run(&self, session: &str, args: &[&str], input: &str) -> Output {
        let mut child = self
            .command()
            .args(args)
            .args(["--json", "--addr", &self.addr])
            .arg("--session")
            .arg(self.path(session))
            // Nobody's administrator.
            .arg("--data")
            .arg(self.path("elsewhere"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Whoever refuses reads none of it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    pub fn value(&self, session: &str, args: &[&str]) -> Value {
        self.value_of(session, args, "")
    }

    #[track_caller]
    fn value_of(&self, session: &str, args: &[&str], input: &str) -> Value {
        let output = self.run(session, args, input);
        let out = String::from_utf8_lossy(&output.stdout);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {out}\n{err}");
        serde_json::from_str(out.lines().last().unwrap()).unwrap()
    }

    #[track_caller]
    pub fn refused(&self, session: &str, args: &[&str], code: i32, words: &str) {
        let output = self.run(session, args, "");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {err}");
        assert!(err.contains(words), "{args:?}: {err}");
    }

    /// `kms status`, of which the named fields are as given.
    #[track_caller]
    fn status(&self, expected: &Value) {
        is(&self.value("nobody", &["kms", "status"]), expected);
    }

    /// Opens the seal by these shares; the last one opens it.
    #[track_caller]
    fn unseal(&self, shares: &[String]) {
        let mut args = vec!["kms", "unseal"];
        for share in shares {
            args.extend(["--share-file", share]);
        }
        is(&self.value("nobody", &args), &json!({ "sealed": false }));
    }

    pub fn encrypt(&self, session: &str, key: &str, text: &str) -> String {
        let made = self.value_of(session, &["keys", "encrypt", key], text);
        made["ciphertext"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn decrypts(&self, session: &str, key: &str, ciphertext: &str, text: &str) {
        let opened = self.value_of(session, &["keys", "decrypt", key], ciphertext);
        assert_eq!(opened["plaintext"], base64(text));
    }
}

/// The first of four free ports in a row.
fn four_ports() -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let others = (1..4).map(|offset| TcpListener::bind(("127.0.0.1", port.checked_add(offset)?)).ok());
        if others.collect::<Option<Vec<_>>>().is_some() {
            return port;
        }
    }
}

/// Whether the fields that `expected` names are as there.
#[track_caller]
pub fn is(found: &Value, expected: &Value) {
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&found[name], value, "{name} of {found}");
    }
}

fn base64(text: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(text)
}

fn strings(value: &Value) -> Vec<String> {
    let strings = value.as_array().unwrap().iter();
    strings.map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn mode(path: &str) -> u32 {
    std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path).unwrap()) & 0o777
}

/// Makes the kms of a world with five shares, three of which open it.
#[track_caller]
fn init(world: &World, shares_dir: &str) -> Value {
    let (dir, shares) = (world.text("data/kms"), world.text(shares_dir));
    let invitation = world.text("invitation");
    let args = [
        "kms",
        "init",
        "--data-dir",
        &dir,
        "--seal",
        "shares",
        "--shares",
        "5",
        "--threshold",
        "3",
        "--shares-dir",
        &shares,
        "--invitation-out",
        &invitation,
    ];
    world.value("nobody", &args)
}

#[test]
fn a_new_user_seals_unseals_rekeys_and_rotates() {
    let mut world = World::new();
    let made = init(&world, "shares");
    let expected = json!({
        "kind": "shares", "threshold": 3, "shares": 5, "automatic": false, "administrator": "user/admin",
        "invitation": null, "invitation_file": world.text("invitation"),
    });
    is(&made, &expected);
    let shares = strings(&made["share_files"]);
    assert_eq!(shares.len(), 5);
    assert!(shares.iter().all(|share| mode(share) == 0o600));
    assert_eq!(mode(&world.text("invitation")), 0o600);
    let seal_id = made["seal_id"].as_str().unwrap();

    // It comes up, and says what to do.
    let ready = world.start();
    let unseal = format!("asterism kms unseal --addr {}", world.addr);
    is(
        &ready,
        &json!({ "sealed": true, "unseal": unseal, "invitation_file": null }),
    );
    let sealed = json!({
        "sealed": true, "kind": "shares", "seal_id": seal_id, "threshold": 3, "shares": 5, "progress": 0,
        "automatic": false, "root_version": 0, "rotation": null,
    });
    world.status(&sealed);
    refused_while_sealed(&world, &ready);

    // The holders come one by one.
    let give = |share: &str| world.value("nobody", &["kms", "unseal", "--share-file", share]);
    is(&give(&shares[0]), &json!({ "sealed": true, "progress": 1 }));
    is(&give(&shares[0]), &json!({ "sealed": true, "progress": 1 }));
    is(&give(&shares[4]), &json!({ "sealed": true, "progress": 2 }));
    wrong_shares_are_refused(&world, &shares[1]);
    world.status(&json!({ "sealed": true, "progress": 2 }));
    let reset = world.value("nobody", &["kms", "unseal", "--reset"]);
    is(&reset, &json!({ "sealed": true, "progress": 0 }));
    world.unseal(&shares[1..4]);
    world.status(&json!({ "sealed": false, "root_version": 1, "rotation": null }));

    enrol_and_log_in(&world);
    world.value("admin", &["keys", "create", "mine"]);
    let first = world.encrypt("admin", "mine", "before everything");
    let dataset = upload(&world);

    is(
        &world.value("admin", &["kms", "seal"]),
        &json!({ "sealed": true, "progress": 0 }),
    );
    world.refused("admin", &["keys", "list"], 1, "SEALED");
    world.refused("admin", &["datasets", "verify", &dataset], 1, "UNAVAILABLE");
    world.unseal(&shares[2..5]);
    world.decrypts("admin", "mine", &first, "before everything");
    is(
        &world.value("admin", &["datasets", "verify", &dataset]),
        &json!({ "verified": true }),
    );

    rekeyed_to_a_passphrase(&mut world, &shares, seal_id);
    world.decrypts("admin", "mine", &first, "before everything");
    let second = world.encrypt("admin", "mine", "after the rekey");
    rotated(&world);
    world.decrypts("admin", "mine", &first, "before everything");
    world.decrypts("admin", "mine", &second, "after the rekey");
    is(
        &world.value("admin", &["datasets", "verify", &dataset]),
        &json!({ "verified": true }),
    );

    rekeyed_to_a_file_and_back_to_shares(&mut world);
    world.decrypts("admin", "mine", &first, "before everything");
    let log = world.value("admin", &["audit", "verify"]);
    assert_eq!(log["verified"], true, "{log}");
}

/// Everything but the status is refused; the other services are there.
fn refused_while_sealed(world: &World, ready: &Value) {
    let token = ready["token_file"].as_str().unwrap();
    let by_token = |args: &[&'static str]| {
        [args, &["--token-file", token]]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    for args in [
        vec!["keys", "list"],
        vec!["kms", "seal"],
        vec!["identity", "list"],
        vec!["kms", "rotate-root", "--passphrase-file", "Cargo.toml"],
    ] {
        let args = by_token(&args);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = world.run("nobody", &args, "");
        let err = String::from_utf8_lossy(&output.stderr);
        if args.contains(&"rotate-root") {
            // Others may read that file.
            assert_eq!(output.status.code(), Some(2), "{err}");
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{args:?}: {err}");
        assert!(
            err.contains("SEALED") && err.contains("asterism kms unseal"),
            "{args:?}: {err}"
        );
    }
    let args = by_token(&["audit", "verify"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    is(&world.value("nobody", &args), &json!({ "verified": true }));
    world.refused("nobody", &["kms", "unseal"], 2, "--share-file");
}

/// A share of another seal, one that was mistyped, and what is none.
fn wrong_shares_are_refused(world: &World, share: &str) {
    let other = World::new();
    let foreign = strings(&init(&other, "shares")["share_files"]);
    let give = |file: &str| {
        [
            "kms".to_owned(),
            "unseal".into(),
            "--share-file".into(),
            file.into(),
        ]
    };
    let refused = |file: &str, code, words| {
        let args = give(file);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        world.refused("nobody", &args, code, words);
    };
    refused(&foreign[0], 5, "SHARE_OF_ANOTHER_SEAL");
    let right = std::fs::read_to_string(share).unwrap();
    let at = right.len() - 9;
    let other = if right.as_bytes()[at] == b'A' { "B" } else { "A" };
    let mistyped = [&right[..at], other, &right[at + 1..]].concat();
    refused(&world.private("mistyped", &mistyped), 1, "INVALID_SHARE");
    refused(&world.private("none", "asx1 is a key"), 1, "INVALID_SHARE");
    let passphrase = world.private("passphrase", PASSPHRASE);
    let args = ["kms", "unseal", "--passphrase-file", &passphrase];
    world.refused("nobody", &args, 1, "WRONG_SECRET_KIND");
}

pub fn enrol_and_log_in(world: &World) {
    let password = world.private("password", "correct horse battery\n");
    let invitation = world.text("invitation");
    let enrol = [
        "identity",
        "enrol",
        "--invitation-file",
        &invitation,
        "--password-file",
        &password,
    ];
    is(
        &world.value("admin", &enrol),
        &json!({ "principal": "user/admin" }),
    );
    let log_in = ["login", "--principal", "user/admin", "--password-file", &password];
    world.value("admin", &log_in);
}

fn upload(world: &World) -> String {
    let csv = world.private("rows.csv", &crate::support::small_csv(50));
    let made = world.value("admin", &["datasets", "upload", &csv]);
    made["name"].as_str().unwrap().to_owned()
}

/// Shares do not open what a passphrase seals, also after a restart.
fn rekeyed_to_a_passphrase(world: &mut World, shares: &[String], seal_id: &str) {
    let passphrase = world.private("passphrase", &format!("{PASSPHRASE}\n"));
    let rekey = [
        "kms",
        "rekey",
        "--to",
        "passphrase",
        "--new-passphrase-file",
        &passphrase,
    ];
    let with = |shares: &[String]| {
        let mut args: Vec<String> = rekey.iter().map(ToString::to_string).collect();
        args.extend(
            shares
                .iter()
                .flat_map(|share| ["--share-file".to_owned(), share.clone()]),
        );
        args
    };
    world.refused("admin", &rekey, 2, "--share-file");
    let few = with(&shares[..2]);
    let few: Vec<&str> = few.iter().map(String::as_str).collect();
    world.refused("admin", &few, 1, "TOO_FEW_SHARES");
    let enough = with(&shares[..3]);
    let enough: Vec<&str> = enough.iter().map(String::as_str).collect();
    let made = world.value("admin", &enough);
    is(
        &made,
        &json!({ "sealed": false, "kind": "passphrase", "automatic": false, "root_version": 1 }),
    );
    assert_ne!(made["seal_id"], seal_id);

    is(&world.restart(), &json!({ "sealed": true }));
    world.status(&json!({ "sealed": true, "kind": "passphrase", "seal_id": made["seal_id"] }));
    let share = ["kms", "unseal", "--share-file", &shares[0]];
    world.refused("nobody", &share, 1, "WRONG_SECRET_KIND");
    let wrong = world.private("wrong", "correct horse batterY");
    let wrong = ["kms", "unseal", "--passphrase-file", &wrong];
    world.refused("nobody", &wrong, 5, "WRONG_PASSPHRASE");
    let right = ["kms", "unseal", "--passphrase-file", &passphrase];
    is(
        &world.value("nobody", &right),
        &json!({ "sealed": false, "root_version": 1 }),
    );
}

/// Waits for the end of the rotation, which is an event.
fn rotated(world: &World) {
    let passphrase = world.text("passphrase");
    let wrong = world.text("wrong");
    let wrong = ["kms", "rotate-root", "--passphrase-file", &wrong];
    world.refused("admin", &wrong, 5, "WRONG_PASSPHRASE");
    world.refused("admin", &["kms", "rotate-root"], 2, "--passphrase-file");
    let right = ["kms", "rotate-root", "--passphrase-file", &passphrase];
    let ended = world.value("admin", &right);
    is(
        &ended,
        &json!({ "sealed": false, "root_version": 2, "rotation": null }),
    );
    let seal: Value =
        serde_json::from_slice(&std::fs::read(world.path("data/kms/seal.json")).unwrap()).unwrap();
    let roots = seal["roots"].as_array().unwrap();
    assert_eq!(roots.len(), 1, "{seal}");
    let list = ["audit", "list", "--operation", "kms.RootRotated"];
    let found = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(25));
        !world.run("admin", &list, "").stdout.is_empty()
    });
    assert!(found, "no event of the end of the rotation");
    // Once more, and its end is somebody else's to wait for.
    let right = [&right[..], &["--no-wait"]].concat();
    is(&world.value("admin", &right), &json!({ "root_version": 3 }));
    let ended = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(25));
        world.value("nobody", &["kms", "status"])["rotation"].is_null()
    });
    assert!(ended, "the rotation does not end");
}

/// A key file opens by itself, at the start and for a rekey.
fn rekeyed_to_a_file_and_back_to_shares(world: &mut World) {
    let passphrase = world.text("passphrase");
    let rekey = [
        "kms",
        "rekey",
        "--to",
        "key-file",
        "--passphrase-file",
        &passphrase,
    ];
    let made = world.value("admin", &rekey);
    is(
        &made,
        &json!({ "kind": "key-file", "automatic": true, "root_version": 3 }),
    );
    is(&world.restart(), &json!({ "sealed": false, "unseal": null }));
    is(
        &world.value("admin", &["kms", "seal"]),
        &json!({ "sealed": true }),
    );
    is(
        &world.value("nobody", &["kms", "unseal"]),
        &json!({ "sealed": false }),
    );

    let dir = world.text("new shares");
    let mut rekey = vec![
        "kms",
        "rekey",
        "--to",
        "shares",
        "--shares",
        "3",
        "--threshold",
        "2",
    ];
    world.refused("admin", &rekey, 2, "--shares-dir");
    rekey.extend(["--shares-dir", &dir]);
    world.refused("nobody", &rekey, 5, "asterism login");
    assert_eq!(
        std::fs::read_dir(&dir).unwrap().count(),
        0,
        "shares of no seal were left"
    );
    let made = world.value("admin", &rekey);
    is(
        &made,
        &json!({ "kind": "shares", "threshold": 2, "shares": 3, "automatic": false }),
    );
    let shares = strings(&made["share_files"]);
    let key_files = key_files(&world.path("data/kms"));
    assert_eq!(
        key_files,
        Vec::<PathBuf>::new(),
        "the key file opens nothing any more"
    );
    is(&world.restart(), &json!({ "sealed": true }));
    world.unseal(&[shares[2].clone(), shares[0].clone()]);
}

fn key_files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with("root") && name.ends_with(".key")
        })
        .collect()
}

#[test]
fn a_founding_is_refused_where_something_does_not_go_together() {
    let world = World::new();
    let dir = world.text("data/kms");
    let refused = |more: &[&str], words: &str| {
        let args = [&["kms", "init", "--data-dir", &dir], more].concat();
        world.refused("nobody", &args, 2, words);
    };
    let (shares, passphrase) = (world.text("shares"), world.private("short", "eleven byte\n"));
    refused(&[], "--seal");
    refused(&["--seal", "shares"], "--shares");
    refused(
        &["--seal", "shares", "--shares", "5", "--threshold", "3"],
        "--shares-dir",
    );
    let many = ["--seal", "shares", "--shares", "17", "--threshold", "3"];
    refused(&many, "17");
    let few = [
        "--seal",
        "shares",
        "--shares",
        "2",
        "--threshold",
        "3",
        "--shares-dir",
        &shares,
    ];
    refused(&few, "--threshold");
    refused(
        &["--seal", "key-file", "--shares", "5", "--threshold", "3"],
        "--shares",
    );
    refused(
        &["--seal", "passphrase", "--passphrase-file", &passphrase],
        "at least 12",
    );
    refused(&["--seal", "token"], "--pkcs11-module");
    refused(&["--seal", "key-file", "--admin", "nobody"], "principal");
    assert!(!world.path("data").exists() && !world.path("shares").exists());

    let made = world.value(
        "nobody",
        &["kms", "init", "--data-dir", &dir, "--seal", "key-file"],
    );
    is(
        &made,
        &json!({ "kind": "key-file", "automatic": true, "share_files": [], "invitation_file": null }),
    );
    assert!(made["invitation"].as_str().unwrap().starts_with("asi1-"));
    refused(&["--seal", "key-file"], "a store already");
    let again = [
        "--seal",
        "shares",
        "--shares",
        "5",
        "--threshold",
        "3",
        "--shares-dir",
        &shares,
    ];
    refused(&again, "a store already");
    assert!(!world.path("shares").exists(), "shares of no seal were left");
}
