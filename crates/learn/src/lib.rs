//! Tables to models: CSV, profiling, training, metrics and the model format. Pure: no I/O, no threads.
//!
//! A CSV streams through [`csv::CsvReader`] into any [`csv::RowSink`]: a [`profile::Profiler`] that describes it in
//! bounded memory, or a [`table::TableBuilder`] that keeps it. A [`dataset::Problem`] is the supervised view of a table;
//! [`train::train`] makes a [`model::Model`] of it, and [`metrics::evaluate`] says how good that is.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod bins;
pub mod csv;
pub mod dataset;
mod error;
mod forest;
mod gbdt;
mod logistic;
pub mod metrics;
mod mlp;
pub mod model;
pub mod profile;
pub mod table;
pub mod train;
mod tree;

pub use error::{HyperparameterViolation, LearnError, Names};
