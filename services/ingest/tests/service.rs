//! The service from outside: gRPC over loopback, with a real kms beside it.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "service/calls.rs"]
mod calls;
#[path = "service/failures.rs"]
mod failures;
#[path = "service/support.rs"]
mod support;
