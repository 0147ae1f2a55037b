//! Durable records (sled), blobs and a spool (file system) behind small traits.
//!
//! [`Records`] holds small ordered records and commits batches atomically; [`Blobs`] holds large immutable files; [`Spool`] holds
//! what waits to be sent. All acknowledge only what is on the disk: sled's own `flush` does not fsync, so the committer here does.

pub mod blobs;
pub mod error;
pub mod exchange;
pub mod files;
mod group;
mod memory;
pub mod records;
mod sled_records;
pub mod spool;

pub use blobs::{BlobName, BlobReader, BlobWriter, Blobs, FsBlobs, sweep};
pub use error::StoreError;
pub use memory::MemoryRecords;
pub use records::{Batch, MAX_VALUE, Records, SeeRecord, Ticket};
pub use sled_records::{SledOptions, SledRecords};
pub use spool::{FileSpool, Spool, SpoolOptions};
