//! Events on their way to audit: durable here before the result of what they tell of is released.
//!
//! The rule: an event's sequence number is given out in the order in which batches reach the store, and an event is
//! forwarded only after it is durable here; so what audit ever saw of this source survives any crash of it. Events go at
//! least once; audit drops repeats by event id. What audit acknowledged is deleted along with later writes, so that
//! forwarding costs the hot path no fsync of its own.
//!
//! An operation that changes something takes [`Room`] for its event first, so that nothing is done that cannot be
//! recorded afterwards. A number whose write failed (a full disk) is not used again, because later ones may be on
//! their way already: audit then reports a hole, which is the truth. After any other failed write the store is closed,
//! and everything is refused until a restart.

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
use asterism_store::{Batch, MAX_VALUE, Records, StoreError, Ticket};
use prost::Message as _;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use event::{AuditEvent, Outcome};
pub use forward::Sink;

use crate::error::{ErrorClass, Failure};

/// Records: this byte and the sequence number, big-endian -> the event.
const EVENT: u8 = 0xE0;
/// Record: this byte -> the next sequence number, big-endian.
const NEXT: u8 = 0xE1;
/// Acknowledged events that one write deletes along with its own.
const DELETES_PER_WRITE: usize = 64;
/// Events that may be on their way to the store without anybody who waits for them.
const MAX_UNWAITED: usize = 4096;

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct OutboxLimits {
    /// Events that wait for audit before operations are refused.
    pub max_events: u64,
}

/// The outbox of one service. Cheap to clone; forwarding ends with the last clone.
#[derive(Clone)]
pub struct Outbox {
    handle: Arc<Handle>,
}

/// Ends the forwarder, which has a share of its own in the store.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.closed.cancel();
    }
}

pub(crate) struct Shared {
    source: &'static str,
    records: Arc<dyn Records>,
    limits: OutboxLimits,
    state: Mutex<State>,
    /// All events below are durable (or were never written).
    durable_below: AtomicU64,
    serving: watch::Sender<bool>,
    /// There is something to forward.
    wake: Notify,
    /// Somebody waits for the outbox to be empty.
    hurry: Notify,
    depth: watch::Sender<u64>,
    closed: CancellationToken,
}

struct State {
    next: u64,
    /// Events that audit has not acknowledged.
    depth: u64,
    /// Room that was promised and is not yet used.
    promised: u64,
    /// Delivered, but not yet deleted here.
    delivered: BTreeSet<u64>,
    /// On their way to the store; nobody waits for them.
    unwaited: Vec<Submitted>,
    /// Refusals of strangers for which there was no room.
    unrecorded: u64,
    /// Set after a failed write: nothing more can be promised.
    broken: bool,
}

/// An event that is on its way to the store.
struct Submitted {
    sequence: u64,
    ticket: Ticket,
    /// Deleted by the same write.
    deletes: Vec<u64>,
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
                let bytes = bytes
                    .try_into()
                    .map_err(|_| StoreError::Damaged("outbox head".to_owned()))?;
                u64::from_be_bytes(bytes)
            }
            None => 1,
        };
        if !records.scan(&event_key(next), &[EVENT], 1)?.is_empty() {
            return Err(StoreError::Damaged(
                "the outbox holds events beyond its head".to_owned(),
            ));
        }
        let depth = count(&*records)?;
        let shared = Arc::new(Shared {
            source,
            records,
            limits,
            state: Mutex::new(State {
                next,
                depth,
                promised: 0,
                delivered: BTreeSet::new(),
                unwaited: vec![],
                unrecorded: 0,
                broken: false,
            }),
            durable_below: AtomicU64::new(next),
            serving: watch::Sender::new(depth < limits.max_events),
            wake: Notify::new(),
            hurry: Notify::new(),
            depth: watch::Sender::new(depth),
            closed: CancellationToken::new(),
        });
        tokio::spawn(forward::run(shared.clone(), sink));
        Ok(Self {
            handle: Arc::new(Handle(shared)),
        })
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.0
    }

    /// Takes room for one event, before an operation begins that must not go unrecorded.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE` when the outbox is full or its store failed.
    pub fn reserve(&self) -> Result<Room, Failure> {
        let shared = self.shared();
        let mut state = shared.state();
        if shared.refuses(&state) {
            return Err(unavailable());
        }
        state.promised += 1;
        Ok(Room {
            shared: shared.clone(),
        })
    }

    /// Records an event; blocks until it is durable.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE` when the outbox is full or its store failed: the operation must not be released then.
    pub fn record(&self, event: AuditEvent) -> Result<(), Failure> {
        self.reserve()?.record(event)
    }

    /// As [`Outbox::record`], off the async threads.
    ///
    /// # Errors
    /// As [`Outbox::record`].
    pub async fn record_async(&self, event: AuditEvent) -> Result<(), Failure> {
        let room = self.reserve()?;
        let recorded = tokio::task::spawn_blocking(move || room.record(event)).await;
        recorded.unwrap_or_else(|_| Err(unavailable()))
    }

    /// Records an event without waiting until it is durable: for refusals, which release nothing.
    ///
    /// Strangers cause these, so they may fill half of the outbox and no more: the rest is left to operations. What finds
    /// no room is counted in the log.
    pub fn note(&self, event: AuditEvent) {
        let shared = self.shared();
        let event = event.into_wire(shared.source);
        let mut state = shared.state();
        let crowded = state.depth >= shared.limits.max_events / 2 || state.unwaited.len() >= MAX_UNWAITED;
        if state.broken || crowded {
            state.unrecorded += 1;
            let unrecorded = state.unrecorded;
            drop(state);
            if unrecorded.is_power_of_two() {
                tracing::warn!(
                    unrecorded,
                    source = shared.source,
                    "refusals without room in the outbox"
                );
            }
            return;
        }
        let submitted = shared.submit(&mut state, event);
        state.unwaited.push(submitted);
        drop(state);
        shared.wake.notify_one();
    }

    /// Refuses when no event could be recorded now.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE`
    pub fn check(&self) -> Result<(), Failure> {
        if *self.shared().serving.borrow() {
            Ok(())
        } else {
            Err(unavailable())
        }
    }

    /// Whether events can be recorded, as it changes; for health.
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.shared().serving.subscribe()
    }

    /// Events that audit has not acknowledged.
    pub fn depth(&self) -> u64 {
        self.shared().state().depth
    }

    /// Waits until audit has acknowledged everything, at most for `patience`; tells whether it has.
    pub async fn flush(&self, patience: Duration) -> bool {
        let shared = self.shared().clone();
        let mut depth = shared.depth.subscribe();
        shared.hurry.notify_one();
        shared.wake.notify_one();
        let empty = depth.wait_for(|depth| *depth == 0);
        if tokio::time::timeout(patience, empty).await.is_err() {
            return false;
        }
        // What is deleted now does not go again after a restart. A failure here closes the store, which the next event
        // reports.
        let _ = tokio::task::spawn_blocking(move || shared.sweep()).await;
        true
    }
}

