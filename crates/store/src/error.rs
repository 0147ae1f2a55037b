//! What can go wrong.

use std::io;

/// A storage failure.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, or nearly: nothing was written.
    #[error("the disk is full; free some space and try again")]
    NoSpace,
    /// A key or value is larger than records may be.
    #[error("a record of {actual} bytes is over the limit of {limit}")]
    TooLarge {
        /// Most bytes.
        limit: usize,
        /// Bytes that were given.
        actual: usize,
    },
    /// A precondition of the batch does not hold; nothing was written.
    #[error("a precondition does not hold")]
    Conflict,
    /// The stored bytes cannot be read.
    #[error("the store is damaged: {0}; restore it from a backup")]
    Damaged(String),
    /// Another process uses the directory.
    #[error("another process uses this data directory; stop it, or choose another directory")]
    Locked,
    /// An earlier write failed, and what is on the disk is unknown; the process must restart.
    #[error("the store was closed after a failed write; restart the service")]
    Closed,
    /// No such blob.
    #[error("there is no such blob")]
    NotFound,
    /// A secret file that others may read.
    #[error("{path} may be read by others; run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: String,
    },
    /// The operating system's own error.
    #[error("input or output failed: {0}")]
    Io(io::Error),
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::NoSpace
            }
            _ => Self::Io(error),
        }
    }
}
