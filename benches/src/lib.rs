//! Criterion benches of the pure crates and the store: `cargo bench -p asterism-benches`.
