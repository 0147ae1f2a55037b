//! Which roles may call which method. Deny by default: a method without a line here is refused to everybody.

use crate::identity::Role::{self, Admin, Analyst, Auditor, DataOwner, KeyAdmin, Service, Viewer};

/// Which keys, grants decide where the keys live.
const USE_KEYS: &[Role] = &[Admin, KeyAdmin, DataOwner, Analyst, Auditor, Service];
const MAKE_KEYS: &[Role] = &[Admin, KeyAdmin, DataOwner, Service];
const READ_KEYS: &[Role] = &[Admin, KeyAdmin, DataOwner, Analyst, Auditor, Viewer, Service];
/// Owners change the keys that they made.
const CHANGE_KEYS: &[Role] = &[Admin, KeyAdmin, DataOwner];
/// Material leaves kms: never for who only administers keys.
const EXPORT_KEYS: &[Role] = &[Admin, DataOwner];
/// For oneself or, where the service says so, for others.
const ASK_POLICY: &[Role] = &[Admin, KeyAdmin, DataOwner, Analyst, Auditor, Viewer, Service];
/// Whom a grant may let approve.
const DECIDE: &[Role] = &[Admin, KeyAdmin, DataOwner, Analyst, Auditor];
/// A check with a public key gives nothing away, but is an operation, not metadata.
const CHECK_SIGNATURES: &[Role] = &[Admin, KeyAdmin, DataOwner, Analyst, Auditor, Service];
/// Records of evaluation keys are inference's to make, for whoever it acts for.
const EVALUATION_KEY_RECORDS: &[Role] = &[Admin, Service];
const OWN_DATA: &[Role] = &[Admin, DataOwner];
/// Decrypted rows: an analyst learns from models, which inference trains as a service.
const READ_ROWS: &[Role] = &[Admin, DataOwner, Service];
const CHECK_DATA: &[Role] = &[Admin, DataOwner, Analyst, Auditor, Service];
const READ_METADATA: &[Role] = &[Admin, DataOwner, Analyst, Auditor, Viewer, Service];
const USE_MODELS: &[Role] = &[Admin, Analyst];
const READ_LOG: &[Role] = &[Admin, Auditor];
const PEOPLE: &[Role] = &[Admin];
const READ_PEOPLE: &[Role] = &[Admin, Auditor];
/// About oneself: who else may, the service decides.
const ONESELF: &[Role] = &[Admin, KeyAdmin, DataOwner, Analyst, Auditor, Viewer, Service];

