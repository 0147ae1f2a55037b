//! The command line of `asterism backup`.

use std::path::PathBuf;

use clap::{ArgGroup, Subcommand};

/// `asterism backup`
#[derive(Subcommand, Debug)]
pub enum BackupCommand {
    /// Has the running kms make a backup of everything it keeps, but for the root key.
    #[command(group(ArgGroup::new("to").required(true)))]
    Create {
        /// Where to write it (mode 0600); never over a file that is there.
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
        /// Seal it with the passphrase in this file (mode 0600), which stays here.
        #[arg(long, value_name = "FILE", group = "to")]
        passphrase_file: Option<PathBuf>,
        /// Seal it to this P-256 public key in PEM.
        #[arg(long, value_name = "PUB.PEM", group = "to")]
        recipient: Option<PathBuf>,
    },
    /// Checks form, digest and signature of a backup, and shows what it says of itself. Needs no key.
    Inspect {
        /// The backup.
        file: PathBuf,
    },
    /// Restores a backup where no kms is: all of it is checked before anything is there.
    #[command(group(ArgGroup::new("by").required(true)))]
    Restore {
        /// The backup.
        file: PathBuf,
        /// The data directory of kms, empty or absent; `kms` in --data unless given.
        #[arg(long, value_name = "DIR")]
        kms_dir: Option<PathBuf>,
        /// Open it with the passphrase in this file (mode 0600).
        #[arg(long, value_name = "FILE", group = "by")]
        passphrase_file: Option<PathBuf>,
        /// Open it with the private key in this file (mode 0600): P-256, PKCS#8 in PEM.
        #[arg(long, value_name = "FILE", group = "by")]
        private_key_file: Option<PathBuf>,
        /// Refuse a backup that another key signed than the one of this fingerprint, which `create` showed.
        #[arg(long, value_name = "HEX")]
        signer_fingerprint: Option<String>,
    },
}
