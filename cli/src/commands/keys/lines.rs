//! An item a line, many in a call. An item that fails is a line that says so, and the exit code says that there was one.

use asterism_client::{ItemFailure, Kms};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Encoding, as_der, from_base64, input, written};
use crate::{error::CliError, output::Output};

/// Items of one call.
const MAX_ITEMS: usize = 1000;
/// Bytes of the items of one call: a request has at most 4 MiB.
const MAX_CALL_BYTES: usize = 2 << 20;
/// Bytes of all lines.
const MAX_LINES_BYTES: u64 = 256 << 20;

type Results = Vec<Result<Value, ItemFailure>>;

/// The lines of the input, each of so many fields in base64.
fn read<const N: usize>() -> Result<Vec<[Vec<u8>; N]>, CliError> {
    let bytes = input(MAX_LINES_BYTES)?;
    let text = str::from_utf8(&bytes).map_err(|_| CliError::Usage("the input is not text".into()))?;
    text.lines()
        .enumerate()
        .map(|(index, line)| {
            let what = format!("line {}", index + 1);
            // An empty item is an empty line.
            let fields: Vec<&str> = if N == 1 {
                vec![line.trim()]
            } else {
                line.split_whitespace().collect()
            };
            let fields: Vec<Vec<u8>> = fields
                .into_iter()
                .map(|field| from_base64(field, &what))
                .collect::<Result<_, _>>()?;
            <[Vec<u8>; N]>::try_from(fields)
                .map_err(|_| CliError::Usage(format!("{what} does not have {N} fields of base64")))
        })
        .collect()
}

/// As many items at a time as fit in a call.
fn calls<const N: usize>(items: &[[Vec<u8>; N]]) -> impl Iterator<Item = &[[Vec<u8>; N]]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take(MAX_ITEMS).take_while(|item| {
            bytes += item.iter().map(Vec::len).sum::<usize>();
            bytes <= MAX_CALL_BYTES
        });
        let count = fitting.count().max(1).min(rest.len());
        let (now, later) = rest.split_at(count);
        rest = later;
        (!now.is_empty()).then_some(now)
    })
}

/// Prints results; gives how many failed.
fn print(results: Results, output: Output) -> usize {
    let mut failed = 0;
    for result in results {
        match (result, output.is_json()) {
            (Ok(value), true) => output.value(&value),
            (Ok(value), false) => output.say(&text(&value)),
            (Err(failure), json) => {
                failed += 1;
                if json {
                    output.value(&json!({ "error": failure.reason, "message": failure.message }));
                } else {
                    output.say(&format!("! {failure}"));
                }
            }
        }
    }
    failed
}

/// The values of an object, in a line.
fn text(value: &Value) -> String {
    let Value::Object(fields) = value else {
        return value.to_string();
    };
    let texts = fields.values().map(|value| match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "valid".to_owned(),
        Value::Bool(false) => "not valid".to_owned(),
        other => other.to_string(),
    });
    texts.collect::<Vec<_>>().join(" ")
}

fn end(failed: usize) -> Result<(), CliError> {
    if failed == 0 {
        return Ok(());
    }
    Err(CliError::Other(format!("{failed} items failed")))
}

fn named(name: &'static str, results: Vec<Result<Vec<u8>, ItemFailure>>) -> Results {
    let value = |bytes: Vec<u8>| json!({ name: STANDARD.encode(bytes) });
    results.into_iter().map(|result| result.map(value)).collect()
}

fn with<'a>(items: &'a [[Vec<u8>; 1]], aad: &'a str) -> Vec<(&'a [u8], &'a [u8])> {
    items
        .iter()
        .map(|[item]| (item.as_slice(), aad.as_bytes()))
        .collect()
}

fn pairs(items: &[[Vec<u8>; 2]]) -> Vec<(&[u8], &[u8])> {
    items
        .iter()
        .map(|[one, two]| (one.as_slice(), two.as_slice()))
        .collect()
}

pub async fn encrypt(kms: &Kms, id: &str, aad: &str, output: Output) -> Result<(), CliError> {
    let (items, mut failed) = (read::<1>()?, 0);
    for items in calls(&items) {
        let results = kms.encrypt_batch(id, &with(items, aad)).await?;
        failed += print(named("ciphertext", results), output);
    }
    end(failed)
}

