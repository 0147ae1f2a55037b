//! Entries, and the bytes of them that are hashed.
//!
//! ```text
//! entry:        version 1 | appended at | event
//! event:        event id 16 | source 1 | source sequence 8 | occurred at | outcome 1 | key version 4 | digests 1
//!               | input SHA-256 32, if bit 0 of digests | output SHA-256 32, if bit 1 of digests
//!               | principal | on behalf of | operation | resource | reason | request id | trace id
//!               | token id, if bit 2 of digests | network, if bit 3 of digests: neither is empty then
//! moment:       seconds since 1970 8, signed | nanoseconds 4
//! text:         length in bytes 2 | UTF-8
//! source:       1 kms, 2 ingest, 3 inference, 4 audit;   outcome: 1 succeeded, 2 denied, 3 failed
//! ```
//! Integers are big-endian. Every entry has exactly one encoding, and every other string of bytes is refused: what is read back
//! from the bytes is what was hashed. The leaf of the Merkle tree is `SHA-256(0x00 | entry)` (RFC 6962); the store keeps entries
//! in fewer bytes, from which these follow (`pack.rs`).

use asterism_crypto::Digest;
use asterism_tlog::leaf_hash;

use super::event::{Event, EventId, Facts, Outcome, Source, Timestamp};
use crate::error::AuditError;

const VERSION: u8 = 1;
const INPUT: u8 = 1;
const OUTPUT: u8 = 2;
/// The bits of texts that came later, in the order of [`Facts::later_texts`].
const LATER: [u8; 2] = [4, 8];

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// From 0.
    pub index: u64,
    /// By the log's own clock; never before that of an earlier entry.
    pub appended_at: Timestamp,
    /// Its leaf in the Merkle tree.
    pub leaf: Digest,
    /// What the source reported.
    pub event: Event,
}

/// An entry's bytes; `event` as [`encode_event`] gives it.
pub(super) fn encode(appended_at: Timestamp, event: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(13 + event.len());
    bytes.push(VERSION);
    put_moment(&mut bytes, appended_at);
    bytes.extend_from_slice(event);
    bytes
}

pub(super) fn encode_event(event: &Event) -> Vec<u8> {
    let facts = event.facts();
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(facts.id.as_bytes());
    bytes.push(match facts.source {
        Source::Kms => 1,
        Source::Ingest => 2,
        Source::Inference => 3,
        Source::Audit => 4,
    });
    bytes.extend_from_slice(&facts.source_sequence.to_be_bytes());
    put_moment(&mut bytes, facts.occurred_at);
    bytes.push(match facts.outcome {
        Outcome::Succeeded => 1,
        Outcome::Denied => 2,
        Outcome::Failed => 3,
    });
    bytes.extend_from_slice(&facts.key_version.to_be_bytes());
    let flag = |digest: &Option<Digest>, bit| if digest.is_some() { bit } else { 0 };
    let later = || {
        facts
            .later_texts()
            .into_iter()
            .zip(LATER)
            .filter(|((_, text), _)| !text.is_empty())
    };
    let later_flags = later().fold(0, |flags, (_, bit)| flags | bit);
    bytes.push(flag(&facts.input, INPUT) | flag(&facts.output, OUTPUT) | later_flags);
    for digest in [&facts.input, &facts.output].into_iter().flatten() {
        bytes.extend_from_slice(digest.as_bytes());
    }
    for (_, text) in facts.texts().into_iter().chain(later().map(|(named, _)| named)) {
        let length = u16::try_from(text.len()).expect("an event's texts are capped");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// Reads an entry's bytes.
///
/// # Errors
/// [`AuditError::Damaged`] naming the entry.
pub(super) fn decode(index: u64, bytes: &[u8]) -> Result<Entry, AuditError> {
    let (appended_at, event) =
        read(bytes).ok_or_else(|| AuditError::damaged(format!("entry {index} cannot be read")))?;
    Ok(Entry {
        index,
        appended_at,
        leaf: leaf_hash(bytes),
        event,
    })
}

fn read(bytes: &[u8]) -> Option<(Timestamp, Event)> {
    let mut reader = Reader(bytes);
    if reader.byte()? != VERSION {
        return None;
    }
    let appended_at = reader.moment()?;
    let id = EventId::from_bytes(reader.array()?);
    let source = match reader.byte()? {
        1 => Source::Kms,
        2 => Source::Ingest,
        3 => Source::Inference,
        4 => Source::Audit,
        _ => return None,
    };
    let source_sequence = u64::from_be_bytes(reader.array()?);
    let occurred_at = reader.moment()?;
    let outcome = match reader.byte()? {
        1 => Outcome::Succeeded,
        2 => Outcome::Denied,
        3 => Outcome::Failed,
        _ => return None,
    };
    let key_version = u32::from_be_bytes(reader.array()?);
    let digests = reader.byte()?;
    let [token_id, network] = LATER.map(|bit| digests & bit != 0);
    if digests & !(INPUT | OUTPUT | LATER[0] | LATER[1]) != 0 {
        return None;
    }
    let facts = Facts {
        id,
        source,
        source_sequence,
        occurred_at,
        outcome,
        key_version,
        input: reader.digest(digests & INPUT != 0)?,
        output: reader.digest(digests & OUTPUT != 0)?,
        principal: reader.text()?,
        on_behalf_of: reader.text()?,
        operation: reader.text()?,
        resource: reader.text()?,
        reason: reader.text()?,
        request_id: reader.text()?,
        trace_id: reader.text()?,
        token_id: reader.later_text(token_id)?,
        network: reader.later_text(network)?,
    };
    let event = Event::new(facts).ok()?;
    reader.0.is_empty().then_some((appended_at, event))
}

fn put_moment(bytes: &mut Vec<u8>, moment: Timestamp) {
    bytes.extend_from_slice(&moment.seconds().to_be_bytes());
    bytes.extend_from_slice(&moment.nanos().to_be_bytes());
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn moment(&mut self) -> Option<Timestamp> {
        let seconds = i64::from_be_bytes(self.array()?);
        Timestamp::new(seconds, u32::from_be_bytes(self.array()?))
    }

    /// A text that is stored only where it is not empty.
    fn later_text(&mut self, present: bool) -> Option<String> {
        if present {
            self.text().filter(|text| !text.is_empty())
        } else {
            Some(String::new())
        }
    }

    fn digest(&mut self, present: bool) -> Option<Option<Digest>> {
        if present {
            self.array().map(|bytes| Some(Digest::from_bytes(bytes)))
        } else {
            Some(None)
        }
    }

    fn text(&mut self) -> Option<String> {
        let length = u16::from_be_bytes(self.array()?);
        let (text, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        Some(std::str::from_utf8(text).ok()?.to_owned())
    }
}
