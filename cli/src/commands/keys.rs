//! `asterism keys`

use std::{
    io::{Read as _, Write as _},
    time::Duration,
};

use asterism_client::proto::kms::{Key, KeyType, KeyVersion, KeyVersionState};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    args::{KeyKind, KeysCommand, VersionState},
    connect::Services,
    error::CliError,
    output::{Output, time},
};

/// Largest input of a single crypto call.
const MAX_INPUT_BYTES: u64 = 64 << 10;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Runs a `keys` command.
pub async fn run(command: KeysCommand, services: &Services, output: Output) -> Result<(), CliError> {
    let kms = &services.kms;
    // Of the one write that a command makes.
    let request_id = uuid::Uuid::new_v4().to_string();
    match command {
        KeysCommand::Create { id, r#type, label } => {
            let made = kms.create_key(&id, key_type(r#type), label, &request_id);
            show(&made.await?, output);
        }
        KeysCommand::List => {
            let (mut rows, mut token) = (Vec::new(), String::new());
            loop {
                let (page, next) = kms.list_keys(1000, &token).await?;
                rows.extend(page.iter().map(row));
                if next.is_empty() {
                    break;
                }
                token = next;
            }
            output.rows(["key", "type", "primary", "created"], &rows);
        }
        KeysCommand::Show { id } => show(&kms.key(&id).await?, output),
        KeysCommand::Rotate { id } => {
            show(&kms.rotate_key(&id, &request_id).await?, output);
        }
        KeysCommand::Update {
            id,
            label,
            no_labels,
            rotate_every,
            min_decryption_version,
            approvals,
            etag,
        } => {
            let mut fields = Vec::new();
            let mut key = Key {
                name: format!("keys/{id}"),
                etag,
                ..Key::default()
            };
            if no_labels || !label.is_empty() {
                fields.push("labels");
                key.labels = label.into_iter().collect();
            }
            if let Some(days) = rotate_every {
                fields.push("rotation_period");
                key.rotation_period = (days > 0).then(|| prost_types::Duration {
                    seconds: i64::from(days) * 24 * 3600,
                    nanos: 0,
                });
            }
            if let Some(version) = min_decryption_version {
                fields.push("min_decryption_version");
                key.min_decryption_version = version;
            }
            if let Some(number) = approvals {
                fields.push("required_approvals");
                key.required_approvals = number;
            }
            show(&kms.update_key(key, &fields, &request_id).await?, output);
        }
        KeysCommand::State {
            id,
            key_version,
            state,
        } => {
            let state = match state {
                VersionState::Active => KeyVersionState::Active,
                VersionState::Suspended => KeyVersionState::Suspended,
                VersionState::Deactivated => KeyVersionState::Deactivated,
                VersionState::Compromised => KeyVersionState::Compromised,
            };
            let set = kms.set_key_version_state(&id, key_version, state, &request_id);
            show_version(&set.await?, output);
        }
        KeysCommand::Destroy {
            id,
            key_version,
            window_days,
        } => {
            let window = Some(DAY * window_days);
            let scheduled = kms.destroy_key_version(&id, key_version, window, &request_id);
            show_version(&scheduled.await?, output);
        }
        KeysCommand::Restore { id, key_version } => {
            show_version(
                &kms.restore_key_version(&id, key_version, &request_id).await?,
                output,
            );
        }
        KeysCommand::Reencrypt { id, to, aad } => {
            let ciphertext = from_base64(&String::from_utf8_lossy(&stdin()?), "the ciphertext")?;
            let done = kms.re_encrypt(&id, &ciphertext, aad.as_bytes(), &to).await?;
            let text = STANDARD.encode(done.ciphertext);
            let value = json!({
                "ciphertext": text, "source_key_version": done.source_key_version,
                "key_version": done.key_version,
            });
            answer(output, &text, &value);
        }
        KeysCommand::Encrypt { id, aad } => {
            let (ciphertext, version) = kms.encrypt(&id, &stdin()?, aad.as_bytes()).await?;
            let text = STANDARD.encode(ciphertext);
            answer(
                output,
                &text,
                &json!({ "ciphertext": text, "key_version": version }),
            );
        }
        KeysCommand::Decrypt { id, aad } => {
            let ciphertext = from_base64(&String::from_utf8_lossy(&stdin()?), "the ciphertext")?;
            let plaintext = kms.decrypt(&id, &ciphertext, aad.as_bytes()).await?;
            if output.is_json() {
                output.value(&json!({ "plaintext": STANDARD.encode(plaintext.expose()) }));
            } else {
                let mut stdout = std::io::stdout().lock();
                stdout
                    .write_all(plaintext.expose())
                    .and_then(|()| stdout.flush())
                    .map_err(|source| CliError::File {
                        path: "standard output".into(),
                        source,
                    })?;
            }
        }
        KeysCommand::Sign { id } => {
            let (signature, version) = kms.sign(&id, &stdin()?).await?;
            let text = STANDARD.encode(signature);
            answer(
                output,
                &text,
                &json!({ "signature": text, "key_version": version }),
            );
        }
        KeysCommand::Verify { id, signature } => {
            let signature = from_base64(&signature, "the signature")?;
            let valid = kms.verify(&id, &stdin()?, &signature).await?;
            answer(
                output,
                if valid { "valid" } else { "not valid" },
                &json!({ "valid": valid }),
            );
            if !valid {
                return Err(CliError::NotVerified(
                    "the signature does not fit the input under this key".into(),
                ));
            }
        }
        KeysCommand::PublicKey { id, key_version } => {
            let key = kms.public_key(&id, key_version).await?;
            let pem = key.to_pem();
            answer(
                output,
                pem.trim_end(),
                &json!({ "pem": pem, "sha256": key.fingerprint().to_string() }),
            );
        }
    }
    Ok(())
}

fn key_type(kind: KeyKind) -> KeyType {
    match kind {
        KeyKind::Aes256Gcm => KeyType::Aes256Gcm,
        KeyKind::HmacSha256 => KeyType::HmacSha256,
        KeyKind::EcSignP256Sha256 => KeyType::EcSignP256Sha256,
    }
}

fn type_name(key: &Key) -> &'static str {
    key.r#type().as_str_name().trim_start_matches("KEY_TYPE_")
}

fn state_name(version: &KeyVersion) -> &'static str {
    let name = version.state().as_str_name();
    name.trim_start_matches("KEY_VERSION_STATE_")
}

