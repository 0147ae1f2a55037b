//! The inference service as a process of its own.

fn main() -> std::process::ExitCode {
    asterism_inference::main()
}
