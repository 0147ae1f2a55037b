//! From a domain's errors to a gRPC status, made in this one place.

use std::{collections::HashMap, error::Error, time::Duration};

use asterism_crypto::CryptoError;
use asterism_store::StoreError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What kind of failure it is, and so what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The request is wrong and will be wrong again: INVALID_ARGUMENT.
    Invalid,
    /// Nobody knows who asks: UNAUTHENTICATED.
    Unauthenticated,
    /// Identity or policy refuses: PERMISSION_DENIED.
    Denied,
    /// There is no such thing, or none that the caller may know of: NOT_FOUND.
    NotFound,
    /// It is there already, or was made by another request: ALREADY_EXISTS.
    Conflict,
    /// The state of things forbids it now: FAILED_PRECONDITION.
    Precondition,
    /// Too much was asked for: RESOURCE_EXHAUSTED, with a time to try again.
    Exhausted,
    /// Something needed does not answer: UNAVAILABLE, with a time to try again.
    Unavailable,
    /// The caller's time was up first: DEADLINE_EXCEEDED.
    DeadlineExceeded,
    /// The caller went away: CANCELLED.
    Cancelled,
    /// A fault of ours: INTERNAL, with a fixed text.
    Internal,
}

impl ErrorClass {
    fn code(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Denied => Code::PermissionDenied,
            Self::NotFound => Code::NotFound,
            Self::Conflict => Code::AlreadyExists,
            Self::Precondition => Code::FailedPrecondition,
            Self::Exhausted => Code::ResourceExhausted,
            Self::Unavailable => Code::Unavailable,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Cancelled => Code::Cancelled,
            Self::Internal => Code::Internal,
        }
    }
}

/// A field of a request and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field.
    pub field: String,
    /// What is wrong, and what would be right.
    pub description: String,
}

/// Implemented by the error enum of each service's domain. `Display` is what the caller may read.
pub trait Classify: Error + Send + Sync + 'static {
    /// What kind of failure it is.
    fn class(&self) -> ErrorClass;
    /// A stable name in upper case that programs match on.
    fn reason(&self) -> &'static str;
    /// Fields that are wrong.
    fn violations(&self) -> Vec<FieldViolation> {
        vec![]
    }
    /// When to try again.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
    /// Facts that belong to the reason.
    fn metadata(&self) -> Vec<(String, String)> {
        vec![]
    }
}

/// Any failure of a request, on its way to the caller. Boxed, because every `Result` on the hot path has room for one.
#[derive(Debug)]
pub struct Failure(Box<Facts>);

#[derive(Debug)]
struct Facts {
    class: ErrorClass,
    reason: &'static str,
    message: String,
    violations: Vec<FieldViolation>,
    retry_after: Option<Duration>,
    metadata: Vec<(String, String)>,
    source: Option<Box<dyn Error + Send + Sync>>,
    /// What the log says in place of class and reason.
    denial: Option<&'static str>,
}

impl Failure {
    /// A failure that the chassis itself has to tell.
    pub fn new(class: ErrorClass, reason: &'static str, message: impl Into<String>) -> Self {
        let retry = matches!(class, ErrorClass::Exhausted | ErrorClass::Unavailable);
        Self(Box::new(Facts {
            class,
            reason,
            message: message.into(),
            violations: vec![],
            retry_after: retry.then_some(Duration::from_secs(1)),
            metadata: vec![],
            source: None,
            denial: None,
        }))
    }

    /// A field of the request that cannot be used.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        let violation = FieldViolation {
            field: field.into(),
            description: description.into(),
        };
        let message = format!("{}: {}", violation.field, violation.description);
        let mut failure = Self::new(ErrorClass::Invalid, "INVALID_FIELD", message);
        failure.0.violations.push(violation);
        failure
    }

    /// The caller went away.
    pub fn cancelled() -> Self {
        Self::new(ErrorClass::Cancelled, "CANCELLED", "the caller went away")
    }

    /// A fault of ours; `message` is for the log only.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Internal, "INTERNAL", message)
    }

    /// The log calls it a denial for this reason, in upper case. Nothing else changes, least of all what the caller is told: for a
    /// refusal to who must not learn that there is something to refuse.
    #[must_use]
    pub fn recorded_as_denial(mut self, reason: &'static str) -> Self {
        self.0.denial = Some(reason);
        self
    }

    /// Class and reason as the log has them.
    pub(crate) fn recorded(&self) -> (ErrorClass, &'static str) {
        let told = (self.0.class, self.0.reason);
        self.0.denial.map_or(told, |reason| (ErrorClass::Denied, reason))
    }

    /// What kind of failure it is.
    pub fn class(&self) -> ErrorClass {
        self.0.class
    }

    /// The stable name.
    pub fn reason(&self) -> &'static str {
        self.0.reason
    }

    /// What the caller reads, unless the class is [`ErrorClass::Internal`].
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl<E: Classify> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Box::new(Facts {
            class: error.class(),
            reason: error.reason(),
            message: error.to_string(),
            violations: error.violations(),
            retry_after: error.retry_after(),
            metadata: error.metadata(),
            source: Some(Box::new(error)),
            denial: None,
        }))
    }
}

