//! What can go wrong with the seal.

use asterism_chassis::{
    StartError,
    error::{Classify, ErrorClass, FieldViolation},
};
use asterism_crypto::{CryptoError, shares::ShareError};
use asterism_store::StoreError;

use super::SealKind;
use crate::directory::DirectoryError;

/// Why the seal cannot be opened, or changed. No text holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The settings name no secret for this seal, and none was given.
    #[error(
        "the seal is {0}, and the settings of kms name no secret for it; give it with `asterism kms unseal`"
    )]
    SecretRequired(SealKind),
    /// The secret is not of the kind of this seal.
    #[error("the seal is {0}; give what opens it, and nothing else")]
    WrongSecretKind(SealKind),
    /// Another passphrase than the seal's.
    #[error("the passphrase is not the one that this store was sealed with; give the right one")]
    WrongPassphrase,
    /// The text of a share cannot be read, or shares do not go together.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// A share that names this seal, but was never one of its shares.
    #[error(
        "this is none of the shares that this store was sealed with; it is forged, or of another splitting"
    )]
    WrongShare,
    /// A share of another seal.
    #[error("this share is of the seal {of}, and this store has the seal {ours}; give a share of that")]
    ShareOfAnotherSeal {
        /// The share's.
        of: String,
        /// The store's.
        ours: String,
    },
    /// What the new seal was asked to be.
    #[error("{field}: {description}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// What is wrong, and what would be right.
        description: &'static str,
    },
    /// The key file is not there.
    #[error("{0} is missing, and nothing in this store can be read without it; restore the file")]
    KeyFileMissing(String),
    /// The key file holds something else.
    #[error("{0} is not a root key of 32 bytes; restore it from a backup")]
    KeyFileDamaged(String),
    /// Another key file than the seal's.
    #[error("{0} is not the one that this store was sealed with; give the right key file")]
    WrongKeyFile(String),
    /// A file that the settings name cannot be read.
    #[error("{path} cannot be read: {why}; correct the file, or the setting that names it")]
    SecretFile {
        /// The file.
        path: String,
        /// What the system said.
        why: String,
    },
    /// The store was made under another root key than the seal holds.
    #[error(
        "the root key is not the one that this store was made with; give the right key file or passphrase"
    )]
    WrongRoot,
    /// A file of the seal cannot be read.
    #[error("{0} cannot be read; restore it from a backup")]
    Damaged(String),
    /// A file of the seal was written by a later release.
    #[error("{path} has the format {format}, which is newer than this program; use a newer version")]
    Newer {
        /// The file.
        path: String,
        /// Its format.
        format: u64,
    },
    /// The token, or its module.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// There is a store already where one was to be made.
    #[error("{0} has a store already; choose another directory, or use `asterism kms rekey`")]
    Occupied(String),
    /// A rotation has not ended yet.
    #[error("the root key is being rotated already; wait for the event kms.RootRotated")]
    RotationRunning,
    /// What the directory of identities keeps under the root key does not open.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A cryptographic operation failed.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// What is wrong with a PKCS #11 token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The settings name no token.
    #[error("the settings of kms name no PKCS #11 token; set root_key.pkcs11 and restart kms")]
    NotSet,
    /// The module cannot be loaded.
    #[error("the PKCS #11 module {path} cannot be loaded ({why}); check root_key.pkcs11.module")]
    Module {
        /// Of the module.
        path: String,
        /// What the system said.
        why: String,
    },
    /// No token has this label.
    #[error("no PKCS #11 token has the label `{0}`; plug it in, or check root_key.pkcs11.token_label")]
    NoToken(String),
    /// More than one token has this label.
    #[error("more than one PKCS #11 token has the label `{0}`; leave one of them plugged in")]
    ManyTokens(String),
    /// The file of the PIN holds none.
    #[error("{0} holds no PIN; write it there, as text on one line")]
    NoPin(String),
    /// The token refuses the PIN.
    #[error(
        "the PKCS #11 token refuses the PIN; correct the file root_key.pkcs11.pin_file before the token locks itself"
    )]
    WrongPin,
    /// The token takes no PIN any more.
    #[error("the PIN of the PKCS #11 token is locked; have its security officer set a new one")]
    PinLocked,
    /// The token has no key of this label.
    #[error(
        "the PKCS #11 token has no AES-256 key `{0}`, and nothing in this store can be read without it; restore the token, or check root_key.pkcs11.key_label"
    )]
    NoKey(String),
    /// More than one key has this label.
    #[error(
        "the PKCS #11 token has more than one AES key `{0}`; name another under root_key.pkcs11.key_label"
    )]
    ManyKeys(String),
    /// The key may leave the token, or cannot do what is needed.
    #[error(
        "the key `{0}` of the PKCS #11 token must be an AES-256 key that is sensitive, cannot be extracted, and may encrypt and decrypt; name another under root_key.pkcs11.key_label"
    )]
    UnfitKey(String),
    /// The token's key does not open the seal.
    #[error(
        "the key `{0}` of the PKCS #11 token is not the one that this store was sealed with; plug in the right token"
    )]
    WrongKey(String),
    /// The module failed otherwise.
    #[error("the PKCS #11 module failed: {0}")]
    Failed(String),
}

