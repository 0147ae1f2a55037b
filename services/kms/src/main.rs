//! The key management service as a process of its own.

fn main() -> std::process::ExitCode {
    asterism_kms::main()
}
