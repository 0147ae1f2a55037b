//! What can go wrong.

/// A cryptographic failure. Says what a caller can act on, and never more: a wrong key, wrong associated data and damaged
/// bytes are one and the same answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// The bytes do not have the form that the format prescribes.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A format version that this code does not know.
    #[error("format version {0} is unknown; use a newer version")]
    UnsupportedVersion(u8),
    /// An algorithm suite that this code does not know.
    #[error("algorithm suite {0} is unknown; use a newer version")]
    UnsupportedSuite(u8),
    /// Wrong key, wrong additional authenticated data, or damaged bytes.
    #[error("authentication failed: wrong key, wrong additional authenticated data, or damaged data")]
    Authentication,
    /// A chunk of a stream does not authenticate.
    #[error("chunk {index} does not authenticate")]
    ChunkDamaged {
        /// From 0.
        index: u64,
    },
    /// The signature does not fit the message and the key.
    #[error("the signature does not fit")]
    InvalidSignature,
    /// The bytes are not a key of this kind.
    #[error("not a valid key")]
    InvalidKey,
    /// A parameter is outside its range.
    #[error("invalid parameter: {0}")]
    InvalidParameters(&'static str),
    /// The operating system gave no randomness.
    #[error("the operating system gives no randomness")]
    Randomness,
}
