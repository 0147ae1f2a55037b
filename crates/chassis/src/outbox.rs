//! Events on their way to audit: durable here before the result of what they tell of is released.
//!
//! The rule: an event's sequence number is given out in the order in which batches reach the store, and an event is
//! forwarded only after it is durable here; so what audit ever saw of this source survives any crash of it. Events go at
//! least once; audit drops repeats by event id. What audit acknowledged is deleted along with later writes, so that
//! forwarding costs the hot path no fsync of its own.

mod event;
mod forward;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use asterism_proto::audit::Event;
use asterism_store::{Batch, MAX_VALUE, Records, StoreError};
use prost::Message as _;
use tokio::sync::{Notify, watch};

pub use event::{AuditEvent, Outcome};
pub use forward::Sink;

use crate::error::{ErrorClass, Failure};

/// Records: this byte and the sequence number, big-endian -> the event.
const EVENT: u8 = 0xE0;
/// Record: this byte -> the next sequence number, big-endian.
const NEXT: u8 = 0xE1;
/// Acknowledged events that one write deletes along with its own.
const DELETES_PER_WRITE: usize = 64;

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct OutboxLimits {
    /// Events that wait for audit before operations are refused.
    pub max_events: u64,
}

/// The outbox of one service. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    source: &'static str,
    records: Arc<dyn Records>,
    limits: OutboxLimits,
    state: Mutex<State>,
    /// All events below are durable (or were never written).
    durable_below: AtomicU64,
    /// Set after a failed write: nothing more can be promised.
    serving: watch::Sender<bool>,
    wake: Notify,
    hurry: Notify,
    emptied: watch::Sender<u64>,
}

struct State {
    next: u64,
    depth: u64,
    /// Delivered, but not yet deleted here.
    delivered: BTreeSet<u64>,
    broken: bool,
}

impl Outbox {
    /// Opens the outbox of `source` over records, of which it uses two key prefixes, and starts to forward.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The store's own.
    pub fn open(
        records: Arc<dyn Records>,
        source: &'static str,
        limits: OutboxLimits,
        sink: Sink,
    ) -> Result<Self, StoreError> {
        let next = match records.get(&[NEXT])? {
            Some(bytes) => {
                let bytes = bytes.try_into().map_err(|_| StoreError::Damaged("outbox head".to_owned()))?;
                u64::from_be_bytes(bytes)
            }
            None => 1,
        };
        let mut depth = 0;
        let mut from = vec![EVENT];
        loop {
            let page = records.scan(&from, &[EVENT], 10_000)?;
            let Some((last, _)) = page.last() else { break };
            depth += page.len() as u64;
            from = last.clone();
            from.push(0);
        }
        let shared = Arc::new(Shared {
            source,
            records,
            limits,
            state: Mutex::new(State { next, depth, delivered: BTreeSet::new(), broken: false }),
            durable_below: AtomicU64::new(next),
            serving: watch::Sender::new(depth < limits.max_events),
            wake: Notify::new(),
            hurry: Notify::new(),
            emptied: watch::Sender::new(depth),
        });
        tokio::spawn(forward::run(Arc::downgrade(&shared), sink));
        Ok(Self { shared })
    }

