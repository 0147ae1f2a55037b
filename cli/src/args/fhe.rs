//! The command line of `asterism fhe`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{AlgorithmKind, pair};

/// `asterism fhe`
#[derive(Subcommand, Debug)]
pub enum FheCommand {
    /// Trains, encrypts, predicts and decrypts in this process, and says what it took.
    Bench(FheBenchArgs),
    /// Imports a model that XGBoost saved as JSON, says how it is served, and writes its client bundle. Where no service
    /// runs, everything happens in this process, and the file itself stands for the model.
    ImportXgboost {
        /// What `save_model("model.json")` wrote.
        file: PathBuf,
        /// Which plan, and how.
        #[command(flatten)]
        options: CompileOptions,
        /// Where to write the bundle; by default beside the model, as `.bundle.json`.
        #[arg(long, value_name = "FILE")]
        bundle: Option<PathBuf>,
        /// Ask no service.
        #[arg(long)]
        local: bool,
    },
    /// Compiles a model of the service for encrypted prediction.
    Compile {
        /// models/{id}
        model: String,
        /// Which plan, and how.
        #[command(flatten)]
        options: CompileOptions,
    },
    /// Says how a compiled model is served, at what cost, and why.
    Explain {
        /// models/{id}, or a file that XGBoost saved
        model: String,
        /// Which plan, and how; for files.
        #[command(flatten)]
        options: CompileOptions,
    },
    /// Fetches the client bundle of a compiled model.
    Bundle {
        /// models/{id}
        model: String,
        /// Where to write it.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Makes a secret key for a bundle, and the evaluation key when its plan needs one.
    Keygen {
        /// The client bundle.
        #[arg(long, value_name = "FILE")]
        bundle: PathBuf,
        /// Directory for `secret.key` (mode 0600) and `evaluation.key`.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Encrypts a row of a CSV file.
    Encrypt {
        /// The client bundle.
        #[arg(long, value_name = "FILE")]
        bundle: PathBuf,
        /// The secret key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// CSV file with a header; columns are matched by name.
        #[arg(long, value_name = "FILE")]
        csv: PathBuf,
        /// Which row, from 0.
        #[arg(long, default_value_t = 0)]
        row: usize,
        /// Where to write the query.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Has a query answered: by the service, or in this process by a model that XGBoost saved.
    Evaluate {
        /// models/{id}, or a file that XGBoost saved
        model: String,
        /// Which plan, and how: for files, as the bundle was made.
        #[command(flatten)]
        options: CompileOptions,
        /// The query.
        #[arg(long, value_name = "FILE")]
        query: PathBuf,
        /// The evaluation key, for plans that need one.
        #[arg(long, value_name = "FILE")]
        evaluation_key: Option<PathBuf>,
        /// Where to write the reply.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Decrypts the reply to a query.
    Decrypt {
        /// The client bundle.
        #[arg(long, value_name = "FILE")]
        bundle: PathBuf,
        /// The secret key that the query was encrypted with.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The query that was sent.
        #[arg(long, value_name = "FILE")]
        query: PathBuf,
        /// What came back.
        #[arg(long, value_name = "FILE")]
        reply: PathBuf,
    },
    /// Encrypts every row of a CSV file, has it predicted, and decrypts.
    Predict {
        /// models/{id}, compiled when it is not yet, or a file that XGBoost saved, served in this process
        model: String,
        /// Which plan, and how.
        #[command(flatten)]
        options: CompileOptions,
        /// CSV file with a header; columns are matched by name.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Threads, for files; by default as many as there are processors.
        #[arg(long)]
        threads: Option<usize>,
        /// Directory that `keygen` wrote; by default keys are made and forgotten.
        #[arg(long, value_name = "DIR")]
        keys: Option<PathBuf>,
    },
}

/// How to compile.
#[derive(Args, Debug, Clone, Copy, Default)]
pub struct CompileOptions {
    /// This plan and no other; by default the cheapest.
    #[arg(long, value_enum)]
    pub plan: Option<PlanName>,
    /// Keep only the values that the model splits on: faster, and clients learn them.
    #[arg(long)]
    pub used_edges_only: bool,
}

/// Plans.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanName {
    /// Plaintext weights times an encrypted row.
    Linear,
    /// Tables over pairs of features.
    Pairs,
    /// Decision diagrams over the bits of a row.
    Paths,
    /// Tables of hidden units, turned by the bits of a row.
    Neurons,
}

/// `asterism fhe bench`
#[derive(Args, Debug)]
pub struct FheBenchArgs {
    /// This model: a name from the table, or synthetic-FEATURES-TREESxDEPTH; may be repeated.
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["train", "import"])]
    pub only: Vec<String>,
    /// Rows to predict of each model; by default all held-out ones that fit in the time.
    #[arg(long)]
    pub rows: Option<usize>,
    /// Threads of an evaluation; by default as many as there are processors.
    #[arg(long)]
    pub threads: Option<usize>,
    /// Of the split and of the training.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Train on this CSV file.
    #[arg(long, value_name = "FILE", requires = "test", conflicts_with = "import")]
    pub train: Option<PathBuf>,
    /// Serve this model that XGBoost saved as JSON.
    #[arg(long, value_name = "FILE", requires = "test")]
    pub import: Option<PathBuf>,
    /// Predict the rows of this CSV file.
    #[arg(long, value_name = "FILE", requires = "label")]
    pub test: Option<PathBuf>,
    /// The column to predict.
    #[arg(long)]
    pub label: Option<String>,
    /// How to train.
    #[arg(long, value_enum, default_value_t = AlgorithmKind::Trees)]
    pub algorithm: AlgorithmKind,
    /// name=value, e.g. trees=100; may be repeated.
    #[arg(long = "hyper", value_parser = pair)]
    pub hyper: Vec<(String, String)>,
    /// Which plan, and how.
    #[command(flatten)]
    pub options: CompileOptions,
}
