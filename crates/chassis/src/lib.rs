//! What every service shares, so that a service is its domain and a thin adapter.
//!
//! * [`config`]: typed settings in layers (defaults, TOML file, environment, flags); unknown names are refused.
//! * [`telemetry`]: logs to standard error, traces and metrics over OTLP, `traceparent` in and out.
//! * [`server`]: the gRPC server: bounded connections, deadlines, one span and one measurement a call, health,
//!   reflection, and a drain that ends.
//! * [`call`]: one way through which every request goes: identity, policy, room, work, event, answer.
//! * [`channel`]: whose keys are at the ends of the encrypted channel.
//! * [`identity`], [`policy`]: who asks, and may they; deny by default.
//! * [`firewall`]: who may come, and how often; bans and alarms.
//! * [`outbox`]: events, durable here before a result is released, forwarded to audit.
//! * [`error`]: from a domain's errors to a status, with `google.rpc` details.
//! * [`entry`]: what `main` does, down to exit codes and signals.
//! * [`foundation`]: the store, identity, outbox and gate that a service starts with.
//!
//! The order of things, upheld here and nowhere else: a bad setting ends the process before a port opens; every
//! request has a trace id before a handler sees it, and a deadline unless it is an open-ended stream; a shutdown
//! says NOT_SERVING first, closes the port, lets calls and detached work end, flushes, and never takes longer than
//! its bound.

pub mod call;
pub mod channel;
pub mod config;
pub mod entry;
pub mod error;
pub mod firewall;
pub mod foundation;
pub mod identity;
pub mod outbox;
pub mod paging;
pub mod policy;
pub mod server;
pub mod telemetry;

pub use entry::run_service;
pub use foundation::{Foundation, StartError, off_runtime};
