//! The command line.

mod backup;
mod channel;
mod fhe;
mod firewall;
mod identity;
mod keys;
mod kms;
mod policy;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use self::backup::BackupCommand;
pub use self::channel::{ChannelCommand, ProxyArgs, RotationStep, ServiceName};
pub use self::fhe::{CompileOptions, FheBenchArgs, FheCommand, PlanName};
pub use self::firewall::{DefaultKind, EntryArgs, FirewallArgs, FirewallCommand, SetArgs, Which};
pub use self::identity::{IdentityCommand, LoginArgs, TotpCommand};
pub use self::keys::{Encoding, KeyKind, KeysCommand, MaterialCommand, VersionState};
pub use self::kms::{InitArgs, KmsCommand, RekeyArgs, SealArg, SecretArgs, SplitArgs, TokenArgs};
pub use self::policy::{ExplainArgs, GrantArgs, PolicyCommand};

/// Keeps training data, models and predictions encrypted, and proves who did what with which key.
#[derive(Parser, Debug)]
#[command(name = "asterism", version, about, propagate_version = true)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Args, Debug, Clone)]
pub struct Global {
    /// JSON lines on standard output instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
    /// Directory of keys, data and credentials (for `up`, `demo`, `token`, and to find the token).
    #[arg(long, global = true, value_name = "DIR", env = "ASTERISM_DATA")]
    pub data: Option<PathBuf>,
    /// File that holds the access token; by default that of the session, or else `admin.token` in the data directory.
    #[arg(long, global = true, value_name = "FILE", env = "ASTERISM_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// File of the session that `asterism login` begins; by default in the user's configuration directory.
    #[arg(long, global = true, value_name = "FILE", env = "ASTERISM_SESSION")]
    pub session: Option<PathBuf>,
    /// Host and first port of running services: kms there, ingest, inference and audit on the next three.
    #[arg(long, global = true, value_name = "HOST:PORT", env = "ASTERISM_ADDR")]
    pub addr: Option<String>,
}

/// Verb groups.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Runs all four services in this process until interrupted.
    Up(UpArgs),
    /// Takes real data through upload, verification, training, prediction and audit.
    Demo(DemoArgs),
    /// Creates, rotates and uses keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Makes, opens, closes and changes the seal of the root key.
    #[command(subcommand)]
    Kms(KmsCommand),
    /// Backs up kms while it serves, and restores it.
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Uploads, verifies and reads datasets.
    #[command(subcommand)]
    Datasets(DatasetsCommand),
    /// Trains and evaluates models.
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Predicts rows of a CSV file, or every row of a dataset.
    Predict(PredictArgs),
    /// Predicts on encrypted rows.
    #[command(subcommand)]
    Fhe(FheCommand),
    /// Reads and verifies the audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Logs in, with a password or a key; other commands then use the session.
    Login(LoginArgs),
    /// Ends the session, everywhere.
    Logout,
    /// Says who the services take the caller for.
    Whoami,
    /// Invites, enrols and manages people and services.
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Grants, denials, what they mean for a call, and approvals.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Shows and changes who may call the services, and how often.
    Firewall(FirewallArgs),
    /// Makes access tokens from the data directory's authority key.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Makes the keys of the encrypted channel.
    #[command(subcommand)]
    Channel(ChannelCommand),
    /// Opens a local door in the clear to a service that is reached over the encrypted channel, for grpcurl and the like.
    Proxy(ProxyArgs),
    /// Measures this machine.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Prints a completion script.
    Completions {
        /// For which shell.
        shell: Shell,
    },
}

/// `asterism up`
#[derive(Args, Debug)]
pub struct UpArgs {
    /// First port: kms there, ingest, inference and audit on the next three. 0 takes free ones.
    #[arg(long, default_value_t = 7001)]
    pub port: u16,
    /// OTLP endpoint for traces and metrics, e.g. http://127.0.0.1:4317.
    #[arg(long, env = "ASTERISM_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// Open the seal of the root key with the passphrase in this file; a new store is sealed with it, instead of with a key file.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Open it with a PKCS #11 token; a new store is sealed with it.
    #[command(flatten)]
    pub token: TokenArgs,
    /// Log lines as JSON.
    #[arg(long)]
    pub log_json: bool,
}