/// `package.Service/Method` and who may call it.
const POLICY: &[(&str, &[Role])] = &[
    ("asterism.audit.v1.AuditService/AppendEvents", &[Service]),
    ("asterism.audit.v1.AuditService/GetCheckpoint", READ_LOG),
    ("asterism.audit.v1.AuditService/GetConsistencyProof", READ_LOG),
    ("asterism.audit.v1.AuditService/GetInclusionProof", READ_LOG),
    ("asterism.audit.v1.AuditService/ListEvents", READ_LOG),
    ("asterism.audit.v1.AuditService/ReadEntries", READ_LOG),
    ("asterism.audit.v1.AuditService/VerifyLog", READ_LOG),
    ("asterism.audit.v1.AuditService/WatchEvents", READ_LOG),
    ("asterism.firewall.v1.FirewallService/GetRules", &[Admin]),
    ("asterism.firewall.v1.FirewallService/GetStatistics", &[Admin]),
    ("asterism.firewall.v1.FirewallService/LiftBan", &[Admin]),
    ("asterism.firewall.v1.FirewallService/ListBans", &[Admin]),
    ("asterism.firewall.v1.FirewallService/UpdateRules", &[Admin]),
    ("asterism.identity.v1.IdentityService/AddSecondFactor", ONESELF),
    (
        "asterism.identity.v1.IdentityService/ConfirmSecondFactor",
        ONESELF,
    ),
    ("asterism.identity.v1.IdentityService/CreateInvitation", PEOPLE),
    ("asterism.identity.v1.IdentityService/DeletePrincipal", PEOPLE),
    ("asterism.identity.v1.IdentityService/GetPrincipal", ONESELF),
    ("asterism.identity.v1.IdentityService/ListPrincipals", READ_PEOPLE),
    ("asterism.identity.v1.IdentityService/RemoveSecondFactor", ONESELF),
    (
        "asterism.identity.v1.IdentityService/RevokePrincipalTokens",
        ONESELF,
    ),
    ("asterism.identity.v1.IdentityService/RevokeToken", PEOPLE),
    ("asterism.identity.v1.IdentityService/UpdatePrincipal", PEOPLE),
    (
        "asterism.identity.v1.IdentityService/WatchTrust",
        &[Admin, Service],
    ),
    ("asterism.identity.v1.IdentityService/WhoAmI", ONESELF),
    (
        "asterism.inference.v1.EncryptedInferenceService/CompileModel",
        USE_MODELS,
    ),
    (
        "asterism.inference.v1.EncryptedInferenceService/DeleteEvaluationKey",
        USE_MODELS,
    ),
    (
        "asterism.inference.v1.EncryptedInferenceService/ExplainModel",
        USE_MODELS,
    ),
    (
        "asterism.inference.v1.EncryptedInferenceService/GetClientBundle",
        USE_MODELS,
    ),
    (
        "asterism.inference.v1.EncryptedInferenceService/ListEvaluationKeys",
        USE_MODELS,
    ),
    (
        "asterism.inference.v1.EncryptedInferenceService/PredictEncrypted",
        USE_MODELS,
    ),
    (
        "asterism.inference.v1.EncryptedInferenceService/PredictEncryptedStream",
        USE_MODELS,
    ),
    (
        "asterism.inference.v1.EncryptedInferenceService/RegisterEvaluationKey",
        USE_MODELS,
    ),
    ("asterism.inference.v1.InferenceService/BatchPredict", USE_MODELS),
    ("asterism.inference.v1.InferenceService/DeleteModel", USE_MODELS),
    ("asterism.inference.v1.InferenceService/Evaluate", USE_MODELS),
    ("asterism.inference.v1.InferenceService/GetModel", READ_METADATA),
    ("asterism.inference.v1.InferenceService/ImportModel", USE_MODELS),
    ("asterism.inference.v1.InferenceService/ListModels", READ_METADATA),
    ("asterism.inference.v1.InferenceService/Predict", USE_MODELS),
    ("asterism.inference.v1.InferenceService/Train", USE_MODELS),
    ("asterism.ingest.v1.IngestService/AbortUpload", OWN_DATA),
    ("asterism.ingest.v1.IngestService/BeginUpload", OWN_DATA),
    ("asterism.ingest.v1.IngestService/CommitUpload", OWN_DATA),
    ("asterism.ingest.v1.IngestService/DeleteDataset", OWN_DATA),
    ("asterism.ingest.v1.IngestService/GetDataset", READ_METADATA),
    ("asterism.ingest.v1.IngestService/GetManifest", CHECK_DATA),
    ("asterism.ingest.v1.IngestService/GetUpload", OWN_DATA),
    ("asterism.ingest.v1.IngestService/ListDatasets", READ_METADATA),
    ("asterism.ingest.v1.IngestService/PutChunk", OWN_DATA),
    ("asterism.ingest.v1.IngestService/ReadCiphertext", CHECK_DATA),
    ("asterism.ingest.v1.IngestService/ReadRows", READ_ROWS),
    ("asterism.ingest.v1.IngestService/Upload", OWN_DATA),
    ("asterism.ingest.v1.IngestService/VerifyDataset", CHECK_DATA),
    ("asterism.kms.v1.BackupService/CreateBackup", &[Admin]),
    ("asterism.kms.v1.KeyManagementService/AsymmetricDecrypt", USE_KEYS),
    (
        "asterism.kms.v1.KeyManagementService/BatchAsymmetricSign",
        USE_KEYS,
    ),
    (
        "asterism.kms.v1.KeyManagementService/BatchAsymmetricVerify",
        CHECK_SIGNATURES,
    ),
    ("asterism.kms.v1.KeyManagementService/BatchDecrypt", USE_KEYS),
    ("asterism.kms.v1.KeyManagementService/BatchEncrypt", USE_KEYS),
    (
        "asterism.kms.v1.KeyManagementService/BatchGenerateDataKey",
        USE_KEYS,
    ),
    ("asterism.kms.v1.KeyManagementService/BatchGenerateMac", USE_KEYS),
    ("asterism.kms.v1.KeyManagementService/BatchReEncrypt", USE_KEYS),
    ("asterism.kms.v1.KeyManagementService/BatchVerifyMac", USE_KEYS),
    (
        "asterism.kms.v1.KeyManagementService/CreateImportJob",
        CHANGE_KEYS,
    ),
    (
        "asterism.kms.v1.KeyManagementService/DeriveSharedSecret",
        USE_KEYS,
    ),
    (
        "asterism.kms.v1.KeyManagementService/ExportKeyVersion",
        EXPORT_KEYS,
    ),
    (
        "asterism.kms.v1.KeyManagementService/GenerateRandomBytes",
        USE_KEYS,
    ),
    (
        "asterism.kms.v1.KeyManagementService/ImportKeyVersion",
        CHANGE_KEYS,
    ),
    ("asterism.kms.v1.KeyManagementService/UnwrapKey", USE_KEYS),
    ("asterism.kms.v1.KeyManagementService/WrapKey", USE_KEYS),
    ("asterism.kms.v1.KeyManagementService/AsymmetricSign", USE_KEYS),
    (
        "asterism.kms.v1.KeyManagementService/AsymmetricVerify",
        CHECK_SIGNATURES,
    ),
    ("asterism.kms.v1.KeyManagementService/CreateKey", MAKE_KEYS),
    ("asterism.kms.v1.KeyManagementService/Decrypt", USE_KEYS),
    (
        "asterism.kms.v1.KeyManagementService/DeleteEvaluationKeyRecord",
        EVALUATION_KEY_RECORDS,
    ),
    (
        "asterism.kms.v1.KeyManagementService/DestroyKeyVersion",
        CHANGE_KEYS,
    ),
    ("asterism.kms.v1.KeyManagementService/Encrypt", USE_KEYS),
    ("asterism.kms.v1.KeyManagementService/GenerateDataKey", USE_KEYS),
    (
        "asterism.kms.v1.KeyManagementService/GenerateDataKeyWithoutPlaintext",
        USE_KEYS,
    ),
    ("asterism.kms.v1.KeyManagementService/GenerateMac", USE_KEYS),
    (
        "asterism.kms.v1.KeyManagementService/GetEvaluationKeyRecord",
        EVALUATION_KEY_RECORDS,
    ),
    ("asterism.kms.v1.KeyManagementService/GetKey", READ_KEYS),
    ("asterism.kms.v1.KeyManagementService/GetKeyVersion", READ_KEYS),
    ("asterism.kms.v1.KeyManagementService/GetPublicKey", READ_KEYS),
    ("asterism.kms.v1.KeyManagementService/ListKeys", READ_KEYS),
    ("asterism.kms.v1.KeyManagementService/ReEncrypt", USE_KEYS),
    (
        "asterism.kms.v1.KeyManagementService/RecordEvaluationKey",
        EVALUATION_KEY_RECORDS,
    ),
    (
        "asterism.kms.v1.KeyManagementService/RestoreKeyVersion",
        CHANGE_KEYS,
    ),
    ("asterism.kms.v1.KeyManagementService/RotateKey", CHANGE_KEYS),
    ("asterism.kms.v1.KeyManagementService/UpdateKey", CHANGE_KEYS),
    (
        "asterism.kms.v1.KeyManagementService/UpdateKeyVersion",
        CHANGE_KEYS,
    ),
    ("asterism.kms.v1.KeyManagementService/VerifyMac", USE_KEYS),
    ("asterism.kms.v1.SystemService/Rekey", &[Admin]),
    ("asterism.kms.v1.SystemService/RotateRoot", &[Admin]),
    ("asterism.kms.v1.SystemService/Seal", &[Admin]),
    ("asterism.policy.v1.PolicyService/ApproveOperation", DECIDE),
    ("asterism.policy.v1.PolicyService/CheckAccess", &[Admin, Service]),
    ("asterism.policy.v1.PolicyService/CreateGrant", CHANGE_KEYS),
    ("asterism.policy.v1.PolicyService/DeleteGrant", CHANGE_KEYS),
    ("asterism.policy.v1.PolicyService/ExplainAccess", ASK_POLICY),
    ("asterism.policy.v1.PolicyService/GetApproval", DECIDE),
    ("asterism.policy.v1.PolicyService/GetGrant", ASK_POLICY),
    ("asterism.policy.v1.PolicyService/ListApprovals", DECIDE),
    ("asterism.policy.v1.PolicyService/ListGrants", ASK_POLICY),
    ("asterism.policy.v1.PolicyService/RejectOperation", DECIDE),
    ("asterism.policy.v1.PolicyService/UpdateGrant", CHANGE_KEYS),
    ("inference.GRPCInferenceService/ModelInfer", USE_MODELS),
    ("inference.GRPCInferenceService/ModelMetadata", USE_MODELS),
    ("inference.GRPCInferenceService/ModelReady", USE_MODELS),
    ("inference.GRPCInferenceService/ServerLive", USE_MODELS),
    ("inference.GRPCInferenceService/ServerMetadata", USE_MODELS),
    ("inference.GRPCInferenceService/ServerReady", USE_MODELS),
];

