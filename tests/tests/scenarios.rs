//! Scenarios over real services, on free ports and in directories of their own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

#[path = "scenarios/support.rs"]
mod support;

#[path = "scenarios/asking.rs"]
mod asking;
#[path = "scenarios/audit_outside.rs"]
mod audit_outside;
#[path = "scenarios/backup.rs"]
mod backup;
#[path = "scenarios/bad_input.rs"]
mod bad_input;
#[path = "scenarios/channel.rs"]
mod channel;
#[path = "scenarios/command_line.rs"]
mod command_line;
#[path = "scenarios/crash.rs"]
mod crash;
#[path = "scenarios/encrypted.rs"]
mod encrypted;
#[path = "scenarios/encrypted_refusals.rs"]
mod encrypted_refusals;
#[path = "scenarios/fhe_command_line.rs"]
mod fhe_command_line;
#[path = "scenarios/firewall.rs"]
mod firewall;
#[path = "scenarios/flow.rs"]
mod flow;
#[path = "scenarios/full_disk.rs"]
mod full_disk;
#[path = "scenarios/identity.rs"]
mod identity;
#[path = "scenarios/identity_command_line.rs"]
mod identity_command_line;
#[path = "scenarios/identity_trust.rs"]
mod identity_trust;
#[path = "scenarios/import.rs"]
mod import;
#[path = "scenarios/key_material.rs"]
mod key_material;
#[path = "scenarios/keys.rs"]
mod keys;
#[path = "scenarios/open_inference.rs"]
mod open_inference;
#[path = "scenarios/policy.rs"]
mod policy;
#[path = "scenarios/processes.rs"]
mod processes;
#[path = "scenarios/recorder.rs"]
mod recorder;
#[path = "scenarios/rotation.rs"]
mod rotation;
#[path = "scenarios/sealing.rs"]
mod sealing;
#[path = "scenarios/sealing_crash.rs"]
mod sealing_crash;
#[cfg(feature = "pkcs11-tests")]
#[path = "scenarios/sealing_token.rs"]
mod sealing_token;
#[path = "scenarios/tamper.rs"]
mod tamper;