impl RootError {
    pub(super) fn field(field: &'static str, description: &'static str) -> Self {
        Self::Field { field, description }
    }

    /// Whether somebody tried to open the seal with the wrong secret.
    pub fn is_wrong_secret(&self) -> bool {
        matches!(
            self,
            Self::WrongPassphrase
                | Self::WrongShare
                | Self::ShareOfAnotherSeal { .. }
                | Self::Share(ShareError::Text | ShareError::Wrong)
        )
    }
}

impl Classify for RootError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Field { .. }
            | Self::Share(ShareError::Text | ShareError::Newer | ShareError::Repeated(_)) => {
                ErrorClass::Invalid
            }
            Self::WrongPassphrase | Self::WrongShare | Self::ShareOfAnotherSeal { .. } => ErrorClass::Denied,
            Self::SecretRequired(_)
            | Self::WrongSecretKind(_)
            | Self::Share(_)
            | Self::Occupied(_)
            | Self::RotationRunning
            | Self::KeyFileMissing(_)
            | Self::KeyFileDamaged(_)
            | Self::WrongKeyFile(_)
            | Self::SecretFile { .. }
            | Self::WrongRoot
            | Self::Damaged(_)
            | Self::Newer { .. }
            | Self::Token(_) => ErrorClass::Precondition,
            Self::Directory(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::Crypto(_) => ErrorClass::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::SecretRequired(_) => "UNSEAL_SECRET_REQUIRED",
            Self::WrongSecretKind(_) => "WRONG_SECRET_KIND",
            Self::WrongPassphrase => "WRONG_PASSPHRASE",
            Self::Share(ShareError::TooFew { .. }) => "TOO_FEW_SHARES",
            Self::Share(ShareError::Mixed) => "SHARE_OF_ANOTHER_SEAL",
            Self::Share(ShareError::Wrong) | Self::WrongShare => "WRONG_SHARE",
            Self::Share(ShareError::Text | ShareError::Newer | ShareError::Repeated(_)) => "INVALID_SHARE",
            Self::ShareOfAnotherSeal { .. } => "SHARE_OF_ANOTHER_SEAL",
            Self::Field { .. } => "INVALID_FIELD",
            Self::KeyFileMissing(_) => "KEY_FILE_MISSING",
            Self::KeyFileDamaged(_) => "KEY_FILE_DAMAGED",
            Self::WrongKeyFile(_) => "WRONG_KEY_FILE",
            Self::SecretFile { .. } => "SECRET_FILE",
            Self::WrongRoot => "WRONG_ROOT_KEY",
            Self::Damaged(_) => "SEAL_DAMAGED",
            Self::Newer { .. } => "SEAL_NEWER",
            Self::Token(TokenError::NotSet) => "TOKEN_NOT_SET",
            Self::Token(_) => "TOKEN_FAILED",
            Self::Occupied(_) => "STORE_EXISTS",
            Self::RotationRunning => "ROTATION_RUNNING",
            Self::Directory(error) => error.reason(),
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
            _ => vec![],
        }
    }
}

impl From<RootError> for StartError {
    fn from(error: RootError) -> Self {
        match error {
            RootError::Store(error) => Self::Store(error),
            other => Self::Other(other.to_string()),
        }
    }
}
