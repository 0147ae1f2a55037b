//! Between messages and the domain.

use std::{sync::Arc, time::SystemTime};

use asterism_chassis::{error::Failure, identity::PrincipalId};
use asterism_crypto::Digest;
use asterism_proto::audit as pb;
use asterism_tlog::SignedCheckpoint;
use tokio::sync::watch;

use crate::{
    error::AuditError,
    log::{
        Consistency, Entry, Event, Facts, Filter, Inclusion, Log, MAX_APPEND, Outcome, PageToken, Report,
        Source, Timestamp,
    },
};

/// The source that a principal speaks for: a service for itself.
pub(crate) fn source(principal: &PrincipalId) -> Result<Source, AuditError> {
    let name = principal.as_str().strip_prefix("service/").unwrap_or_default();
    name.parse().map_err(|_| AuditError::ForeignSource)
}

/// Events of one source.
pub(crate) fn events(source: Source, events: Vec<pb::Event>) -> Result<Vec<Event>, AuditError> {
    if events.len() > MAX_APPEND {
        return Err(AuditError::field(
            "events",
            format!("at most {MAX_APPEND} in one call"),
        ));
    }
    let checked = events.into_iter().enumerate();
    checked
        .map(|(at, e)| event(source, e).map_err(|error| error.within(&format!("events[{at}]"))))
        .collect()
}

fn event(source: Source, event: pb::Event) -> Result<Event, AuditError> {
    if event.source.parse::<Source>()? != source {
        return Err(AuditError::ForeignSource);
    }
    let outcome = outcome(event.outcome())
        .ok_or_else(|| AuditError::field("outcome", "must be one of the known outcomes"))?;
    let occurred_at = event.occurred_at.as_ref();
    let occurred_at = occurred_at.ok_or_else(|| AuditError::field("occurred_at", "must be set"))?;
    Event::new(Facts {
        id: event.event_id.parse()?,
        source,
        source_sequence: event.source_sequence,
        occurred_at: timestamp("occurred_at", occurred_at)?,
        outcome,
        key_version: event.key_version,
        input: digest("input_sha256", &event.input_sha256)?,
        output: digest("output_sha256", &event.output_sha256)?,
        principal: event.principal,
        on_behalf_of: event.on_behalf_of,
        operation: event.operation,
        resource: event.resource,
        reason: event.reason,
        request_id: event.request_id,
        trace_id: event.trace_id,
        token_id: event.token_id,
        network: event.network,
    })
}

pub(crate) fn log_entry(entry: Entry) -> pb::LogEntry {
    let facts = entry.event.facts();
    let bytes = |digest: Option<Digest>| digest.map_or_else(Vec::new, |digest| digest.as_bytes().to_vec());
    let event = pb::Event {
        event_id: facts.id.to_string(),
        source: facts.source.to_string(),
        source_sequence: facts.source_sequence,
        occurred_at: Some(moment(facts.occurred_at)),
        principal: facts.principal.clone(),
        on_behalf_of: facts.on_behalf_of.clone(),
        operation: facts.operation.clone(),
        resource: facts.resource.clone(),
        key_version: facts.key_version,
        outcome: match facts.outcome {
            Outcome::Succeeded => pb::Outcome::Succeeded,
            Outcome::Denied => pb::Outcome::Denied,
            Outcome::Failed => pb::Outcome::Failed,
        }
        .into(),
        reason: facts.reason.clone(),
        request_id: facts.request_id.clone(),
        trace_id: facts.trace_id.clone(),
        token_id: facts.token_id.clone(),
        network: facts.network.clone(),
        input_sha256: bytes(facts.input),
        output_sha256: bytes(facts.output),
    };
    pb::LogEntry {
        index: entry.index,
        appended_at: Some(moment(entry.appended_at)),
        event: Some(event),
        leaf_sha256: entry.leaf.as_bytes().to_vec(),
    }
}

pub(crate) fn filter(filter: Option<pb::EventFilter>) -> Result<Filter, AuditError> {
    parse_filter(filter.unwrap_or_default()).map_err(|error| error.within("filter"))
}

fn parse_filter(filter: pb::EventFilter) -> Result<Filter, AuditError> {
    let known = pb::Outcome::try_from(filter.outcome)
        .map_err(|_| AuditError::field("outcome", "must be one of the known outcomes"))?;
    let from = filter
        .from
        .as_ref()
        .map(|from| timestamp("from", from))
        .transpose()?;
    let until = filter
        .until
        .as_ref()
        .map(|until| timestamp("until", until))
        .transpose()?;
    if from.zip(until).is_some_and(|(from, until)| until <= from) {
        return Err(AuditError::field("until", "must be after from"));
    }
    let source = Some(filter.source).filter(|source| !source.is_empty());
    Ok(Filter {
        principal: filter.principal,
        source: source.map(|source| source.parse()).transpose()?,
        operation: filter.operation,
        resource: filter.resource,
        outcome: outcome(known),
        trace_id: filter.trace_id,
        from,
        until,
    })
}