    /// Records an event; blocks until it is durable.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE` when the outbox is full or its store failed: the operation must not be released then.
    pub fn record(&self, event: AuditEvent) -> Result<(), Failure> {
        let shared = &*self.shared;
        let (sequence, ticket) = {
            let mut state = shared.state();
            if state.broken || state.depth >= shared.limits.max_events {
                return Err(unavailable());
            }
            let sequence = state.next;
            let bytes = event.encode(shared.source, sequence);
            debug_assert!(bytes.len() <= MAX_VALUE, "an event's fields are capped");
            let mut batch = Batch::new().put(event_key(sequence), bytes).put([NEXT], (sequence + 1).to_be_bytes());
            for _ in 0..DELETES_PER_WRITE {
                let Some(delivered) = state.delivered.pop_first() else { break };
                batch = batch.delete(event_key(delivered));
            }
            state.next += 1;
            state.depth += 1;
            shared.publish(&state);
            // Submitted under the lock: the store sees sequence numbers in order.
            (sequence, shared.records.submit(batch))
        };
        match ticket.wait() {
            Ok(()) => {
                shared.durable_below.fetch_max(sequence + 1, Ordering::AcqRel);
                shared.wake.notify_one();
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "an event could not be recorded");
                let mut state = shared.state();
                state.depth -= 1;
                state.broken |= !matches!(error, StoreError::NoSpace);
                shared.publish(&state);
                Err(unavailable())
            }
        }
    }

    /// As [`Outbox::record`], off the async threads.
    ///
    /// # Errors
    /// As [`Outbox::record`].
    pub async fn record_async(&self, event: AuditEvent) -> Result<(), Failure> {
        let outbox = self.clone();
        let recorded = tokio::task::spawn_blocking(move || outbox.record(event)).await;
        recorded.unwrap_or_else(|_| Err(unavailable()))
    }

    /// Refuses an operation whose event could not be recorded afterwards.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE`
    pub fn check(&self) -> Result<(), Failure> {
        if *self.shared.serving.borrow() { Ok(()) } else { Err(unavailable()) }
    }

    /// Whether events can be recorded, as it changes; for health.
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.shared.serving.subscribe()
    }

    /// Events that audit has not acknowledged.
    pub fn depth(&self) -> u64 {
        self.shared.state().depth
    }

    /// Waits until audit has acknowledged everything, at most for `patience`; tells whether it has.
    pub async fn flush(&self, patience: Duration) -> bool {
        let mut emptied = self.shared.emptied.subscribe();
        self.shared.hurry.notify_one();
        self.shared.wake.notify_one();
        let empty = emptied.wait_for(|depth| *depth == 0);
        tokio::time::timeout(patience, empty).await.is_ok()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells watchers how things stand.
    fn publish(&self, state: &State) {
        let serving = !state.broken && state.depth < self.limits.max_events;
        self.serving.send_if_modified(|now| std::mem::replace(now, serving) != serving);
        self.emptied.send_if_modified(|now| std::mem::replace(now, state.depth) != state.depth);
    }

    /// Durable events from `from` on, that no earlier pass delivered.
    fn pending(&self, from: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        let durable_below = self.durable_below.load(Ordering::Acquire);
        let records = self.records.scan(&event_key(from), &[EVENT], limit)?;
        let mut events = Vec::with_capacity(records.len());
        for (_, value) in records {
            let event = Event::decode(value.as_slice())
                .map_err(|_| StoreError::Damaged("an event in the outbox cannot be read".to_owned()))?;
            if event.source_sequence >= durable_below {
                break;
            }
            events.push(event);
        }
        Ok(events)
    }

    /// Marks events as acknowledged by audit; they are deleted with the next writes.
    fn delivered(&self, sequences: impl Iterator<Item = u64>) {
        let mut state = self.state();
        for sequence in sequences {
            state.depth -= 1;
            state.delivered.insert(sequence);
        }
        self.publish(&state);
    }

    /// Deletes what was acknowledged, when no write came along to do it.
    fn sweep(&self) -> Result<(), StoreError> {
        let delivered = std::mem::take(&mut self.state().delivered);
        if delivered.is_empty() {
            return Ok(());
        }
        self.records.commit(delivered.into_iter().fold(Batch::new(), |batch, at| batch.delete(event_key(at))))
    }
}

fn event_key(sequence: u64) -> Vec<u8> {
    [&[EVENT], sequence.to_be_bytes().as_slice()].concat()
}

fn unavailable() -> Failure {
    let text = "the audit log cannot take events, and nothing is done that it cannot record; try again later";
    Failure::new(ErrorClass::Unavailable, "AUDIT_UNAVAILABLE", text)
}

#[cfg(test)]
mod tests;
