//! What can be wrong with what comes from outside.

/// Why something is refused. No variant holds a secret; texts may be shown to whoever sent the input.
#[derive(Debug, thiserror::Error, Clone, PartialEq)]
#[non_exhaustive]
pub enum FheError {
    /// A parameter set that is not on the list.
    #[error("parameter set {0} is unknown to this version")]
    UnknownParams(u16),
    /// Made for another parameter set.
    #[error("made for parameter set {found}, and this model uses {expected}")]
    OtherParams {
        /// The model's.
        expected: &'static str,
        /// The message's.
        found: &'static str,
    },
    /// A query or a reply of another model.
    #[error("made for another model, or another version of it: fetch its client bundle again")]
    OtherModel,
    /// A reply to another query.
    #[error("this answers another query")]
    OtherQuery,
    /// Not what it is taken for.
    #[error("this is not {0} of this version")]
    NotA(&'static str),
    /// Cut off, or with something behind its end.
    #[error("{what} has {found} bytes instead of {expected}")]
    WrongLength {
        /// What was read.
        what: &'static str,
        /// Bytes that it must have.
        expected: usize,
        /// Bytes that it has.
        found: usize,
    },
    /// A row with the wrong number of values.
    #[error("the row has {found} values, and the model has {expected} features")]
    WrongWidth {
        /// The model's features.
        expected: usize,
        /// The row's values.
        found: usize,
    },
    /// A value that is infinite.
    #[error("value {index} of the row is infinite")]
    NotFinite {
        /// From 0.
        index: usize,
    },
    /// A missing value that the model cannot place.
    #[error("value {index} of the row is missing, and the model was not trained to do without it")]
    Missing {
        /// From 0.
        index: usize,
    },
    /// The plan needs an evaluation key, and there is none.
    #[error("this plan needs an evaluation key: make one and register it")]
    KeyMissing,
    /// No plan serves the model; one reason for each.
    #[error("no plan serves this model: {0}")]
    NoPlan(String),
    /// A model that contradicts itself or exceeds what is served.
    #[error("the model cannot be served: {0}")]
    BadModel(String),
    /// The caller no longer waits.
    #[error("the evaluation was stopped")]
    Cancelled,
    /// The operating system gave no randomness.
    #[error("the operating system gives no random bytes")]
    NoRandomness,
}
