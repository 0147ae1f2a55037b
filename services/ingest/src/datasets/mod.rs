//! Stored datasets: records and blobs, and everything that reads them.
//!
//! A dataset is three blobs (`{id}.data`, `{id}.table`, `{id}.manifest`) and a record that names them. The rule: a
//! record names only blobs that are durable, so blobs are written first and deleted last; what a crash leaves between
//! is swept at the next start. Nothing stored is believed before [`open`] or [`verify`] has checked it.

mod catalog;
mod id;
mod open;
mod rows;
mod verify;

pub use catalog::{Datasets, Described, Granted, NewDataset, StoredDataset};
pub use id::DatasetId;
pub use open::Opened;
pub use rows::{RowBatch, read_rows};
pub use verify::{Check, Report, verify};
