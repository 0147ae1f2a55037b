//! What can go wrong in encrypted prediction, each a thing that a caller can act on.

use asterism_chassis::error::{ErrorClass, FieldViolation};
use asterism_fhe::FheError;

/// An error of encrypted prediction.
#[derive(Debug, thiserror::Error)]
pub enum EncryptedError {
    /// The model has not been compiled.
    #[error("the model `{0}` is not compiled for encrypted prediction; call CompileModel first")]
    NotCompiled(String),
    /// This version compiles the model to something else than was recorded.
    #[error(
        "the model `{0}` was compiled by another version of this service, and would answer other queries now; compile it again with CompileModel, then fetch its client bundle again"
    )]
    CompilationChanged(String),
    /// No plan serves the model.
    #[error("no plan serves the model: {reasons}; {next_step}")]
    NoPlan {
        /// One for each plan.
        reasons: String,
        /// What would work, or might.
        next_step: String,
    },
    /// Its queries are larger than any message.
    #[error(
        "a query to the model has {query_bytes} bytes, and messages have at most {limit}: raise `limits.max_message_bytes`, or ask for another plan"
    )]
    QueriesTooLarge {
        /// Bytes of a query.
        query_bytes: usize,
        /// Bytes of a message.
        limit: usize,
    },
    /// A query that is not for this model, or is none.
    #[error("query: {0}")]
    Query(FheError),
    /// The model's plan needs an evaluation key and the request names none.
    #[error(
        "the model's plan needs an evaluation key of the parameter set {0}: make one, register it with RegisterEvaluationKey, and name it"
    )]
    KeyNeeded(&'static str),
    /// The evaluation key is for another parameter set.
    #[error(
        "the evaluation key is for the parameter set {found}, and the model needs one of {expected}: register one"
    )]
    KeyOfOtherParams {
        /// The model's.
        expected: &'static str,
        /// The key's.
        found: &'static str,
    },
    /// No such evaluation key, or none of the caller's.
    #[error(
        "there is no evaluation key `{0}` of yours; list yours with ListEvaluationKeys, or register it with RegisterEvaluationKey"
    )]
    KeyNotFound(String),
    /// A stored evaluation key does not verify and is not used.
    #[error("the evaluation key `{key}` is refused: {problem}; register it again")]
    KeyRefused {
        /// `evaluationKeys/{sha256}`.
        key: String,
        /// Which check failed.
        problem: &'static str,
    },
    /// The owner has as many evaluation keys as anybody may have.
    #[error(
        "you have {0} evaluation keys, which is as many as anybody may have: delete one with DeleteEvaluationKey"
    )]
    TooManyKeys(usize),
    /// The bytes that came are not those that the header announced.
    #[error(
        "the SHA-256 of the evaluation key is not the one in its header: it was damaged on the way; send it again"
    )]
    KeyDigestMismatch,
    /// The upload ended early or went on too long.
    #[error("the evaluation key has {found} bytes, and its header says {expected}")]
    KeyLengthMismatch {
        /// As announced.
        expected: u64,
        /// As far as it came.
        found: u64,
    },
    /// Too many evaluations wait already.
    #[error("too many encrypted predictions at once; try again later")]
    Overloaded,
    /// A fault in the evaluation.
    #[error("evaluation: {0}")]
    Evaluation(FheError),
}

impl EncryptedError {
    /// What an evaluation or a check answered about a query.
    pub(crate) fn of_query(error: FheError) -> Self {
        match error {
            FheError::OtherModel
            | FheError::OtherParams { .. }
            | FheError::UnknownParams(_)
            | FheError::NotA(_)
            | FheError::WrongLength { .. } => Self::Query(error),
            other => Self::Evaluation(other),
        }
    }

    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            Self::NotCompiled(_)
            | Self::CompilationChanged(_)
            | Self::NoPlan { .. }
            | Self::QueriesTooLarge { .. }
            | Self::KeyNeeded(_)
            | Self::KeyOfOtherParams { .. }
            | Self::KeyRefused { .. } => ErrorClass::Precondition,
            Self::Query(_) | Self::KeyDigestMismatch | Self::KeyLengthMismatch { .. } => ErrorClass::Invalid,
            Self::KeyNotFound(_) => ErrorClass::NotFound,
            Self::TooManyKeys(_) | Self::Overloaded => ErrorClass::Exhausted,
            Self::Evaluation(_) => ErrorClass::Internal,
        }
    }

    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NotCompiled(_) => "MODEL_NOT_COMPILED",
            Self::CompilationChanged(_) => "COMPILATION_CHANGED",
            Self::NoPlan { .. } => "NO_PLAN",
            Self::QueriesTooLarge { .. } => "QUERIES_TOO_LARGE",
            Self::Query(FheError::OtherModel) => "QUERY_OTHER_MODEL",
            Self::Query(FheError::OtherParams { .. } | FheError::UnknownParams(_)) => "QUERY_OTHER_PARAMS",
            Self::Query(FheError::WrongLength { .. }) => "QUERY_WRONG_LENGTH",
            Self::Query(_) => "QUERY_MALFORMED",
            Self::KeyNeeded(_) => "EVALUATION_KEY_NEEDED",
            Self::KeyOfOtherParams { .. } => "EVALUATION_KEY_OTHER_PARAMS",
            Self::KeyNotFound(_) => "EVALUATION_KEY_NOT_FOUND",
            Self::KeyRefused { .. } => "EVALUATION_KEY_REFUSED",
            Self::TooManyKeys(_) => "TOO_MANY_EVALUATION_KEYS",
            Self::KeyDigestMismatch => "EVALUATION_KEY_DIGEST_MISMATCH",
            Self::KeyLengthMismatch { .. } => "EVALUATION_KEY_WRONG_LENGTH",
            Self::Overloaded => "OVERLOADED",
            Self::Evaluation(_) => "EVALUATION_FAILED",
        }
    }

    pub(crate) fn violations(&self) -> Vec<FieldViolation> {
        let field = match self {
            Self::Query(_) => "query",
            Self::KeyDigestMismatch => "header.sha256",
            Self::KeyLengthMismatch { .. } => "header.total_bytes",
            _ => return vec![],
        };
        vec![FieldViolation {
            field: field.to_owned(),
            description: match self {
                Self::Query(error) => error.to_string(),
                other => other.to_string(),
            },
        }]
    }

    /// Whether the same request may succeed a little later.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Self::Overloaded)
    }
}
