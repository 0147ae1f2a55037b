//! Calls whose answer is a stream.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::{Request, Response, Status};

use super::{Caller, Gate, Trail, gate::Arrival};
use crate::{
    error::{Failure, status_of},
    outbox::Outbox,
};

/// Items that wait for a slow caller; the work then waits too.
const BUFFER: usize = 8;

/// The answer of a streaming call.
pub struct ReplyStream<Item>(mpsc::Receiver<Result<Item, Status>>);

impl<Item> Stream for ReplyStream<Item> {
    type Item = Result<Item, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// Sends the items of an answer. Cheap to clone.
pub struct Emitter<Item> {
    items: mpsc::Sender<Result<Item, Status>>,
    ledger: Arc<Ledger>,
}

impl<Item> Clone for Emitter<Item> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), ledger: self.ledger.clone() }
    }
}

/// What the event of a streaming call will say, and whether it was recorded already.
struct Ledger {
    operation: &'static str,
    caller: Caller,
    outbox: Outbox,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    trail: Trail,
    released: bool,
}

impl<Item> Emitter<Item> {
    /// Sends an item; waits while the caller is slow.
    ///
    /// # Errors
    /// `CANCELLED` when the caller is gone.
    pub async fn send(&self, item: Item) -> Result<(), Failure> {
        self.items.send(Ok(item)).await.map_err(|_| Failure::cancelled())
    }

    /// As [`Emitter::send`], from a blocking thread.
    ///
    /// # Errors
    /// `CANCELLED` when the caller is gone.
    pub fn blocking_send(&self, item: Item) -> Result<(), Failure> {
        self.items.blocking_send(Ok(item)).map_err(|_| Failure::cancelled())
    }

    /// Whether the caller is gone.
    pub fn is_closed(&self) -> bool {
        self.items.is_closed()
    }

    /// Resolves when the caller is gone.
    pub async fn closed(&self) {
        self.items.closed().await;
    }

    /// Fills in what the event will say.
    pub fn trail(&self, fill: impl FnOnce(&mut Trail)) {
        fill(&mut self.ledger.state().trail);
    }

    /// Records the event now, durably: before the first item that must not leave unrecorded. Once is enough; the end
    /// of the call is then recorded only if it fails.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE`; nothing may be sent then.
    pub async fn release(&self) -> Result<(), Failure> {
        let event = {
            let mut state = self.ledger.state();
            if state.released {
                return Ok(());
            }
            state.released = true;
            state.trail.event(self.ledger.operation, Some(&self.ledger.caller), None)
        };
        self.ledger.outbox.record_async(event).await
    }
}

impl Ledger {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// A call that answers by a stream, and holds its place until the stream ends. `Req` may itself be a stream.
    ///
    /// # Errors
    /// The status that the caller gets in place of a stream.
    pub async fn stream<Req, Item, F, Fut>(
        &self,
        operation: &'static str,
        request: Request<Req>,
        work: F,
    ) -> Result<Response<ReplyStream<Item>>, Status>
    where
        F: FnOnce(Caller, Req, Emitter<Item>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
        Req: Send + 'static,
        Item: Send + 'static,
    {
        self.streaming(operation, request, work, true).await
    }

    /// As [`Gate::stream`], for a stream without an end: it gives its place back once it has begun.
    ///
    /// # Errors
    /// The status that the caller gets in place of a stream.
    pub async fn watch<Req, Item, F, Fut>(
        &self,
        operation: &'static str,
        request: Request<Req>,
        work: F,
    ) -> Result<Response<ReplyStream<Item>>, Status>
    where
        F: FnOnce(Caller, Req, Emitter<Item>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
        Req: Send + 'static,
        Item: Send + 'static,
    {
        self.streaming(operation, request, work, false).await
    }

    async fn streaming<Req, Item, F, Fut>(
        &self,
        operation: &'static str,
        request: Request<Req>,
        work: F,
        keeps_place: bool,
    ) -> Result<Response<ReplyStream<Item>>, Status>
    where
        F: FnOnce(Caller, Req, Emitter<Item>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
        Req: Send + 'static,
        Item: Send + 'static,
    {
        let Arrival { caller, known, verdict } = self.arrive(&request);
        let request_id = caller.request_id.clone();
        let permit = self.admit().await.map_err(|failure| status_of(&failure, &request_id))?;
        if let Err(refusal) = verdict {
            let known = known.then_some(caller);
            let refused = self.conclude::<()>(operation, known, Trail::default(), Err(refusal)).await;
            let refusal = refused.err().unwrap_or_else(|| Failure::internal("a refusal was lost"));
            return Err(status_of(&refusal, &request_id));
        }
        let place: Option<OwnedSemaphorePermit> = keeps_place.then_some(permit);
        let (items, receiver) = mpsc::channel(BUFFER);
        let ledger = Arc::new(Ledger {
            operation,
            caller: caller.clone(),
            outbox: self.shared.outbox.clone(),
            state: Mutex::default(),
        });
        let emitter = Emitter { items: items.clone(), ledger: ledger.clone() };
        let message = request.into_inner();
        let gate = self.clone();
        let work = async move {
            let _place = place;
            // On a task of its own, a panic ends this call and no other.
            let task = tokio::spawn(tracing::Instrument::in_current_span(work(caller.clone(), message, emitter)));
            let result = task.await.unwrap_or_else(|_| Err(Failure::internal("a stream's work panicked")));
            let (trail, released) = {
                let state = ledger.state();
                (state.trail.clone(), state.released)
            };
            let result = if released && result.is_ok() {
                result
            } else {
                gate.conclude(operation, Some(caller), trail, result).await
            };
            if let Err(failure) = result {
                // Nobody reads it when the caller is gone.
                let _ = items.send(Err(status_of(&failure, &request_id))).await;
            }
        };
        let span = tracing::Span::current();
        self.shared.tracker.spawn(tracing::Instrument::instrument(work, span));
        Ok(Response::new(ReplyStream(receiver)))
    }
}
