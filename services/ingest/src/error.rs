//! What can go wrong in ingest, each a thing that a caller can act on.

use std::time::Duration;

use asterism_chassis::error::{Classify, ErrorClass, FieldViolation};
use asterism_client::ClientError;
use asterism_crypto::CryptoError;
use asterism_learn::csv::CsvError;
use asterism_policy::Verb;
use asterism_store::StoreError;

/// An ingest error.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// A field of the request cannot be used.
    #[error("{field}: {description}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// What is wrong, and what would be right.
        description: &'static str,
    },
    /// No such upload, or none of the caller's. Sessions end with the process and when nobody uses them.
    #[error("there is no such upload, or it has expired; begin it again")]
    UploadUnknown,
    /// The upload ended, and takes no more bytes.
    #[error("the upload takes no more bytes; commit it")]
    UploadClosed,
    /// A chunk starts past the bytes that have arrived.
    #[error("the next chunk is due at offset {expected}")]
    OffsetMismatch {
        /// The offset that is due.
        expected: u64,
    },
    /// A chunk is not what its sender computed the checksum of.
    #[error("the CRC32C of the chunk does not fit; send it again")]
    ChecksumMismatch,
    /// What arrived is not as long as its sender says.
    #[error("{received} bytes have arrived, not {declared}; go on at offset {received}")]
    SizeMismatch {
        /// Bytes that arrived.
        received: u64,
        /// Bytes that the caller says there are.
        declared: u64,
    },
    /// What arrived has another SHA-256 than its sender says.
    #[error("the SHA-256 of what arrived is another one; upload the file again")]
    DigestMismatch,
    /// The bytes are no CSV that can be used.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// The schema does not fit into a manifest.
    #[error("the column names do not fit into a manifest of {limit} bytes; shorten them")]
    SchemaTooLarge {
        /// Most bytes.
        limit: usize,
    },
    /// More bytes than an upload may have.
    #[error("an upload has at most {limit} bytes; split the file")]
    UploadTooLarge {
        /// Most bytes.
        limit: u64,
    },
    /// Too many uploads are open.
    #[error("{limit} uploads are open already; commit or abort one, or try again later")]
    TooManyUploads {
        /// Most, of this owner or of all.
        limit: usize,
    },
    /// The work on the upload ended early.
    #[error("the upload was interrupted; begin it again")]
    UploadInterrupted,
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
    /// What is stored of a dataset does not verify and is not used.
    #[error("`{dataset}` is damaged: {problem}; restore it from a backup or upload it again")]
    DatasetDamaged {
        /// `datasets/{id}`.
        dataset: String,
        /// Which check failed.
        problem: String,
    },
    /// The caller went away.
    #[error("the caller went away")]
    Cancelled,
    /// kms refused or failed. Its own words are for the operator.
    #[error("kms refused or does not answer; try again, or ask an operator")]
    Keys {
        /// What the caller can do about it.
        class: ErrorClass,
        /// Its answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The local store failed.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// A cryptographic operation failed.
    #[error("crypto: {0}")]
    Crypto(#[from] CryptoError),
    /// A record in the store cannot be read.
    #[error("a stored record is damaged: {0}")]
    RecordDamaged(&'static str),
}

impl IngestError {
    pub(crate) fn field(field: &'static str, description: &'static str) -> Self {
        Self::Field { field, description }
    }
}

impl Classify for IngestError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Field { .. } | Self::ChecksumMismatch | Self::Csv(_) | Self::SchemaTooLarge { .. } => {
                ErrorClass::Invalid
            }
            Self::UploadUnknown | Self::DatasetNotFound(_) => ErrorClass::NotFound,
            Self::UploadClosed
            | Self::OffsetMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::DigestMismatch
            | Self::UploadInterrupted
            | Self::DatasetDamaged { .. } => ErrorClass::Precondition,
            Self::UploadTooLarge { .. } | Self::TooManyUploads { .. } => ErrorClass::Exhausted,
            Self::Denied { .. } => ErrorClass::Denied,
            Self::PolicyUnavailable(_) => ErrorClass::Unavailable,
            Self::Cancelled => ErrorClass::Cancelled,
            Self::Keys { class, .. } => *class,
            Self::Store(error) => error.class(),
            Self::Crypto(_) | Self::RecordDamaged(_) => ErrorClass::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Field { .. } => "INVALID_FIELD",
            Self::UploadUnknown => "UPLOAD_UNKNOWN",
            Self::UploadClosed => "UPLOAD_CLOSED",
            Self::OffsetMismatch { .. } => "OFFSET_MISMATCH",
            Self::ChecksumMismatch => "CHECKSUM_MISMATCH",
            Self::SizeMismatch { .. } => "SIZE_MISMATCH",
            Self::DigestMismatch => "DIGEST_MISMATCH",
            Self::Csv(error) => csv_reason(error),
            Self::SchemaTooLarge { .. } => "SCHEMA_TOO_LARGE",
            Self::UploadTooLarge { .. } => "UPLOAD_TOO_LARGE",
            Self::TooManyUploads { .. } => "TOO_MANY_UPLOADS",
            Self::UploadInterrupted => "UPLOAD_INTERRUPTED",
            Self::DatasetNotFound(_) => "DATASET_NOT_FOUND",
            Self::Denied { .. } => "POLICY_DENIED",
            Self::PolicyUnavailable(_) => "POLICY_UNAVAILABLE",
            Self::DatasetDamaged { .. } => "DATASET_DAMAGED",
            Self::Cancelled => "CANCELLED",
            Self::Keys { .. } => "KMS_FAILED",
            Self::Store(error) => error.reason(),
            Self::Crypto(_) => "CRYPTO_FAILED",
            Self::RecordDamaged(_) => "STORAGE_DAMAGED",
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        let (field, description) = match self {
            Self::Field { field, description } => (*field, (*description).to_owned()),
            Self::ChecksumMismatch => ("crc32c", self.to_string()),
            Self::Csv(_) | Self::SchemaTooLarge { .. } => ("data", self.to_string()),
            _ => return vec![],
        };
        vec![FieldViolation {
            field: field.to_owned(),
            description,
        }]
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyUploads { .. } => Some(Duration::from_secs(10)),
            Self::PolicyUnavailable(_)
            | Self::Keys {
                class: ErrorClass::Unavailable,
                ..
            } => Some(Duration::from_secs(1)),
            Self::Store(error) => error.retry_after(),
            _ => None,
        }
    }

    fn metadata(&self) -> Vec<(String, String)> {
        let fact = |name: &str, value: u64| (name.to_owned(), value.to_string());
        match self {
            Self::OffsetMismatch { expected }
            | Self::SizeMismatch {
                received: expected, ..
            } => {
                vec![fact("expected_offset", *expected)]
            }
            Self::Denied { verb, .. } => vec![("verb".to_owned(), verb.to_string())],
            Self::Csv(error) => csv_place(error)
                .into_iter()
                .map(|(name, value)| fact(name, value))
                .collect(),
            _ => vec![],
        }
    }
}

