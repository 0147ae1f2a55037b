//! Encryption and data keys.

use asterism_crypto::crc32c;
use asterism_proto::kms as pb;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::{check_count, each, over};
use crate::{
    error::KmsError,
    keys::{Processor, Protector, Purpose},
    service::{
        Adapter,
        ciphers::{AAD_CRC, destination},
    },
    wire::check_crc,
};

pub(in crate::service) async fn encrypt(
    adapter: &Adapter,
    request: Request<pb::BatchEncryptRequest>,
) -> Result<Response<pb::BatchEncryptResponse>, Status> {
    adapter
        .on_key(
            "kms.BatchEncrypt",
            request,
            |r| &r.name,
            |on, message, trail| {
                check_count(&message.items)?;
                let protector = on.keyring.protector(&on.key, Purpose::Encrypt, on.now_ms)?;
                let results = each(on, trail, message.items, |item| encrypt_one(&protector, item));
                on.note(trail, protector.version())
                    .output_digest(over(results.iter().map(|result| result.ciphertext.as_slice())));
                Ok(pb::BatchEncryptResponse {
                    results,
                    key_version: protector.version(),
                })
            },
        )
        .await
}

fn encrypt_one(protector: &Protector<'_>, item: pb::EncryptItem) -> Result<pb::EncryptResult, KmsError> {
    let plaintext = Zeroizing::new(item.plaintext);
    let aad = item.additional_authenticated_data;
    let verified = check_crc("plaintext_crc32c", &plaintext, item.plaintext_crc32c)?;
    let verified_aad = check_crc(AAD_CRC, &aad, item.additional_authenticated_data_crc32c)?;
    let ciphertext = protector.encrypt(&plaintext, &aad)?;
    Ok(pb::EncryptResult {
        error: None,
        ciphertext_crc32c: crc32c(&ciphertext),
        ciphertext,
        verified_plaintext_crc32c: verified,
        verified_additional_authenticated_data_crc32c: verified_aad,
    })
}

pub(in crate::service) async fn decrypt(
    adapter: &Adapter,
    request: Request<pb::BatchDecryptRequest>,
) -> Result<Response<pb::BatchDecryptResponse>, Status> {
    adapter
        .on_key(
            "kms.BatchDecrypt",
            request,
            |r| &r.name,
            |on, message, trail| {
                check_count(&message.items)?;
                trail.input_digest(over(message.items.iter().map(|item| item.ciphertext.as_slice())));
                let processor = on.keyring.processor(&on.key, Purpose::Encrypt, on.now_ms)?;
                let results = each(on, trail, message.items, |item| decrypt_one(&processor, item));
                Ok(pb::BatchDecryptResponse { results })
            },
        )
        .await
}

fn decrypt_one(processor: &Processor<'_>, item: pb::DecryptItem) -> Result<pb::DecryptResult, KmsError> {
    let aad = item.additional_authenticated_data;
    let verified = check_crc("ciphertext_crc32c", &item.ciphertext, item.ciphertext_crc32c)?;
    let verified_aad = check_crc(AAD_CRC, &aad, item.additional_authenticated_data_crc32c)?;
    let (plaintext, key_version) = processor.decrypt(&item.ciphertext, &aad)?;
    let plaintext = plaintext.expose().to_vec();
    Ok(pb::DecryptResult {
        error: None,
        plaintext_crc32c: crc32c(&plaintext),
        plaintext,
        key_version,
        verified_ciphertext_crc32c: verified,
        verified_additional_authenticated_data_crc32c: verified_aad,
    })
}

