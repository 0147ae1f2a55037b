//! One file per verb group.

pub mod audit;
pub mod bench;
pub mod datasets;
pub mod demo;
pub mod fhe;
pub mod keys;
pub mod models;
pub mod predict;
pub mod token;
pub mod up;
