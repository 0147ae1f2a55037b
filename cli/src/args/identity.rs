//! The command lines of `asterism login` and `asterism identity`.

use std::path::PathBuf;

use asterism_client::channel::PublicKey;
use clap::{Args, Subcommand};

/// `asterism login`
#[derive(Args, Debug)]
pub struct LoginArgs {
    /// Who logs in, e.g. user/alice; by default who did so last.
    #[arg(long)]
    pub principal: Option<String>,
    /// File of mode 0600 that holds the password; asked for otherwise.
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    pub password_file: Option<PathBuf>,
    /// Log in with the private key in this file (mode 0600; PKCS#8 in PEM).
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Static key of the proxy that leads there, as `asterism proxy` shows it: a login by key says for whom it is.
    #[arg(long, value_name = "KEY", requires = "key_file")]
    pub through: Option<PublicKey>,
    /// Code of the second factor; asked for when one is due.
    #[arg(long, value_name = "CODE")]
    pub totp: Option<String>,
    /// Services that the session is for: kms, ingest, inference, audit; all by default. May be repeated.
    #[arg(long, value_name = "SERVICE")]
    pub audience: Vec<String>,
}

/// `asterism identity`
#[derive(Subcommand, Debug)]
pub enum IdentityCommand {
    /// Makes an invitation that is good once. Without roles: for somebody known, to set another password or key.
    Invite {
        /// e.g. user/alice
        principal: String,
        /// admin, key-admin, data-owner, analyst, auditor, viewer or service; may be repeated.
        #[arg(long)]
        role: Vec<String>,
        /// Hours that it is good for.
        #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u32).range(1..=720))]
        hours: u32,
        /// Write the invitation there (mode 0600) instead of showing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Uses an invitation up: sets a password, or enrols a key.
    Enrol {
        /// File that holds the invitation; asked for otherwise.
        #[arg(long, value_name = "FILE")]
        invitation_file: Option<PathBuf>,
        /// File of mode 0600 that holds the new password; asked for otherwise.
        #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
        password_file: Option<PathBuf>,
        /// Enrol the key in this file (as `asterism identity keygen` makes it) instead of a password.
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
        /// From now on only logins over the channel of the present static key are taken.
        #[arg(long)]
        bind: bool,
    },
    /// Makes a private key to log in with, and shows its public half.
    Keygen {
        /// Where to write it (mode 0600, PKCS#8 in PEM); never over a file that is there.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Lists principals.
    List,
    /// Shows a principal.
    Show {
        /// e.g. user/alice
        principal: String,
    },
    /// Ends all sessions of a principal and lets it log in no more.
    Disable {
        /// e.g. user/alice
        principal: String,
    },
    /// Lets it log in again.
    Enable {
        /// e.g. user/alice
        principal: String,
    },
    /// Sets the roles of a principal.
    Roles {
        /// e.g. user/alice
        principal: String,
        /// All that it is to have; may be repeated.
        #[arg(long, required = true)]
        role: Vec<String>,
    },
    /// Deletes a principal.
    Delete {
        /// e.g. user/alice
        principal: String,
    },
    /// Ends all sessions of a principal and refuses its tokens; or refuses one token.
    #[command(group = clap::ArgGroup::new("what").required(true))]
    Revoke {
        /// e.g. user/alice
        #[arg(group = "what")]
        principal: Option<String>,
        /// Id of an access token or of a session, as events name it.
        #[arg(long, group = "what")]
        token_id: Option<String>,
    },
    /// Codes by time as a second factor.
    #[command(subcommand)]
    Totp(TotpCommand),
}

/// `asterism identity totp`
#[derive(Subcommand, Debug)]
pub enum TotpCommand {
    /// Makes a secret for oneself, shown once as the text of the QR code that authenticator apps read.
    Add,
    /// Confirms it by a first code: from then on logins need one.
    Confirm {
        /// The factor's id.
        id: String,
        /// Six digits.
        code: String,
    },
    /// Takes it away.
    Remove {
        /// The factor's id.
        id: String,
        /// Six digits; not needed with --of.
        #[arg(required_unless_present = "of")]
        code: Option<String>,
        /// Somebody else's, as an administrator.
        #[arg(long, value_name = "PRINCIPAL")]
        of: Option<String>,
    },
}
