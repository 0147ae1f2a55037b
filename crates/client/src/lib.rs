//! Typed async SDK for the four services.
//!
//! A [`Connection`] is a lazily made HTTP/2 channel with [`Credentials`], encrypted where it is [`Connection::pinned`]; [`Kms`], [`Ingest`], [`Inference`],
//! [`EncryptedInference`] and [`Audit`] speak one service each over it. Every call carries the caller's token, the current trace and a deadline.
//! Errors are matched by [`ClientError::reason`], never by their text.
//!
//! What can be verified locally is: [`Ingest::open_dataset`] checks the manifest's signature, the chunk table, every
//! chunk, the digest and the HMAC on the caller's side, and decrypts in the caller's memory only; [`EncryptedModel`] encrypts
//! rows and decrypts scores there, and checks what the service signed about its answer.
#![cfg_attr(test, allow(clippy::panic))]

/// One try of a unary call: a fresh client and a copy of the request, so that the call can be made again.
macro_rules! client_call {
    ($this:expr, $method:ident, $request:expr) => {{
        let (mut client, request) = ($this.client(), $request.clone());
        async move { client.$method(request).await }
    }};
}

mod audit;
mod connection;
pub mod dataset;
mod encrypted;
mod error;
mod firewall;
mod identity;
mod inference;
mod ingest;
mod kms;
mod line;
pub mod manifest;
mod policy;
pub mod receipt;

pub use asterism_channel as channel;
pub use asterism_fhe as fhe;
pub use asterism_proto as proto;

pub use audit::Audit;
pub use connection::{Connection, Credentials};
pub use encrypted::{
    EncryptedAnswer, EncryptedAnswers, EncryptedInference, EncryptedModel, EncryptedPrediction,
    EncryptedPredictions, KeptKey,
};
pub use error::ClientError;
pub use firewall::Firewall;
pub use identity::{Identity, LoginOutcome, MIN_PASSWORD_CHARACTERS, NewCredential};
pub use inference::Inference;
pub use ingest::{Ingest, UploadProgress, UploadSource};
pub use kms::{Backup, DataKey, ItemFailure, Kms, NewMaterial, NewSeal, ReEncrypted, UnsealSecret, seal_for};
pub use policy::{ANSWERS_HOLD_FOR, Asker, Policy, Question, Verdict};