fn csv_reason(error: &CsvError) -> &'static str {
    match error {
        CsvError::Empty => "CSV_EMPTY",
        CsvError::HeaderOnly => "CSV_HEADER_ONLY",
        CsvError::RaggedRow { .. } => "CSV_RAGGED_ROW",
        CsvError::DuplicateColumn { .. } => "CSV_DUPLICATE_COLUMN",
        CsvError::EmptyColumnName { .. } => "CSV_EMPTY_COLUMN_NAME",
        CsvError::TooManyColumns { .. } => "CSV_TOO_MANY_COLUMNS",
        CsvError::CellTooLarge { .. } => "CSV_CELL_TOO_LARGE",
        CsvError::RowTooLarge { .. } => "CSV_ROW_TOO_LARGE",
        CsvError::InvalidUtf8 { .. } => "CSV_INVALID_UTF8",
        CsvError::UnsupportedEncoding { .. } => "CSV_UNSUPPORTED_ENCODING",
        CsvError::NulByte { .. } => "CSV_NUL_BYTE",
        CsvError::LineBreakInHeader => "CSV_LINE_BREAK_IN_HEADER",
        CsvError::UnterminatedQuote { .. } => "CSV_UNTERMINATED_QUOTE",
        CsvError::OutOfRoom { .. } => "CSV_TOO_LARGE",
    }
}

/// Where in the file: for programs that show the place to their user.
fn csv_place(error: &CsvError) -> Vec<(&'static str, u64)> {
    match error {
        CsvError::RaggedRow { row, .. }
        | CsvError::RowTooLarge { row, .. }
        | CsvError::NulByte { row }
        | CsvError::UnterminatedQuote { row } => vec![("row", *row)],
        CsvError::CellTooLarge { row, column, .. } | CsvError::InvalidUtf8 { row, column } => {
            vec![("row", *row), ("column", *column as u64)]
        }
        CsvError::DuplicateColumn { second: column, .. } | CsvError::EmptyColumnName { index: column } => {
            vec![("row", 0), ("column", *column as u64)]
        }
        _ => vec![],
    }
}
