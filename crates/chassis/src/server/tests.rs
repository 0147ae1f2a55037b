#![allow(clippy::unwrap_used, clippy::panic)]

mod budgets;
mod calls;
mod channel;
mod connections;
mod rotation;
mod shutdown;
mod support;
