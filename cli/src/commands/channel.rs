//! `asterism channel`

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use asterism_chassis::{
    channel::{Step, provision, rotate},
    identity::PrincipalId,
};
use asterism_client::channel::StaticKey;
use serde_json::json;

use crate::{
    args::{ChannelCommand, RotationStep, ServiceName},
    commands::token::CREDENTIALS,
    error::CliError,
    output::Output,
};

/// The services that have keys.
const SERVICES: [&str; 4] = ["kms", "ingest", "inference", "audit"];

/// The static key of a service within the data directory.
pub fn key_file(data: &Path, service: &str) -> PathBuf {
    data.join(service).join("channel.key")
}

/// The directory of public keys within the data directory.
pub fn peers_dir(data: &Path) -> PathBuf {
    data.join(CREDENTIALS).join("peers")
}

/// Runs a `channel` command.
pub fn run(command: ChannelCommand, data: &Path, output: Output) -> Result<(), CliError> {
    match command {
        ChannelCommand::Init => {
            let mut rows = Vec::new();
            for service in SERVICES {
                let key_file = key_file(data, service);
                let key = provision(&key_file, &peers_dir(data), &PrincipalId::service(service))
                    .map_err(|error| CliError::Other(error.to_string()))?
                    .to_string();
                let value = json!({ "service": service, "public_key": key, "key_file": key_file });
                rows.push(([service.to_owned(), key], value));
            }
            output.rows(["service", "public key"], &rows);
        }
        ChannelCommand::Rotate { service, step } => {
            let service = match service {
                ServiceName::Kms => "kms",
                ServiceName::Ingest => "ingest",
                ServiceName::Inference => "inference",
                ServiceName::Audit => "audit",
            };
            let (step, done, next) = match step {
                RotationStep::Prepare => (Step::Prepare, "prepared", "in 3 s or more: promote"),
                RotationStep::Promote => (Step::Promote, "promoted", "once old connections are done: retire"),
                RotationStep::Retire => (Step::Retire, "retired", ""),
            };
            let principal = PrincipalId::service(service);
            let key = rotate(step, &key_file(data, service), &peers_dir(data), &principal)
                .map_err(|error| CliError::Other(error.to_string()))?
                .to_string();
            let value = json!({ "service": service, "step": done, "public_key": key });
            output.facts(
                &[
                    ("service", service.to_owned()),
                    (done, key),
                    ("next", next.to_owned()),
                ],
                &value,
            );
        }
        ChannelCommand::Keygen { out } => {
            let key = StaticKey::generate().map_err(|error| CliError::Other(error.to_string()))?;
            let mut options = OpenOptions::new();
            options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&out)
                .and_then(|mut file| {
                    file.write_all(key.to_text().as_bytes())?;
                    file.sync_all()
                })
                .map_err(|error| CliError::file(&out, error))?;
            let public = key.public().to_string();
            output.facts(
                &[("public key", public.clone())],
                &json!({ "public_key": public, "key_file": out }),
            );
        }
    }
    Ok(())
}
