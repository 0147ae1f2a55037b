//! What can go wrong in the directory.

use std::time::Duration;

use asterism_chassis::error::{Classify, ErrorClass, FieldViolation};
use asterism_crypto::CryptoError;
use asterism_store::StoreError;

/// An error of the directory.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A field of the request cannot be used.
    #[error("{field}: {description}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// What is wrong, and what would be right.
        description: String,
    },
    /// No such principal.
    #[error("there is no principal `{0}`; list them with ListPrincipals, or invite it")]
    PrincipalNotFound(String),
    /// Roles in an invitation of somebody known.
    #[error("`{0}` is enrolled already; invite it without roles to have it set another password or key")]
    PrincipalExists(String),
    /// Unknown, or used already: nobody is told which.
    #[error("the invitation is none, or was used already; ask an administrator for another")]
    InvitationInvalid,
    /// Known, and too old.
    #[error("the invitation has expired; ask an administrator for another")]
    InvitationExpired,
    /// Whatever is wrong with a login.
    #[error("the principal is unknown, or the password or key is not its own")]
    LoginFailed,
    /// No such login, or it took too long, or was answered already.
    #[error("the login is over or none; begin again")]
    LoginUnknown,
    /// After failed attempts each takes longer.
    #[error("too many failed attempts; try again in {} s", .0.as_secs().max(1))]
    Backoff(Duration),
    /// After many failed attempts none is taken for a while.
    #[error("locked after too many failed attempts; try again in {} s, or log in with a key", .0.as_secs().max(1))]
    Locked(Duration),
    /// Said only to who proved that it is them.
    #[error("the principal is disabled; ask an administrator")]
    Disabled,
    /// Tokens would be bound to nothing.
    #[error("log in over the encrypted channel (`asterism proxy`), or on this machine")]
    ChannelRequired,
    /// The call does not come from where it has to.
    #[error("the call does not come over the channel that this is bound to")]
    ChannelMismatch,
    /// A wrong, late or repeated answer.
    #[error("the answer is wrong, too late, or was used already; check the clock of your device")]
    SecondFactorFailed,
    /// No such factor of this principal, or none of that kind.
    #[error("there is no such second factor")]
    FactorNotFound,
    /// The session is over: time, logout, revocation, or another party's refresh token.
    #[error("the session has ended; log in again")]
    SessionEnded,
    /// The principal was changed since the caller read it.
    #[error("`{0}` was changed in between; read it and try again with its etag")]
    EtagMismatch(String),
    /// As many as there may be.
    #[error("{0}; remove one first")]
    TooMany(&'static str),
    /// Too many logins have begun.
    #[error("too many logins have begun and not ended; try again later")]
    Busy,
    /// Somebody else's business.
    #[error("only an administrator may do that for somebody else")]
    NotOneself,
    /// A stored record or secret cannot be read.
    #[error("a stored {0} of the directory is damaged")]
    Damaged(&'static str),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A cryptographic operation failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

impl DirectoryError {
    pub(crate) fn field(field: &'static str, description: impl Into<String>) -> Self {
        Self::Field {
            field,
            description: description.into(),
        }
    }
}

impl Classify for DirectoryError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Field { .. } => ErrorClass::Invalid,
            Self::PrincipalNotFound(_) | Self::FactorNotFound => ErrorClass::NotFound,
            Self::PrincipalExists(_) => ErrorClass::Conflict,
            Self::InvitationInvalid
            | Self::InvitationExpired
            | Self::LoginFailed
            | Self::LoginUnknown
            | Self::SecondFactorFailed
            | Self::ChannelMismatch
            | Self::SessionEnded => ErrorClass::Unauthenticated,
            Self::Disabled | Self::NotOneself => ErrorClass::Denied,
            Self::ChannelRequired | Self::EtagMismatch(_) | Self::TooMany(_) => ErrorClass::Precondition,
            Self::Backoff(_) | Self::Locked(_) | Self::Busy => ErrorClass::Exhausted,
            Self::Store(error) => error.class(),
            Self::Damaged(_) | Self::Crypto(_) => ErrorClass::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Field { .. } => "INVALID_FIELD",
            Self::PrincipalNotFound(_) => "PRINCIPAL_NOT_FOUND",
            Self::PrincipalExists(_) => "PRINCIPAL_EXISTS",
            Self::InvitationInvalid => "INVITATION_INVALID",
            Self::InvitationExpired => "INVITATION_EXPIRED",
            Self::LoginFailed => "LOGIN_FAILED",
            Self::LoginUnknown => "LOGIN_UNKNOWN",
            Self::Backoff(_) => "LOGIN_BACKOFF",
            Self::Locked(_) => "LOGIN_LOCKED",
            Self::Disabled => "PRINCIPAL_DISABLED",
            Self::ChannelRequired => "CHANNEL_REQUIRED",
            Self::ChannelMismatch => "CHANNEL_MISMATCH",
            Self::SecondFactorFailed => "SECOND_FACTOR_FAILED",
            Self::FactorNotFound => "SECOND_FACTOR_NOT_FOUND",
            Self::SessionEnded => "SESSION_ENDED",
            Self::EtagMismatch(_) => "ETAG_MISMATCH",
            Self::TooMany(_) => "TOO_MANY",
            Self::Busy => "LOGINS_BUSY",
            Self::NotOneself => "NOT_ONESELF",
            Self::Damaged(_) => "DIRECTORY_DAMAGED",
            Self::Store(error) => error.reason(),
            Self::Crypto(_) => "CRYPTO_FAILED",
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        match self {
            Self::Field { field, description } => vec![FieldViolation {
                field: (*field).to_owned(),
                description: description.clone(),
            }],
            _ => vec![],
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Backoff(wait) | Self::Locked(wait) => Some(*wait),
            Self::Busy => Some(Duration::from_secs(1)),
            Self::Store(error) => error.retry_after(),
            _ => None,
        }
    }
}
