//! Events, as a source reports them.

use std::{
    fmt,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use asterism_crypto::Digest;
use uuid::Uuid;

use crate::error::AuditError;

/// Most bytes of one text of an event.
pub const MAX_TEXT_BYTES: usize = 512;
/// Most bytes of an event in its stored form: with chain value and header it stays well under the limit of a record.
pub const MAX_EVENT_BYTES: usize = 3584;

/// Bytes of an event besides its texts and digests.
const FIXED_BYTES: usize = 16 + 1 + 8 + 12 + 1 + 4 + 1;

/// A UUID that the source gave the event: the key of deduplication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId([u8; 16]);

impl EventId {
    /// Below every other.
    pub(super) const LEAST: Self = Self([0; 16]);

    /// From its 16 bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for EventId {
    type Err = AuditError;

    fn from_str(text: &str) -> Result<Self, AuditError> {
        // The form with hyphens alone, so that an id has one spelling.
        let id = Uuid::from_str(text).ok().filter(|_| text.len() == 36);
        id.map(|id| Self(id.into_bytes()))
            .ok_or_else(|| AuditError::field("event_id", "must be a UUID like 0190b6a5-…, of 36 characters"))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Uuid::from_bytes(self.0), f)
    }
}

/// A service that reports events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Keys.
    Kms,
    /// Datasets.
    Ingest,
    /// Models.
    Inference,
    /// This log.
    Audit,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 4] = [Self::Kms, Self::Ingest, Self::Inference, Self::Audit];

    /// `kms`, …
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kms => "kms",
            Self::Ingest => "ingest",
            Self::Inference => "inference",
            Self::Audit => "audit",
        }
    }
}

impl FromStr for Source {
    type Err = AuditError;

    fn from_str(text: &str) -> Result<Self, AuditError> {
        let known = Self::ALL.into_iter().find(|source| source.as_str() == text);
        known.ok_or_else(|| AuditError::field("source", "must be kms, ingest, inference or audit"))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It worked.
    Succeeded,
    /// Identity or policy refused it.
    Denied,
    /// Anything else.
    Failed,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Succeeded, Self::Denied, Self::Failed];
}

/// A moment, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

impl Timestamp {
    /// 0001-01-01 and 9999-12-31, as `google.protobuf.Timestamp` has it.
    const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

    /// Seconds since 1970 and nanoseconds after them; `None` outside of the years 1 to 9999.
    pub fn new(seconds: i64, nanos: u32) -> Option<Self> {
        (Self::SECONDS.contains(&seconds) && nanos < 1_000_000_000).then_some(Self { seconds, nanos })
    }

    /// Seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds after them.
    pub fn nanos(self) -> u32 {
        self.nanos
    }
}

impl From<SystemTime> for Timestamp {
    /// A clock before 1970 is taken for 1970.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs())
            .unwrap_or(i64::MAX)
            .min(*Self::SECONDS.end());
        Self {
            seconds,
            nanos: since.subsec_nanos(),
        }
    }
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Given by the source.
    pub id: EventId,
    /// Who reports.
    pub source: Source,
    /// Counts from 1 within the source.
    pub source_sequence: u64,
    /// When the source saw it.
    pub occurred_at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// Version of the key that was used; 0 for none.
    pub key_version: u32,
    /// SHA-256 of what went in.
    pub input: Option<Digest>,
    /// SHA-256 of what came out.
    pub output: Option<Digest>,
    /// Who asked; empty when unauthenticated.
    pub principal: String,
    /// For whom; empty when for itself.
    pub on_behalf_of: String,
    /// `kms.Encrypt`, …
    pub operation: String,
    /// What it was about; empty for nothing.
    pub resource: String,
    /// Why it was refused or failed; empty on success.
    pub reason: String,
    /// Of the request.
    pub request_id: String,
    /// W3C trace id. Not held to be well-formed: to refuse an event for that would hold up every later one of its source.
    pub trace_id: String,
    /// Of the access token that proved who asked; empty for none.
    pub token_id: String,
    /// Address that the call came from; empty for none.
    pub network: String,
}

impl Facts {
    /// The texts by name, in the order in which they are stored.
    pub(super) fn texts(&self) -> [(&'static str, &str); 7] {
        [
            ("principal", &self.principal),
            ("on_behalf_of", &self.on_behalf_of),
            ("operation", &self.operation),
            ("resource", &self.resource),
            ("reason", &self.reason),
            ("request_id", &self.request_id),
            ("trace_id", &self.trace_id),
        ]
    }

    /// Texts that came later, by name; stored after the others, if they are not empty.
    pub(super) fn later_texts(&self) -> [(&'static str, &str); 2] {
        [("token_id", &self.token_id), ("network", &self.network)]
    }

    fn encoded_len(&self) -> usize {
        let later = self.later_texts();
        let later = later.iter().filter(|(_, text)| !text.is_empty());
        let texts = self.texts();
        let texts: usize = texts.iter().chain(later).map(|(_, text)| 2 + text.len()).sum();
        let digests = usize::from(self.input.is_some()) + usize::from(self.output.is_some());
        FIXED_BYTES + 32 * digests + texts
    }
}

/// An event that the log can keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event(Facts);

impl Event {
    /// Checks what only a caller can get wrong: sizes, and fields that must be set.
    ///
    /// # Errors
    /// [`AuditError::Field`]
    pub fn new(facts: Facts) -> Result<Self, AuditError> {
        if facts.source_sequence == 0 {
            return Err(AuditError::field("source_sequence", "must count from 1"));
        }
        if facts.operation.is_empty() {
            return Err(AuditError::field("operation", "must be set"));
        }
        for (name, text) in facts.texts().into_iter().chain(facts.later_texts()) {
            if text.len() > MAX_TEXT_BYTES {
                return Err(AuditError::field(
                    name,
                    format!("has at most {MAX_TEXT_BYTES} bytes"),
                ));
            }
        }
        if facts.encoded_len() > MAX_EVENT_BYTES {
            return Err(AuditError::field(
                "resource",
                format!("an event has at most {MAX_EVENT_BYTES} bytes"),
            ));
        }
        Ok(Self(facts))
    }

    /// What it says.
    pub fn facts(&self) -> &Facts {
        &self.0
    }
}
