//! What can go wrong with the log.

use std::time::Duration;

use asterism_chassis::{
    StartError,
    error::{Classify, ErrorClass, FieldViolation},
};
use asterism_store::StoreError;

/// An audit error.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A field of the request cannot be used.
    #[error("{field}: {description}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// What is wrong, and what would be right.
        description: String,
    },
    /// A service tried to append another's events.
    #[error("a service appends events of its own only")]
    ForeignSource,
    /// An event id came again with another content.
    #[error("an event id was already used for another event")]
    EventIdReused,
    /// The log is shorter or other than it was known to be.
    #[error(
        "the log was rolled back: {0}; restore the newest backup, or move head.json away if the loss is understood"
    )]
    RolledBack(String),
    /// A stored record cannot be read.
    #[error("the log is damaged: {0}; run VerifyLog to find where, and restore a backup")]
    Damaged(&'static str),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AuditError {
    pub(crate) fn field(field: &'static str, description: impl Into<String>) -> Self {
        Self::Field {
            field,
            description: description.into(),
        }
    }
}

impl From<AuditError> for StartError {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Store(error) => Self::Store(error),
            other => Self::Other(other.to_string()),
        }
    }
}

impl Classify for AuditError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Field { .. } => ErrorClass::Invalid,
            Self::ForeignSource => ErrorClass::Denied,
            Self::EventIdReused => ErrorClass::Conflict,
            Self::RolledBack(_) | Self::Damaged(_) => ErrorClass::Internal,
            Self::Store(error) => error.class(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Field { .. } => "INVALID_FIELD",
            Self::ForeignSource => "FOREIGN_SOURCE",
            Self::EventIdReused => "EVENT_ID_REUSED",
            Self::RolledBack(_) => "LOG_ROLLED_BACK",
            Self::Damaged(_) => "LOG_DAMAGED",
            Self::Store(error) => error.reason(),
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
            _ => vec![],
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Store(error) => error.retry_after(),
            _ => None,
        }
    }
}
