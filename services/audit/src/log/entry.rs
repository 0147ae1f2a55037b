//! Entries, and how they are stored.
//!
//! ```text
//! stored value: chain 32 | entry;   entry: version 1 | appended at, milliseconds since 1970, 8 BE | event
//! ```
//! The event is the bytes that its source sent, to the letter; the log reads them only for its indexes.

use asterism_crypto::Digest;

use crate::error::AuditError;

const VERSION: u8 = 1;
/// Largest event: with chain, header and key it stays well under the limit of a record.
pub const MAX_BODY_BYTES: usize = 3584;

/// An event to append.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Given by the source: the key of deduplication.
    pub id: [u8; 16],
    /// What it is found by.
    pub facts: Facts,
    /// The event's bytes.
    pub body: Vec<u8>,
}

/// What an event is found by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Service that reported it.
    pub source: String,
    /// Its number within that source, from 1.
    pub source_sequence: u64,
    /// Milliseconds since 1970.
    pub occurred_at_ms: u64,
    /// Who asked.
    pub principal: String,
    /// What was asked for.
    pub operation: String,
    /// About what.
    pub resource: String,
    /// How it ended, as the number on the wire.
    pub outcome: i32,
    /// Of the trace.
    pub trace_id: String,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// From 0.
    pub index: u64,
    /// Milliseconds since 1970.
    pub appended_at_ms: u64,
    /// Chain value after this entry.
    pub chain: Digest,
    /// The event's bytes.
    pub body: Vec<u8>,
}

pub(super) fn encode(appended_at_ms: u64, body: &[u8]) -> Vec<u8> {
    [&[VERSION], appended_at_ms.to_be_bytes().as_slice(), body].concat()
}

pub(super) fn decode(index: u64, stored: &[u8]) -> Result<Entry, AuditError> {
    let (chain, bytes) = stored
        .split_first_chunk::<32>()
        .ok_or(AuditError::Damaged("an entry is too short"))?;
    let (version, rest) = bytes
        .split_first()
        .ok_or(AuditError::Damaged("an entry is too short"))?;
    let (at, body) = rest
        .split_first_chunk::<8>()
        .ok_or(AuditError::Damaged("an entry is too short"))?;
    if *version != VERSION {
        return Err(AuditError::Damaged("an entry has an unknown version"));
    }
    Ok(Entry {
        index,
        appended_at_ms: u64::from_be_bytes(*at),
        chain: Digest::from_bytes(*chain),
        body: body.to_vec(),
    })
}
