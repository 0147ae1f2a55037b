//! `asterism keys`

mod lines;
mod material;

use std::io::{Read as _, Write as _};

use asterism_client::proto::kms::{
    CreateKeyRequest, DestroyKeyVersionRequest, Key, KeyType, KeyVersion, KeyVersionState,
    RestoreKeyVersionRequest, RotateKeyRequest, UpdateKeyVersionRequest,
};
use asterism_crypto::{SecretBytes, Signature};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    args::{Encoding, KeyKind, KeysCommand, VersionState},
    connect::Services,
    error::CliError,
    output::{Output, time},
};

/// Largest input of a single crypto call.
const MAX_INPUT_BYTES: u64 = 64 << 10;
const DAY_SECONDS: i64 = 24 * 3600;

/// Runs a `keys` command.
pub async fn run(command: KeysCommand, services: &Services, output: Output) -> Result<(), CliError> {
    let kms = &services.kms;
    // Of the one write that a command makes.
    let request_id = uuid::Uuid::new_v4().to_string();
    match command {
        KeysCommand::Create {
            id,
            r#type,
            label,
            active_from,
            exportable,
            approvals,
        } => {
            let request = CreateKeyRequest {
                key_id: id,
                r#type: key_type(r#type).into(),
                labels: label.into_iter().collect(),
                request_id,
                activation_time: active_from.map(moment),
                exportable,
                required_approvals: approvals,
            };
            show(&kms.create(request).await?, output);
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
        KeysCommand::Rotate {
            id,
            active_from,
            etag,
        } => {
            let request = RotateKeyRequest {
                name: format!("keys/{id}"),
                request_id,
                activation_time: active_from.map(moment),
                etag,
            };
            show(&kms.rotate(request).await?, output);
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
                    seconds: i64::from(days) * DAY_SECONDS,
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
            etag,
        } => {
            let state = match state {
                VersionState::Active => KeyVersionState::Active,
                VersionState::Suspended => KeyVersionState::Suspended,
                VersionState::Deactivated => KeyVersionState::Deactivated,
                VersionState::Compromised => KeyVersionState::Compromised,
            };
            let request = UpdateKeyVersionRequest {
                key_version: Some(KeyVersion {
                    name: version_name(&id, key_version),
                    state: state.into(),
                    ..KeyVersion::default()
                }),
                request_id,
                etag,
                ..UpdateKeyVersionRequest::default()
            };
            show_version(&kms.update_key_version(request).await?, output);
        }
        KeysCommand::Destroy {
            id,
            key_version,
            window_days,
            etag,
        } => {
            let request = DestroyKeyVersionRequest {
                name: version_name(&id, key_version),
                window: Some(prost_types::Duration {
                    seconds: i64::from(window_days) * DAY_SECONDS,
                    nanos: 0,
                }),
                request_id,
                etag,
            };
            show_version(&kms.destroy(request).await?, output);
        }
        KeysCommand::Restore {
            id,
            key_version,
            etag,
        } => {
            let request = RestoreKeyVersionRequest {
                name: version_name(&id, key_version),
                request_id,
                etag,
            };
            show_version(&kms.restore(request).await?, output);
        }
        KeysCommand::Reencrypt {
            id,
            to,
            aad,
            lines: true,
        } => lines::re_encrypt(kms, &id, &to, &aad, output).await?,
        KeysCommand::Reencrypt { id, to, aad, .. } => {
            let ciphertext = from_base64(&String::from_utf8_lossy(&stdin()?), "the ciphertext")?;
            let done = kms.re_encrypt(&id, &ciphertext, aad.as_bytes(), &to).await?;
            let text = STANDARD.encode(done.ciphertext);
            let value = json!({
                "ciphertext": text, "source_key_version": done.source_key_version,
                "key_version": done.key_version,
            });
            answer(output, &text, &value);
        }
        KeysCommand::Encrypt { id, aad, lines: true } => lines::encrypt(kms, &id, &aad, output).await?,
        KeysCommand::Encrypt { id, aad, .. } => {
            let (ciphertext, version) = kms.encrypt(&id, &stdin()?, aad.as_bytes()).await?;
            let text = STANDARD.encode(ciphertext);
            answer(
                output,
                &text,
                &json!({ "ciphertext": text, "key_version": version }),
            );
        }
        KeysCommand::Decrypt { id, aad, lines: true } => lines::decrypt(kms, &id, &aad, output).await?,
        KeysCommand::Decrypt { id, aad, .. } => {
            let ciphertext = from_base64(&String::from_utf8_lossy(&stdin()?), "the ciphertext")?;
            let plaintext = kms.decrypt(&id, &ciphertext, aad.as_bytes()).await?;
            release(&plaintext, output)?;
        }
        KeysCommand::DataKey {
            id,
            aad,
            count,
            plaintext,
        } => lines::data_keys(kms, &id, &aad, count, plaintext, output).await?,
        KeysCommand::Mac { id, lines: true } => lines::mac(kms, &id, output).await?,
        KeysCommand::Mac { id, .. } => {
            let (mac, version) = kms.generate_mac(&id, &stdin()?).await?;
            let text = STANDARD.encode(mac);
            answer(output, &text, &json!({ "mac": text, "key_version": version }));
        }
        KeysCommand::VerifyMac { id, mac: None, .. } => lines::verify_mac(kms, &id, output).await?,
        KeysCommand::VerifyMac {
            id, mac: Some(mac), ..
        } => {
            let mac = from_base64(&mac, "the MAC")?;
            let valid = kms.verify_mac(&id, &stdin()?, &mac).await?;
            verdict(valid, "the MAC does not fit the input under this key", output)?;
        }
        KeysCommand::Sign {
            id,
            encoding,
            lines: true,
        } => lines::sign(kms, &id, encoding, output).await?,
        KeysCommand::Sign { id, encoding, .. } => {
            let (signature, version) = kms.sign(&id, &stdin()?).await?;
            let text = STANDARD.encode(written(encoding, signature)?);
            answer(
                output,
                &text,
                &json!({ "signature": text, "key_version": version }),
            );
        }
        KeysCommand::Verify {
            id,
            signature: None,
            encoding,
            ..
        } => lines::verify(kms, &id, encoding, output).await?,
        KeysCommand::Verify {
            id,
            signature: Some(signature),
            encoding,
            ..
        } => {
            let signature = as_der(encoding, &from_base64(&signature, "the signature")?)?;
            let valid = kms.verify(&id, &stdin()?, &signature).await?;
            verdict(
                valid,
                "the signature does not fit the input under this key",
                output,
            )?;
        }
        KeysCommand::PublicKey { id, key_version } => {
            let key = kms.public_key_pem(&id, key_version).await?;
            let sha256 = hex::encode(&key.fingerprint_sha256);
            answer(
                output,
                key.pem.trim_end(),
                &json!({ "pem": key.pem, "sha256": sha256, "key_version": key.key_version }),
            );
        }
        KeysCommand::Material(command) => material::run(command, kms, &request_id, output).await?,
    }
    Ok(())
}

fn key_type(kind: KeyKind) -> KeyType {
    match kind {
        KeyKind::Aes256Gcm => KeyType::Aes256Gcm,
        KeyKind::HmacSha256 => KeyType::HmacSha256,
        KeyKind::EcSignP256Sha256 => KeyType::EcSignP256Sha256,
        KeyKind::HmacSha512 => KeyType::HmacSha512,
        KeyKind::EcP256Hpke => KeyType::EcP256Hpke,
        KeyKind::EcP256Ecdh => KeyType::EcP256Ecdh,
        KeyKind::Aes256Kwp => KeyType::Aes256Kwp,
        KeyKind::Aes256Siv => KeyType::Aes256Siv,
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
        "destroyed_at": time(version.destroy_time.as_ref()), "imported": version.imported,
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
        "min_decryption_version": key.min_decryption_version, "exportable": key.exportable,
        "required_approvals": key.required_approvals,
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
        ("exportable", if key.exportable { "yes" } else { "no" }.to_owned()),
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

fn version_name(id: &str, version: u32) -> String {
    format!("keys/{id}/versions/{version}")
}

fn moment(time: jiff::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

/// A signature (DER) as it is to be written.
fn written(encoding: Encoding, der: Vec<u8>) -> Result<Vec<u8>, CliError> {
    match encoding {
        Encoding::Der => Ok(der),
        Encoding::Fixed => match Signature::from_der(&der) {
            Ok(signature) => Ok(signature.to_fixed().to_vec()),
            Err(_) => Err(CliError::Other("kms answered with an odd signature".into())),
        },
    }
}

/// A signature as it is written, in DER.
fn as_der(encoding: Encoding, signature: &[u8]) -> Result<Vec<u8>, CliError> {
    match encoding {
        Encoding::Der => Ok(signature.to_vec()),
        Encoding::Fixed => Signature::from_fixed(signature)
            .map(|signature| signature.to_der())
            .map_err(|_| CliError::Usage("the signature is not the 64 bytes of r and s".into())),
    }
}

/// A decrypted text as it is, or in base64 within JSON.
fn release(plaintext: &SecretBytes, output: Output) -> Result<(), CliError> {
    if output.is_json() {
        output.value(&json!({ "plaintext": STANDARD.encode(plaintext.expose()) }));
        return Ok(());
    }
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(plaintext.expose())
        .and_then(|()| stdout.flush())
        .map_err(|source| CliError::File {
            path: "standard output".into(),
            source,
        })
}

fn verdict(valid: bool, otherwise: &str, output: Output) -> Result<(), CliError> {
    answer(
        output,
        if valid { "valid" } else { "not valid" },
        &json!({ "valid": valid }),
    );
    if valid {
        Ok(())
    } else {
        Err(CliError::NotVerified(otherwise.into()))
    }
}

fn answer(output: Output, text: &str, value: &Value) {
    if output.is_json() {
        output.value(value);
    } else {
        output.say(text);
    }
}

fn stdin() -> Result<Vec<u8>, CliError> {
    input(2 * MAX_INPUT_BYTES)
}

fn input(limit: u64) -> Result<Vec<u8>, CliError> {
    let mut input = Vec::new();
    std::io::stdin()
        .lock()
        .take(limit)
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