pub(in crate::service) async fn re_encrypt(
    adapter: &Adapter,
    request: Request<pb::BatchReEncryptRequest>,
) -> Result<Response<pb::BatchReEncryptResponse>, Status> {
    adapter
        .on_key(
            "kms.BatchReEncrypt",
            request,
            |r| &r.name,
            |on, message, trail| {
                check_count(&message.items)?;
                trail.input_digest(over(message.items.iter().map(|item| item.ciphertext.as_slice())));
                let aads: Vec<&[u8]> = message
                    .items
                    .iter()
                    .map(|item| {
                        let new = item.destination_additional_authenticated_data.as_ref();
                        new.unwrap_or(&item.additional_authenticated_data).as_slice()
                    })
                    .collect();
                let destination = destination(on, &message.destination_name, &aads)?;
                let processor = on.keyring.processor(&on.key, Purpose::Encrypt, on.now_ms)?;
                let protector = on.keyring.protector(&destination, Purpose::Encrypt, on.now_ms)?;
                let results = each(on, trail, message.items, |item| {
                    re_encrypt_one(&processor, &protector, &item)
                });
                trail.output_digest(over(results.iter().map(|result| result.ciphertext.as_slice())));
                Ok(pb::BatchReEncryptResponse {
                    results,
                    key_version: protector.version(),
                })
            },
        )
        .await
}

fn re_encrypt_one(
    processor: &Processor<'_>,
    protector: &Protector<'_>,
    item: &pb::ReEncryptItem,
) -> Result<pb::ReEncryptResult, KmsError> {
    let aad = item.additional_authenticated_data.as_slice();
    let new_aad = item.destination_additional_authenticated_data.as_deref();
    let new_aad = new_aad.unwrap_or(aad);
    let verified = check_crc("ciphertext_crc32c", &item.ciphertext, item.ciphertext_crc32c)?;
    let verified_aad = check_crc(AAD_CRC, aad, item.additional_authenticated_data_crc32c)?;
    let verified_new_aad = check_crc(
        "destination_additional_authenticated_data_crc32c",
        new_aad,
        item.destination_additional_authenticated_data_crc32c,
    )?;
    let done = processor.re_encrypt((&item.ciphertext, aad), (protector, new_aad))?;
    Ok(pb::ReEncryptResult {
        error: None,
        ciphertext_crc32c: crc32c(&done.ciphertext),
        ciphertext: done.ciphertext,
        source_key_version: done.source_version,
        verified_ciphertext_crc32c: verified,
        verified_additional_authenticated_data_crc32c: verified_aad,
        verified_destination_additional_authenticated_data_crc32c: verified_new_aad,
    })
}

pub(in crate::service) async fn generate_data_key(
    adapter: &Adapter,
    request: Request<pb::BatchGenerateDataKeyRequest>,
) -> Result<Response<pb::BatchGenerateDataKeyResponse>, Status> {
    adapter
        .on_key(
            "kms.BatchGenerateDataKey",
            request,
            |r| &r.name,
            |on, message, trail| {
                check_count(&message.items)?;
                let protector = on.keyring.protector(&on.key, Purpose::MakeDataKeys, on.now_ms)?;
                let results = each(on, trail, message.items, |item| {
                    data_key(&protector, message.wrapped_only, &item)
                });
                on.note(trail, protector.version())
                    .output_digest(over(results.iter().map(|result| result.wrapped.as_slice())));
                Ok(pb::BatchGenerateDataKeyResponse {
                    results,
                    key_version: protector.version(),
                })
            },
        )
        .await
}

fn data_key(
    protector: &Protector<'_>,
    wrapped_only: bool,
    item: &pb::DataKeyItem,
) -> Result<pb::DataKeyResult, KmsError> {
    let aad = &item.additional_authenticated_data;
    let verified = check_crc(AAD_CRC, aad, item.additional_authenticated_data_crc32c)?;
    let data_key = protector.data_key(aad)?;
    let mut result = pb::DataKeyResult {
        wrapped_crc32c: crc32c(&data_key.wrapped),
        wrapped: data_key.wrapped,
        verified_additional_authenticated_data_crc32c: verified,
        ..pb::DataKeyResult::default()
    };
    if !wrapped_only {
        result.plaintext = data_key.plaintext.expose().to_vec();
        result.plaintext_crc32c = crc32c(&result.plaintext);
    }
    Ok(result)
}
