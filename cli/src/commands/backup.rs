//! `asterism backup`

use std::{
    fs::{self, File},
    io::{BufReader, Write as _},
    path::{Path, PathBuf},
};

use asterism_client::proto::kms as pb;
use asterism_crypto::{DecryptionKey, Digest, EncryptionKey};
use asterism_kms::backup::{self, BackupError, Opener, Order, Recipient, Verified};
use asterism_store::files;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    args::{BackupCommand, Global},
    connect::{data_dir, services},
    error::CliError,
    output::{self, Output},
};

/// Runs a `backup` command.
pub async fn run(command: BackupCommand, global: &Global, output: Output) -> Result<(), CliError> {
    match command {
        BackupCommand::Create {
            output: file,
            passphrase_file,
            recipient,
        } => {
            let recipient = recipient_of(passphrase_file.as_deref(), recipient.as_deref())?;
            create(&file, &recipient, global, output).await
        }
        BackupCommand::Inspect { file } => {
            let verified = verify(&file)?;
            show(&verified, &[], output);
            Ok(())
        }
        BackupCommand::Restore {
            file,
            kms_dir,
            passphrase_file,
            private_key_file,
            signer_fingerprint,
        } => {
            let opener = opener(passphrase_file.as_deref(), private_key_file.as_deref())?;
            let signer = signer_fingerprint.as_deref().map(fingerprint).transpose()?;
            let dir = kms_dir.unwrap_or_else(|| data_dir(global).join("kms"));
            let total = fs::metadata(&file)
                .map_err(|error| CliError::file(&file, error))?
                .len();
            let bar = output.progress(total, "restoring", true);
            let order = Order {
                backup: &file,
                opener: &opener,
                signer,
                data_dir: &dir,
                now_ms: asterism_kms::system_clock()(),
            };
            let restored = backup::restore(&order, &mut |read| bar.set_position(read));
            bar.finish_and_clear();
            let restored = restored.map_err(|error| refusal(&file, error))?;
            show(&restored, &[("restored into", dir.display().to_string())], output);
            if let Some(file) = missing_key_file(&dir) {
                let shown = file.display();
                output.say(&format!(
                    "next: put what opens its seal, which is in no backup, in {shown} (mode 0600), and start kms"
                ));
            }
            Ok(())
        }
    }
}

/// The key file that a restored store waits for, unless something else opens its seal.
fn missing_key_file(dir: &Path) -> Option<PathBuf> {
    if dir.join("seal.json").exists() {
        // What cannot be read of the seal, the start of kms will tell.
        return asterism_kms::root::missing_key_file(dir).ok().flatten();
    }
    // A backup from before there were seals.
    (!dir.join("root.json").exists()).then(|| dir.join("root.key"))
}

async fn create(file: &Path, recipient: &Recipient, global: &Global, output: Output) -> Result<(), CliError> {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    if file.exists() {
        return Err(CliError::Usage(format!("{} is there already", file.display())));
    }
    let failed = |source| CliError::file(file, source);
    // Mode 0600, and gone unless it is whole.
    let mut staged = tempfile::Builder::new()
        .prefix(".backup-")
        .tempfile_in(dir)
        .map_err(failed)?;
    let bar = output.progress(0, "backup", true);
    let request = pb::CreateBackupRequest {
        recipient_pem: recipient.key().to_pem(),
        passphrase: recipient.derivation().map(|derivation| pb::BackupPassphrase {
            salt: derivation.salt.clone(),
            memory_kib: derivation.argon2id.memory_kib,
            iterations: derivation.argon2id.iterations,
            parallelism: derivation.argon2id.parallelism,
        }),
    };
    let services = services(global)?;
    let made = services.kms.create_backup(request, |part| {
        bar.inc(part.len() as u64);
        staged
            .write_all(part)
            .map_err(|source| asterism_client::ClientError::Io {
                path: file.display().to_string(),
                source,
            })
    });
    let made = made.await;
    bar.finish_and_clear();
    let made = made?;
    staged.as_file().sync_all().map_err(failed)?;
    let verified = verify(staged.path())?;
    if verified.sha256 != made.sha256 {
        return Err(CliError::NotVerified("what was written is not what came".into()));
    }
    staged
        .persist_noclobber(file)
        .map_err(|error| CliError::file(file, error.error))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
    show(&verified, &[("file", file.display().to_string())], output);
    Ok(())
}

