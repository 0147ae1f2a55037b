//! The `asterism` command, or one service (`asterism-under-test service kms …`), as a process that the scenarios may kill.

use std::{ffi::OsString, process::ExitCode};

use asterism_chassis::entry::{environment, run_with};

fn main() -> ExitCode {
    let mut args = std::env::args_os().peekable();
    let program = args.next().unwrap_or_default();
    if args.next_if(|first| first == "service").is_none() {
        return asterism::main();
    }
    let service = args.next().unwrap_or_default();
    let args: Vec<OsString> = std::iter::once(program).chain(args).collect();
    let env = environment();
    match service.to_str() {
        Some("kms") => run_with("kms", args, env, asterism_kms::start),
        Some("ingest") => run_with("ingest", args, env, asterism_ingest::start),
        Some("inference") => run_with("inference", args, env, asterism_inference::start),
        Some("audit") => run_with("audit", args, env, asterism_audit::start),
        _ => ExitCode::from(2),
    }
}
