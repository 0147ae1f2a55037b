//! Entries as the store keeps them: those of one append together, in records of up to 2 KiB (4 for a single large entry).
//!
//! ```text
//! record: version 1 | appended at: seconds 8, nanoseconds 4 | entries
//! entry:  check 4 | marks 1 | event id 16 | sequence | seconds | nanoseconds | key version | digests | texts
//! check:  first bytes of the leaf hash of the entry
//! marks:  source (kms 0, ingest 1, inference 2, audit 3) | outcome (succeeded 0, denied 1, failed 2) << 2
//!         | 1 << 4 with an input digest | 1 << 5 with an output digest
//! text:   0 empty | 1, length, UTF-8: new | 2, 16 bytes: 32 hex digits | 3, 16 bytes: a UUID | 4 + n: the n-th new one
//! ```
//! Numbers are varints: the sequence counts from the last one of its source in the record, the seconds of the event from those of
//! the append. A text that is new is written once in a record. An entry takes some 40 % of the bytes that are hashed (`entry.rs`),
//! and those follow from it; the check names an entry that was altered, and the tree proves that none was.

use std::collections::HashMap;

use asterism_crypto::Digest;
use asterism_store::MAX_VALUE;
use asterism_tlog::leaf_hash;
use uuid::Uuid;

use super::{
    Entry,
    entry::{encode, encode_event},
    event::{Event, EventId, Facts, Outcome, Source, Timestamp},
    varint::{self, Reader},
};

const VERSION: u8 = 1;
/// Most bytes of a record, unless one entry has more. sled reads some ten records to give one: short ones are read sooner.
const RECORD_BYTES: usize = 2048;
const HEADER_BYTES: usize = 13;
const INPUT: u8 = 1 << 4;
const OUTPUT: u8 = 1 << 5;
const EMPTY: u64 = 0;
const NEW: u64 = 1;
const HEX: u64 = 2;
const UUID: u64 = 3;
const KNOWN: u64 = 4;
const TEXTS: usize = 9;

/// Packs the entries of one append.
pub(super) struct Packer<'a> {
    appended_at: Timestamp,
    first: u64,
    count: u64,
    bytes: Vec<u8>,
    known: HashMap<&'a str, u64>,
    sequences: [u64; Source::ALL.len()],
    records: Vec<(u64, Vec<u8>)>,
}

impl<'a> Packer<'a> {
    /// For entries from index `first` on.
    pub(super) fn new(first: u64, appended_at: Timestamp) -> Self {
        let mut packer = Self {
            appended_at,
            first,
            count: 0,
            bytes: Vec::new(),
            known: HashMap::new(),
            sequences: Default::default(),
            records: Vec::new(),
        };
        packer.begin();
        packer
    }

    /// The next entry.
    pub(super) fn push(&mut self, event: &'a Event, leaf: &Digest) {
        let before = self.bytes.len();
        self.put_entry(event.facts(), leaf);
        if self.bytes.len() > RECORD_BYTES && self.count > 0 {
            self.bytes.truncate(before);
            self.end();
            self.put_entry(event.facts(), leaf);
        }
        debug_assert!(self.bytes.len() <= MAX_VALUE, "an event alone fits");
        self.count += 1;
    }

    /// The records, each with the index of its first entry.
    pub(super) fn finish(mut self) -> Vec<(u64, Vec<u8>)> {
        if self.count > 0 {
            self.end();
        }
        self.records
    }

    fn begin(&mut self) {
        self.bytes = Vec::with_capacity(RECORD_BYTES + 512);
        self.bytes.push(VERSION);
        self.bytes
            .extend_from_slice(&self.appended_at.seconds().to_be_bytes());
        self.bytes
            .extend_from_slice(&self.appended_at.nanos().to_be_bytes());
        self.known.clear();
        self.sequences = Default::default();
    }

    fn end(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.records.push((self.first, bytes));
        self.first += std::mem::take(&mut self.count);
        self.begin();
    }

