//! `asterism keys`

use std::io::{Read as _, Write as _};

use asterism_client::proto::kms::{Key, KeyType};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    args::{KeyKind, KeysCommand},
    connect::Services,
    error::CliError,
    output::{Output, time},
};

/// Largest input of a single crypto call.
const MAX_INPUT_BYTES: u64 = 64 << 10;

/// Runs a `keys` command.
pub async fn run(command: KeysCommand, services: &Services, output: Output) -> Result<(), CliError> {
    let kms = &services.kms;
    match command {
        KeysCommand::Create { id, r#type, label } => {
            let request_id = uuid::Uuid::new_v4().to_string();
            show(
                &kms.create_key(&id, key_type(r#type), label, &request_id).await?,
                output,
            );
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
            show(
                &kms.rotate_key(&id, &uuid::Uuid::new_v4().to_string()).await?,
                output,
            );
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

fn row(key: &Key) -> ([String; 4], Value) {
    let (created, kind) = (time(key.create_time.as_ref()), type_name(key));
    let value = json!({
        "name": key.name, "type": kind, "primary_version": key.primary_version,
        "versions": key.versions.iter().map(|v| json!({
            "version": v.version, "created": time(v.create_time.as_ref()),
        })).collect::<Vec<_>>(),
        "created": created, "labels": key.labels,
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
    let versions: Vec<String> = key
        .versions
        .iter()
        .map(|v| format!("{} ({})", v.version, time(v.create_time.as_ref())))
        .collect();
    let facts = [
        ("key", key.name.clone()),
        ("type", type_name(key).to_owned()),
        ("primary", key.primary_version.to_string()),
        ("versions", versions.join(", ")),
        ("labels", labels.join(", ")),
    ];
    output.facts(&facts, &value);
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
