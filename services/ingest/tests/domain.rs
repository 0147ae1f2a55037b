//! The domain without gRPC and without kms: real blobs on the disk, real cryptography, keys held by the test.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "domain/access.rs"]
mod access;
#[path = "domain/bad_input.rs"]
mod bad_input;
#[path = "domain/crash.rs"]
mod crash;
#[path = "domain/damage.rs"]
mod damage;
#[path = "domain/support.rs"]
mod support;
#[path = "domain/uploading.rs"]
mod uploading;
