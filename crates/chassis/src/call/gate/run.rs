//! How the work of a request runs: on a blocking thread, on the thread that it is on, or as a task that waits for others; always apart from the
//! caller, whose going away ends nothing.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use futures::FutureExt as _;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::{Gate, Pass};
use crate::{
    call::{Caller, Trail, conclude},
    error::{Failure, status_of},
    firewall::Firewall,
};

impl Gate {
    /// A unary call whose work is synchronous: it runs on a blocking thread, once a place is free.
    ///
    /// # Errors
    /// The status that the caller gets.
    pub async fn blocking<Req, Res, F>(
        &self,
        operation: &'static str,
        request: Request<Req>,
        work: F,
    ) -> Result<Response<Res>, Status>
    where
        F: FnOnce(&Caller, Req, &mut Trail) -> Result<Res, Failure> + Send + 'static,
        Req: Send + 'static,
        Res: Send + 'static,
    {
        self.detached(operation, request, |caller, message| async move {
            let span = tracing::Span::current();
            let work = move || span.in_scope(|| traced(|trail| work(&caller, message, trail)));
            let task = tokio::task::spawn_blocking(work).await;
            task.unwrap_or_else(|_| (Trail::default(), Err(lost())))
        })
        .await
    }

    /// As [`Gate::blocking`], for work of less than a tenth of a millisecond that waits for nothing but, seldom, a read of the disk: on the thread
    /// that it is on, as a change of threads would take longer.
    ///
    /// # Errors
    /// The status that the caller gets.
    pub async fn brief<Req, Res, F>(
        &self,
        operation: &'static str,
        request: Request<Req>,
        work: F,
    ) -> Result<Response<Res>, Status>
    where
        F: FnOnce(&Caller, Req, &mut Trail) -> Result<Res, Failure> + Send + 'static,
        Req: Send + 'static,
        Res: Send + 'static,
    {
        self.detached(operation, request, |caller, message| async move {
            traced(|trail| work(&caller, message, trail))
        })
        .await
    }

    /// A call whose work asks other services: it runs on a task of its own.
    ///
    /// # Errors
    /// The status that the caller gets.
    pub async fn flow<Req, Res, F, Fut>(
        &self,
        operation: &'static str,
        request: Request<Req>,
        work: F,
    ) -> Result<Response<Res>, Status>
    where
        F: FnOnce(Caller, Req, Trail) -> Fut + Send + 'static,
        Fut: Future<Output = (Trail, Result<Res, Failure>)> + Send,
        Req: Send + 'static,
        Res: Send + 'static,
    {
        self.detached(operation, request, |caller, message| async move {
            let work = async { work(Caller::clone(&caller), message, Trail::default()).await };
            let work = AssertUnwindSafe(work).catch_unwind().await;
            work.unwrap_or_else(|_| (Trail::default(), Err(panicked())))
        })
        .await
    }

    /// Lets a request in, and does and records the work on a task of its own: it goes on when the caller goes away.
    async fn detached<Req, Res, F, Fut>(
        &self,
        operation: &'static str,
        request: Request<Req>,
        work: F,
    ) -> Result<Response<Res>, Status>
    where
        F: FnOnce(Arc<Caller>, Req) -> Fut + Send + 'static,
        Fut: Future<Output = (Trail, Result<Res, Failure>)> + Send,
        Req: Send + 'static,
        Res: Send + 'static,
    {
        let Pass { caller, room, place } = self.pass(operation, &request).await?;
        let caller = Arc::new(caller);
        let message = request.into_inner();
        let (outbox, firewall) = (self.shared.outbox.clone(), self.firewall.clone());
        let asker = caller.clone();
        let work = async move {
            let _place = place;
            let (trail, result) = work(caller.clone(), message).await;
            report(firewall.as_ref(), &caller, &result);
            let result = conclude(&outbox, room, operation, Some(&caller), &trail, result).await;
            result.map_err(|failure| status_of(&failure, &caller.request_id))
        };
        let task = self.shared.tracker.spawn(work.in_current_span());
        let result = task.await;
        result
            .unwrap_or_else(|_| Err(status_of(&lost(), &asker.request_id)))
            .map(Response::new)
    }

    /// Synchronous work within a request that holds its place already; a panic fails this one request. It goes on when
    /// the request is dropped, and a shutdown waits for it.
    ///
    /// # Errors
    /// The work's own.
    pub async fn runtime_blocking<T, F>(&self, work: F) -> Result<T, Failure>
    where
        F: FnOnce() -> Result<T, Failure> + Send + 'static,
        T: Send + 'static,
    {
        let span = tracing::Span::current();
        let task = self
            .shared
            .tracker
            .spawn_blocking(move || span.in_scope(|| guarded(work)));
        task.await.unwrap_or_else(|_| Err(lost()))
    }
}

/// Tells the firewall when a caller's work was refused to it.
fn report<T>(firewall: Option<&Firewall>, caller: &Caller, result: &Result<T, Failure>) {
    if let (Some(firewall), Err(failure)) = (firewall, result) {
        firewall.ended(caller, failure);
    }
}

/// Runs work; a panic fails this one request.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked()))
}

/// Runs work, which fills in the trail.
fn traced<T>(work: impl FnOnce(&mut Trail) -> Result<T, Failure>) -> (Trail, Result<T, Failure>) {
    let mut trail = Trail::default();
    let result = guarded(|| work(&mut trail));
    (trail, result)
}

pub(super) fn lost() -> Failure {
    Failure::internal("a request's task was lost")
}

pub(in crate::call) fn panicked() -> Failure {
    Failure::internal("a request's work panicked")
}
