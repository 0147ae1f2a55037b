//! What opens a seal, and what a seal is to be.

use std::{fmt, path::Path};

use asterism_crypto::{
    Argon2Params, Digest, SecretBytes, SecretKey, password, random_array,
    shares::{self, SetId, Share},
};
use asterism_store::files;
use zeroize::Zeroizing;

use super::{
    RootError, Seal,
    file::{KeyFileName, Kind, Salt, SealId, are_shares_sound},
    key_file, token,
};
use crate::config::RootKeyConfig;

/// A shorter passphrase is guessed too soon.
pub const MIN_PASSPHRASE_BYTES: usize = 12;
/// A longer one is none.
pub const MAX_PASSPHRASE_BYTES: usize = 1024;

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

/// Where a seal finds what is not in `seal.json`.
pub(super) struct Surroundings<'a> {
    pub(super) data_dir: &'a Path,
    pub(super) config: &'a RootKeyConfig,
}

impl Surroundings<'_> {
    /// The unseal key that these secrets give, or what the settings name where there are none. Whether it is the right one is not known yet, but for shares.
    pub(super) fn unseal_key(
        &self,
        id: &SealId,
        kind: &Kind,
        secrets: &[Secret],
    ) -> Result<SecretKey, RootError> {
        let wrong_kind = || RootError::WrongSecretKind(kind.kind());
        match kind {
            Kind::KeyFile { file } if secrets.is_empty() => key_file::read(self.data_dir, file),
            Kind::Token { .. } if secrets.is_empty() => token::open(&self.config.pkcs11, kind, id.as_bytes()),
            Kind::Passphrase { argon2id, salt } => match secrets {
                [Secret::Passphrase(given)] => stretch(given.expose(), salt, argon2id),
                [] => stretch(&self.passphrase(kind)?, salt, argon2id),
                _ => Err(wrong_kind()),
            },
            Kind::Shares { threshold, sha256 } => {
                let mut given = Vec::with_capacity(secrets.len());
                for secret in secrets {
                    let Secret::Share(share) = secret else {
                        return Err(wrong_kind());
                    };
                    check_share(share, id, *threshold, sha256)?;
                    given.push(share);
                }
                if given.is_empty() {
                    return Err(RootError::SecretRequired(kind.kind()));
                }
                Ok(shares::combine(given)?)
            }
            Kind::KeyFile { .. } | Kind::Token { .. } => Err(wrong_kind()),
        }
    }

    /// Whether [`Surroundings::unseal_key`] needs no secret.
    pub(super) fn is_automatic(&self, kind: &Kind) -> bool {
        match kind {
            Kind::KeyFile { .. } => true,
            Kind::Passphrase { .. } => self.config.passphrase_file.is_some(),
            Kind::Shares { .. } => false,
            Kind::Token { .. } => self.config.pkcs11.is_set(),
        }
    }

    /// Makes what a seal is to be: its id, what the file says of it, and its unseal key. A key file waits for its name.
    pub(super) fn make(&self, new: NewSeal, first: bool) -> Result<(SealId, Kind, SecretKey), RootError> {
        let id = SealId::random()?;
        match new {
            NewSeal::KeyFile => {
                let file = if first {
                    KeyFileName::first()
                } else {
                    KeyFileName::of(&id)
                };
                let key = SecretKey::generate()?;
                key_file::prepare(self.data_dir, &file, &key)?;
                Ok((id, Kind::KeyFile { file }, key))
            }
            NewSeal::Passphrase(passphrase) => {
                let passphrase = passphrase.expose();
                if !(MIN_PASSPHRASE_BYTES..=MAX_PASSPHRASE_BYTES).contains(&passphrase.len()) {
                    return Err(RootError::field("passphrase", "must have 12 to 1024 bytes"));
                }
                let (argon2id, salt) = (Argon2Params::default(), Salt(random_array()?));
                let key = stretch(passphrase, &salt, &argon2id)?;
                Ok((id, Kind::Passphrase { argon2id, salt }, key))
            }
            NewSeal::Shares {
                unseal_key,
                threshold,
                digests,
            } => {
                if !are_shares_sound(threshold, &digests) {
                    return Err(RootError::field(
                        "shares",
                        "must be 2 to 16 digests, all different, and a threshold of 2 or more that is at most as many",
                    ));
                }
                let kind = Kind::Shares {
                    threshold,
                    sha256: digests,
                };
                Ok((SetId::of(&unseal_key).into(), kind, unseal_key))
            }
            NewSeal::Token => {
                let (kind, key) = token::seal(&self.config.pkcs11, id.as_bytes())?;
                Ok((id, kind, key))
            }
        }
    }

    /// What a seal of a new store is, by the settings.
    pub(super) fn default_seal(&self) -> Result<NewSeal, RootError> {
        Ok(match &self.config.passphrase_file {
            Some(file) => NewSeal::Passphrase(SecretBytes::new(read_passphrase(file)?.to_vec())),
            None if self.config.pkcs11.is_set() => NewSeal::Token,
            None => NewSeal::KeyFile,
        })
    }

    /// What it means that the unseal key of `kind` does not open the seal.
    pub(super) fn wrong_key(&self, kind: &Kind) -> RootError {
        match kind {
            Kind::KeyFile { file } => {
                RootError::WrongKeyFile(self.data_dir.join(file.as_str()).display().to_string())
            }
            Kind::Passphrase { .. } => RootError::WrongPassphrase,
            // Both are known to be right: what they open was altered.
            Kind::Shares { .. } | Kind::Token { .. } => {
                RootError::Damaged(super::file::seal_path(self.data_dir).display().to_string())
            }
        }
    }

    fn passphrase(&self, kind: &Kind) -> Result<Zeroizing<Vec<u8>>, RootError> {
        match &self.config.passphrase_file {
            Some(file) => read_passphrase(file),
            None => Err(RootError::SecretRequired(kind.kind())),
        }
    }
}

/// Whether a share is one of a seal.
pub(super) fn check_share(
    share: &Share,
    id: &SealId,
    threshold: u8,
    digests: &[Digest],
) -> Result<(), RootError> {
    let of = SealId::from(share.set());
    if of != *id {
        return Err(RootError::ShareOfAnotherSeal {
            of: of.to_string(),
            ours: id.to_string(),
        });
    }
    if share.threshold() == threshold && digests.contains(&share.digest()) {
        Ok(())
    } else {
        Err(RootError::WrongShare)
    }
}

/// Reads a file that the settings name.
pub(super) fn secret_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, RootError> {
    let read = files::read_private(path).map_err(|error| RootError::SecretFile {
        path: path.display().to_string(),
        why: error.to_string(),
    });
    read.map(Zeroizing::new)
}

fn read_passphrase(file: &Path) -> Result<Zeroizing<Vec<u8>>, RootError> {
    let text = secret_file(file)?;
    Ok(Zeroizing::new(text.trim_ascii_end().to_vec()))
}

fn stretch(passphrase: &[u8], salt: &Salt, parameters: &Argon2Params) -> Result<SecretKey, RootError> {
    if passphrase.len() > MAX_PASSPHRASE_BYTES {
        return Err(RootError::WrongPassphrase);
    }
    Ok(password::derive_key(passphrase, &salt.0, parameters)?)
}
