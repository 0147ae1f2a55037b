//! The `asterism` command: runs the constellation, and uses every part of it.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a verification failed, 4 a service cannot be reached, 5 refused by
//! identity or policy.

pub mod args;
pub mod commands;
pub mod connect;
pub mod constellation;
mod error;
pub mod output;
mod plot;
pub mod session;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

pub use error::CliError;

use crate::{
    args::{Cli, Command, KmsCommand},
    commands::{
        audit, backup, bench, channel, datasets, demo, fhe, firewall, identity, keys, kms, login, models,
        policy, predict, proxy, token, up,
    },
    connect::{data_dir, services},
    output::Output,
};

/// The whole program: reads the command line, runs the command, and says how it ended.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs one command.
///
/// # Errors
/// What kept it from succeeding; [`CliError::exit_code`] says how the process should end.
pub async fn run(cli: Cli) -> Result<(), CliError> {
    let output = Output::new(cli.global.json);
    let global = &cli.global;
    // kms refuses to refresh it while it is sealed, and these ask without a token.
    let without_token = matches!(
        cli.command,
        Command::Kms(KmsCommand::Init(_) | KmsCommand::Status | KmsCommand::Unseal { .. })
    );
    if !without_token {
        session::keep_fresh(global).await;
    }
    match cli.command {
        Command::Up(args) => up::run(args, &data_dir(global), output).await,
        Command::Demo(args) => demo::run(args, global, output).await,
        Command::Keys(command) => keys::run(command, &services(global)?, output).await,
        Command::Kms(command) => kms::run(command, global, output).await,
        Command::Backup(command) => backup::run(command, global, output).await,
        Command::Datasets(command) => datasets::run(command, &services(global)?, output).await,
        Command::Models(command) => models::run(command, &services(global)?, output).await,
        Command::Predict(args) => predict::run(args, &services(global)?, output).await,
        Command::Fhe(command) => fhe::run(command, global, output).await,
        Command::Audit(args::AuditCommand::Verify(args)) if args.directory.is_some() => {
            audit::offline(args, output)
        }
        Command::Audit(command) => audit::run(command, &services(global)?, output).await,
        Command::Login(args) => login::login(args, global, output).await,
        Command::Logout => login::logout(global, output).await,
        Command::Whoami => login::whoami(global, output).await,
        Command::Identity(command) => identity::run(command, global, output).await,
        Command::Policy(command) => policy::run(command, &services(global)?, output).await,
        Command::Firewall(args) => firewall::run(args, global, output).await,
        Command::Token(command) => token::run(command, &data_dir(global), output),
        Command::Channel(command) => channel::run(command, &data_dir(global), output),
        Command::Proxy(args) => proxy::run(args, output).await,
        Command::Bench(command) => bench::run(command, output).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "asterism", &mut script);
            output::print(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
    }
}
