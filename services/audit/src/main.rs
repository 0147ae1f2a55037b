//! The audit service as a process of its own.

fn main() -> std::process::ExitCode {
    asterism_audit::main()
}
