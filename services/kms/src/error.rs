//! What can go wrong in key management.

use std::time::Duration;

use asterism_chassis::{
    StartError,
    error::{Classify, ErrorClass, FieldViolation},
};
use asterism_crypto::CryptoError;
use asterism_store::StoreError;

use crate::{
    keys::{KeyType, State},
    policy::PolicyError,
    root::RootError,
};

/// A key management error.
#[derive(Debug, thiserror::Error)]
pub enum KmsError {
    /// A field of the request cannot be used.
    #[error("{field}: {description}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// What is wrong, and what would be right.
        description: String,
    },
    /// No such key, or none that the caller may use.
    #[error("there is no key `{0}`; list keys with ListKeys, or create it")]
    KeyNotFound(String),
    /// The key has no such version.
    #[error("the key `{key}` has no version {version}")]
    VersionNotFound {
        /// Which key.
        key: String,
        /// Which version.
        version: u32,
    },
    /// The version's state does not allow what was asked.
    #[error("version {version} of the key `{key}` is {state}, which does not allow that")]
    VersionState {
        /// Which key.
        key: String,
        /// Which version.
        version: u32,
        /// Where in its life it is.
        state: State,
    },
    /// The version is older than the key's settings allow.
    #[error(
        "version {version} of the key `{key}` may not decrypt or verify any more: the key's minimum is {minimum}"
    )]
    VersionTooOld {
        /// Which key.
        key: String,
        /// Which version.
        version: u32,
        /// The oldest that may.
        minimum: u32,
    },
    /// No version was ever active.
    #[error("the key `{0}` has no active version yet; activate one, or wait for its activation time")]
    NoActiveVersion(String),
    /// The key was changed since the caller read it.
    #[error("the key `{0}` was changed in between; read it and try again with its etag")]
    EtagMismatch(String),
    /// An event could not be recorded, so nothing was done, or not all.
    #[error("the event could not be recorded: {0}")]
    Unrecorded(String),
    /// There is a key of that id.
    #[error("the key `{0}` exists already")]
    KeyExists(String),
    /// The key is of another type than the operation needs.
    #[error("the key `{key}` is {actual}, the operation needs {needed}")]
    WrongKeyType {
        /// Which key.
        key: String,
        /// What it is.
        actual: KeyType,
        /// What it would have to be.
        needed: String,
    },
    /// Wrong key, wrong additional authenticated data, or damaged ciphertext: one answer for all.
    #[error("the ciphertext does not decrypt with this key and this additional authenticated data")]
    DecryptionFailed,
    /// The bytes and their checksum do not agree.
    #[error("{field}: its CRC32C does not fit; the data was damaged on the way")]
    ChecksumMismatch {
        /// Which bytes.
        field: &'static str,
    },
    /// The request id was used for another request.
    #[error("the request id was already used with other parameters; use a fresh one")]
    RequestIdReused,
    /// The key has as many versions as a key may have.
    #[error("the key `{0}` has as many versions as a key may have; create another key")]
    TooManyVersions(String),
    /// No such import job, or not the caller's, or over.
    #[error(
        "there is no import job `{0}` of yours; it was used, is over, or ended with the service: create another"
    )]
    ImportJobNotFound(String),
    /// The principal, or everybody together, has as many import jobs as there may be.
    #[error("there are too many import jobs; use those that you have, or wait until they are over")]
    TooManyImportJobs,
    /// The key was not created exportable.
    #[error("the key `{0}` was not created exportable; its material never leaves the service")]
    NotExportable(String),
    /// No such record of an evaluation key, or none of the caller's.
    #[error("there is no record of the evaluation key `{0}`; register the key with inference")]
    EvaluationKeyNotFound(String),
    /// The same digest is on record with other parameters or another size.
    #[error("the evaluation key `{0}` is on record with other parameters or another size")]
    EvaluationKeyDiffers(String),
    /// A stored record or wrapped key cannot be read.
    #[error("a stored key is damaged: {0}")]
    Damaged(&'static str),
    /// The root key is not in memory.
    #[error("kms is sealed; unseal it with `asterism kms unseal`")]
    Sealed,
    /// Calls from before the last sealing hold on to what was open then.
    #[error("calls that began before kms was sealed are still under way; try again when they have ended")]
    CallsUnderWay,
    /// The store has to be copied before it is opened, which is done at a start.
    #[error(
        "this store is of an early release, and is brought up to date at a start that opens the seal by itself: \
         set root_key.passphrase_file and restart kms"
    )]
    UpgradeAtStart,
    /// The mark that a restore left cannot be read.
    #[error("{0} cannot be read; restore the backup anew")]
    RestoreMark(String),
    /// The seal.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The policy, or somebody who has to approve.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A cryptographic operation failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

