//! Calls whose answer is a stream.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt as _, Stream};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, mpsc};
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::{
    Caller, Gate, Trail,
    gate::{Pass, panicked},
};
use crate::{
    error::{Failure, status_of},
    outbox::Outbox,
};

/// Items that wait for a slow caller; the work then waits too.
const BUFFER: usize = 8;
/// How often a stream without an end looks whether its caller's token still holds, besides at every change.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
        Self {
            items: self.items.clone(),
            ledger: self.ledger.clone(),
        }
    }
}

/// What the events of a streaming call will say.
struct Ledger {
    operation: &'static str,
    caller: Caller,
    outbox: Outbox,
    trail: Mutex<Trail>,
    /// Set once the release is durable.
    released: OnceCell<()>,
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
        self.items
            .blocking_send(Ok(item))
            .map_err(|_| Failure::cancelled())
    }

    /// Sends an item if there is room for it at once: for progress, of which the next says as much.
    pub fn offer(&self, item: Item) {
        let _ = self.items.try_send(Ok(item));
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
        fill(&mut self.ledger.trail());
    }

    /// Records, durably, that what follows is about to leave: call it before the first item that must not leave
    /// unrecorded. Once is enough; who calls it meanwhile waits for the same record. How the call ended is recorded
    /// besides, at its end.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE`; nothing may be sent then.
    pub async fn release(&self) -> Result<(), Failure> {
        let ledger = &*self.ledger;
        let record = async || {
            let event = ledger.trail().event(ledger.operation, Some(&ledger.caller), None);
            ledger.outbox.record_async(event).await
        };
        ledger.released.get_or_try_init(record).await.copied()
    }
}

impl Ledger {
    fn trail(&self) -> MutexGuard<'_, Trail> {
        self.trail.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Resolves when the token that let a caller in is refused from now on: a stream without an end must not outlive it.
    async fn revoked(&self, caller: &Caller) -> Failure {
        let Some(access) = &caller.access else {
            return std::future::pending().await;
        };
        let mut changes = self.trust.changes();
        loop {
            if let Err(refusal) = self.trust.still_holds(access) {
                return refusal;
            }
            // A word that does not come is a reason too.
            let _ = tokio::time::timeout(LOOK_AGAIN, changes.changed()).await;
        }
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
        let Pass { caller, room, place } = self.pass(operation, &request).await?;
        let request_id = caller.request_id.clone();
        let place: Option<OwnedSemaphorePermit> = keeps_place.then_some(place);
        let (items, receiver) = mpsc::channel(BUFFER);
        let ledger = Arc::new(Ledger {
            operation,
            caller: caller.clone(),
            outbox: self.shared.outbox.clone(),
            trail: Mutex::default(),
            released: OnceCell::new(),
        });
        let emitter = Emitter {
            items: items.clone(),
            ledger: ledger.clone(),
        };
        let message = request.into_inner();
        let gate = self.clone();
        let work = async move {
            let _place = place;
            let work = async { work(caller.clone(), message, emitter).await };
            let work = AssertUnwindSafe(work).catch_unwind();
            let result = tokio::select! {
                biased;
                result = work => result.unwrap_or_else(|_| Err(panicked())),
                refusal = gate.revoked(&caller), if !keeps_place => Err(refusal),
            };
            let trail = ledger.trail().clone();
            // `items` keeps the stream open: its end, too, leaves after the event.
            if let Err(failure) = gate.conclude(room, operation, Some(caller), trail, result).await {
                // Nobody reads it when the caller is gone.
                let _ = items.send(Err(status_of(&failure, &request_id))).await;
            }
        };
        self.shared.tracker.spawn(work.in_current_span());
        Ok(Response::new(ReplyStream(receiver)))
    }
}
