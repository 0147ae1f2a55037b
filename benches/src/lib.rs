//! Criterion benches of the pure crates, the store and the firewall: `cargo bench -p asterism-benches`.
