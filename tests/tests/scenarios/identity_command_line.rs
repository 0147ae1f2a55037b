//! `asterism login` and what goes with it, as people and scripts use it.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

/// `asterism up` on four ports in a row, and a place for files.
struct World {
    dir: tempfile::TempDir,
    addr: String,
    up: Child,
    ready: Value,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.up.kill();
        let _ = self.up.wait();
    }
}

fn asterism() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_asterism-under-test"));
    for name in [
        "ASTERISM_ADDR",
        "ASTERISM_DATA",
        "ASTERISM_SESSION",
        "ASTERISM_TOKEN_FILE",
    ] {
        command.env_remove(name);
    }
    command
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

impl World {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = four_ports();
        let mut up = asterism()
            .args(["up", "--json", "--port", &port.to_string(), "--data"])
            .arg(dir.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(up.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("did not start: {line:?}"));
        Self {
            dir,
            addr: format!("127.0.0.1:{port}"),
            up,
            ready,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn private(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let mut options = std::fs::OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600);
        std::io::Write::write_all(&mut options.open(&path).unwrap(), text.as_bytes()).unwrap();
        path
    }

    /// A command of the holder of a session.
    fn run(&self, session: &str, args: &[&str]) -> Output {
        asterism()
            .args(args)
            .args(["--json", "--addr", &self.addr])
            .arg("--session")
            .arg(self.path(session))
            // Nobody's administrator.
            .arg("--data")
            .arg(self.path("elsewhere"))
            .output()
            .unwrap()
    }

    #[track_caller]
    fn value(&self, session: &str, args: &[&str]) -> Value {
        let output = self.run(session, args);
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{args:?}: {out}\n{err}");
        serde_json::from_str(out.lines().last().unwrap()).unwrap()
    }

    #[track_caller]
    fn refused(&self, session: &str, args: &[&str], code: i32, words: &str) {
        let output = self.run(session, args);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {err}");
        assert!(err.contains(words), "{args:?}: {err}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn people_enrol_log_in_and_are_who_they_say() {
    let world = World::start();
    let invitation = PathBuf::from(world.ready["invitation_file"].as_str().unwrap());
    assert_eq!(
        std::fs::metadata(&invitation).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let (good, short) = (
        world.private("good", "correct horse battery\n"),
        world.private("short", "hunter2\n"),
    );
    let enrol = |password: &Path| {
        let (invitation, password) = (text(&invitation), text(password));
        [
            "identity",
            "enrol",
            "--invitation-file",
            invitation,
            "--password-file",
            password,
        ]
        .map(ToOwned::to_owned)
    };
    let strs = |args: &[String; 6]| args.clone();
    let short_args = strs(&enrol(&short));
    let short_args: Vec<&str> = short_args.iter().map(String::as_str).collect();
    world.refused("s", &short_args, 2, "has 7 characters and needs at least 12");
    let args = enrol(&good);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    assert_eq!(world.value("s", &args)["principal"], "user/admin");
    world.refused("s", &args, 5, "INVITATION_INVALID");

    world.refused("s", &["whoami"], 5, "asterism login");
    let log_in = [
        "login",
        "--principal",
        "user/admin",
        "--password-file",
        text(&good),
    ];
    let session = world.value("s", &log_in);
    assert_eq!(session["principal"], "user/admin");
    let mode = std::fs::metadata(world.path("s")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let me = world.value("s", &["whoami"]);
    assert_eq!(
        (&me["principal"], &me["token_id"]),
        (&session["principal"], &session["token_id"])
    );
    assert_eq!(me["roles"], serde_json::json!(["admin"]));
    assert_eq!(me["methods"], serde_json::json!(["pwd"]));
    // The session is what other commands use.
    assert_eq!(world.value("s", &["keys", "create", "mine"])["name"], "keys/mine");

    // A second principal, by key; then it is disabled.
    let invite = ["identity", "invite", "user/bob", "--role", "viewer", "--out"];
    let file = world.path("bob.invitation");
    world.value("s", &[&invite[..], &[text(&file)]].concat());
    let key = world.path("bob.pem");
    world.value("s", &["identity", "keygen", "--out", text(&key)]);
    let enrol_key = [
        "identity",
        "enrol",
        "--invitation-file",
        text(&file),
        "--key-file",
        text(&key),
    ];
    assert_eq!(world.value("b", &enrol_key)["login_keys"], 1);
    let by_key = ["login", "--principal", "user/bob", "--key-file", text(&key)];
    world.value("b", &by_key);
    world
        .run("b", &["keys", "list"])
        .status
        .success()
        .then_some(())
        .unwrap();
    world.refused("b", &["identity", "list"], 5, "POLICY_DENIED");
    world.refused("b", &["identity", "show", "user/admin"], 5, "NOT_ONESELF");
    assert_eq!(
        world.value("b", &["identity", "show", "user/bob"])["state"],
        "enabled"
    );
    world.value("s", &["identity", "disable", "user/bob"]);
    world.refused("b", &["keys", "list"], 5, "TOKEN_REVOKED");
    world.refused("b", &by_key, 5, "PRINCIPAL_DISABLED");
    world.value("s", &["identity", "enable", "user/bob"]);
    world.value("b", &by_key);
    world.value("s", &["identity", "revoke", "user/bob"]);
    world.refused("b", &["whoami"], 5, "TOKEN_REVOKED");

    let wrong = world.private("wrong", "correct horse batterY\n");
    let wrong = [
        "login",
        "--principal",
        "user/admin",
        "--password-file",
        text(&wrong),
    ];
    world.refused("w", &wrong, 5, "LOGIN_FAILED");
    let exposed = world.private("exposed", "correct horse battery\n");
    std::fs::set_permissions(&exposed, std::fs::Permissions::from_mode(0o644)).unwrap();
    let exposed = [
        "login",
        "--principal",
        "user/admin",
        "--password-file",
        text(&exposed),
    ];
    world.refused("w", &exposed, 1, "chmod 600");

    assert_eq!(world.value("s", &["logout"])["logged_out"], true);
    assert!(!world.path("s").exists());
    world.refused("s", &["whoami"], 5, "asterism login");
}

#[test]
fn a_second_factor_is_asked_for_at_the_login() {
    let world = World::start();
    let invitation = world.ready["invitation_file"].as_str().unwrap();
    let password = world.private("password", "correct horse battery\n");
    let password = text(&password);
    let enrol = [
        "identity",
        "enrol",
        "--invitation-file",
        invitation,
        "--password-file",
        password,
    ];
    world.value("s", &enrol);
    let log_in = ["login", "--principal", "user/admin", "--password-file", password];
    world.value("s", &log_in);
    let made = world.value("s", &["identity", "totp", "add"]);
    let uri = made["uri"].as_str().unwrap();
    assert!(
        uri.starts_with("otpauth://totp/Asterism:user%2Fadmin?secret="),
        "{uri}"
    );
    let id = made["id"].as_str().unwrap();
    world.refused(
        "s",
        &["identity", "totp", "confirm", id, "000000"],
        5,
        "SECOND_FACTOR_FAILED",
    );
    // Not confirmed, it does not count.
    world.value("s", &log_in);
    let code = code_of(uri);
    world.value("s", &["identity", "totp", "confirm", id, &code]);
    // Its code is used up, and no terminal is there to ask for another.
    let again = [&log_in[..], &["--totp", &code]].concat();
    world.refused("t", &again, 5, "SECOND_FACTOR_FAILED");
    world.refused("t", &log_in, 2, "no terminal");
    // The next step's code is good already: clocks differ.
    let next = next_code_of(uri);
    let with_next = [&log_in[..], &["--totp", &next]].concat();
    world.value("t", &with_next);
    let me = world.value("t", &["whoami"]);
    assert_eq!(me["methods"], serde_json::json!(["pwd", "otp"]));
    world.refused(
        "t",
        &["identity", "totp", "remove", id, &next],
        5,
        "SECOND_FACTOR_FAILED",
    );
}

fn code_of(uri: &str) -> String {
    secret(uri).code(step())
}

fn next_code_of(uri: &str) -> String {
    secret(uri).code(step() + 1)
}

fn step() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() / 30
}

/// The secret in an `otpauth` URI, as an app reads it.
fn secret(uri: &str) -> asterism_crypto::totp::TotpSecret {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let text = uri.split("secret=").nth(1).unwrap().split('&').next().unwrap();
    let bits: String = text
        .chars()
        .map(|character| format!("{:05b}", ALPHABET.find(character).unwrap()))
        .collect();
    let bytes: Vec<u8> = bits
        .as_bytes()
        .chunks_exact(8)
        .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
        .collect();
    asterism_crypto::totp::TotpSecret::from_bytes(&bytes).unwrap()
}
