//! Prediction on encrypted rows.

mod convert;

pub use convert::to_fhe;
