//! Prediction on encrypted rows.
//!
//! A model is compiled into a program ([`programs`]) that computes on rows it cannot read, on threads of its own ([`engine`]).
//! Some plans need an evaluation key of the caller's ([`keys`]). [`flow`] has the use cases.

mod convert;
pub mod engine;
mod error;
pub mod flow;
mod key_cache;
pub mod keys;
pub mod programs;

pub use convert::to_fhe;
pub use engine::{Engine, Waiter};
pub use error::EncryptedError;
pub use flow::{Answered, EncryptedFlow, Evaluated, Session, Target};
pub use key_cache::LoadedKeys;
pub use keys::{EvaluationKeyId, EvaluationKeys, KeyHeader, KeyLimits, KeyUpload, StoredKey};
pub use programs::{Compiled, Programs};