fn verify(file: &Path) -> Result<Verified, CliError> {
    let opened = File::open(file).map_err(|error| CliError::file(file, error))?;
    backup::verify(BufReader::new(opened)).map_err(|error| refusal(file, error))
}

fn show(backup: &Verified, more: &[(&str, String)], output: Output) {
    let header = &backup.header;
    let sealed = match &header.recipient.passphrase {
        Some(_) => "with a passphrase".to_owned(),
        None => format!("to {}", header.recipient.fingerprint),
    };
    let seconds = (header.created_at_ms / 1000) as i64;
    let created = output::time(Some(&prost_types::Timestamp {
        seconds,
        nanos: (header.created_at_ms % 1000) as i32 * 1_000_000,
    }));
    let mut facts = more.to_vec();
    facts.extend([
        ("created", created.clone()),
        ("by version", header.software.clone()),
        ("signer", header.signer.to_string()),
        ("sealed", sealed),
        ("records", header.contents.records.to_string()),
        ("wrapping keys", header.contents.wrapping_keys.to_string()),
        ("sha256", backup.sha256.to_string()),
        ("size", output::bytes(backup.bytes)),
    ]);
    let mut value = json!({
        "created": created,
        "software": header.software,
        "signer_fingerprint": header.signer,
        "recipient_fingerprint": header.recipient.fingerprint,
        "passphrase": header.recipient.passphrase.is_some(),
        "records": header.contents.records,
        "wrapping_keys": header.contents.wrapping_keys,
        "files": header.contents.files,
        "sha256": backup.sha256,
        "size_bytes": backup.bytes,
    });
    for (name, fact) in more {
        value[name.replace(' ', "_")] = Value::String(fact.clone());
    }
    output.facts(&facts, &value);
}

fn recipient_of(passphrase_file: Option<&Path>, recipient: Option<&Path>) -> Result<Recipient, CliError> {
    match (passphrase_file, recipient) {
        (Some(file), None) => {
            Ok(Recipient::by_passphrase(&passphrase(file)?).map_err(|error| refusal(file, error))?)
        }
        (None, Some(file)) => {
            let pem = fs::read_to_string(file).map_err(|error| CliError::file(file, error))?;
            let key = EncryptionKey::from_pem(&pem);
            let key = key.map_err(|_| refusal(file, BackupError::NotAKey("the recipient")))?;
            Ok(Recipient::new(key, None))
        }
        _ => Err(CliError::Usage("pass --passphrase-file or --recipient".into())),
    }
}

fn opener(passphrase_file: Option<&Path>, private_key_file: Option<&Path>) -> Result<Opener, CliError> {
    match (passphrase_file, private_key_file) {
        (Some(file), None) => Ok(Opener::Passphrase(passphrase(file)?)),
        (None, Some(file)) => {
            let pem = private(file)?;
            let key = str::from_utf8(&pem)
                .ok()
                .and_then(|pem| DecryptionKey::from_pem(pem).ok());
            let key = key.ok_or_else(|| {
                CliError::Usage(format!(
                    "{} is not a P-256 private key in PKCS#8; `openssl pkcs8 -topk8 -nocrypt` makes it one",
                    file.display()
                ))
            })?;
            Ok(Opener::PrivateKey(key))
        }
        _ => Err(CliError::Usage(
            "pass --passphrase-file or --private-key-file".into(),
        )),
    }
}

fn passphrase(file: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let mut text = private(file)?;
    let length = text.trim_ascii_end().len();
    text.truncate(length);
    Ok(text)
}

fn private(file: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let read = files::read_private(file).map(Zeroizing::new);
    read.map_err(|error| CliError::Usage(format!("{}: {error}", file.display())))
}

fn fingerprint(text: &str) -> Result<Digest, CliError> {
    text.parse()
        .map_err(|_| CliError::Usage("--signer-fingerprint takes 64 hex digits".into()))
}

/// Exit code 3 when the backup is not to be used, 2 when another key, directory or version has to be given.
fn refusal(file: &Path, error: BackupError) -> CliError {
    let text = format!("{}: {error}", file.display());
    match error {
        error if error.is_of_the_backup() => CliError::NotVerified(text),
        BackupError::Kms(_) => CliError::NotVerified(text),
        BackupError::Store(_) | BackupError::Crypto(_) => CliError::Other(text),
        _ => CliError::Usage(text),
    }
}
