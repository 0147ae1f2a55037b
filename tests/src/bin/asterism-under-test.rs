//! The `asterism` command as a process that the scenarios may kill.

use std::process::ExitCode;

fn main() -> ExitCode {
    asterism::main()
}