impl KmsError {
    pub(crate) fn field(field: &'static str, description: impl Into<String>) -> Self {
        Self::Field {
            field,
            description: description.into(),
        }
    }
}

impl Classify for KmsError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Field { .. } | Self::DecryptionFailed | Self::ChecksumMismatch { .. } => {
                ErrorClass::Invalid
            }
            Self::KeyNotFound(_)
            | Self::VersionNotFound { .. }
            | Self::ImportJobNotFound(_)
            | Self::EvaluationKeyNotFound(_) => ErrorClass::NotFound,
            Self::TooManyImportJobs => ErrorClass::Exhausted,
            Self::KeyExists(_) | Self::RequestIdReused | Self::EvaluationKeyDiffers(_) => {
                ErrorClass::Conflict
            }
            Self::WrongKeyType { .. }
            | Self::TooManyVersions(_)
            | Self::VersionState { .. }
            | Self::VersionTooOld { .. }
            | Self::NoActiveVersion(_)
            | Self::EtagMismatch(_)
            | Self::NotExportable(_)
            | Self::Sealed
            | Self::UpgradeAtStart
            | Self::RestoreMark(_) => ErrorClass::Precondition,
            Self::Unrecorded(_) | Self::CallsUnderWay => ErrorClass::Unavailable,
            Self::Root(error) => error.class(),
            Self::Policy(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Damaged(_) | Self::Crypto(_) => ErrorClass::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Field { .. } => "INVALID_FIELD",
            Self::KeyNotFound(_) => "KEY_NOT_FOUND",
            Self::VersionNotFound { .. } => "KEY_VERSION_NOT_FOUND",
            Self::VersionState { .. } => "KEY_VERSION_STATE",
            Self::VersionTooOld { .. } => "KEY_VERSION_TOO_OLD",
            Self::NoActiveVersion(_) => "NO_ACTIVE_VERSION",
            Self::EtagMismatch(_) => "ETAG_MISMATCH",
            Self::Unrecorded(_) => "AUDIT_UNAVAILABLE",
            Self::KeyExists(_) => "KEY_EXISTS",
            Self::WrongKeyType { .. } => "WRONG_KEY_TYPE",
            Self::DecryptionFailed => "DECRYPTION_FAILED",
            Self::ChecksumMismatch { .. } => "CHECKSUM_MISMATCH",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::TooManyVersions(_) => "TOO_MANY_VERSIONS",
            Self::ImportJobNotFound(_) => "IMPORT_JOB_NOT_FOUND",
            Self::TooManyImportJobs => "TOO_MANY_IMPORT_JOBS",
            Self::NotExportable(_) => "NOT_EXPORTABLE",
            Self::EvaluationKeyNotFound(_) => "EVALUATION_KEY_NOT_FOUND",
            Self::EvaluationKeyDiffers(_) => "EVALUATION_KEY_DIFFERS",
            Self::Damaged(_) => "KEY_DAMAGED",
            Self::Sealed => "SEALED",
            Self::CallsUnderWay => "CALLS_UNDER_WAY",
            Self::UpgradeAtStart => "UPGRADE_AT_START",
            Self::RestoreMark(_) => "RESTORE_MARK_DAMAGED",
            Self::Root(error) => error.reason(),
            Self::Policy(error) => error.reason(),
            Self::Store(error) => error.reason(),
            Self::Crypto(_) => "CRYPTO_FAILED",
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        match self {
            Self::Field { field, description } => {
                vec![FieldViolation {
                    field: (*field).to_owned(),
                    description: description.clone(),
                }]
            }
            Self::ChecksumMismatch { field } => {
                vec![FieldViolation {
                    field: (*field).to_owned(),
                    description: self.to_string(),
                }]
            }
            Self::Root(error) => error.violations(),
            Self::Policy(error) => error.violations(),
            _ => vec![],
        }
    }

    fn metadata(&self) -> Vec<(String, String)> {
        match self {
            Self::Policy(error) => error.metadata(),
            _ => vec![],
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::CallsUnderWay => Some(Duration::from_secs(1)),
            Self::Root(error) => error.retry_after(),
            Self::Policy(error) => error.retry_after(),
            Self::Store(error) => error.retry_after(),
            _ => None,
        }
    }
}

impl From<KmsError> for StartError {
    fn from(error: KmsError) -> Self {
        match error {
            KmsError::Store(error) => Self::Store(error),
            KmsError::Root(error) => error.into(),
            other => Self::Other(other.to_string()),
        }
    }
}
