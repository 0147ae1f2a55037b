#![allow(clippy::unwrap_used, clippy::panic)]

use serde::{Deserialize, Serialize};

use super::*;
use crate::{config::Common, server::ServerError};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    common: Common,
    kind: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: Common::for_service("kms"),
            kind: "file".to_owned(),
        }
    }
}

impl Settings for Config {
    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.kind == "file" {
            Ok(())
        } else {
            Err(ConfigError::invalid("kind", "must be file"))
        }
    }
}

/// `ExitCode` has no equality; its debug form names the number.
fn code_of(args: &[&str], env: &[(&str, &str)]) -> String {
    let args = std::iter::once("kms")
        .chain(args.iter().copied())
        .map(OsString::from);
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let code = run_with("kms", args, env, |_: Config, _| async {
        Err::<Running, _>(ServerError::RemotePlaintext) // stands for any failed start
    });
    format!("{code:?}")
}

fn code(number: u8) -> String {
    format!("{:?}", ExitCode::from(number))
}

#[test]
fn bad_flags_and_settings_end_with_two() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kms.toml");
    std::fs::write(&file, "nonsense = 1").unwrap();
    let file = file.to_str().unwrap();
    for args in [
        &["--nonsense"][..],
        &["--set", "novalue"],
        &["--set", "lisen=1"],
        &["--listen", "here"],
        &["--listen", "0.0.0.0:0"],
        &["--set", "kind=other"],
        &["--config", "/does/not/exist"],
        &["--config", file],
    ] {
        assert_eq!(code_of(args, &[]), code(2), "{args:?}");
    }
    assert_eq!(code_of(&[], &[("ASTERISM_KMS_CONFIG", file)]), code(2));
    assert_eq!(code_of(&[], &[("ASTERISM_KMS_LIMITS__QUEUE", "x")]), code(2));
}

#[test]
fn a_failed_start_ends_with_one() {
    assert_eq!(code_of(&["--listen", "127.0.0.1:0"], &[]), code(1));
}

#[test]
fn a_taken_port_ends_with_one() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_eq!(code_of(&["--listen", &address], &[]), code(1));
}

#[test]
fn help_and_the_settings_in_effect_end_with_zero() {
    assert_eq!(code_of(&["--help"], &[]), code(0));
    assert_eq!(code_of(&["--print-config"], &[]), code(0));
}

#[test]
fn shorthands_stand_for_settings_and_win_over_set() {
    let args = [
        "kms",
        "--listen",
        "127.0.0.1:1",
        "--set",
        "listen=127.0.0.1:2",
        "--data-dir",
        "d",
    ]
    .map(OsString::from);
    let flags = Flags::parse("kms", args, &[]).unwrap();
    let config: Config = settings("kms", &flags, Vec::new()).unwrap();
    assert_eq!(config.common.listen.port(), 1);
    assert_eq!(config.common.data_dir, Path::new("d"));
}

#[test]
fn an_announcement_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ready");
    announce(&path, "127.0.0.1:1").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "127.0.0.1:1");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