/// Room for one event; given back when dropped unused.
#[must_use]
pub struct Room {
    shared: Arc<Shared>,
}

impl Room {
    /// Records the event; blocks until it is durable.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE` when the store failed: the operation must not be released then.
    pub fn record(self, event: AuditEvent) -> Result<(), Failure> {
        let shared = &*self.shared;
        let event = event.into_wire(shared.source);
        let submitted = {
            let mut state = shared.state();
            if state.broken {
                return Err(unavailable());
            }
            // Submitted under the lock: the store sees sequence numbers in order.
            shared.submit(&mut state, event)
        };
        let recorded = shared.settle(submitted);
        shared.wake.notify_one();
        recorded
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shared.state().promised -= 1;
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuses(&self, state: &State) -> bool {
        state.broken || state.depth + state.promised >= self.limits.max_events
    }

    /// Gives an event its number and sends it to the store, along with deletions that are due.
    fn submit(&self, state: &mut State, mut event: Event) -> Submitted {
        let sequence = state.next;
        event.source_sequence = sequence;
        let bytes = event.encode_to_vec();
        debug_assert!(bytes.len() <= MAX_VALUE, "an event's fields are capped");
        let mut batch = Batch::new()
            .put(event_key(sequence), bytes)
            .put([NEXT], (sequence + 1).to_be_bytes());
        let mut deletes = vec![];
        while deletes.len() < DELETES_PER_WRITE
            && let Some(delivered) = state.delivered.pop_first()
        {
            batch = batch.delete(event_key(delivered));
            deletes.push(delivered);
        }
        state.next += 1;
        state.depth += 1;
        self.publish(state);
        Submitted {
            sequence,
            ticket: self.records.submit(batch),
            deletes,
        }
    }

    /// Blocks until an event is durable, or is not going to be.
    fn settle(&self, submitted: Submitted) -> Result<(), Failure> {
        let Submitted {
            sequence,
            ticket,
            deletes,
        } = submitted;
        match ticket.wait() {
            Ok(()) => {
                self.durable_below.fetch_max(sequence + 1, Ordering::AcqRel);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, source = self.source, "an event could not be recorded");
                let mut state = self.state();
                state.depth -= 1;
                state.delivered.extend(deletes);
                state.broken |= !matches!(error, StoreError::NoSpace);
                self.publish(&state);
                Err(unavailable())
            }
        }
    }

    /// Settles what nobody waits for.
    fn settle_unwaited(&self) {
        let unwaited = std::mem::take(&mut self.state().unwaited);
        for submitted in unwaited {
            // A failure is logged, and closes the outbox for others.
            let _ = self.settle(submitted);
        }
    }

    /// Tells watchers how things stand.
    fn publish(&self, state: &State) {
        let serving = !state.broken && state.depth < self.limits.max_events;
        self.serving
            .send_if_modified(|now| std::mem::replace(now, serving) != serving);
        self.depth
            .send_if_modified(|now| std::mem::replace(now, state.depth) != state.depth);
    }

    /// Durable events from `from` on, that no earlier pass delivered.
    fn pending(&self, from: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.settle_unwaited();
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

    fn has_deletions(&self) -> bool {
        !self.state().delivered.is_empty()
    }

    /// Deletes what was acknowledged, when no write came along to do it.
    fn sweep(&self) -> Result<(), StoreError> {
        let delivered = std::mem::take(&mut self.state().delivered);
        if delivered.is_empty() {
            return Ok(());
        }
        self.records.commit(
            delivered
                .into_iter()
                .fold(Batch::new(), |batch, at| batch.delete(event_key(at))),
        )
    }
}

/// The number of events in the records.
fn count(records: &dyn Records) -> Result<u64, StoreError> {
    const PAGE: usize = 10_000;
    let mut total = 0;
    let mut from = vec![EVENT];
    loop {
        let page = records.scan(&from, &[EVENT], PAGE)?;
        let Some((last, _)) = page.last() else {
            return Ok(total);
        };
        total += page.len() as u64;
        from.clone_from(last);
        from.push(0);
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
