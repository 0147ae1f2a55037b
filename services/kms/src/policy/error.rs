//! What can go wrong with grants and approvals.

use std::time::Duration;

use asterism_chassis::error::{Classify, ErrorClass, FieldViolation};
use asterism_policy::{GrantError, Verb};
use asterism_store::StoreError;

use crate::policy::ApprovalState;

/// An error of the policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A field of the request cannot be used.
    #[error("{0}: {1}")]
    Field(&'static str, &'static str),
    /// A grant makes no sense.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The caller may know of it, and not do that.
    #[error(
        "nothing allows you to {verb} `{resource}`; `asterism policy explain` says why, its owner can grant it"
    )]
    Denied {
        /// What was to be done.
        verb: Verb,
        /// To what.
        resource: String,
    },
    /// A key administrator gives, takes or keeps what is about themselves.
    #[error("key administrators do not change grants that cover themselves; ask an administrator")]
    OwnGrant,
    /// Asked about somebody else.
    #[error("only administrators and auditors ask about others; leave the principal out")]
    OthersAccess,
    /// No such grant, or none that the caller may see.
    #[error("there is no grant `{0}`; list grants with ListGrants")]
    GrantNotFound(String),
    /// No such approval, or none that the caller may see.
    #[error("there is no approval `{0}`; list approvals with ListApprovals")]
    ApprovalNotFound(String),
    /// Changed since the caller read it.
    #[error("the grant `{0}` was changed in between; read it and try again with its etag")]
    EtagMismatch(String),
    /// The request id was used for another grant.
    #[error("the request id was already used with another grant; use a fresh one")]
    RequestIdReused,
    /// As many as there may be.
    #[error("there are as many {0} as there may be; remove some first")]
    TooMany(&'static str),
    /// Other people have to say yes first.
    #[error(
        "other people have to approve this: have them run `asterism policy approve {0}`, then repeat the call"
    )]
    ApprovalRequired(String),
    /// It cannot be decided any more.
    #[error("the approval `{0}` is {1} and cannot be changed")]
    ApprovalClosed(String, ApprovalState),
    /// Who asks does not answer.
    #[error("nobody approves what they asked for themselves; somebody else has to")]
    SelfApproval,
    /// A stored record cannot be read.
    #[error("a stored record of the policy is damaged: {0}")]
    Damaged(&'static str),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Classify for PolicyError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Field(..) | Self::Grant(_) => ErrorClass::Invalid,
            Self::Denied { .. } | Self::OwnGrant | Self::OthersAccess | Self::SelfApproval => {
                ErrorClass::Denied
            }
            Self::GrantNotFound(_) | Self::ApprovalNotFound(_) => ErrorClass::NotFound,
            Self::RequestIdReused => ErrorClass::Conflict,
            Self::EtagMismatch(_) | Self::ApprovalRequired(_) | Self::ApprovalClosed(..) => {
                ErrorClass::Precondition
            }
            Self::TooMany(_) => ErrorClass::Exhausted,
            Self::Damaged(_) => ErrorClass::Internal,
            Self::Store(error) => error.class(),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Field(..) | Self::Grant(_) => "INVALID_FIELD",
            Self::Denied { .. } | Self::OthersAccess => "POLICY_DENIED",
            Self::OwnGrant => "OWN_GRANT",
            Self::SelfApproval => "SELF_APPROVAL",
            Self::GrantNotFound(_) => "GRANT_NOT_FOUND",
            Self::ApprovalNotFound(_) => "APPROVAL_NOT_FOUND",
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::EtagMismatch(_) => "ETAG_MISMATCH",
            Self::ApprovalRequired(_) => "APPROVAL_REQUIRED",
            Self::ApprovalClosed(..) => "APPROVAL_CLOSED",
            Self::TooMany(_) => "TOO_MANY_GRANTS",
            Self::Damaged(_) => "POLICY_DAMAGED",
            Self::Store(error) => error.reason(),
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        let (field, description) = match self {
            Self::Field(field, description) => (*field, *description),
            Self::Grant(error) => (error.field, error.description),
            _ => return vec![],
        };
        vec![FieldViolation {
            field: field.to_owned(),
            description: description.to_owned(),
        }]
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Store(error) => error.retry_after(),
            _ => None,
        }
    }

    fn metadata(&self) -> Vec<(String, String)> {
        match self {
            Self::Denied { verb, .. } => vec![("verb".to_owned(), verb.to_string())],
            Self::ApprovalRequired(name) | Self::ApprovalClosed(name, _) => {
                vec![("approval".to_owned(), name.clone())]
            }
            _ => vec![],
        }
    }
}