/// `asterism demo`
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Where to draw the evaluation; `asterism-demo.svg` in the data directory, or here when that is temporary.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Seed of the split and of the training.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
}

/// `asterism datasets`
#[derive(Subcommand, Debug)]
pub enum DatasetsCommand {
    /// Uploads a CSV file; `-` reads standard input.
    Upload {
        /// The file.
        file: PathBuf,
        /// For people; by default the file's name.
        #[arg(long)]
        name: Option<String>,
        /// Repeating an upload with the same id never makes a second dataset.
        #[arg(long)]
        request_id: Option<String>,
    },
    /// Lists datasets.
    List,
    /// Shows a dataset and the profile of its columns.
    Show {
        /// datasets/{id}
        name: String,
    },
    /// Re-reads and checks everything that is stored of a dataset.
    Verify {
        /// datasets/{id}
        name: String,
    },
    /// Prints the signed manifest.
    Manifest {
        /// datasets/{id}
        name: String,
    },
    /// Prints decrypted rows as CSV.
    Read {
        /// datasets/{id}
        name: String,
        /// First row, from 0.
        #[arg(long, default_value_t = 0)]
        offset: u64,
        /// 0 means all.
        #[arg(long, default_value_t = 0)]
        limit: u64,
    },
    /// Verifies on this side, trusting only kms, and writes the decrypted CSV.
    Download {
        /// datasets/{id}
        name: String,
        /// Where to write.
        #[arg(long, short)]
        output: PathBuf,
    },
    /// Deletes a dataset.
    Delete {
        /// datasets/{id}
        name: String,
    },
}

/// `asterism models`
#[derive(Subcommand, Debug)]
pub enum ModelsCommand {
    /// Trains on an encrypted dataset.
    Train(TrainArgs),
    /// Lists models.
    List,
    /// Shows a model and how good it is.
    Show {
        /// models/{id}
        name: String,
    },
    /// Evaluates on the held-out rows, or on another dataset.
    Evaluate {
        /// models/{id}
        name: String,
        /// datasets/{id}
        #[arg(long)]
        dataset: Option<String>,
        /// Draw the evaluation here.
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
    /// Deletes a model.
    Delete {
        /// models/{id}
        name: String,
    },
}

/// `asterism models train`
#[derive(Args, Debug)]
pub struct TrainArgs {
    /// datasets/{id}
    pub dataset: String,
    /// Column to predict.
    #[arg(long)]
    pub label: String,
    /// Columns to learn from; by default every other.
    #[arg(long, value_delimiter = ',')]
    pub features: Vec<String>,
    /// How.
    #[arg(long, value_enum, default_value_t = AlgorithmKind::Trees)]
    pub algorithm: AlgorithmKind,
    /// Share of the rows held out.
    #[arg(long, default_value_t = 0.3)]
    pub test_fraction: f64,
    /// Of the split and of the training.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// name=value, e.g. trees=100; may be repeated.
    #[arg(long = "param", value_parser = pair)]
    pub params: Vec<(String, String)>,
    /// For people.
    #[arg(long, default_value = "")]
    pub name: String,
}

/// Ways to learn.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlgorithmKind {
    /// Logistic regression.
    Logistic,
    /// Gradient-boosted trees.
    Trees,
    /// A small neural network.
    Neural,
    /// A single decision tree.
    Tree,
    /// A random forest.
    Forest,
}

/// `asterism predict`
#[derive(Args, Debug)]
pub struct PredictArgs {
    /// models/{id}
    pub model: String,
    /// CSV file with a header; columns are matched by name. `-` reads standard input.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "dataset",
        required_unless_present = "dataset"
    )]
    pub file: Option<PathBuf>,
    /// datasets/{id}: every row of an encrypted dataset.
    #[arg(long)]
    pub dataset: Option<String>,
}

