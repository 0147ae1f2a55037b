//! Which verb a method needs, and which additional authenticated data a request brings.

use std::sync::Arc;

use asterism_chassis::{call::Caller, error::Failure};
use asterism_policy::Verb;
use asterism_proto::kms as pb;

use crate::{
    keys::{Key, KeyId},
    policy::Policy,
};

/// The key, if the caller may use it so; to who may not see it, it does not exist.
pub(super) fn usable(
    policy: &Policy,
    caller: &Caller,
    id: &KeyId,
    operation: &str,
    aads: &[&[u8]],
    now_ms: u64,
) -> Result<Arc<Key>, Failure> {
    let verb = verb_of(operation).ok_or_else(|| Failure::internal("an operation without a verb"))?;
    policy.access.key(caller, id, verb, aads, now_ms)
}

/// The verb that an operation on an existing key needs; none for one that nobody thought of, which is refused.
fn verb_of(operation: &str) -> Option<Verb> {
    let name = operation.strip_prefix("kms.")?;
    Some(match name.strip_prefix("Batch").unwrap_or(name) {
        "GetKey" | "GetKeyVersion" => Verb::Get,
        "RotateKey" => Verb::Rotate,
        "UpdateKey" | "UpdateKeyVersion" => Verb::Update,
        "ScheduleKeyVersionDestruction" | "RestoreKeyVersion" => Verb::Destroy,
        "Encrypt" => Verb::Encrypt,
        // A new ciphertext under a key of one's own would be as good as the plaintext.
        "Decrypt" | "ReEncrypt" | "AsymmetricDecrypt" => Verb::Decrypt,
        "GenerateDataKey" | "GenerateDataKeyWithoutPlaintext" => Verb::GenerateDataKey,
        "GenerateMac" => Verb::Mac,
        "AsymmetricSign" => Verb::Sign,
        "VerifyMac" | "AsymmetricVerify" => Verb::Verify,
        "DeriveSharedSecret" => Verb::Derive,
        "WrapKey" => Verb::Wrap,
        "UnwrapKey" => Verb::Unwrap,
        "CreateImportJob" | "ImportKeyVersion" => Verb::Import,
        "ExportKeyVersion" => Verb::Export,
        _ => return None,
    })
}

/// A request about one key. What it says has to be so for every additional authenticated data that it brings.
pub(super) trait Bound {
    /// All that it brings; empty for a request that has none.
    fn aads(&self) -> Vec<&[u8]> {
        vec![]
    }
}

macro_rules! bound {
    (none: $($without:ident),* $(,)?; aad: $($with:ident),* $(,)?; items: $($batch:ident),* $(,)?) => {
        $(impl Bound for pb::$without {})*
        $(impl Bound for pb::$with {
            fn aads(&self) -> Vec<&[u8]> {
                vec![&self.additional_authenticated_data]
            }
        })*
        $(impl Bound for pb::$batch {
            fn aads(&self) -> Vec<&[u8]> {
                let aads = self.items.iter().map(|item| item.additional_authenticated_data.as_slice());
                aads.collect()
            }
        })*
    };
}

bound! {
    none: GetKeyRequest, RotateKeyRequest, UpdateKeyRequest, GetKeyVersionRequest, UpdateKeyVersionRequest, DestroyKeyVersionRequest,
        RestoreKeyVersionRequest, GenerateMacRequest, VerifyMacRequest, AsymmetricSignRequest, AsymmetricVerifyRequest,
        DeriveSharedSecretRequest, WrapKeyRequest, UnwrapKeyRequest, BatchGenerateMacRequest, BatchVerifyMacRequest,
        BatchAsymmetricSignRequest, BatchAsymmetricVerifyRequest;
    aad: EncryptRequest, DecryptRequest, ReEncryptRequest, GenerateDataKeyRequest, GenerateDataKeyWithoutPlaintextRequest,
        AsymmetricDecryptRequest;
    items: BatchEncryptRequest, BatchDecryptRequest, BatchReEncryptRequest, BatchGenerateDataKeyRequest
}
