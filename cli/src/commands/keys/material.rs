//! Key material, public-key encryption, random bytes.

use asterism_client::{Kms, NewMaterial};
use asterism_crypto::EncryptionKey;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use zeroize::Zeroizing;

use super::{answer, from_base64, key_type, release, show, stdin};
use crate::{args::MaterialCommand, error::CliError, output::Output};

/// Runs a command that deals with material.
pub async fn run(
    command: MaterialCommand,
    kms: &Kms,
    request_id: &str,
    output: Output,
) -> Result<(), CliError> {
    match command {
        MaterialCommand::Seal { id, info, aad } => {
            // Encrypted here: kms never sees the plaintext.
            let key = kms.encryption_key(&id, 0).await?;
            let sealed = key
                .seal(info.as_bytes(), aad.as_bytes(), &stdin()?)
                .map_err(|error| CliError::Other(error.to_string()))?;
            base64(output, "ciphertext", &sealed);
        }
        MaterialCommand::Open { id, info, aad } => {
            let ciphertext = base64_input("the ciphertext")?;
            let opened = kms.decrypt_asymmetric(&id, &ciphertext, info.as_bytes(), aad.as_bytes());
            release(&opened.await?, output)?;
        }
        MaterialCommand::Agree { id, key_version } => {
            let peer = public_key(&String::from_utf8_lossy(&stdin()?))?;
            let secret = kms.shared_secret(&id, &peer, key_version).await?;
            base64(output, "shared_secret", secret.expose());
        }
        MaterialCommand::Wrap { id } => {
            let material = Zeroizing::new(base64_input("the key material")?);
            let (wrapped, _) = kms.wrap_key(&id, &material).await?;
            base64(output, "wrapped", &wrapped);
        }
        MaterialCommand::Unwrap { id } => {
            let material = kms.unwrap_key(&id, &base64_input("the wrapped key")?).await?;
            base64(output, "key_material", material.expose());
        }
        MaterialCommand::Random { bytes } => {
            let data = kms.random_bytes(bytes).await?;
            base64(output, "data", data.expose());
        }
        MaterialCommand::Import {
            id,
            r#type,
            exportable,
        } => {
            let material = Zeroizing::new(base64_input("the key material")?);
            let new = NewMaterial {
                key: &id,
                key_type: key_type(r#type),
                material: &material,
                exportable,
            };
            show(&kms.import_key(new, request_id).await?, output);
        }
        MaterialCommand::Export {
            id,
            key_version,
            to: Some(file),
        } => {
            let pem = std::fs::read_to_string(&file).map_err(|source| CliError::File {
                path: file.display().to_string(),
                source,
            })?;
            let answer = kms.export_key_to(&id, key_version, &public_key(&pem)?).await?;
            base64(output, "sealed_material", &answer.sealed_material);
        }
        MaterialCommand::Export { id, key_version, .. } => {
            let material = kms.export_key(&id, key_version).await?;
            base64(output, "key_material", material.expose());
        }
    }
    Ok(())
}

fn base64(output: Output, name: &str, bytes: &[u8]) {
    let text = Zeroizing::new(STANDARD.encode(bytes));
    answer(output, &text, &json!({ name: *text }));
}

fn base64_input(what: &str) -> Result<Vec<u8>, CliError> {
    let text = Zeroizing::new(stdin()?);
    from_base64(&String::from_utf8_lossy(&text), what)
}

fn public_key(pem: &str) -> Result<EncryptionKey, CliError> {
    EncryptionKey::from_pem(pem)
        .map_err(|_| CliError::Usage("the public key is not a P-256 key in PEM".into()))
}
