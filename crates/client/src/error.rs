//! What can go wrong for a caller of the SDK.

use std::{collections::BTreeMap, time::Duration};

use asterism_crypto::CryptoError;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// An error of an SDK call. Match on [`ClientError::reason`] or [`ClientError::code`], never on the text.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The service answered with a refusal or a failure.
    #[error("{message} ({reason})")]
    Refused {
        /// The gRPC code.
        code: Code,
        /// Stable upper-case reason from `google.rpc.ErrorInfo`; empty when the peer sent none.
        reason: String,
        /// The service's text for people.
        message: String,
        /// Field path and what is wrong with it, for bad input.
        violations: Vec<(String, String)>,
        /// When to try again, if the service said so.
        retry_after: Option<Duration>,
        /// Facts that belong to the reason, such as `expected_offset`.
        metadata: BTreeMap<String, String>,
    },
    /// No answer: nobody listens there, or the connection broke.
    #[error("cannot reach {endpoint}: {message}; is the service running there?")]
    Unreachable {
        /// The endpoint as configured.
        endpoint: String,
        /// The transport's own words.
        message: String,
    },
    /// The deadline passed first.
    #[error("the deadline passed before {endpoint} answered")]
    Deadline {
        /// The endpoint as configured.
        endpoint: String,
    },
    /// What the service gave does not verify: do not use it.
    #[error("verification failed: {0}")]
    Verification(String),
    /// The service broke the contract.
    #[error("unexpected answer: {0}")]
    Protocol(&'static str),
    /// A local cryptographic operation failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// The endpoint, token or another argument cannot be used.
    #[error("{0}")]
    Argument(String),
    /// Reading or writing a local file failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
}

impl ClientError {
    /// The stable reason that the service gave, if it gave one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused { reason, .. } if !reason.is_empty() => Some(reason),
            _ => None,
        }
    }

    /// The gRPC code that this error amounts to.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused { code, .. } => *code,
            Self::Unreachable { .. } => Code::Unavailable,
            Self::Deadline { .. } => Code::DeadlineExceeded,
            Self::Verification(_) => Code::DataLoss,
            Self::Argument(_) => Code::InvalidArgument,
            Self::Protocol(_) | Self::Crypto(_) | Self::Io { .. } => Code::Internal,
        }
    }

    /// Whether the service refused because it is sealed, and not because of what was asked: the same will do once somebody has unsealed it.
    pub fn is_of_a_seal(&self) -> bool {
        self.reason() == Some("SEALED")
    }

    /// Whether the same idempotent call may succeed if it is made again.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
            || matches!(self, Self::Refused { code, .. } if *code == Code::Unavailable)
            || self.reason() == Some("RATE_LIMITED")
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(crate) fn from_status(status: &Status, endpoint: &str) -> Self {
        let info = status.get_details_error_info();
        if info.is_none() {
            // The chassis puts ErrorInfo on everything it says; without one the transport is speaking.
            match status.code() {
                Code::Unavailable => {
                    return Self::Unreachable {
                        endpoint: endpoint.to_owned(),
                        message: status.message().to_owned(),
                    };
                }
                Code::DeadlineExceeded => {
                    return Self::Deadline {
                        endpoint: endpoint.to_owned(),
                    };
                }
                // tonic's own client timeout.
                Code::Cancelled if status.message().contains("Timeout") => {
                    return Self::Deadline {
                        endpoint: endpoint.to_owned(),
                    };
                }
                // Only a status that was made here has a source: the connection broke before or in the middle of the call.
                Code::Unknown | Code::Cancelled if std::error::Error::source(status).is_some() => {
                    return Self::Unreachable {
                        endpoint: endpoint.to_owned(),
                        message: status.message().to_owned(),
                    };
                }
                _ => {}
            }
        }
        let (reason, metadata) =
            info.map_or_else(Default::default, |i| (i.reason, i.metadata.into_iter().collect()));
        let violations = status.get_details_bad_request().map_or_else(Vec::new, |bad| {
            bad.field_violations
                .into_iter()
                .map(|v| (v.field, v.description))
                .collect()
        });
        let retry_after = status.get_details_retry_info().and_then(|r| r.retry_delay);
        Self::Refused {
            code: status.code(),
            reason,
            message: status.message().to_owned(),
            violations,
            retry_after,
            metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn details_of_a_status_become_fields() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info(
                "OFFSET_MISMATCH",
                "asterism",
                HashMap::from([("expected_offset".into(), "42".into())]),
            )
            .set_retry_info(Some(Duration::from_secs(2)))
            .add_bad_request_violation("offset", "is past the end");
        let status = Status::with_error_details(Code::FailedPrecondition, "not the next offset", details);
        let error = ClientError::from_status(&status, "http://127.0.0.1:1");
        assert_eq!(error.reason(), Some("OFFSET_MISMATCH"));
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
        let ClientError::Refused {
            metadata, violations, ..
        } = error
        else {
            panic!("not refused")
        };
        assert_eq!(metadata["expected_offset"], "42");
        assert_eq!(violations, [("offset".to_owned(), "is past the end".to_owned())]);
    }

    #[test]
    fn a_bare_unavailable_is_the_transport_and_transient() {
        let error = ClientError::from_status(&Status::unavailable("tcp connect error"), "http://127.0.0.1:1");
        assert!(matches!(error, ClientError::Unreachable { .. }));
        assert!(error.is_transient());
        assert!(!ClientError::from_status(&Status::not_found("no"), "x").is_transient());
    }
}
