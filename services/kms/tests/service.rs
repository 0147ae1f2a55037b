//! The service from outside: gRPC over loopback, and its files when it is down.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

#[path = "service/backups.rs"]
mod backups;
#[path = "service/batches.rs"]
mod batches;
#[path = "service/checksums.rs"]
mod checksums;
#[path = "service/ciphers.rs"]
mod ciphers;
#[path = "service/connections.rs"]
mod connections;
#[path = "service/destruction.rs"]
mod destruction;
#[path = "service/disk.rs"]
mod disk;
#[path = "service/full_disk.rs"]
mod full_disk;
#[path = "service/identity.rs"]
mod identity;
#[path = "service/lifecycle.rs"]
mod lifecycle;
#[path = "service/macs_and_signatures.rs"]
mod macs_and_signatures;
#[path = "service/policy.rs"]
mod policy;
#[path = "service/rekeying.rs"]
mod rekeying;
#[path = "service/root_rotation.rs"]
mod root_rotation;
#[path = "service/sealing.rs"]
mod sealing;
#[path = "service/seals.rs"]
mod seals;
#[path = "service/states.rs"]
mod states;
#[path = "service/support.rs"]
mod support;
#[path = "service/transfers.rs"]
mod transfers;
#[path = "service/vectors.rs"]
mod vectors;