/// Methods that need no token, because the request itself proves what it has to, or because they come before there can be one.
/// Each answers for its own bounds: attempts, sizes, waiting times.
const OPEN: &[&str] = &[
    "asterism.identity.v1.IdentityService/AnswerSecondFactor",
    "asterism.identity.v1.IdentityService/FinishEnrolment",
    "asterism.identity.v1.IdentityService/FinishLogin",
    "asterism.identity.v1.IdentityService/GetTokenKeys",
    "asterism.identity.v1.IdentityService/Logout",
    "asterism.identity.v1.IdentityService/RefreshToken",
    "asterism.identity.v1.IdentityService/StartEnrolment",
    "asterism.identity.v1.IdentityService/StartLogin",
    "asterism.kms.v1.SystemService/GetSealStatus",
    "asterism.kms.v1.SystemService/ResetUnseal",
    "asterism.kms.v1.SystemService/Unseal",
];

/// Whether everybody may call `package.Service/Method`, without a token.
pub fn is_open(method: &str) -> bool {
    OPEN.contains(&method)
}

/// The roles that may call `package.Service/Method`; `None` for a method that nobody may.
pub fn allowed_roles(method: &str) -> Option<&'static [Role]> {
    POLICY
        .iter()
        .find(|(name, _)| *name == method)
        .map(|(_, roles)| *roles)
}