/// Where a page begins; at the beginning without a token.
pub(crate) fn page_start(token: &str, filter: &Filter) -> Result<u64, AuditError> {
    if token.is_empty() {
        Ok(0)
    } else {
        token.parse::<PageToken>()?.resume(filter)
    }
}

pub(crate) fn page_token(next: Option<u64>, filter: &Filter) -> String {
    next.map_or_else(String::new, |next| PageToken::new(next, filter).to_string())
}

pub(crate) fn report(report: Report) -> pb::VerifyLogResponse {
    let (first_bad_index, problem) = report.bad.unzip();
    pb::VerifyLogResponse {
        verified: first_bad_index.is_none(),
        entries: report.head.size,
        root_sha256: report.head.root.as_bytes().to_vec(),
        first_bad_index,
        problem: problem.unwrap_or_default(),
        sequence_problems: report.sequence_problems,
    }
}

pub(crate) fn checkpoint(signed: &SignedCheckpoint, verifier_keys: Vec<String>) -> pb::GetCheckpointResponse {
    let said = signed.checkpoint();
    pb::GetCheckpointResponse {
        checkpoint: signed.to_string(),
        size: said.size,
        root_sha256: said.root.as_bytes().to_vec(),
        verifier_keys,
    }
}

/// The index of the entry that is to be proved.
pub(crate) fn wanted_entry(
    log: &Log,
    entry: Option<pb::get_inclusion_proof_request::Entry>,
) -> Result<u64, AuditError> {
    use pb::get_inclusion_proof_request::Entry;
    match entry {
        Some(Entry::Index(index)) => Ok(index),
        Some(Entry::EventId(id)) => log.index_of_event(&id.parse()?),
        None => Err(AuditError::field("entry", "must be an index or an event id")),
    }
}

pub(crate) fn inclusion(proved: Inclusion, receipt: String) -> pb::GetInclusionProofResponse {
    pb::GetInclusionProofResponse {
        index: proved.proof.index,
        tree_size: proved.proof.size,
        entry: proved.bytes,
        leaf_sha256: proved.entry.leaf.as_bytes().to_vec(),
        hashes: hashes(&proved.proof.hashes),
        root_sha256: proved.head.root.as_bytes().to_vec(),
        receipt,
    }
}

pub(crate) fn consistency(proved: Consistency) -> pb::GetConsistencyProofResponse {
    pb::GetConsistencyProofResponse {
        from_size: proved.old.size,
        to_size: proved.new.size,
        hashes: hashes(&proved.proof.hashes),
        from_root_sha256: proved.old.root.as_bytes().to_vec(),
        to_root_sha256: proved.new.root.as_bytes().to_vec(),
    }
}

fn hashes(hashes: &[Digest]) -> Vec<Vec<u8>> {
    hashes.iter().map(|hash| hash.as_bytes().to_vec()).collect()
}

/// The first index that is no longer to be read, in a log of `size` entries.
pub(crate) fn read_until(message: &pb::ReadEntriesRequest, size: u64) -> Result<u64, AuditError> {
    let until = if message.until == 0 { size } else { message.until };
    if until > size {
        return Err(AuditError::field("until", format!("the log has {size} entries")));
    }
    if message.from > until {
        return Err(AuditError::field("from", format!("must not be beyond {until}")));
    }
    Ok(until)
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
    Arc::new(move |own| {
        log.append(&events(Source::Audit, own)?, SystemTime::now().into())?;
        grow(&size, log.size());
        Ok(())
    })
}

fn outcome(outcome: pb::Outcome) -> Option<Outcome> {
    match outcome {
        pb::Outcome::Unspecified => None,
        pb::Outcome::Succeeded => Some(Outcome::Succeeded),
        pb::Outcome::Denied => Some(Outcome::Denied),
        pb::Outcome::Failed => Some(Outcome::Failed),
    }
}

fn digest(field: &'static str, bytes: &[u8]) -> Result<Option<Digest>, AuditError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let bytes = bytes
        .try_into()
        .map_err(|_| AuditError::field(field, "must be 32 bytes, or none"))?;
    Ok(Some(Digest::from_bytes(bytes)))
}

fn timestamp(field: &'static str, timestamp: &prost_types::Timestamp) -> Result<Timestamp, AuditError> {
    let nanos = u32::try_from(timestamp.nanos).ok();
    nanos
        .and_then(|nanos| Timestamp::new(timestamp.seconds, nanos))
        .ok_or_else(|| AuditError::field(field, "must be within the years 1 to 9999"))
}

fn moment(timestamp: Timestamp) -> prost_types::Timestamp {
    let nanos = i32::try_from(timestamp.nanos()).expect("less than a second of nanoseconds");
    prost_types::Timestamp {
        seconds: timestamp.seconds(),
        nanos,
    }
}