impl Classify for StoreError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NoSpace => ErrorClass::Exhausted,
            Self::Closed => ErrorClass::Unavailable,
            Self::NotFound => ErrorClass::NotFound,
            _ => ErrorClass::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NoSpace => "STORAGE_FULL",
            Self::Closed => "STORAGE_CLOSED",
            Self::NotFound => "NOT_FOUND",
            _ => "STORAGE_FAILED",
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        matches!(self, Self::NoSpace | Self::Closed).then_some(Duration::from_secs(10))
    }
}

/// Only what nobody foresaw comes this way: which cryptographic failure is the caller's fault (a ciphertext that does not
/// authenticate, a wrong signature) depends on whose bytes they are, which the service's own error enum says.
impl Classify for CryptoError {
    fn class(&self) -> ErrorClass {
        ErrorClass::Internal
    }

    fn reason(&self) -> &'static str {
        "CRYPTO_FAILED"
    }
}

/// The status that the caller gets: code, text, and `google.rpc` details. An internal failure is logged here, once, with
/// its causes; the caller reads a fixed text and the request id.
pub fn status_of(failure: &Failure, request_id: &str) -> Status {
    let mut details = ErrorDetails::new();
    let metadata: HashMap<String, String> = failure.0.metadata.iter().cloned().collect();
    details.set_error_info(failure.0.reason, "asterism", metadata);
    for violation in &failure.0.violations {
        details.add_bad_request_violation(&violation.field, &violation.description);
    }
    if let Some(delay) = failure.0.retry_after {
        details.set_retry_info(Some(delay));
    }
    details.set_request_info(request_id, "");
    if failure.0.class == ErrorClass::Internal {
        tracing::error!(request_id, reason = failure.0.reason, error = %causes(failure), "a request failed");
        let text = format!("internal error; give the operator the request id {request_id}");
        return Status::with_error_details(Code::Internal, text, details);
    }
    Status::with_error_details(failure.0.class.code(), failure.0.message.clone(), details)
}

/// What the caller gets for one item of a batch: code, reason and text, an internal failure's as [`status_of`] has it.
pub fn item_status(failure: &Failure, request_id: &str) -> (Code, &'static str, String) {
    let status = status_of(failure, request_id);
    (status.code(), failure.0.reason, status.message().to_owned())
}

fn causes(failure: &Failure) -> String {
    let mut text = failure.0.message.clone();
    let mut cause = failure.0.source.as_deref().and_then(|source| source.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_internal_failure_keeps_its_text_to_itself() {
        let status = status_of(&Failure::internal("the key of the vault is under the mat"), "r1");
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("mat"));
        assert!(status.message().contains("r1"));
    }

    #[test]
    fn a_wrong_field_is_named_in_the_details() {
        let status = status_of(&Failure::invalid("name", "must not be empty"), "r1");
        assert_eq!(status.code(), Code::InvalidArgument);
        let bad = status.get_details_bad_request().expect("details");
        assert_eq!(bad.field_violations[0].field, "name");
        assert_eq!(
            status.get_details_error_info().expect("info").reason,
            "INVALID_FIELD"
        );
    }

    #[test]
    fn what_may_pass_says_when_to_try_again() {
        let status = status_of(&StoreError::NoSpace.into(), "r1");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(
            status
                .get_details_retry_info()
                .expect("retry")
                .retry_delay
                .is_some()
        );
    }

    #[test]
    fn what_the_log_calls_a_denial_is_told_to_the_caller_as_before() {
        let missing = || Failure::new(ErrorClass::NotFound, "KEY_NOT_FOUND", "there is no `keys/x`");
        let hidden = missing().recorded_as_denial("KEY_HIDDEN");
        assert_eq!(hidden.recorded(), (ErrorClass::Denied, "KEY_HIDDEN"));
        assert_eq!(missing().recorded(), (ErrorClass::NotFound, "KEY_NOT_FOUND"));
        assert_eq!(
            (hidden.class(), hidden.reason()),
            (missing().class(), missing().reason())
        );
        let (told, plain) = (status_of(&hidden, "r1"), status_of(&missing(), "r1"));
        assert_eq!((told.code(), told.message()), (plain.code(), plain.message()));
        assert_eq!(told.details(), plain.details());
        assert_eq!(item_status(&hidden, "r1"), item_status(&missing(), "r1"));
    }
}
