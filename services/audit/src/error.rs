//! What can go wrong with the log.

use std::time::Duration;

use asterism_chassis::{
    StartError,
    error::{Classify, ErrorClass, FieldViolation},
};
use asterism_store::StoreError;

use crate::log::EventId;

/// An audit error.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A field of the request cannot be used.
    #[error("{field}: {description}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong, and what would be right.
        description: String,
    },
    /// A service tried to append another's events, or somebody who is no service any at all.
    #[error("a service appends events of its own only")]
    ForeignSource,
    /// An event id came again with another content.
    #[error("the event id {0} was already used for another event")]
    EventIdReused(EventId),
    /// There is no such event.
    #[error("the log has no event with the id {0}")]
    UnknownEvent(EventId),
    /// An append before this one failed, and took this one along. Nothing of it was written.
    #[error("an append before this one failed; send the events again")]
    Interrupted,
    /// The log is shorter than it was known to be, or another.
    #[error(
        "the log was rolled back: {0}; restore the newest backup, or move head.json and checkpoint away if the loss is understood"
    )]
    RolledBack(String),
    /// A stored record is missing, cannot be read, or does not fit the others.
    #[error("the log is damaged: {0}; restore a backup")]
    Damaged(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AuditError {
    /// A field that cannot be used.
    pub(crate) fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Field {
            field: field.into(),
            description: description.into(),
        }
    }

    /// The same, with the path of what holds the field.
    pub(crate) fn within(self, path: &str) -> Self {
        match self {
            Self::Field { field, description } => Self::Field {
                field: format!("{path}.{field}"),
                description,
            },
            other => other,
        }
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged(what.into())
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
            Self::EventIdReused(_) => ErrorClass::Conflict,
            Self::UnknownEvent(_) => ErrorClass::NotFound,
            Self::Interrupted => ErrorClass::Unavailable,
            Self::RolledBack(_) | Self::Damaged(_) => ErrorClass::Internal,
            Self::Store(error) => error.class(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Field { .. } => "INVALID_FIELD",
            Self::ForeignSource => "FOREIGN_SOURCE",
            Self::EventIdReused(_) => "EVENT_ID_REUSED",
            Self::UnknownEvent(_) => "EVENT_NOT_FOUND",
            Self::Interrupted => "APPEND_INTERRUPTED",
            Self::RolledBack(_) => "LOG_ROLLED_BACK",
            Self::Damaged(_) => "LOG_DAMAGED",
            Self::Store(error) => error.reason(),
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
            _ => vec![],
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Interrupted => Some(Duration::from_secs(1)),
            Self::Store(error) => error.retry_after(),
            _ => None,
        }
    }

    fn metadata(&self) -> Vec<(String, String)> {
        match self {
            Self::EventIdReused(id) | Self::UnknownEvent(id) => vec![("event_id".to_owned(), id.to_string())],
            _ => vec![],
        }
    }
}
