//! `asterism kms`

mod init;
mod rekey;
mod secrets;
mod shares;

use std::{path::PathBuf, time::Duration};

use asterism_client::{
    Kms, UnsealSecret,
    proto::kms::{RootRotation, SealKind, SealStatus},
};
use serde_json::{Value, json};

use crate::{
    args::{Global, KmsCommand, SecretArgs},
    connect::services,
    error::CliError,
    output::{Output, time},
};

/// Between looks at a rotation.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Runs a `kms` command.
pub async fn run(command: KmsCommand, global: &Global, output: Output) -> Result<(), CliError> {
    // The one command that needs no service.
    if let KmsCommand::Init(args) = command {
        return init::run(args, global, output).await;
    }
    let kms = services(global)?.kms;
    match command {
        KmsCommand::Init(_) => {}
        KmsCommand::Status => show(&kms.seal_status().await?, &[], output),
        KmsCommand::Unseal { reset: true, .. } => show(&kms.reset_unseal().await?, &[], output),
        KmsCommand::Unseal { secrets, .. } => {
            let status = unseal(&kms, &secrets).await?;
            show(&status, &[], output);
            if status.sealed {
                let missing = status.threshold.saturating_sub(status.progress);
                output.say(&format!("still sealed: {missing} more of its shares open it"));
            }
        }
        KmsCommand::Seal => show(&kms.seal().await?, &[], output),
        KmsCommand::Rekey(args) => {
            let (status, files) = rekey::run(args, &kms, output).await?;
            show(&status, files.paths(), output);
        }
        KmsCommand::RotateRoot { secrets, no_wait } => {
            let secrets = secrets::current(&secrets, &kms.seal_status().await?)?;
            let status = kms.rotate_root(&secrets).await?;
            drop(secrets);
            let status = if no_wait {
                status
            } else {
                follow(&kms, output).await?
            };
            show(&status, &[], output);
            if status.rotation.is_some() {
                output.say("kms wraps the rest anew by itself; `asterism kms status` tells how far it is");
            }
        }
    }
    Ok(())
}

/// How a kind of seal is called on the command line.
fn kind(status: &SealStatus) -> &'static str {
    match status.kind() {
        SealKind::Unspecified => "unknown",
        SealKind::KeyFile => "key-file",
        SealKind::Passphrase => "passphrase",
        SealKind::Shares => "shares",
        SealKind::Token => "token",
    }
}

fn show(status: &SealStatus, share_files: &[PathBuf], output: Output) {
    let created = time(status.create_time.as_ref());
    let mut facts = vec![
        ("sealed", if status.sealed { "yes" } else { "no" }.to_owned()),
        ("seal", kind(status).to_owned()),
        ("seal id", status.seal_id.clone()),
        ("made", created.clone()),
        (
            "opens",
            if status.automatic {
                "by itself, at the start of kms"
            } else {
                "by asterism kms unseal"
            }
            .to_owned(),
        ),
    ];
    if status.kind() == SealKind::Shares {
        facts.push((
            "shares",
            format!("{} of {} open it", status.threshold, status.shares),
        ));
        if status.sealed {
            facts.push(("given so far", status.progress.to_string()));
        }
    }
    if status.root_version > 0 {
        facts.push(("root version", status.root_version.to_string()));
    }
    let rotation = status
        .rotation
        .as_ref()
        .map(|rotation| (rotation.done, elapsed(rotation)));
    if let Some((done, elapsed)) = rotation {
        facts.push((
            "rotation",
            format!("{done} versions wrapped anew in {} s", elapsed.as_secs()),
        ));
    }
    facts.extend(
        share_files
            .iter()
            .map(|file| ("share file", file.display().to_string())),
    );
    let value = json!({
        "share_files": share_files, "sealed": status.sealed, "kind": kind(status), "seal_id": status.seal_id, "threshold": status.threshold,
        "shares": status.shares, "progress": status.progress, "automatic": status.automatic, "create_time": created,
        "root_version": status.root_version,
        "rotation": rotation.map_or(Value::Null, |(done, elapsed)| json!({ "done": done, "elapsed_ms": elapsed.as_millis() as u64 })),
    });
    output.facts(&facts, &value);
}

fn elapsed(rotation: &RootRotation) -> Duration {
    rotation
        .elapsed
        .and_then(|elapsed| elapsed.try_into().ok())
        .unwrap_or_default()
}

/// Gives what was named, or asks for what is needed, until kms is unsealed or nothing is left to give.
async fn unseal(kms: &Kms, args: &SecretArgs) -> Result<SealStatus, CliError> {
    let mut status = kms.seal_status().await?;
    let given = secrets::read(args)?;
    if !status.sealed {
        return Ok(status);
    }
    if given.is_empty() {
        return ask_and_unseal(kms, status).await;
    }
    for secret in &given {
        status = kms.unseal(Some(secret)).await?;
        if !status.sealed {
            break;
        }
    }
    Ok(status)
}

async fn ask_and_unseal(kms: &Kms, mut status: SealStatus) -> Result<SealStatus, CliError> {
    if status.automatic || !matches!(status.kind(), SealKind::Shares | SealKind::Passphrase) {
        return Ok(kms.unseal(None).await?);
    }
    if status.kind() == SealKind::Passphrase {
        return Ok(kms.unseal(Some(&secrets::ask_passphrase()?)).await?);
    }
    while status.sealed {
        let question = format!(
            "share {} of {} (empty leaves the rest to others): ",
            status.progress + 1,
            status.threshold
        );
        let text = secrets::ask_share(&question)?;
        if text.is_empty() {
            break;
        }
        status = kms.unseal(Some(&UnsealSecret::Share(text))).await?;
    }
    Ok(status)
}

/// Waits until everything is wrapped under the newest root key.
async fn follow(kms: &Kms, output: Output) -> Result<SealStatus, CliError> {
    let bar = output.counter("versions wrapped anew");
    let ended = loop {
        match kms.seal_status().await {
            Ok(status) if status.sealed => {
                break Err(CliError::Other(
                    "kms has been sealed meanwhile; it goes on with the rotation when it is unsealed: `asterism kms unseal`".into(),
                ));
            }
            Ok(status) => match &status.rotation {
                Some(rotation) => bar.set_position(rotation.done),
                None => break Ok(status),
            },
            Err(error) => {
                output.say("the rotation has begun, and kms goes on with it by itself; `asterism kms status` tells how far it is");
                break Err(error.into());
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    bar.finish_and_clear();
    ended
}