/// Whether the method only reads metadata: answered even while no event can be recorded.
pub fn reads_metadata(method: &str) -> bool {
    let name = method.rsplit('/').next().unwrap_or_default();
    ["Get", "List", "Watch"].iter().any(|verb| name.starts_with(verb))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    #[test]
    fn every_method_of_the_contracts_has_its_line_and_no_line_is_stale() {
        let contracts =
            prost_types::FileDescriptorSet::decode(asterism_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
        let mut methods = BTreeSet::new();
        for file in &contracts.file {
            for service in &file.service {
                for method in &service.method {
                    methods.insert(format!("{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        let named = POLICY.iter().map(|(name, _)| name).chain(OPEN);
        let lines: BTreeSet<String> = named.map(|name| (*name).to_owned()).collect();
        assert_eq!(methods, lines);
        assert_eq!(lines.len(), POLICY.len() + OPEN.len(), "a method has two lines");
        assert!(POLICY.iter().all(|(_, roles)| !roles.is_empty()));
    }

    #[test]
    fn admins_may_all_but_forge_events_and_viewers_only_look() {
        for (method, roles) in POLICY {
            assert_eq!(
                roles.contains(&Admin),
                !method.ends_with("/AppendEvents"),
                "{method}"
            );
            let about_oneself = *roles == ONESELF && method.contains(".IdentityService/");
            let looks = reads_metadata(method) || method.ends_with("/ExplainAccess") || about_oneself;
            assert!(!roles.contains(&Viewer) || looks, "{method}");
        }
    }

    #[test]
    fn only_services_append_and_strangers_do_nothing() {
        assert_eq!(
            allowed_roles("asterism.audit.v1.AuditService/AppendEvents"),
            Some([Service].as_slice())
        );
        assert_eq!(
            allowed_roles("asterism.kms.v1.KeyManagementService/DestroyEverything"),
            None
        );
    }
}