    fn put_entry(&mut self, facts: &'a Facts, leaf: &Digest) {
        self.bytes.extend_from_slice(&leaf.as_bytes()[..4]);
        let outcome = match facts.outcome {
            Outcome::Succeeded => 0,
            Outcome::Denied => 1,
            Outcome::Failed => 2,
        };
        let flag = |digest: &Option<Digest>, bit| if digest.is_some() { bit } else { 0 };
        self.bytes.push(
            facts.source as u8 | outcome << 2 | flag(&facts.input, INPUT) | flag(&facts.output, OUTPUT),
        );
        self.bytes.extend_from_slice(facts.id.as_bytes());
        let last = &mut self.sequences[facts.source as usize];
        varint::put_signed(&mut self.bytes, facts.source_sequence.wrapping_sub(*last) as i64);
        *last = facts.source_sequence;
        varint::put_signed(
            &mut self.bytes,
            facts.occurred_at.seconds() - self.appended_at.seconds(),
        );
        varint::put(&mut self.bytes, facts.occurred_at.nanos().into());
        varint::put(&mut self.bytes, facts.key_version.into());
        for digest in [&facts.input, &facts.output].into_iter().flatten() {
            self.bytes.extend_from_slice(digest.as_bytes());
        }
        for (_, text) in facts.texts().into_iter().chain(facts.later_texts()) {
            self.put_text(text);
        }
    }

    fn put_text(&mut self, text: &'a str) {
        if text.is_empty() {
            varint::put(&mut self.bytes, EMPTY);
        } else if let Some(number) = self.known.get(text) {
            varint::put(&mut self.bytes, KNOWN + number);
        } else if let Some((kind, number)) = as_number(text) {
            varint::put(&mut self.bytes, kind);
            self.bytes.extend_from_slice(&number);
        } else {
            let number = self.known.len() as u64;
            self.known.insert(text, number);
            varint::put(&mut self.bytes, NEW);
            varint::put(&mut self.bytes, text.len() as u64);
            self.bytes.extend_from_slice(text.as_bytes());
        }
    }
}

/// The 16 bytes that a text spells, if it does so in the one way that is kept as such.
fn as_number(text: &str) -> Option<(u64, [u8; 16])> {
    let lower = || {
        text.bytes()
            .all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let kind = match text.len() {
        32 => HEX,
        36 => UUID,
        _ => return None,
    };
    let number = Uuid::try_parse(text).ok().filter(|_| lower())?;
    Some((kind, number.into_bytes()))
}

/// An entry of a record, borrowed from it.
pub(super) struct Packed<'a> {
    pub(super) index: u64,
    appended_at: Timestamp,
    check: &'a [u8; 4],
    id: EventId,
    source: Source,
    source_sequence: u64,
    occurred_at: Timestamp,
    outcome: Outcome,
    key_version: u32,
    input: Option<Digest>,
    output: Option<Digest>,
    texts: [Text<'a>; TEXTS],
}

#[derive(Clone, Copy)]
enum Text<'a> {
    Plain(&'a str),
    Hex(&'a [u8; 16]),
    Uuid(&'a [u8; 16]),
}

impl Text<'_> {
    fn into_string(self) -> String {
        match self {
            Self::Plain(text) => text.to_owned(),
            Self::Hex(bytes) => Uuid::from_bytes(*bytes).simple().to_string(),
            Self::Uuid(bytes) => Uuid::from_bytes(*bytes).hyphenated().to_string(),
        }
    }
}

impl Packed<'_> {
    /// The entry, and the bytes of it that are hashed; `None` when it is not one, or was altered.
    pub(super) fn entry(&self) -> Option<(Entry, Vec<u8>)> {
        let [
            principal,
            on_behalf_of,
            operation,
            resource,
            reason,
            request_id,
            trace_id,
            token_id,
            network,
        ] = self.texts.map(Text::into_string);
        let event = Event::new(Facts {
            id: self.id,
            source: self.source,
            source_sequence: self.source_sequence,
            occurred_at: self.occurred_at,
            outcome: self.outcome,
            key_version: self.key_version,
            input: self.input,
            output: self.output,
            principal,
            on_behalf_of,
            operation,
            resource,
            reason,
            request_id,
            trace_id,
            token_id,
            network,
        })
        .ok()?;
        let bytes = encode(self.appended_at, &encode_event(&event));
        let leaf = leaf_hash(&bytes);
        let entry = Entry {
            index: self.index,
            appended_at: self.appended_at,
            leaf,
            event,
        };
        leaf.as_bytes().starts_with(self.check).then_some((entry, bytes))
    }
}

/// The entries of a record that begins with index `first`.
///
/// # Errors
/// The index of the first entry that cannot be read.
pub(super) fn unpack(first: u64, record: &[u8]) -> Result<Vec<Packed<'_>>, u64> {
    match unpack_some(first, record) {
        (entries, None) => Ok(entries),
        (_, Some(index)) => Err(index),
    }
}

