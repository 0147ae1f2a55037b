//! Events on their way to audit: durable here before the result of what they tell of is released.
//!
//! The rule: an event's sequence number is given out in the order in which events reach the spool, and an event is
//! forwarded only after it is durable here; so what audit ever saw of this source survives any crash of it. Events go at
//! least once; audit drops repeats by event id. What audit acknowledged is trimmed along with later writes, so that
//! forwarding costs the hot path no fsync of its own.
//!
//! An operation that changes something takes [`Room`] for its event first, so that nothing is done that cannot be
//! recorded afterwards. A number whose write failed (a full disk) is not used again, because later ones may be on
//! their way already: audit then reports a hole, which is the truth. After any other failed write the spool is closed,
//! and everything is refused until a restart.

mod event;
mod forward;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use asterism_proto::audit::Event;
use asterism_store::{Spool, StoreError, Ticket, spool::MAX_ENTRY};
use prost::Message as _;
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use event::{AuditEvent, Outcome};
pub use forward::Sink;

use crate::error::{ErrorClass, Failure};

/// Events that may be on their way to the spool without anybody who waits for them.
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

/// Ends the forwarder, which has a share of its own in the spool.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.closed.cancel();
    }
}

pub(crate) struct Shared {
    source: &'static str,
    spool: Arc<dyn Spool>,
    limits: OutboxLimits,
    /// There is nobody to forward to.
    held: bool,
    state: Mutex<State>,
    serving: watch::Sender<bool>,
    /// There is something to forward.
    wake: Notify,
    /// Somebody waits for the outbox to be empty.
    hurry: Notify,
    depth: watch::Sender<u64>,
    closed: CancellationToken,
    forwarder: TaskTracker,
}

struct State {
    next: u64,
    /// Events that audit has not acknowledged.
    depth: u64,
    /// Room that was promised and is not yet used.
    promised: u64,
    /// Events were delivered since the last sweep.
    unswept: bool,
    /// On their way to the spool; nobody waits for them.
    unwaited: Vec<Ticket>,
    /// Refusals of strangers for which there was no room.
    unrecorded: u64,
    /// Set after a failed write: nothing more can be promised.
    broken: bool,
}