pub async fn decrypt(kms: &Kms, id: &str, aad: &str, output: Output) -> Result<(), CliError> {
    let (items, mut failed) = (read::<1>()?, 0);
    for items in calls(&items) {
        let results = kms.decrypt_batch(id, &with(items, aad)).await?;
        let results = results.into_iter().map(|result| {
            result.map(|plaintext| json!({ "plaintext": STANDARD.encode(plaintext.expose()) }))
        });
        failed += print(results.collect(), output);
    }
    end(failed)
}

pub async fn re_encrypt(kms: &Kms, id: &str, to: &str, aad: &str, output: Output) -> Result<(), CliError> {
    let (items, mut failed) = (read::<1>()?, 0);
    for items in calls(&items) {
        let results = kms.re_encrypt_batch(id, &with(items, aad), to).await?;
        failed += print(named("ciphertext", results), output);
    }
    end(failed)
}

pub async fn data_keys(
    kms: &Kms,
    id: &str,
    aad: &str,
    count: u32,
    plaintext: bool,
    output: Output,
) -> Result<(), CliError> {
    let aads = vec![aad.as_bytes(); count as usize];
    let results = kms.generate_data_keys(id, &aads).await?;
    let results = results.into_iter().map(|result| {
        result.map(|key| {
            let wrapped = STANDARD.encode(&key.wrapped);
            if plaintext {
                json!({ "plaintext": STANDARD.encode(key.key.expose()), "wrapped": wrapped })
            } else {
                json!({ "wrapped": wrapped })
            }
        })
    });
    end(print(results.collect(), output))
}

pub async fn mac(kms: &Kms, id: &str, output: Output) -> Result<(), CliError> {
    let (items, mut failed) = (read::<1>()?, 0);
    for items in calls(&items) {
        let data: Vec<&[u8]> = items.iter().map(|[item]| item.as_slice()).collect();
        failed += print(named("mac", kms.generate_macs(id, &data).await?), output);
    }
    end(failed)
}

pub async fn verify_mac(kms: &Kms, id: &str, output: Output) -> Result<(), CliError> {
    let (items, mut all) = (read::<2>()?, Vec::new());
    for items in calls(&items) {
        all.extend(kms.verify_macs(id, &pairs(items)).await?);
    }
    verdicts(all, output)
}

pub async fn sign(kms: &Kms, id: &str, encoding: Encoding, output: Output) -> Result<(), CliError> {
    let (items, mut failed) = (read::<1>()?, 0);
    for items in calls(&items) {
        let messages: Vec<&[u8]> = items.iter().map(|[item]| item.as_slice()).collect();
        let mut results = Vec::with_capacity(items.len());
        for result in kms.sign_batch(id, &messages).await? {
            results.push(match result {
                Ok(der) => Ok(written(encoding, der)?),
                Err(failure) => Err(failure),
            });
        }
        failed += print(named("signature", results), output);
    }
    end(failed)
}

pub async fn verify(kms: &Kms, id: &str, encoding: Encoding, output: Output) -> Result<(), CliError> {
    let (mut items, mut all) = (read::<2>()?, Vec::new());
    for [_, signature] in &mut items {
        *signature = as_der(encoding, signature)?;
    }
    for items in calls(&items) {
        all.extend(kms.verify_batch(id, &pairs(items)).await?);
    }
    verdicts(all, output)
}

/// Prints verdicts; one that is not valid fails the command as a verification.
fn verdicts(results: Vec<Result<bool, ItemFailure>>, output: Output) -> Result<(), CliError> {
    let wrong = results.iter().filter(|result| **result == Ok(false)).count();
    let value = |valid: bool| json!({ "valid": valid });
    let failed = print(
        results.into_iter().map(|result| result.map(value)).collect(),
        output,
    );
    if wrong > 0 {
        return Err(CliError::NotVerified(format!("{wrong} items are not valid")));
    }
    end(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_keep_to_number_and_size_and_lose_nothing() {
        for (count, bytes, expected) in [
            (0, 1, 0),
            (1, 3 << 20, 1),
            (1000, 1, 1),
            (1001, 1, 2),
            (5, 1 << 20, 3),
        ] {
            let items: Vec<[Vec<u8>; 1]> = (0..count).map(|_| [vec![0; bytes]]).collect();
            let calls: Vec<_> = calls(&items).collect();
            assert_eq!(calls.len(), expected, "{count} of {bytes}");
            assert_eq!(calls.iter().map(|call| call.len()).sum::<usize>(), count);
        }
    }
}
