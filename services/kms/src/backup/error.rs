//! What can go wrong with a backup.

use std::io;

use asterism_chassis::error::{Classify, ErrorClass, FieldViolation};
use asterism_crypto::{CryptoError, Digest};
use asterism_store::StoreError;

use crate::error::KmsError;

/// Why a backup is not made, or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file is something else.
    #[error("this is not a backup of kms")]
    NotABackup,
    /// A newer program made it.
    #[error(
        "the backup is of format {found}, and this program reads up to {known}: restore it with the version of asterism that made it{by}, or a newer one"
    )]
    Newer {
        /// The backup's format, or that of its records.
        found: u32,
        /// The newest that is known here.
        known: u32,
        /// Which program made it, if that can be read.
        by: String,
    },
    /// The suite is not known here.
    #[error("the backup's algorithm suite {0} is unknown; use a newer version of asterism")]
    UnknownSuite(u32),
    /// The file ends too soon.
    #[error("the backup ends too soon; it was not written or copied to its end")]
    Truncated,
    /// There is something after the end.
    #[error("there is something after the end of the backup")]
    Trailing,
    /// A part has not the form that the format prescribes.
    #[error("the backup is damaged: malformed {0}")]
    Malformed(&'static str),
    /// A part does not authenticate.
    #[error("the backup is damaged or was altered: {0}")]
    Altered(&'static str),
    /// A chunk does not authenticate.
    #[error("the backup is damaged or was altered: chunk {0} does not authenticate")]
    ChunkAltered(u64),
    /// The signature does not fit.
    #[error("the backup's signature does not fit: it is damaged or was altered")]
    Signature,
    /// Another key signed it than was expected.
    #[error(
        "the backup was signed by {actual}, not by {expected}: it comes from another kms, or from somebody else"
    )]
    SignerDiffers {
        /// The pinned fingerprint.
        expected: Digest,
        /// That of the key which signed.
        actual: Digest,
    },
    /// The passphrase is another.
    #[error("the passphrase is not the one that the backup is sealed with")]
    WrongPassphrase,
    /// The private key is another.
    #[error("the backup is sealed to the public key {expected}, and this is the private key of {actual}")]
    WrongPrivateKey {
        /// Whom it is sealed to.
        expected: Digest,
        /// The given one.
        actual: Digest,
    },
    /// It is sealed in the other way.
    #[error("the backup is sealed {0}")]
    OtherSealing(&'static str),
    /// The passphrase is guessed too soon.
    #[error("the passphrase needs at least {0} bytes")]
    ShortPassphrase(usize),
    /// The recipient is no key of P-256.
    #[error("{0} is not a P-256 key in PEM")]
    NotAKey(&'static str),
    /// A field of the request cannot be used.
    #[error("{field}: {description}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// What would be right.
        description: &'static str,
    },
    /// The backup is signed and opens, and is not whole.
    #[error("the backup is incomplete: {0}")]
    Incomplete(String),
    /// There is something where it would be restored.
    #[error("{0} is not empty: restore into an empty or absent directory")]
    TargetNotEmpty(String),
    /// The key that signs backups is somebody else's.
    #[error("the key `{0}` is not this service's own; backups cannot be signed until it is gone")]
    SignerTaken(&'static str),
    /// The store changed faster than it could be read.
    #[error("wrapping keys went while the backup was taken; try again")]
    Changing,
    /// Another backup is being made.
    #[error("another backup is being made; wait until it is done")]
    Running,
    /// Whoever asked is gone.
    #[error("the caller went away")]
    Cancelled,
    /// Key management failed.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A cryptographic operation failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

impl From<io::Error> for BackupError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Store(error.into()),
        }
    }
}

impl BackupError {
    /// Whether the backup itself is what is wrong: it must not be used.
    pub fn is_of_the_backup(&self) -> bool {
        matches!(
            self,
            Self::NotABackup
                | Self::Truncated
                | Self::Trailing
                | Self::Malformed(_)
                | Self::Altered(_)
                | Self::ChunkAltered(_)
                | Self::Signature
                | Self::SignerDiffers { .. }
                | Self::Incomplete(_)
        )
    }
}

impl Classify for BackupError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Kms(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Crypto(_) => ErrorClass::Internal,
            Self::Running => ErrorClass::Exhausted,
            Self::Changing => ErrorClass::Unavailable,
            Self::Cancelled => ErrorClass::Cancelled,
            Self::SignerTaken(_) | Self::TargetNotEmpty(_) => ErrorClass::Precondition,
            _ => ErrorClass::Invalid,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NotABackup => "NOT_A_BACKUP",
            Self::Newer { .. } => "BACKUP_NEWER",
            Self::UnknownSuite(_) => "BACKUP_SUITE_UNKNOWN",
            Self::Truncated => "BACKUP_TRUNCATED",
            Self::Trailing | Self::Malformed(_) => "BACKUP_MALFORMED",
            Self::Altered(_) | Self::ChunkAltered(_) => "BACKUP_ALTERED",
            Self::Signature => "BACKUP_SIGNATURE",
            Self::SignerDiffers { .. } => "BACKUP_SIGNER_DIFFERS",
            Self::WrongPassphrase | Self::WrongPrivateKey { .. } | Self::OtherSealing(_) => {
                "BACKUP_WRONG_KEY"
            }
            Self::ShortPassphrase(_) | Self::NotAKey(_) | Self::Field { .. } => "INVALID_FIELD",
            Self::Incomplete(_) => "BACKUP_INCOMPLETE",
            Self::TargetNotEmpty(_) => "TARGET_NOT_EMPTY",
            Self::SignerTaken(_) => "BACKUP_SIGNER_TAKEN",
            Self::Changing => "BACKUP_CHANGING",
            Self::Running => "BACKUP_RUNNING",
            Self::Cancelled => "CANCELLED",
            Self::Kms(error) => error.reason(),
            Self::Store(error) => error.reason(),
            Self::Crypto(_) => "CRYPTO_FAILED",
        }
    }

    fn violations(&self) -> Vec<FieldViolation> {
        match self {
            Self::Field { field, description } => vec![FieldViolation {
                field: (*field).to_owned(),
                description: (*description).to_owned(),
            }],
            Self::Kms(error) => error.violations(),
            _ => vec![],
        }
    }
}
