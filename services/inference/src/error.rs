//! What can go wrong in inference, each a thing that a caller can act on.

use asterism_chassis::error::{Classify, ErrorClass, FieldViolation};
use asterism_client::ClientError;
use asterism_crypto::CryptoError;
use asterism_learn::{LearnError, csv::CsvError, table::TableError};
use asterism_policy::Verb;
use asterism_store::StoreError;
use tonic::Code;

use crate::encrypted::EncryptedError;

/// An inference error.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// A field of the request cannot be used.
    #[error("{field}: {description}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong, and what would be right.
        description: String,
    },
    /// No such model, or none that the caller may know of.
    #[error("there is no model `{0}`; list the models you may use with ListModels")]
    ModelNotFound(String),
    /// No such dataset, or none that the caller may know of.
    #[error("there is no dataset `{0}`; list the datasets you may use with ListDatasets")]
    DatasetNotFound(String),
    /// The caller may know of it, and not do that.
    #[error(
        "nothing allows you to {verb} `{resource}`, or a grant denies it; `asterism policy explain` says why, an administrator can grant it"
    )]
    Denied {
        /// What was to be done.
        verb: Verb,
        /// To what.
        resource: String,
    },
    /// kms does not say who may do what; then nobody may.
    #[error("kms does not answer who may do that, so nobody may; try again, or ask an operator")]
    PolicyUnavailable(Box<ClientError>),
    /// A stored model does not verify and is not used.
    #[error("the model `{model}` is refused: {problem}; restore it from a backup or train it again")]
    ModelRefused {
        /// `models/{id}`.
        model: String,
        /// Which check failed.
        problem: &'static str,
    },
    /// The dataset does not verify and is not used.
    #[error("the dataset is refused: {0}; run VerifyDataset, then upload it again")]
    DatasetRefused(String),
    /// The dataset changed since the model was trained on it.
    #[error(
        "the dataset is not the one that the model was trained on; name a dataset to evaluate on all its rows"
    )]
    DatasetChanged,
    /// The model was not trained here.
    #[error(
        "the model was imported: it has no label to evaluate it by; predict with it, and compare outside"
    )]
    Imported,
    /// The bytes are no model that can be imported.
    #[error("the model cannot be imported: {0}")]
    NotImportable(String),
    /// Too many models are being imported at once.
    #[error("too many imports at once; try again later")]
    ImportsBusy,
    /// The model cannot predict on encrypted rows, and why.
    #[error("the model does not predict on encrypted rows: {0}")]
    NotServed(String),
    /// The data cannot be learnt from, or does not fit the model.
    #[error(transparent)]
    Learn(#[from] LearnError),
    /// The decrypted dataset is not readable as CSV.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// The dataset does not fit in the memory that one request may use.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The request id was used for another request.
    #[error("the request id was already used with other parameters; use a fresh one")]
    RequestIdReused,
    /// Something about encrypted prediction.
    #[error(transparent)]
    Encrypted(#[from] EncryptedError),
    /// The caller went away.
    #[error("the caller cancelled the request")]
    Cancelled,
    /// The caller's time was up first.
    #[error("the deadline passed before the work was done")]
    DeadlineExceeded,
    /// kms or ingest refused or failed.
    #[error("{service}: {source}")]
    Upstream {
        /// `kms` or `ingest`.
        service: &'static str,
        /// Its answer.
        source: Box<ClientError>,
    },
    /// The local store failed.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// A cryptographic operation failed.
    #[error("crypto: {0}")]
    Crypto(#[from] CryptoError),
    /// A record in the store cannot be read.
    #[error("a stored record is damaged: {0}")]
    Damaged(&'static str),
}

impl InferenceError {
    pub(crate) fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Field {
            field: field.into(),
            description: description.into(),
        }
    }

    pub(crate) fn kms(source: ClientError) -> Self {
        Self::Upstream {
            service: "kms",
            source: Box::new(source),
        }
    }

    /// An answer of ingest about the dataset `name`.
    pub(crate) fn ingest(name: &str, source: ClientError) -> Self {
        match source {
            ClientError::Verification(problem) => Self::DatasetRefused(problem),
            other if other.code() == Code::NotFound => Self::DatasetNotFound(name.to_owned()),
            source => Self::Upstream {
                service: "ingest",
                source: Box::new(source),
            },
        }
    }
}

impl Classify for InferenceError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Field { .. } => ErrorClass::Invalid,
            Self::Table(_) => ErrorClass::Exhausted,
            Self::Csv(CsvError::OutOfRoom { .. }) => ErrorClass::Exhausted,
            Self::Csv(_) => ErrorClass::Precondition,
            Self::Learn(error) => match error {
                LearnError::Cancelled => ErrorClass::Cancelled,
                LearnError::NotAModel(_) | LearnError::RowOutOfRange { .. } => ErrorClass::Internal,
                error if request_field(error).is_some() => ErrorClass::Invalid,
                // The data is at fault, not the request.
                _ => ErrorClass::Precondition,
            },
            Self::ModelNotFound(_) | Self::DatasetNotFound(_) => ErrorClass::NotFound,
            Self::Denied { .. } => ErrorClass::Denied,
            Self::PolicyUnavailable(_) => ErrorClass::Unavailable,
            Self::NotImportable(_) => ErrorClass::Invalid,
            Self::ImportsBusy => ErrorClass::Exhausted,
            Self::Imported
            | Self::ModelRefused { .. }
            | Self::DatasetRefused(_)
            | Self::DatasetChanged
            | Self::NotServed(_) => ErrorClass::Precondition,
            Self::RequestIdReused => ErrorClass::Conflict,
            Self::Encrypted(error) => error.class(),
            Self::Cancelled => ErrorClass::Cancelled,
            Self::DeadlineExceeded => ErrorClass::DeadlineExceeded,
            Self::Upstream { source, .. } => match source.code() {
                Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => {
                    ErrorClass::Unavailable
                }
                Code::PermissionDenied => ErrorClass::Denied,
                _ if source.is_of_a_seal() => ErrorClass::Unavailable,
                _ => ErrorClass::Internal,
            },
            Self::Store(StoreError::NoSpace) => ErrorClass::Exhausted,
            Self::Store(_) | Self::Crypto(_) | Self::Damaged(_) => ErrorClass::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Field { .. } => "INVALID_FIELD",
            Self::ModelNotFound(_) => "MODEL_NOT_FOUND",
            Self::DatasetNotFound(_) => "DATASET_NOT_FOUND",
            Self::Denied { .. } => "POLICY_DENIED",
            Self::PolicyUnavailable(_) => "POLICY_UNAVAILABLE",
            Self::ModelRefused { .. } => "MODEL_REFUSED",
            Self::DatasetRefused(_) => "DATASET_REFUSED",
            Self::DatasetChanged => "DATASET_CHANGED",
            Self::Imported => "MODEL_IMPORTED",
            Self::NotImportable(_) => "MODEL_NOT_IMPORTABLE",
            Self::ImportsBusy => "OVERLOADED",
            Self::NotServed(_) => "MODEL_NOT_SERVED",
            Self::Learn(error) => learn_reason(error),
            Self::Table(_) => "DATASET_TOO_LARGE",
            Self::Csv(CsvError::OutOfRoom { .. }) => "DATASET_TOO_LARGE",
            Self::Csv(_) => "DATASET_UNREADABLE",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::Encrypted(error) => error.reason(),
            Self::Cancelled => "CANCELLED",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Upstream { .. } => "UPSTREAM_FAILED",
            Self::Store(StoreError::NoSpace) => "STORAGE_FULL",
            Self::Store(_) => "STORAGE_FAILED",
            Self::Crypto(_) => "CRYPTO_FAILED",
            Self::Damaged(_) => "STORAGE_DAMAGED",
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        match self {
            Self::Field { field, description } => {
                vec![FieldViolation {
                    field: field.clone(),
                    description: description.clone(),
                }]
            }
            Self::NotImportable(description) => vec![FieldViolation {
                field: "chunk".to_owned(),
                description: description.clone(),
            }],
            Self::Encrypted(error) => error.violations(),
            Self::Learn(LearnError::Hyperparameters { violations }) => violations
                .iter()
                .map(|violation| FieldViolation {
                    field: format!("hyperparameters.{}", violation.name),
                    description: violation.problem.clone(),
                })
                .collect(),
            Self::Learn(error) => request_field(error)
                .map(|field| FieldViolation {
                    field: field.to_owned(),
                    description: error.to_string(),
                })
                .into_iter()
                .collect(),
            _ => vec![],
        }
    }

    fn retry_after(&self) -> Option<std::time::Duration> {
        let passes = match self {
            Self::Encrypted(error) => error.passes(),
            _ => matches!(self.class(), ErrorClass::Exhausted | ErrorClass::Unavailable),
        };
        passes.then_some(std::time::Duration::from_secs(1))
    }

    fn metadata(&self) -> Vec<(String, String)> {
        match self {
            Self::Denied { verb, .. } => vec![("verb".to_owned(), verb.to_string())],
            _ => vec![],
        }
    }
}