/// `asterism audit`
#[derive(Subcommand, Debug)]
pub enum AuditCommand {
    /// Lists events, oldest first.
    List {
        /// Only events that match.
        #[command(flatten)]
        filter: FilterArgs,
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Shows events as they happen.
    Tail {
        /// Only events that match.
        #[command(flatten)]
        filter: FilterArgs,
        /// First index wanted; by default only new events.
        #[arg(long)]
        from: Option<u64>,
    },
    /// Has the service recompute the Merkle tree over the whole log; or verifies an exported log, offline.
    Verify(VerifyLogArgs),
    /// Proves that an event is in the log: writes a receipt (C2SP tlog-proof) that anybody can check.
    Prove {
        /// Index or event id.
        entry: String,
        /// Where the receipt goes.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Where the entry's bytes go, which the receipt is for.
        #[arg(long, value_name = "FILE")]
        entry_out: Option<PathBuf>,
    },
    /// Shows a signed checkpoint of the log as it is now (C2SP tlog-checkpoint).
    Checkpoint {
        /// Where it goes, besides.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Where the public keys go that it is signed with. Keep them where the log's keeper cannot change them.
        #[arg(long, value_name = "FILE")]
        key_out: Option<PathBuf>,
    },
    /// Writes the whole log as plain files (C2SP tlog-tiles): entries, tree and checkpoint.
    Export {
        /// A directory that is empty or not there yet.
        directory: PathBuf,
    },
}

/// `asterism audit verify`
#[derive(Args, Debug, Clone)]
pub struct VerifyLogArgs {
    /// Directory of an exported log; without it the running service verifies its own.
    pub directory: Option<PathBuf>,
    /// File with the public keys of the log and of its witnesses, one a line; may be given again.
    #[arg(long = "key", value_name = "FILE", requires = "directory")]
    pub keys: Vec<PathBuf>,
    /// Signed checkpoint that was kept elsewhere; may be given again.
    #[arg(long, value_name = "FILE", requires = "directory")]
    pub seen: Vec<PathBuf>,
    /// Witnesses that must stand behind the newest checkpoint.
    #[arg(long, value_name = "COUNT", default_value_t = 0, requires = "directory")]
    pub witnesses: usize,
}

/// Which events.
#[derive(Args, Debug, Clone, Default)]
pub struct FilterArgs {
    /// e.g. user/admin
    #[arg(long)]
    pub principal: Option<String>,
    /// kms, ingest, inference or audit
    #[arg(long)]
    pub source: Option<String>,
    /// e.g. kms.Encrypt
    #[arg(long)]
    pub operation: Option<String>,
    /// e.g. keys/dataset-kek
    #[arg(long)]
    pub resource: Option<String>,
    /// W3C trace id
    #[arg(long)]
    pub trace_id: Option<String>,
    /// How it ended.
    #[arg(long, value_enum)]
    pub outcome: Option<OutcomeKind>,
}

/// How an operation ended.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeKind {
    /// It worked.
    Succeeded,
    /// Refused by identity or policy.
    Denied,
    /// Anything else.
    Failed,
}

/// `asterism token`
#[derive(Subcommand, Debug)]
pub enum TokenCommand {
    /// Mints a token for a principal.
    Mint {
        /// e.g. user/alice
        principal: String,
        /// admin, data-owner, analyst, auditor, viewer or service; may be repeated.
        #[arg(long, required = true)]
        role: Vec<String>,
        /// Hours that it is good for.
        #[arg(long, default_value_t = 8)]
        hours: u32,
    },
}

/// `asterism bench`
#[derive(Subcommand, Debug)]
pub enum BenchCommand {
    /// Upload throughput end to end over loopback, and the memory it takes.
    Upload {
        /// MiB of CSV to upload.
        #[arg(long, default_value_t = 1024)]
        mib: u64,
    },
    /// Calls a second of kms over the encrypted channel, audited, beside empty calls; or how it bears many keys.
    Kms {
        /// Callers at once.
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
        callers: u16,
        /// Seconds for each kind of call.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=5))]
        seconds: u64,
        /// Instead: makes so many keys in an empty store, and measures the start, the memory and GetKey.
        #[arg(long)]
        keys: Option<u64>,
    },
    /// Time to start all four services.
    Start,
    /// Makes keys in the store of a data directory that no service has open.
    #[command(hide = true)]
    MakeKeys {
        /// How many.
        keys: u64,
        /// The data directory of all services.
        data_dir: PathBuf,
    },
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("`{text}` is not name=value"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn pairs_need_a_name() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(pair("=b").is_err());
        assert!(pair("a").is_err());
    }
}