/// The entries of a record up to the first that cannot be read, and the index of that one.
pub(super) fn unpack_some(first: u64, record: &[u8]) -> (Vec<Packed<'_>>, Option<u64>) {
    let mut reader = Reader(record);
    let mut entries = Vec::with_capacity(record.len() / 100);
    let Some(appended_at) = header(&mut reader) else {
        return (entries, Some(first));
    };
    let mut texts = Vec::new();
    let mut sequences = [0; Source::ALL.len()];
    let mut index = first;
    while !reader.is_empty() || entries.is_empty() {
        match read(&mut reader, index, appended_at, &mut texts, &mut sequences) {
            Some(entry) => entries.push(entry),
            None => return (entries, Some(index)),
        }
        index += 1;
    }
    (entries, None)
}

/// Whether `record` is what packing its entries makes.
pub(super) fn is_packed(first: u64, appended_at: Timestamp, entries: &[Entry], record: &[u8]) -> bool {
    let mut packer = Packer::new(first, appended_at);
    for entry in entries {
        packer.push(&entry.event, &entry.leaf);
    }
    matches!(&*packer.finish(), [(_, bytes)] if bytes == record)
}

fn header(reader: &mut Reader<'_>) -> Option<Timestamp> {
    if reader.byte()? != VERSION {
        return None;
    }
    let seconds = i64::from_be_bytes(*reader.array()?);
    Timestamp::new(seconds, u32::from_be_bytes(*reader.array()?))
}

fn read<'a>(
    reader: &mut Reader<'a>,
    index: u64,
    appended_at: Timestamp,
    known: &mut Vec<&'a str>,
    sequences: &mut [u64; Source::ALL.len()],
) -> Option<Packed<'a>> {
    let check = reader.array()?;
    let marks = reader.byte()?;
    if marks & !(INPUT | OUTPUT | 15) != 0 {
        return None;
    }
    let source = Source::ALL[usize::from(marks & 3)];
    let outcome = *Outcome::ALL.get(usize::from(marks >> 2 & 3))?;
    let id = EventId::from_bytes(*reader.array()?);
    let last = &mut sequences[source as usize];
    let source_sequence = last.wrapping_add(reader.signed()? as u64);
    *last = source_sequence;
    let seconds = appended_at.seconds().checked_add(reader.signed()?)?;
    let occurred_at = Timestamp::new(seconds, reader.number()?.try_into().ok()?)?;
    let key_version = reader.number()?.try_into().ok()?;
    let digest = |reader: &mut Reader<'_>, present| match present {
        true => reader.array().map(|bytes| Some(Digest::from_bytes(*bytes))),
        false => Some(None),
    };
    let input = digest(reader, marks & INPUT != 0)?;
    let output = digest(reader, marks & OUTPUT != 0)?;
    let mut texts = [Text::Plain(""); TEXTS];
    for text in &mut texts {
        *text = read_text(reader, known)?;
    }
    Some(Packed {
        index,
        appended_at,
        check,
        id,
        source,
        source_sequence,
        occurred_at,
        outcome,
        key_version,
        input,
        output,
        texts,
    })
}

fn read_text<'a>(reader: &mut Reader<'a>, known: &mut Vec<&'a str>) -> Option<Text<'a>> {
    Some(match reader.number()? {
        EMPTY => Text::Plain(""),
        NEW => {
            let length = usize::try_from(reader.number()?).ok()?;
            let text = std::str::from_utf8(reader.take(length)?).ok()?;
            known.push(text);
            Text::Plain(text)
        }
        HEX => Text::Hex(reader.array()?),
        UUID => Text::Uuid(reader.array()?),
        number => Text::Plain(known.get(usize::try_from(number - KNOWN).ok()?)?),
    })
}

/// The fixed bytes of an entry at their longest (a check, marks, an id, and varints of 10, 10, 5 and 5 bytes), and what its texts
/// have besides themselves: never more than what is left of a record.
const _: () =
    assert!(HEADER_BYTES + super::event::MAX_EVENT_BYTES + 4 + 1 + 16 + 30 + 3 * TEXTS <= MAX_VALUE);
