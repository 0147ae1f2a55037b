//! One test for each row of docs/threat-model.md, and what no adversary may find: a method that fails, a secret in a log.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

// Written for the scenarios, which use all of it.
#[allow(dead_code)]
#[path = "scenarios/recorder.rs"]
mod recorder;
#[allow(dead_code)]
#[path = "scenarios/support.rs"]
mod support;

#[path = "adversary/canaries.rs"]
mod canaries;
#[path = "adversary/children.rs"]
mod children;
#[path = "adversary/fuzz.rs"]
mod fuzz;
#[path = "adversary/insiders.rs"]
mod insiders;
#[path = "adversary/load.rs"]
mod load;
#[path = "adversary/messages.rs"]
mod messages;
#[path = "adversary/network.rs"]
mod network;
#[path = "adversary/operators.rs"]
mod operators;
#[path = "adversary/people.rs"]
mod people;
#[path = "adversary/raw.rs"]
mod raw;
#[path = "adversary/storage.rs"]
mod storage;
#[path = "adversary/suites.rs"]
mod suites;
#[path = "adversary/threat_model.rs"]
mod threat_model;
