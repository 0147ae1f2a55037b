//! Appending.
//!
//! An append takes its places in the log and goes to the store under one short lock, and waits for the disk without it: appends
//! that come meanwhile follow in the same order and share the next fsync. Each batch expects the head that the one before it
//! writes, so that after a batch that failed none that follows can be written. The log then lets those that are under way
//! fail, looks at what the store holds, and goes on from there if that is what is known to be durable; otherwise it is closed
//! until a restart.

use std::collections::{HashMap, HashSet};

use asterism_store::{Batch, Records, StoreError};

use super::{
    Log,
    entry::{chain, decode, encode, encode_event},
    event::{Event, EventId, Source, Timestamp},
    head::Head,
    keys, missing,
};
use crate::error::AuditError;

/// Most events of one append.
pub const MAX_APPEND: usize = 1000;

/// Last sequence number of each source, as in [`Source::ALL`]; 0 before the first.
pub(super) type Sequences = [u64; Source::ALL.len()];

pub(super) struct State {
    /// What the next append builds on.
    submitted: Head,
    pub(super) durable: Head,
    sequences: Sequences,
    appended_at: Timestamp,
    /// Events on their way to the disk.
    under_way: HashSet<EventId>,
    /// Appends on their way to the disk.
    appends: usize,
    condition: Condition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Open,
    /// An append failed, and others that built on it are under way.
    Stalled,
    /// What the store holds is not known.
    Closed,
}

impl State {
    pub(super) fn load(records: &dyn Records, head: Head) -> Result<Self, AuditError> {
        let appended_at = match head.size.checked_sub(1) {
            Some(last) => {
                let stored = records.get(&keys::entry(last))?.ok_or_else(|| missing(last))?;
                decode(last, &stored)?.appended_at
            }
            None => Timestamp::from(std::time::UNIX_EPOCH),
        };
        Ok(Self {
            submitted: head,
            durable: head,
            sequences: stored_sequences(records)?,
            appended_at,
            under_way: HashSet::new(),
            appends: 0,
            condition: Condition::Open,
        })
    }

    /// How far the log will reach when all that is under way has arrived.
    pub(super) fn submitted(&self) -> u64 {
        self.submitted.size
    }

    pub(super) fn check_reads(&self) -> Result<(), AuditError> {
        if self.condition == Condition::Closed {
            Err(StoreError::Closed.into())
        } else {
            Ok(())
        }
    }

    fn check(&self) -> Result<(), AuditError> {
        self.check_reads()?;
        if self.condition == Condition::Stalled {
            Err(AuditError::Interrupted)
        } else {
            Ok(())
        }
    }
}

/// An event with what can be made of it before its place is known.
struct Prepared<'a> {
    event: &'a Event,
    bytes: Vec<u8>,
    facets: Vec<keys::FacetPrefix>,
}

/// What an append writes.
struct Group {
    batch: Batch,
    head: Head,
    sequences: Sequences,
    appended_at: Timestamp,
    ids: Vec<EventId>,
}

