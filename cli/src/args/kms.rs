//! The command line of `asterism kms`.

use std::path::PathBuf;

use asterism_kms::Pkcs11Config;
use clap::{Args, Subcommand, ValueEnum};

/// `asterism kms`
#[derive(Subcommand, Debug)]
pub enum KmsCommand {
    /// Makes the root key, its seal and the first administrator's invitation where no kms has been yet. Needs no running service.
    Init(InitArgs),
    /// Shows how kms is sealed, and whether it is. Needs no token.
    Status,
    /// Brings the root key into memory. Needs no token; asks for what it needs, unless files are named or kms opens its seal by itself.
    Unseal {
        /// What opens the seal.
        #[command(flatten)]
        secrets: SecretArgs,
        /// Has kms forget the shares that were given so far, instead.
        #[arg(long, conflicts_with_all = ["share_file", "passphrase_file"])]
        reset: bool,
    },
    /// Has kms forget the root key: it refuses everything until it is unsealed.
    Seal,
    /// Puts the root key under another seal. What opens the present one is asked for, unless files are named or the settings of kms do.
    Rekey(RekeyArgs),
    /// Makes a new root key and wraps everything anew under it, while kms serves. What opens the seal is asked for, as by rekey.
    RotateRoot {
        /// What opens the seal.
        #[command(flatten)]
        secrets: SecretArgs,
        /// Do not wait until all is wrapped anew: kms goes on by itself.
        #[arg(long)]
        no_wait: bool,
    },
}

/// How the root key is kept.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealArg {
    /// A file in the data directory of kms, which opens it at its start.
    KeyFile,
    /// A passphrase (Argon2id).
    Passphrase,
    /// Shares, some of which open it together (Shamir).
    Shares,
    /// A key in a PKCS #11 token, which never leaves it.
    Token,
}

/// What opens the seal as it is.
#[derive(Args, Debug, Default)]
pub struct SecretArgs {
    /// File of mode 0600 that holds a share; may be repeated.
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    pub share_file: Vec<PathBuf>,
    /// File of mode 0600 that holds the passphrase.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// Into how many shares a seal is split.
#[derive(Args, Debug, Clone, Default)]
pub struct SplitArgs {
    /// How many shares there are: 2 to 16.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(2..=16), requires = "threshold")]
    pub shares: Option<u8>,
    /// How many of them open the seal: 2 to 16.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(2..=16), requires = "shares")]
    pub threshold: Option<u8>,
    /// Write each share to a file of mode 0600 there, instead of showing it once.
    #[arg(long, value_name = "DIR", requires = "shares")]
    pub shares_dir: Option<PathBuf>,
}

/// Which key of which PKCS #11 token.
#[derive(Args, Debug, Clone)]
pub struct TokenArgs {
    /// The library of the token's maker, e.g. /usr/lib/softhsm/libsofthsm2.so.
    #[arg(long, value_name = "FILE", requires_all = ["token_label", "pin_file"])]
    pub pkcs11_module: Option<PathBuf>,
    /// Label of the token.
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    pub token_label: Option<String>,
    /// Label of the AES-256 key in it; made unless it is there.
    #[arg(long, value_name = "LABEL", default_value = "asterism-kms")]
    pub key_label: String,
    /// File of mode 0600 that holds the user's PIN.
    #[arg(long, value_name = "FILE", requires = "pkcs11_module")]
    pub pin_file: Option<PathBuf>,
}

impl TokenArgs {
    /// As the settings of kms have it.
    pub fn settings(&self) -> Pkcs11Config {
        Pkcs11Config {
            module: self.pkcs11_module.clone(),
            token_label: self.token_label.clone(),
            key_label: self.key_label.clone(),
            pin_file: self.pin_file.clone(),
        }
    }
}

/// `asterism kms init`
#[derive(Args, Debug)]
pub struct InitArgs {
    /// The data directory of kms, empty or absent; `kms` in --data unless given.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How the root key is kept.
    #[arg(long, value_enum)]
    pub seal: SealArg,
    /// With passphrase: file of mode 0600 that holds it; asked for otherwise.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// With shares.
    #[command(flatten)]
    pub split: SplitArgs,
    /// With token.
    #[command(flatten)]
    pub token: TokenArgs,
    /// Whom to invite as the first administrator.
    #[arg(long, value_name = "PRINCIPAL", default_value = "user/admin")]
    pub admin: String,
    /// Write the invitation there (mode 0600) instead of showing it.
    #[arg(long, value_name = "FILE")]
    pub invitation_out: Option<PathBuf>,
}

/// `asterism kms rekey`
#[derive(Args, Debug)]
pub struct RekeyArgs {
    /// How the root key is to be kept. `token`: in that which the settings of kms name.
    #[arg(long, value_enum)]
    pub to: SealArg,
    /// What opens the seal as it is.
    #[command(flatten)]
    pub secrets: SecretArgs,
    /// To passphrase: file of mode 0600 that holds the new one; asked for otherwise.
    #[arg(long, value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,
    /// To shares.
    #[command(flatten)]
    pub split: SplitArgs,
}