impl Outbox {
    /// The outbox of `source` over a spool of its own; starts to forward.
    ///
    /// Must be called within a tokio runtime.
    pub fn new(spool: Arc<dyn Spool>, source: &'static str, limits: OutboxLimits, sink: Sink) -> Self {
        let depth = spool.len();
        let shared = Arc::new(Shared {
            source,
            limits,
            held: matches!(sink, Sink::Hold),
            state: Mutex::new(State {
                next: spool.next(),
                depth,
                promised: 0,
                unswept: false,
                unwaited: vec![],
                unrecorded: 0,
                broken: false,
            }),
            serving: watch::Sender::new(depth < limits.max_events),
            wake: Notify::new(),
            hurry: Notify::new(),
            depth: watch::Sender::new(depth),
            closed: CancellationToken::new(),
            forwarder: TaskTracker::new(),
            spool,
        });
        shared.forwarder.spawn(forward::run(shared.clone(), sink));
        shared.forwarder.close();
        Self {
            handle: Arc::new(Handle(shared)),
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.0
    }

    /// Takes room for one event, before an operation begins that must not go unrecorded.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE` when the outbox is full or its spool failed.
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
    /// `AUDIT_UNAVAILABLE` when the outbox is full or its spool failed: the operation must not be released then.
    pub fn record(&self, event: AuditEvent) -> Result<(), Failure> {
        self.reserve()?.record(event)
    }

    /// As [`Outbox::record`], without keeping a thread; goes on when it is dropped halfway.
    ///
    /// # Errors
    /// As [`Outbox::record`].
    pub async fn record_async(&self, event: AuditEvent) -> Result<(), Failure> {
        let room = self.reserve()?;
        let recorded = tokio::spawn(room.record_async(event)).await;
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
        let ticket = shared.submit(&mut state, event);
        ticket.start();
        state.unwaited.push(ticket);
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
        if shared.held {
            return *depth.borrow() == 0;
        }
        shared.hurry.notify_one();
        shared.wake.notify_one();
        let empty = depth.wait_for(|depth| *depth == 0);
        if tokio::time::timeout(patience, empty).await.is_err() {
            return false;
        }
        // What is trimmed now does not go again after a restart. A failure here closes the spool, which the next event
        // reports.
        let _ = tokio::task::spawn_blocking(move || shared.sweep()).await;
        true
    }

    /// Ends the forwarding, once audit has acknowledged everything or `patience` is over; tells whether it has. Whoever
    /// opens the spool or the log behind [`Sink::Local`] next does not find the forwarder in its way.
    pub async fn close(&self, patience: Duration) -> bool {
        let flushed = self.flush(patience).await;
        self.shared().closed.cancel();
        self.shared().forwarder.wait().await;
        flushed
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
    /// `AUDIT_UNAVAILABLE` when the spool failed: the operation must not be released then.
    pub fn record(self, event: AuditEvent) -> Result<(), Failure> {
        let written = self.submit(event)?.wait();
        self.settle(written)
    }

    /// As [`Room::record`], without keeping a thread. Only for a task that is not dropped halfway: the event would be recorded all the same,
    /// but a failed write not be taken note of.
    ///
    /// # Errors
    /// As [`Room::record`].
    pub(crate) async fn record_async(self, event: AuditEvent) -> Result<(), Failure> {
        let written = self.submit(event)?.settled().await;
        self.settle(written)
    }

    fn submit(&self, event: AuditEvent) -> Result<Ticket, Failure> {
        let event = event.into_wire(self.shared.source);
        let mut state = self.shared.state();
        if state.broken {
            return Err(unavailable());
        }
        // Submitted under the lock: the spool sees sequence numbers in order.
        Ok(self.shared.submit(&mut state, event))
    }

    fn settle(&self, written: Result<(), StoreError>) -> Result<(), Failure> {
        let recorded = self.shared.settle(written);
        self.shared.wake.notify_one();
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

    /// Gives an event its number and sends it to the spool.
    fn submit(&self, state: &mut State, mut event: Event) -> Ticket {
        let sequence = state.next;
        event.source_sequence = sequence;
        let bytes = event.encode_to_vec();
        debug_assert!(bytes.len() <= MAX_ENTRY, "an event's fields are capped");
        state.next += 1;
        state.depth += 1;
        self.publish(state);
        self.spool.append(sequence, bytes)
    }

    /// Takes note of how the write of an event ended.
    fn settle(&self, written: Result<(), StoreError>) -> Result<(), Failure> {
        written.map_err(|error| {
            tracing::error!(%error, source = self.source, "an event could not be recorded");
            let mut state = self.state();
            state.depth -= 1;
            state.broken |= !matches!(error, StoreError::NoSpace);
            self.publish(&state);
            unavailable()
        })
    }

    /// Settles what nobody waits for.
    fn settle_unwaited(&self) {
        let unwaited = std::mem::take(&mut self.state().unwaited);
        for ticket in unwaited {
            // A failure is logged, and closes the outbox for others.
            let _ = self.settle(ticket.wait());
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
        let entries = self.spool.read(from, limit)?;
        let decoded = entries
            .into_iter()
            .map(|(_, bytes)| Event::decode(bytes.as_slice()));
        decoded
            .collect::<Result<_, _>>()
            .map_err(|_| StoreError::Damaged("an event in the outbox cannot be read".to_owned()))
    }

    /// Takes note that audit acknowledged the `count` oldest events, which end before `below`.
    fn delivered(&self, count: usize, below: u64) {
        self.spool.trim(below);
        let mut state = self.state();
        state.depth -= count as u64;
        state.unswept = true;
        self.publish(&state);
    }

    fn is_unswept(&self) -> bool {
        self.state().unswept
    }

    /// Makes it durable that events were delivered, when no write came along to do it.
    fn sweep(&self) -> Result<(), StoreError> {
        if std::mem::take(&mut self.state().unswept) {
            self.spool.settle().wait()?;
        }
        Ok(())
    }
}

fn unavailable() -> Failure {
    let text = "the audit log cannot take events, and nothing is done that it cannot record; try again later";
    Failure::new(ErrorClass::Unavailable, "AUDIT_UNAVAILABLE", text)
}

#[cfg(test)]
mod tests;
