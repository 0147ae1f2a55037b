//! `asterism-ingest`: the ingest service as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    asterism_ingest::main()
}
