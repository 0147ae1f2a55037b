//! How a command ends when it does not end well.

use asterism_client::ClientError;
use tonic::Code;

/// A command's failure, with the exit code that it becomes.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A service refused, failed or cannot be reached.
    #[error("{source}{hint}", hint = hint(.source))]
    Client {
        /// What it said.
        #[from]
        source: ClientError,
    },
    /// Something that was checked does not hold.
    #[error("{0}")]
    NotVerified(String),
    /// An argument cannot be used.
    #[error("{0}")]
    Usage(String),
    /// A local file or directory.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// A service could not be started here.
    #[error("{service} cannot start: {problem}")]
    Start {
        /// Which.
        service: &'static str,
        /// Why, and the next step.
        problem: String,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl CliError {
    /// 1 for failures, 2 for wrong usage, 3 when a verification fails, 4 when a service cannot be reached,
    /// 5 when identity or policy refuses.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotVerified(_) => 3,
            Self::Usage(_) => 2,
            Self::Client { source } => match source {
                ClientError::Verification(_) => 3,
                ClientError::Argument(_) => 2,
                ClientError::Unreachable { .. } | ClientError::Deadline { .. } => 4,
                error if matches!(error.code(), Code::Unauthenticated | Code::PermissionDenied) => 5,
                _ => 1,
            },
            _ => 1,
        }
    }

    pub(crate) fn file(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::File {
            path: path.display().to_string(),
            source,
        }
    }
}

fn hint(error: &ClientError) -> String {
    match error {
        ClientError::Unreachable { .. } => "\nstart the services with `asterism up`".to_owned(),
        ClientError::Refused {
            code: Code::Unauthenticated,
            ..
        } => "\nlog in with `asterism login`, pass --token-file, or use the --data directory that `asterism up` uses".to_owned(),
        ClientError::Refused { violations, .. } => violations
            .iter()
            .map(|(field, problem)| format!("\n  {field}: {problem}"))
            .collect(),
        _ => String::new(),
    }
}