impl Log {
    /// Appends events; all are durable when this returns, or none is new. Gives their indexes: an event that is there already
    /// keeps the one that it has.
    ///
    /// # Errors
    /// [`AuditError::EventIdReused`], [`AuditError::Field`] for too many; [`AuditError::Interrupted`] and the store's own.
    pub fn append(&self, events: &[Event], now: Timestamp) -> Result<Vec<u64>, AuditError> {
        if events.len() > MAX_APPEND {
            return Err(AuditError::field(
                "events",
                format!("at most {MAX_APPEND} in one call"),
            ));
        }
        let prepared: Vec<Prepared<'_>> = events
            .iter()
            .map(|event| Prepared {
                event,
                bytes: encode_event(event),
                facets: keys::facets(event.facts()).collect(),
            })
            .collect();
        let (ticket, head, ids, indexes) = {
            let mut state = self.state();
            // A repeat of what is under way waits until it is known how that ends.
            while state.check().is_ok() && events.iter().any(|e| state.under_way.contains(&e.facts().id)) {
                state = self
                    .ended
                    .wait(state)
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            state.check()?;
            let (indexes, group) = self.arrange(&state, &prepared, now)?;
            let Some(Group {
                batch,
                head,
                sequences,
                appended_at,
                ids,
            }) = group
            else {
                return Ok(indexes);
            };
            let ticket = self.records.submit(batch);
            state.submitted = head;
            state.sequences = sequences;
            state.appended_at = appended_at;
            state.under_way.extend(&ids);
            state.appends += 1;
            (ticket, head, ids, indexes)
        };
        self.settle(ticket.wait(), head, &ids)?;
        Ok(indexes)
    }

    /// Gives the events their places; `None` when all are there already.
    fn arrange(
        &self,
        state: &State,
        prepared: &[Prepared<'_>],
        now: Timestamp,
    ) -> Result<(Vec<u64>, Option<Group>), AuditError> {
        // Clocks go back; the log does not.
        let appended_at = now.max(state.appended_at);
        let mut head = state.submitted;
        let mut sequences = state.sequences;
        let mut batch = Batch::new();
        let mut new: HashMap<EventId, (u64, &Event)> = HashMap::new();
        let mut indexes = Vec::with_capacity(prepared.len());
        for Prepared { event, bytes, facets } in prepared {
            let id = event.facts().id;
            if let Some((index, first)) = new.get(&id) {
                same(first, event)?;
                indexes.push(*index);
                continue;
            }
            if let Some(index) = self.index_of(&id)? {
                same(&self.entry(index)?.event, event)?;
                indexes.push(index);
                continue;
            }
            let index = head.size;
            let bytes = encode(appended_at, bytes);
            head = Head {
                size: index + 1,
                chain: chain(&head.chain, &bytes),
            };
            let stored = [head.chain.as_bytes().as_slice(), &bytes].concat();
            batch = batch
                .put(keys::entry(index), stored)
                .put(keys::id(&id), index.to_be_bytes());
            for prefix in facets {
                batch = batch.put(keys::facet(prefix, index), []);
            }
            count(&mut sequences, event);
            new.insert(id, (index, event));
            indexes.push(index);
        }
        if new.is_empty() {
            return Ok((indexes, None));
        }
        batch = match state.submitted.size {
            0 => batch.expect_absent([keys::HEAD]),
            _ => batch.expect_value([keys::HEAD], state.submitted.to_bytes()),
        };
        for (source, last) in Source::ALL
            .into_iter()
            .zip(sequences)
            .filter(|(_, last)| *last > 0)
        {
            batch = batch.put(keys::source(source), last.to_be_bytes());
        }
        batch = batch.put([keys::HEAD], head.to_bytes());
        let ids = new.into_keys().collect();
        Ok((
            indexes,
            Some(Group {
                batch,
                head,
                sequences,
                appended_at,
                ids,
            }),
        ))
    }

    /// Takes note of how an append ended.
    fn settle(&self, result: Result<(), StoreError>, head: Head, ids: &[EventId]) -> Result<(), AuditError> {
        let mut state = self.state();
        state.appends -= 1;
        for id in ids {
            state.under_way.remove(id);
        }
        match &result {
            // Those who wait wake in any order; who is durable, those before it are.
            Ok(()) if head.size > state.durable.size => state.durable = head,
            Ok(()) => {}
            Err(_) if state.condition == Condition::Open => state.condition = Condition::Stalled,
            Err(_) => {}
        }
        if state.condition == Condition::Stalled && state.appends == 0 {
            state.condition = match self.resume(&mut state) {
                Ok(()) => Condition::Open,
                Err(error) => {
                    tracing::error!(%error, "the log is closed after a failed write; restart the service");
                    Condition::Closed
                }
            };
        }
        drop(state);
        self.ended.notify_all();
        result.map_err(|error| match error {
            // The batch expected the head that one before it should have written.
            StoreError::Conflict => AuditError::Interrupted,
            error => AuditError::Store(error),
        })
    }

    /// Goes on from what is durable, if that is what the store holds.
    fn resume(&self, state: &mut State) -> Result<(), AuditError> {
        let stored = Head::stored(&*self.records)?;
        if stored != state.durable {
            let text = format!(
                "the store holds {} entries, and {} are known",
                stored.size, state.durable.size
            );
            return Err(AuditError::Damaged(text));
        }
        state.submitted = stored;
        state.sequences = stored_sequences(&*self.records)?;
        Ok(())
    }

    fn index_of(&self, id: &EventId) -> Result<Option<u64>, AuditError> {
        let Some(bytes) = self.records.get(&keys::id(id))? else {
            return Ok(None);
        };
        let index = keys::number(&bytes);
        index
            .map(Some)
            .ok_or_else(|| AuditError::damaged("the record of an event id cannot be read"))
    }
}

fn same(first: &Event, again: &Event) -> Result<(), AuditError> {
    if first == again {
        Ok(())
    } else {
        Err(AuditError::EventIdReused(again.facts().id))
    }
}

/// Counts an event of a source. What does not follow is kept all the same, and told: to lose it would be worse.
fn count(sequences: &mut Sequences, event: &Event) {
    let facts = event.facts();
    let last = &mut sequences[facts.source as usize];
    if last.checked_add(1) != Some(facts.source_sequence) {
        tracing::warn!(source = %facts.source, sequence = facts.source_sequence, last = *last, "a source does not count on");
    }
    *last = facts.source_sequence.max(*last);
}

pub(super) fn stored_sequences(records: &dyn Records) -> Result<Sequences, AuditError> {
    let mut sequences = Sequences::default();
    for source in Source::ALL {
        if let Some(bytes) = records.get(&keys::source(source))? {
            sequences[source as usize] = keys::number(&bytes)
                .ok_or_else(|| AuditError::Damaged(format!("the last number of {source} cannot be read")))?;
        }
    }
    Ok(sequences)
}
