//! The seal of a data directory.

use std::{fmt, path::Path};

use asterism_crypto::{Digest, SecretBytes, SecretKey, shares::Share};
use asterism_store::Records;

use super::{RootError, Roots};
use crate::config::RootKeyConfig;

/// What opens a seal.
pub enum Secret {
    /// One of several.
    Share(Share),
    /// A passphrase.
    Passphrase(SecretBytes),
}

/// What a seal is to be.
pub enum NewSeal {
    /// A file in the data directory, which is made.
    KeyFile,
    /// A passphrase of 12 to 1024 bytes.
    Passphrase(SecretBytes),
    /// A key that was split with [`asterism_crypto::shares::split`]; the seal's id will be the shares' set id, which follows from the key.
    Shares {
        /// What was split.
        unseal_key: SecretKey,
        /// How many give it.
        threshold: u8,
        /// [`Share::digest`] of each share.
        digests: Vec<Digest>,
    },
    /// A key in the token that the settings name, made there unless it is there.
    Token,
}

/// Kinds of seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealKind {
    /// A file in the data directory.
    KeyFile,
    /// A passphrase.
    Passphrase,
    /// Shares of a key.
    Shares,
    /// A PKCS #11 token.
    Token,
}

impl fmt::Display for SealKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeyFile => "a key file",
            Self::Passphrase => "a passphrase",
            Self::Shares => "a set of shares",
            Self::Token => "a PKCS #11 token",
        })
    }
}

/// What may be known of a seal while it is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealFacts {
    /// What opens it.
    pub kind: SealKind,
    /// Sixteen hex digits; empty for a store of an earlier release that was not opened since.
    pub id: String,
    /// Of shares: how many open it, else 0.
    pub threshold: u8,
    /// Of shares: how many there are, else 0.
    pub shares: u8,
    /// Whether [`Seal::unseal`] needs no secret.
    pub automatic: bool,
    /// Milliseconds since 1970; 0 as `id`.
    pub created_at_ms: u64,
}

/// Says that nothing in the store is wrapped under a root key older than the newest: only a look through all of it makes one.
pub struct AllWrapped {
    pub(crate) roots: Roots,
}

/// Shares that were given so far, each once.
#[derive(Default)]
pub struct GivenShares(Vec<Share>);

impl GivenShares {
    /// Takes a share of this seal, unless it is there already; gives how many there are.
    ///
    /// # Errors
    /// As [`Seal::check_share`].
    pub fn add(&mut self, seal: &Seal, share: Share) -> Result<usize, RootError> {
        seal.check_share(&share)?;
        if !self.0.iter().any(|before| before.index() == share.index()) {
            self.0.push(share);
        }
        Ok(self.0.len())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Gives them away for [`Seal::unseal`], and has none afterwards.
    pub fn take(&mut self) -> Vec<Secret> {
        self.0.drain(..).map(Secret::Share).collect()
    }
}

/// The seal of a data directory, which a service has open. Blocking: the domain of a passphrase takes a tenth of a second and 64 MiB, one at a time.
pub struct Seal {
    _private: (),
}

impl Seal {
    /// Reads the seal. Where there is no store yet, it is made as the settings say. Ends what a crash interrupted.
    ///
    /// # Errors
    /// [`RootError::Damaged`], [`RootError::Newer`]; for a new store also what makes a seal impossible.
    pub fn open(
        _data_dir: &Path,
        _config: &RootKeyConfig,
        _records: &dyn Records,
        _now_ms: u64,
    ) -> Result<Self, RootError> {
        Ok(Self { _private: () })
    }

    /// What may be known of it.
    pub fn facts(&self) -> SealFacts {
        SealFacts {
            kind: SealKind::KeyFile,
            id: String::new(),
            threshold: 0,
            shares: 0,
            automatic: true,
            created_at_ms: 0,
        }
    }

    /// Whether a share is one of this seal.
    ///
    /// # Errors
    /// [`RootError::WrongSecretKind`], [`RootError::ShareOfAnotherSeal`], [`RootError::WrongShare`].
    pub fn check_share(&self, _share: &Share) -> Result<(), RootError> {
        Err(RootError::WrongShare)
    }

    /// Opens the seal: a passphrase, or as many shares as its threshold; no secret for what the settings name. The newest root is the one that the
    /// check record and the directory's key are under. While the roots are [rotating](Roots::is_rotating), go on with
    /// [`Keyring::rewrap`](crate::keys::Keyring::rewrap).
    ///
    /// # Errors
    /// [`RootError`]
    pub fn unseal(
        &self,
        _secrets: &[Secret],
        _records: &dyn Records,
        _now_ms: u64,
    ) -> Result<Roots, RootError> {
        Err(RootError::WrongShare)
    }

    /// Puts the root keys under another seal, and makes what opened the old one worthless. May be done while a rotation runs.
    ///
    /// # Errors
    /// [`RootError`]; then the seal is as it was.
    pub fn rekey(
        &self,
        _secrets: &[Secret],
        _new: NewSeal,
        _records: &dyn Records,
        _now_ms: u64,
    ) -> Result<SealFacts, RootError> {
        Err(RootError::WrongShare)
    }

    /// Makes a new root key: afterwards the check record and the directory's key are under it. Give the roots to
    /// [`Keyring::adopt`](crate::keys::Keyring::adopt), then [`Keyring::rewrap`](crate::keys::Keyring::rewrap), then [`Seal::finish_rotation`].
    ///
    /// # Errors
    /// [`RootError::RotationRunning`], and as [`Seal::unseal`].
    pub fn begin_rotation(
        &self,
        _secrets: &[Secret],
        _records: &dyn Records,
        _now_ms: u64,
    ) -> Result<Roots, RootError> {
        Err(RootError::WrongShare)
    }

    /// Forgets the older root keys for ever. Give the roots to [`Keyring::adopt`](crate::keys::Keyring::adopt).
    ///
    /// # Errors
    /// The store's own; then it may be tried again.
    pub fn finish_rotation(&self, all: AllWrapped) -> Result<Roots, RootError> {
        Ok(all.roots)
    }
}

/// Seals a data directory that has no store yet, so that a service finds it sealed. Offline.
///
/// # Errors
/// [`RootError::Occupied`] where there is a store; [`RootError::Field`], [`RootError::Token`], and the store's own.
pub fn init(
    _data_dir: &Path,
    _config: &RootKeyConfig,
    _new: NewSeal,
    _now_ms: u64,
) -> Result<SealFacts, RootError> {
    Err(RootError::WrongShare)
}
