//! Which verb a method needs, and which additional authenticated data a request brings.

use asterism_policy::Verb;
use asterism_proto::kms as pb;

/// The verb that an operation on an existing key needs; none for one that nobody thought of, which is refused.
pub(super) fn verb_of(operation: &str) -> Option<Verb> {
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
    (none: $($without:ident),* $(,)?; aad: $($with:ident),* $(,)?) => {
        $(impl Bound for pb::$without {})*
        $(impl Bound for pb::$with {
            fn aads(&self) -> Vec<&[u8]> {
                vec![&self.additional_authenticated_data]
            }
        })*
    };
}

bound! {
    none: GetKeyRequest, RotateKeyRequest, UpdateKeyRequest, GetKeyVersionRequest, UpdateKeyVersionRequest, DestroyKeyVersionRequest,
        RestoreKeyVersionRequest, GenerateMacRequest, VerifyMacRequest, AsymmetricSignRequest, AsymmetricVerifyRequest;
    aad: EncryptRequest, DecryptRequest, ReEncryptRequest, GenerateDataKeyRequest, GenerateDataKeyWithoutPlaintextRequest
}
