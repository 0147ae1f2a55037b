//! Predictions on rows that the server cannot read.
//!
//! A trained [`model::Model`] is compiled into a [`server::Program`] by the plan that serves it at the least cost; the program
//! evaluates encrypted rows. Clients hold a [`bundle::Bundle`], which tells nothing of trees or weights, encrypt rows under a
//! key of their own, and decrypt the scores. No plan bootstraps, not even for networks: that is where the speed comes from.
//!
//! | plan | serves | work for a row | keys |
//! |---|---|---|---|
//! | `linear` | linear and logistic regression | plaintext times ciphertext | none |
//! | `pairs` | ensembles of depth 1 and 2 | one external product a feature, whatever the number of trees | none |
//! | `paths` | trees and ensembles of any depth | CMUX decision diagrams over the bits of the row | 0.5 MB |
//! | `neurons` | networks with one hidden layer of ReLU units | a table for each unit, turned by the bits of the row | 1 MB |
//!
//! Scores are integers, and decryption gives exactly those that [`server::Program::clear`] computes, but for a probability
//! that the program's explanation states. What the client gets is rounded to them; what lies between is noise that tells
//! about the key, and never leaves this crate.
//!
//! ```
//! use asterism_fhe::{client, compile, keys::SecretKey, model::*, server::EvaluationKey};
//!
//! // age >= 50 raises the score when pressure >= 140.
//! let stump = |feature, low, high| Tree {
//!     output: 0,
//!     nodes: vec![
//!         Node::Split { feature, edge: 0, left: 1, right: 2 },
//!         Node::Leaf(vec![low]),
//!         Node::Leaf(vec![high]),
//!     ],
//! };
//! let model = Model {
//!     features: vec!["age".into(), "pressure".into()],
//!     classes: vec!["well".into(), "ill".into()],
//!     link: Link::Logistic,
//!     body: Body::Ensemble(Ensemble {
//!         codes: vec![0, 1],
//!         edges: vec![vec![50.0], vec![140.0]],
//!         single_precision: false,
//!         missing: vec![Missing::Left, Missing::Left],
//!         base: vec![-1.0],
//!         trees: vec![stump(0, 0.0, 0.75), stump(1, -0.5, 1.5)],
//!     }),
//! };
//! let program = compile::compile(&model, compile::Options::default())?;
//! let bundle = program.bundle();
//!
//! // The client's side.
//! let key = SecretKey::generate(bundle.params_id())?;
//! let query = client::encrypt(bundle, &key, &[63.0, 151.0])?;
//! let evaluation_key = client::evaluation_key(&key)?;
//!
//! // The server's.
//! let evaluation_key = evaluation_key.as_deref().map(EvaluationKey::from_bytes).transpose()?;
//! let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
//! let answer = program.evaluate(&query.bytes, evaluation_key.as_ref(), &pool, &|| false)?;
//!
//! // And the client's again.
//! let prediction = client::decrypt(bundle, &key, &query.digest, &answer.reply)?;
//! assert_eq!(prediction, program.clear(&[63.0, 151.0])?);
//! assert_eq!(bundle.classes()[prediction.class.unwrap()], "ill");
//! # Ok::<(), asterism_fhe::FheError>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]
// The client half shares its modules with the server's.
#![cfg_attr(not(feature = "server"), allow(dead_code))]

pub mod bundle;
pub mod client;
#[cfg(feature = "server")]
pub mod compile;
mod error;
mod gadget;
pub mod keys;
pub mod model;
#[cfg(feature = "server")]
mod noise;
pub mod params;
#[cfg(feature = "server")]
mod quantised;
mod ring;
mod seeded;
#[cfg(feature = "server")]
pub mod server;
#[cfg(all(test, feature = "server"))]
mod tests;
pub mod wire;
#[cfg(feature = "server")]
pub mod xgboost;

pub use error::FheError;
