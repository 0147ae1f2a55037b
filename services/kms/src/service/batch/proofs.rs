//! MACs and signatures.

use asterism_crypto::{Digest, crc32c};
use asterism_proto::kms as pb;
use tonic::{Request, Response, Status};

use super::{check_count, each, over};
use crate::{
    error::KmsError,
    keys::{Processor, Protector, Purpose},
    service::Adapter,
    wire::{self, Encoding, check_crc},
};

pub(in crate::service) async fn generate_mac(
    adapter: &Adapter,
    request: Request<pb::BatchGenerateMacRequest>,
) -> Result<Response<pb::BatchGenerateMacResponse>, Status> {
    adapter
        .on_key(
            "kms.BatchGenerateMac",
            request,
            |r| &r.name,
            |on, message, trail| {
                check_count(&message.items)?;
                let protector = on.keyring.protector(&on.key, Purpose::Authenticate, on.now_ms)?;
                let results = each(on, trail, message.items, |item| mac(&protector, &item));
                on.note(trail, protector.version())
                    .output_digest(over(results.iter().map(|result| result.mac.as_slice())));
                Ok(pb::BatchGenerateMacResponse {
                    results,
                    key_version: protector.version(),
                })
            },
        )
        .await
}

fn mac(protector: &Protector<'_>, item: &pb::MacItem) -> Result<pb::MacResult, KmsError> {
    let verified = check_crc("data_crc32c", &item.data, item.data_crc32c)?;
    let mac = protector.mac(&item.data)?;
    Ok(pb::MacResult {
        error: None,
        mac_crc32c: crc32c(&mac),
        mac,
        verified_data_crc32c: verified,
    })
}

pub(in crate::service) async fn verify_mac(
    adapter: &Adapter,
    request: Request<pb::BatchVerifyMacRequest>,
) -> Result<Response<pb::BatchVerifyMacResponse>, Status> {
    adapter
        .on_key(
            "kms.BatchVerifyMac",
            request,
            |r| &r.name,
            |on, message, trail| {
                check_count(&message.items)?;
                trail.input_digest(over(message.items.iter().map(|item| item.mac.as_slice())));
                let processor = on.keyring.processor(&on.key, Purpose::Authenticate, on.now_ms)?;
                let results = each(on, trail, message.items, |item| check_mac(&processor, &item));
                Ok(pb::BatchVerifyMacResponse { results })
            },
        )
        .await
}

fn check_mac(processor: &Processor<'_>, item: &pb::VerifyMacItem) -> Result<pb::VerifyResult, KmsError> {
    let verified = check_crc("data_crc32c", &item.data, item.data_crc32c)?;
    let verified_mac = check_crc("mac_crc32c", &item.mac, item.mac_crc32c)?;
    let version = processor.verify_mac(&item.data, &item.mac, item.key_version)?;
    Ok(pb::VerifyResult {
        error: None,
        valid: version.is_some(),
        key_version: version.unwrap_or(0),
        verified_input_crc32c: verified,
        verified_proof_crc32c: verified_mac,
    })
}

pub(in crate::service) async fn asymmetric_sign(
    adapter: &Adapter,
    request: Request<pb::BatchAsymmetricSignRequest>,
) -> Result<Response<pb::BatchAsymmetricSignResponse>, Status> {
    adapter
        .on_key(
            "kms.BatchAsymmetricSign",
            request,
            |r| &r.name,
            |on, message, trail| {
                check_count(&message.items)?;
                let encoding = Encoding::parse(message.signature_encoding)?;
                let protector = on.keyring.protector(&on.key, Purpose::Sign, on.now_ms)?;
                let inputs: Vec<Input> = message
                    .items
                    .into_iter()
                    .map(|item| wire::input(item.input, item.input_crc32c))
                    .collect();
                trail.input_digest(over_inputs(inputs.iter()));
                let results = each(on, trail, inputs, |input| {
                    let (digest, verified) = input?;
                    let signature = encoding.write(&protector.sign(&digest)?);
                    Ok(pb::SignResult {
                        error: None,
                        signature_crc32c: crc32c(&signature),
                        signature,
                        verified_input_crc32c: verified,
                    })
                });
                on.note(trail, protector.version())
                    .output_digest(over(results.iter().map(|result| result.signature.as_slice())));
                Ok(pb::BatchAsymmetricSignResponse {
                    results,
                    key_version: protector.version(),
                })
            },
        )
        .await
}

pub(in crate::service) async fn asymmetric_verify(
    adapter: &Adapter,
    request: Request<pb::BatchAsymmetricVerifyRequest>,
) -> Result<Response<pb::BatchAsymmetricVerifyResponse>, Status> {
    adapter
        .on_key(
            "kms.BatchAsymmetricVerify",
            request,
            |r| &r.name,
            |on, message, trail| {
                check_count(&message.items)?;
                let encoding = Encoding::parse(message.signature_encoding)?;
                let items: Vec<(Input, pb::VerifyItem)> = message
                    .items
                    .into_iter()
                    .map(|mut item| (wire::input(item.input.take(), item.input_crc32c), item))
                    .collect();
                trail.input_digest(over_inputs(items.iter().map(|(input, _)| input)));
                let processor = on.keyring.processor(&on.key, Purpose::Sign, on.now_ms)?;
                let results = each(on, trail, items, |(input, item)| {
                    check_signature(&processor, encoding, input, &item)
                });
                Ok(pb::BatchAsymmetricVerifyResponse { results })
            },
        )
        .await
}

fn check_signature(
    processor: &Processor<'_>,
    encoding: Encoding,
    input: Input,
    item: &pb::VerifyItem,
) -> Result<pb::VerifyResult, KmsError> {
    let (digest, verified) = input?;
    let verified_signature = check_crc("signature_crc32c", &item.signature, item.signature_crc32c)?;
    let signature = encoding.read(&item.signature)?;
    let version = processor.verify(&digest, &signature, item.key_version)?;
    Ok(pb::VerifyResult {
        error: None,
        valid: version.is_some(),
        key_version: version.unwrap_or(0),
        verified_input_crc32c: verified,
        verified_proof_crc32c: verified_signature,
    })
}

/// What is signed, or said to be, and whether its checksum was checked; or why it cannot be.
type Input = Result<(Digest, bool), KmsError>;

/// As for a single signature, the event names what was signed: for a batch, the digest over the digests.
fn over_inputs<'a>(inputs: impl Iterator<Item = &'a Input>) -> Digest {
    over(inputs.map(|input| match input {
        Ok((digest, _)) => digest.as_bytes().as_slice(),
        Err(_) => &[],
    }))
}