/// The field of a request that a learning error is about; `None` when it is about the data.
fn request_field(error: &LearnError) -> Option<&'static str> {
    Some(match error {
        LearnError::UnknownLabel { .. } => "label",
        LearnError::UnknownFeature { .. }
        | LearnError::LabelIsFeature { .. }
        | LearnError::DuplicateFeature { .. }
        | LearnError::NonNumericFeature { .. }
        | LearnError::NoFeatures => "features",
        LearnError::TestFraction => "test_fraction",
        LearnError::Hyperparameters { .. } | LearnError::Diverged { .. } => "hyperparameters",
        LearnError::WrongWidth { .. } | LearnError::NotFinite { .. } | LearnError::TooExtreme => "rows",
        _ => return None,
    })
}

fn learn_reason(error: &LearnError) -> &'static str {
    match error {
        LearnError::UnknownLabel { .. } => "UNKNOWN_LABEL",
        LearnError::UnknownFeature { .. } => "UNKNOWN_FEATURE",
        LearnError::LabelIsFeature { .. } | LearnError::DuplicateFeature { .. } => "INVALID_FEATURES",
        LearnError::MissingLabel { .. } => "MISSING_LABEL",
        LearnError::OneClass { .. } => "ONE_CLASS",
        LearnError::TooManyClasses { .. } => "TOO_MANY_CLASSES",
        LearnError::NonNumericFeature { .. } => "NON_NUMERIC_FEATURE",
        LearnError::NoFeatures => "NO_FEATURES",
        LearnError::NotEnoughRows { .. } => "NOT_ENOUGH_ROWS",
        LearnError::TestFraction | LearnError::Hyperparameters { .. } => "INVALID_FIELD",
        LearnError::WrongWidth { .. } | LearnError::NotFinite { .. } | LearnError::TooExtreme => {
            "INVALID_ROW"
        }
        LearnError::WrongFeatures { .. } => "WRONG_FEATURES",
        LearnError::UnknownClass { .. } => "UNKNOWN_CLASS",
        LearnError::NotAModel(_) => "MODEL_UNREADABLE",
        LearnError::RowOutOfRange { .. } => "INTERNAL",
        LearnError::Diverged { .. } => "TRAINING_DIVERGED",
        LearnError::Cancelled => "CANCELLED",
    }
}
