//! `asterism-audit-verify`: see the library of this package.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use asterism_audit_verify::VerifyArgs;
use clap::Parser;

/// Verifies an exported audit log offline, with nothing but its public keys
///
/// Ends with 0 when everything is as the log signed it, 1 when something is not, and 2 when it could not be looked at.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    args: VerifyArgs,
}

fn main() -> ExitCode {
    let args = Cli::parse().args;
    match args.run(&|_, _| Ok(()), &mut io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Where even that fails, the exit code is left.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}
