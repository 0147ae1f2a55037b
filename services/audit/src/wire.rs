//! Between messages and the domain.

use std::{str::FromStr as _, sync::Arc};

use asterism_chassis::error::Failure;
use asterism_crypto::Digest;
use asterism_proto::audit as pb;
use prost::Message as _;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    error::AuditError,
    log::{Entry, Facts, Filter, Log, MAX_APPEND, MAX_BODY_BYTES, NewEvent},
};

const SOURCES: [&str; 4] = ["kms", "ingest", "inference", "audit"];
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: i32 = 1000;

/// Events of one source, ready to append.
pub(crate) fn new_events(source: &str, events: Vec<pb::Event>) -> Result<Vec<NewEvent>, AuditError> {
    if events.len() > MAX_APPEND {
        return Err(AuditError::field(
            "events",
            format!("at most {MAX_APPEND} in one call"),
        ));
    }
    events.into_iter().map(|event| new_event(source, event)).collect()
}

fn new_event(source: &str, event: pb::Event) -> Result<NewEvent, AuditError> {
    if event.source != source {
        return Err(AuditError::ForeignSource);
    }
    if !SOURCES.contains(&event.source.as_str()) {
        return Err(AuditError::field(
            "events.source",
            "must be kms, ingest, inference or audit",
        ));
    }
    let id = event_id(&event)?;
    if event.operation.is_empty() || event.outcome() == pb::Outcome::Unspecified || event.source_sequence == 0
    {
        return Err(AuditError::field(
            "events",
            "operation, outcome and source_sequence must be set",
        ));
    }
    let body = event.encode_to_vec();
    if body.len() > MAX_BODY_BYTES {
        return Err(AuditError::field(
            "events",
            format!("an event has at most {MAX_BODY_BYTES} bytes"),
        ));
    }
    Ok(NewEvent {
        id,
        facts: facts(&event),
        body,
    })
}

fn event_id(event: &pb::Event) -> Result<[u8; 16], AuditError> {
    Uuid::from_str(&event.event_id)
        .map(Uuid::into_bytes)
        .map_err(|_| AuditError::field("events.event_id", "must be a UUID"))
}

fn facts(event: &pb::Event) -> Facts {
    Facts {
        source: event.source.clone(),
        source_sequence: event.source_sequence,
        occurred_at_ms: event.occurred_at.as_ref().map_or(0, millis),
        principal: event.principal.clone(),
        operation: event.operation.clone(),
        resource: event.resource.clone(),
        outcome: event.outcome,
        trace_id: event.trace_id.clone(),
    }
}

/// An entry's event.
pub(crate) fn event(entry: &Entry) -> Result<pb::Event, AuditError> {
    pb::Event::decode(entry.body.as_slice()).map_err(|_| AuditError::Damaged("an event cannot be read"))
}

/// What an entry is found by.
pub(crate) fn facts_of(entry: &Entry) -> Result<Facts, AuditError> {
    Ok(facts(&event(entry)?))
}

/// What an entry is known by.
pub(crate) fn identify(entry: &Entry) -> Result<([u8; 16], Facts), AuditError> {
    let event = event(entry)?;
    Ok((event_id(&event)?, facts(&event)))
}

pub(crate) fn log_entry(entry: &Entry) -> Result<pb::LogEntry, AuditError> {
    Ok(pb::LogEntry {
        index: entry.index,
        appended_at: Some(timestamp(entry.appended_at_ms)),
        event: Some(event(entry)?),
        chain_sha256: entry.chain.as_bytes().to_vec(),
    })
}

pub(crate) fn filter(filter: Option<pb::EventFilter>) -> Result<Filter, AuditError> {
    let filter = filter.unwrap_or_default();
    if pb::Outcome::try_from(filter.outcome).is_err() {
        return Err(AuditError::field(
            "filter.outcome",
            "must be one of the known outcomes",
        ));
    }
    Ok(Filter {
        outcome: filter.outcome,
        from_ms: filter.from.as_ref().map(millis),
        until_ms: filter.until.as_ref().map(millis),
        principal: filter.principal,
        source: filter.source,
        operation: filter.operation,
        resource: filter.resource,
        trace_id: filter.trace_id,
    })
}

pub(crate) fn page_size(wish: i32) -> Result<usize, AuditError> {
    match wish {
        0 => Ok(DEFAULT_PAGE),
        1..=MAX_PAGE => Ok(wish as usize),
        _ => Err(AuditError::field("page_size", "must be 1 to 1000, or 0 for 100")),
    }
}

/// A page token names the next index and the filter that it belongs to.
pub(crate) fn page_token(next: Option<u64>, filter: &Filter) -> String {
    next.map_or_else(String::new, |next| format!("{next:x}.{}", mark(filter)))
}

pub(crate) fn from_page_token(token: &str, filter: &Filter) -> Result<u64, AuditError> {
    if token.is_empty() {
        return Ok(0);
    }
    let bad = || {
        AuditError::field(
            "page_token",
            "must be one that ListEvents gave for this very filter",
        )
    };
    let (next, of) = token.split_once('.').ok_or_else(bad)?;
    if of != mark(filter) {
        return Err(bad());
    }
    u64::from_str_radix(next, 16).map_err(|_| bad())
}

fn mark(filter: &Filter) -> String {
    let mut digest = filter.digest().to_string();
    digest.truncate(16);
    digest
}

pub(crate) fn digest_bytes(digest: &Digest) -> Vec<u8> {
    digest.as_bytes().to_vec()
}

pub(crate) fn now_ms() -> u64 {
    std::time::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_millis() as u64)
}

/// Tells watchers that the log has grown; of two appends that tell at once, the larger size stays.
pub(crate) fn grow(watched: &watch::Sender<u64>, size: u64) {
    watched.send_if_modified(|known| {
        let grown = size > *known;
        *known = size.max(*known);
        grown
    });
}

/// Appends this service's own events to its own log.
pub(crate) fn own_events(
    log: Arc<Log>,
    size: Arc<watch::Sender<u64>>,
) -> Arc<dyn Fn(Vec<pb::Event>) -> Result<(), Failure> + Send + Sync> {
    Arc::new(move |events| {
        log.append(&new_events("audit", events)?, now_ms())?;
        grow(&size, log.size());
        Ok(())
    })
}

fn millis(timestamp: &prost_types::Timestamp) -> u64 {
    let seconds = u64::try_from(timestamp.seconds).unwrap_or(0);
    seconds
        .saturating_mul(1000)
        .saturating_add(u64::try_from(timestamp.nanos).unwrap_or(0) / 1_000_000)
}

fn timestamp(ms: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: (ms / 1000) as i64,
        nanos: (ms % 1000 * 1_000_000) as i32,
    }
}