fn version_value(version: &KeyVersion) -> Value {
    json!({
        "version": version.version, "state": state_name(version),
        "created": time(version.create_time.as_ref()), "since": time(version.state_time.as_ref()),
        "active_from": time(version.activation_time.as_ref()),
        "destroyed_at": time(version.destroy_time.as_ref()),
    })
}

fn show_version(version: &KeyVersion, output: Output) {
    let facts = [
        ("version", version.name.clone()),
        ("state", state_name(version).to_owned()),
        ("since", time(version.state_time.as_ref())),
        ("active from", time(version.activation_time.as_ref())),
        ("destroyed at", time(version.destroy_time.as_ref())),
    ];
    output.facts(&facts, &version_value(version));
}

fn row(key: &Key) -> ([String; 4], Value) {
    let (created, kind) = (time(key.create_time.as_ref()), type_name(key));
    let value = json!({
        "name": key.name, "type": kind, "primary_version": key.primary_version,
        "versions": key.versions.iter().map(version_value).collect::<Vec<_>>(),
        "created": created, "labels": key.labels, "etag": key.etag,
        "rotation_seconds": key.rotation_period.as_ref().map(|period| period.seconds),
        "next_rotation": time(key.next_rotation_time.as_ref()),
        "min_decryption_version": key.min_decryption_version, "required_approvals": key.required_approvals,
    });
    (
        [
            key.name.clone(),
            kind.to_owned(),
            key.primary_version.to_string(),
            created,
        ],
        value,
    )
}

fn show(key: &Key, output: Output) {
    let (_, value) = row(key);
    let mut labels: Vec<String> = key
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    labels.sort();
    let rotation = key.rotation_period.as_ref().map_or_else(
        || "never".to_owned(),
        |period| {
            let next = time(key.next_rotation_time.as_ref());
            format!("every {} days, next {next}", period.seconds / (24 * 3600))
        },
    );
    let facts = [
        ("key", key.name.clone()),
        ("type", type_name(key).to_owned()),
        ("primary", key.primary_version.to_string()),
        ("decrypts from", key.min_decryption_version.to_string()),
        ("approvals", key.required_approvals.to_string()),
        ("rotation", rotation),
        ("labels", labels.join(", ")),
        ("etag", key.etag.clone()),
    ];
    output.facts(&facts, &value);
    if output.is_json() {
        return;
    }
    let rows: Vec<_> = key
        .versions
        .iter()
        .map(|version| {
            let cells = [
                version.version.to_string(),
                state_name(version).to_owned(),
                time(version.state_time.as_ref()),
                time(version.create_time.as_ref()),
                time(version.destroy_time.as_ref()),
            ];
            (cells, version_value(version))
        })
        .collect();
    output.rows(["version", "state", "since", "created", "destroyed at"], &rows);
}

fn answer(output: Output, text: &str, value: &Value) {
    if output.is_json() {
        output.value(value);
    } else {
        output.say(text);
    }
}

fn stdin() -> Result<Vec<u8>, CliError> {
    let mut input = Vec::new();
    std::io::stdin()
        .lock()
        .take(2 * MAX_INPUT_BYTES)
        .read_to_end(&mut input)
        .map_err(|source| CliError::File {
            path: "standard input".into(),
            source,
        })?;
    Ok(input)
}

fn from_base64(text: &str, what: &str) -> Result<Vec<u8>, CliError> {
    STANDARD
        .decode(text.trim())
        .map_err(|_| CliError::Usage(format!("{what} is not base64")))
}
