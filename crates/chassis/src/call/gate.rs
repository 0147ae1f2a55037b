//! The way in.

use std::{
    collections::HashMap,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use asterism_crypto::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{Caller, Trail, conclude};
use crate::{
    config::Limits,
    error::{ErrorClass, Failure, status_of},
    identity::{Authority, Principal, PrincipalId, Role, seconds, unauthenticated},
    outbox::Outbox,
    policy,
    server::{Deadline, MethodPath, TraceId},
};

/// Verified tokens that are remembered, so that a busy caller's HMAC is not checked at every request.
const REMEMBERED_TOKENS: usize = 1024;
const MAX_REQUEST_ID_BYTES: usize = 64;

/// One per service; cheap to clone.
#[derive(Clone)]
pub struct Gate {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    authority: Arc<Authority>,
    pub(super) outbox: Outbox,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue: usize,
    pub(super) tracker: TaskTracker,
    tokens: Mutex<HashMap<Digest, (Principal, u64)>>,
}

/// A request at the gate: what is known of its caller, and whether it may go on.
pub(super) struct Arrival {
    pub(super) caller: Caller,
    /// False when nobody knows who asks; the caller is then a placeholder.
    pub(super) known: bool,
    pub(super) verdict: Result<(), Failure>,
}

impl Gate {
    /// The gate of a service.
    pub fn new(authority: Arc<Authority>, outbox: Outbox, limits: &Limits) -> Self {
        Self {
            shared: Arc::new(Shared {
                authority,
                outbox,
                permits: Arc::new(Semaphore::new(limits.max_in_flight)),
                waiting: AtomicUsize::new(0),
                queue: limits.queue,
                tracker: TaskTracker::new(),
                tokens: Mutex::default(),
            }),
        }
    }

    /// Work that goes on without its caller; a shutdown waits for it.
    pub fn tracker(&self) -> TaskTracker {
        self.shared.tracker.clone()
    }

    /// Where events go.
    pub fn outbox(&self) -> &Outbox {
        &self.shared.outbox
    }

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
        let arrival = self.arrive(&request);
        let request_id = arrival.caller.request_id.clone();
        let permit = self.admit().await.map_err(|failure| status_of(&failure, &request_id))?;
        let message = request.into_inner();
        let outbox = self.shared.outbox.clone();
        let span = tracing::Span::current();
        let task = self.shared.tracker.spawn_blocking(move || {
            let _permit = permit;
            let _entered = span.enter();
            let Arrival { caller, known, verdict } = arrival;
            let mut trail = Trail::default();
            let result = verdict.and_then(|()| guarded(|| work(&caller, message, &mut trail)));
            let result = conclude(&outbox, operation, known.then_some(&caller), &trail, result);
            result.map_err(|failure| status_of(&failure, &caller.request_id))
        });
        match task.await {
            Ok(result) => result.map(Response::new),
            Err(_) => Err(status_of(&Failure::internal("a request's task was lost"), &request_id)),
        }
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
        let arrival = self.arrive(&request);
        let request_id = arrival.caller.request_id.clone();
        let permit = self.admit().await.map_err(|failure| status_of(&failure, &request_id))?;
        let message = request.into_inner();
        let gate = self.clone();
        let span = tracing::Span::current();
        let work = async move {
            let _permit = permit;
            let Arrival { caller, known, verdict } = arrival;
            let (trail, result) = match verdict {
                Ok(()) => work(caller.clone(), message, Trail::default()).await,
                Err(refusal) => (Trail::default(), Err(refusal)),
            };
            let caller = known.then_some(caller);
            gate.conclude(operation, caller, trail, result).await
        };
        let task = self.shared.tracker.spawn(tracing::Instrument::instrument(work, span));
        match task.await {
            Ok(result) => result.map(Response::new).map_err(|failure| status_of(&failure, &request_id)),
            Err(_) => Err(status_of(&Failure::internal("a request's task ended early"), &request_id)),
        }
    }

    pub(super) async fn conclude<T: Send + 'static>(
        &self,
        operation: &'static str,
        caller: Option<Caller>,
        trail: Trail,
        result: Result<T, Failure>,
    ) -> Result<T, Failure> {
        let outbox = self.shared.outbox.clone();
        let task = tokio::task::spawn_blocking(move || {
            conclude(&outbox, operation, caller.as_ref(), &trail, result)
        });
        task.await.unwrap_or_else(|_| Err(Failure::internal("the task that records an event was lost")))
    }

    /// Waits for a place; refuses when too many wait already.
    pub(super) async fn admit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let shared = &*self.shared;
        if let Ok(permit) = shared.permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let overloaded =
            || Failure::new(ErrorClass::Exhausted, "OVERLOADED", "too many requests at once; try again later");
        let _waiting = Waiting::enter(&shared.waiting, shared.queue).ok_or_else(overloaded)?;
        shared.permits.clone().acquire_owned().await.map_err(|_| overloaded())
    }

    /// Who asks, and may they.
    pub(super) fn arrive<T>(&self, request: &Request<T>) -> Arrival {
        let (metadata, extensions) = (request.metadata(), request.extensions());
        let method = extensions.get::<MethodPath>().map(|path| path.0.as_str()).unwrap_or_default();
        let mut caller = Caller {
            principal: Principal { id: PrincipalId::service("unknown"), roles: vec![] },
            on_behalf_of: None,
            request_id: request_id(metadata),
            trace_id: extensions.get::<TraceId>().map(|id| id.0.clone()).unwrap_or_default(),
            deadline: extensions.get::<Deadline>().map(|deadline| deadline.0),
        };
        let identified = self.identify(metadata, &mut caller);
        let known = identified.is_ok();
        let verdict = identified.and_then(|()| self.judge(&caller, method));
        Arrival { caller, known, verdict }
    }

    fn identify(&self, metadata: &MetadataMap, caller: &mut Caller) -> Result<(), Failure> {
        let missing = || unauthenticated("TOKEN_MISSING", "pass a token as `authorization: Bearer …`");
        let header = metadata.get("authorization").ok_or_else(missing)?.to_str().map_err(|_| missing())?;
        let token = header.strip_prefix("Bearer ").ok_or_else(missing)?;
        caller.principal = self.principal(token)?;
        if let Some(on_behalf_of) = metadata.get("x-asterism-on-behalf-of")
            && caller.principal.is(Role::Service)
        {
            let id = on_behalf_of.to_str().ok().and_then(|text| text.parse().ok());
            caller.on_behalf_of = Some(id.ok_or_else(|| {
                Failure::invalid("x-asterism-on-behalf-of", "must be a principal like user/alice")
            })?);
        }
        Ok(())
    }

    fn principal(&self, token: &str) -> Result<Principal, Failure> {
        let now = SystemTime::now();
        let digest = Digest::of(token.as_bytes());
        let mut tokens = self.shared.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((principal, expires)) = tokens.get(&digest)
            && *expires > seconds(now)
        {
            return Ok(principal.clone());
        }
        let (principal, expires) = self.shared.authority.verify_with_expiry(token, now)?;
        if tokens.len() >= REMEMBERED_TOKENS {
            tokens.clear();
        }
        tokens.insert(digest, (principal.clone(), expires));
        Ok(principal)
    }

    fn judge(&self, caller: &Caller, method: &str) -> Result<(), Failure> {
        let roles = policy::allowed_roles(method).unwrap_or_default();
        if !roles.iter().any(|role| caller.principal.is(*role)) {
            let text = "no role of yours may call this method; ask an administrator for one that may";
            return Err(Failure::new(ErrorClass::Denied, "POLICY_DENIED", text));
        }
        if caller.expired() {
            let text = "the deadline passed before the work began";
            return Err(Failure::new(ErrorClass::DeadlineExceeded, "DEADLINE_EXCEEDED", text));
        }
        if policy::reads_metadata(method) { Ok(()) } else { self.shared.outbox.check() }
    }
}

/// Runs work; a panic fails this one request.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Failure::internal("a request's work panicked")))
}

/// Counts those who wait, down again on drop.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let entered = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now < limit).then_some(now + 1));
        entered.ok().map(|_| Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The caller's own request id, if it is decent, or a fresh one.
fn request_id(metadata: &MetadataMap) -> String {
    metadata
        .get("x-request-id")
        .and_then(|id| id.to_str().ok())
        .filter(|id| (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()))
        .map_or_else(|| uuid::Uuid::now_v7().to_string(), ToOwned::to_owned)
}
