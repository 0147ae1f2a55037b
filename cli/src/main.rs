//! The `asterism` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    asterism::main()
}
