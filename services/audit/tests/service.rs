//! The service from outside: gRPC over loopback, and its store when it is down.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "service/appending.rs"]
mod appending;
#[path = "service/proving.rs"]
mod proving;
#[path = "service/queries.rs"]
mod queries;
#[path = "service/restarts.rs"]
mod restarts;
#[path = "service/roles.rs"]
mod roles;
#[path = "service/support.rs"]
mod support;
#[path = "service/watching.rs"]
mod watching;
