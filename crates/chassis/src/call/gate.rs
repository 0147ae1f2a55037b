//! The way in.

mod identify;
mod run;
mod seal;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use asterism_crypto::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use tonic::{Request, Status, metadata::MetadataMap, transport::server::TcpConnectInfo};
use tracing::Instrument as _;

use identify::Known;
use run::lost;
pub(super) use run::panicked;
use seal::Seal;

use super::{Caller, Trail, conclude};
use crate::{
    channel::ChannelPeer,
    config::Limits,
    error::{ErrorClass, Failure, status_of},
    firewall::{Cause, Firewall, Passage},
    identity::{Authority, Principal, PrincipalId, Role, Trust},
    outbox::{Outbox, Room},
    policy,
    server::{Deadline, MethodPath, TraceId},
};

const MAX_REQUEST_ID_BYTES: usize = 64;

/// One per service; cheap to clone.
#[derive(Clone)]
pub struct Gate {
    pub(super) shared: Arc<Shared>,
    /// Whether tokens are bound to the channel that they come through.
    constrained: bool,
    /// Judges access tokens.
    pub(super) trust: Arc<Trust>,
    /// Whether tokens of the authority key are good for others than services over their own channel.
    takes_authority_tokens: bool,
    firewall: Option<Firewall>,
    seal: Option<Seal>,
}

pub(super) struct Shared {
    authority: Arc<Authority>,
    pub(super) outbox: Outbox,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue: usize,
    pub(super) tracker: TaskTracker,
    tokens: Mutex<HashMap<Digest, Known>>,
}

/// A request at the gate: what is known of its caller, and whether it may go on.
struct Arrival {
    caller: Caller,
    /// False when nobody knows who asks; the caller is then a placeholder.
    known: bool,
    verdict: Result<(), Failure>,
    /// The firewall refused and has told so, or the service is sealed: no event of its own, no place.
    turned_away: bool,
}

/// What a request holds that goes on.
pub(super) struct Pass {
    pub(super) caller: Caller,
    /// For its event; none for a read of metadata, which needs no event when it succeeds.
    pub(super) room: Option<Room>,
    pub(super) place: OwnedSemaphorePermit,
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
            constrained: false,
            trust: Arc::new(Trust::new("", Duration::ZERO)),
            takes_authority_tokens: true,
            firewall: None,
            seal: None,
        }
    }

    /// Has access tokens judged by `trust`; without it none is taken.
    #[must_use]
    pub fn trusting(mut self, trust: Arc<Trust>) -> Self {
        self.trust = trust;
        self
    }

    /// Whether tokens of the authority key are good for people too, or only for services over the channel of their own key.
    #[must_use]
    pub fn taking_authority_tokens(mut self, taken: bool) -> Self {
        self.takes_authority_tokens = taken;
        self
    }

    /// The gate of a service that is reached over the channel: tokens of services are good only over a channel with that
    /// service's key at its other end.
    #[must_use]
    pub fn sender_constrained(mut self, constrained: bool) -> Self {
        self.constrained = constrained;
        self
    }

    /// Holds every call against the rules of `firewall`, and tells it what fails.
    #[must_use]
    pub fn behind(mut self, firewall: Firewall) -> Self {
        self.firewall = Some(firewall);
        self
    }

    /// Work that goes on without its caller; a shutdown waits for it.
    pub fn tracker(&self) -> TaskTracker {
        self.shared.tracker.clone()
    }

    /// Where events go.
    pub fn outbox(&self) -> &Outbox {
        &self.shared.outbox
    }

    /// Only authenticates and authorises: for a call that is composed by hand, which then has neither a place nor room for
    /// its event. A refusal is recorded.
    ///
    /// # Errors
    /// The status that the caller gets.
    pub fn enter<T>(&self, operation: &'static str, request: &Request<T>) -> Result<Caller, Status> {
        let Arrival {
            caller,
            known,
            verdict,
            turned_away,
        } = self.arrive(request);
        match verdict {
            Ok(()) => Ok(caller),
            Err(refusal) if turned_away => Err(status_of(&refusal, &caller.request_id)),
            Err(refusal) => {
                let event = Trail::default().event(operation, known.then_some(&caller), Some(&refusal));
                self.shared.outbox.note(event);
                Err(status_of(&refusal, &caller.request_id))
            }
        }
    }

    /// Records how an operation that is composed by hand ended, durably.
    ///
    /// # Errors
    /// `AUDIT_UNAVAILABLE`: its result must not be released then.
    pub async fn record(
        &self,
        operation: &'static str,
        caller: &Caller,
        trail: &Trail,
        outcome: Result<(), &Failure>,
    ) -> Result<(), Failure> {
        self.shared
            .outbox
            .record_async(trail.event(operation, Some(caller), outcome.err()))
            .await
    }

    /// Lets a request in: known, allowed, in time, with a place and with room for its event. Refusals are recorded, except
    /// for want of a place, when nothing was attempted.
    pub(super) async fn pass<T>(
        &self,
        operation: &'static str,
        request: &Request<T>,
    ) -> Result<Pass, Status> {
        let Arrival {
            caller,
            known,
            verdict,
            turned_away,
        } = self.arrive(request);
        let request_id = caller.request_id.clone();
        let status = |failure: Failure| status_of(&failure, &request_id);
        if !known {
            // Strangers take no place and no time of the store's.
            let failure = verdict
                .err()
                .unwrap_or_else(|| Failure::internal("a stranger was let in"));
            if !turned_away {
                self.shared
                    .outbox
                    .note(Trail::default().event(operation, None, Some(&failure)));
            }
            return Err(status(failure));
        }
        if turned_away && let Err(refusal) = verdict {
            return Err(status(refusal));
        }
        let place = self.admit().await.map_err(status)?;
        let verdict = verdict
            .and_then(|()| in_time(&caller))
            .and_then(|()| self.room(request));
        match verdict {
            Ok(room) => Ok(Pass { caller, room, place }),
            Err(refusal) => {
                let refused: Result<(), _> = self
                    .conclude(None, operation, Some(caller), Trail::default(), Err(refusal))
                    .await;
                Err(status(
                    refused
                        .err()
                        .unwrap_or_else(|| Failure::internal("a refusal was lost")),
                ))
            }
        }
    }

    /// Room for the event of an operation; reads of metadata go on without.
    fn room<T>(&self, request: &Request<T>) -> Result<Option<Room>, Failure> {
        if policy::reads_metadata(method(request)) {
            return Ok(None);
        }
        self.shared.outbox.reserve().map(Some)
    }

    pub(super) async fn conclude<T: Send + 'static>(
        &self,
        room: Option<Room>,
        operation: &'static str,
        caller: Option<Caller>,
        trail: Trail,
        result: Result<T, Failure>,
    ) -> Result<T, Failure> {
        let outbox = self.shared.outbox.clone();
        let concluding =
            async move { conclude(&outbox, room, operation, caller.as_ref(), &trail, result).await };
        let task = self.shared.tracker.spawn(concluding.in_current_span());
        task.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Waits for a place; refuses when too many wait already.
    async fn admit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let shared = &*self.shared;
        if let Ok(permit) = shared.permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let overloaded = || {
            Failure::new(
                ErrorClass::Exhausted,
                "OVERLOADED",
                "too many requests at once; try again later",
            )
        };
        let _waiting = Waiting::enter(&shared.waiting, shared.queue).ok_or_else(overloaded)?;
        shared
            .permits
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| overloaded())
    }

    /// Who asks, and may they.
    fn arrive<T>(&self, request: &Request<T>) -> Arrival {
        let (metadata, extensions) = (request.metadata(), request.extensions());
        let mut caller = Caller {
            principal: Principal {
                id: PrincipalId::service("unknown"),
                roles: vec![],
            },
            on_behalf_of: None,
            request_id: request_id(metadata),
            trace_id: extensions
                .get::<TraceId>()
                .map(|id| id.0.clone())
                .unwrap_or_default(),
            deadline: extensions.get::<Deadline>().map(|deadline| deadline.0),
            network: extensions.get::<TcpConnectInfo>().and_then(address_of),
            channel_key: extensions.get::<ChannelPeer>().map(|peer| peer.key),
            access: None,
        };
        let turned_away = |caller, known, refusal| Arrival {
            caller,
            known,
            verdict: Err(refusal),
            turned_away: true,
        };
        // Before anybody looks at the token.
        let passage = match self.passage(&caller) {
            Ok(passage) => passage,
            Err(refusal) => return turned_away(caller, false, refusal),
        };
        let sealed = match self.answers(method(request)) {
            Ok(sealed) => sealed,
            Err(refusal) => return turned_away(caller, false, refusal),
        };
        // While sealed nobody can say which tokens hold: what needs none is answered to who sends one, too.
        let open = policy::is_open(method(request)) && (sealed || !metadata.contains_key("authorization"));
        if open {
            caller.principal.id = PrincipalId::anonymous();
        } else {
            match self.identify(metadata, &caller, extensions.get()) {
                Err(stranger) => {
                    self.failed(&caller, Cause::Authentication);
                    return Arrival {
                        caller,
                        known: false,
                        verdict: Err(stranger),
                        turned_away: false,
                    };
                }
                Ok((principal, access)) => (caller.principal, caller.access) = (principal, access),
            }
        }
        if let Some(firewall) = &self.firewall
            && let Err(refusal) = firewall.admits_principal(&caller.principal, passage)
        {
            return turned_away(caller, true, refusal);
        }
        let verdict = if open {
            Ok(())
        } else {
            let whom = on_behalf_of(metadata, &caller.principal).map(|id| caller.on_behalf_of = id);
            let verdict = judge(&caller, method(request));
            if verdict.is_err() && !caller.principal.is(Role::Service) {
                self.failed(&caller, Cause::Denial);
            }
            verdict.and(whom)
        };
        Arrival {
            caller,
            known: true,
            verdict,
            turned_away: false,
        }
    }

    fn passage(&self, caller: &Caller) -> Result<Passage, Failure> {
        match &self.firewall {
            Some(firewall) => firewall.admits_network(caller.network),
            None => Ok(Passage::Allowed),
        }
    }

    fn failed(&self, caller: &Caller, cause: Cause) {
        if let (Some(firewall), Some(address)) = (&self.firewall, caller.network) {
            firewall.failed(address, cause);
        }
    }
}

/// `package.Service/Method`; empty, and so allowed to nobody, without the server's layer.
fn method<T>(request: &Request<T>) -> &str {
    request
        .extensions()
        .get::<MethodPath>()
        .map(|path| path.0.as_str())
        .unwrap_or_default()
}

fn address_of(tcp: &TcpConnectInfo) -> Option<IpAddr> {
    tcp.remote_addr().map(|address| address.ip().to_canonical())
}

fn judge(caller: &Caller, method: &str) -> Result<(), Failure> {
    if policy::is_open(method) {
        return Ok(());
    }
    let roles = policy::allowed_roles(method).unwrap_or_default();
    if roles.iter().any(|role| caller.principal.is(*role)) {
        return Ok(());
    }
    let text = "no role of yours may call this method; ask an administrator for one that may";
    Err(Failure::new(ErrorClass::Denied, "POLICY_DENIED", text))
}

/// For whom a service acts. Others act for themselves, whatever they say.
fn on_behalf_of(metadata: &MetadataMap, principal: &Principal) -> Result<Option<PrincipalId>, Failure> {
    const HEADER: &str = "x-asterism-on-behalf-of";
    let Some(value) = metadata.get(HEADER).filter(|_| principal.is(Role::Service)) else {
        return Ok(None);
    };
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    id.map(Some)
        .ok_or_else(|| Failure::invalid(HEADER, "must be a principal like user/alice"))
}

/// Refuses what nobody waits for any more.
fn in_time(caller: &Caller) -> Result<(), Failure> {
    if caller.expired() {
        let text = "the deadline passed before the work began";
        return Err(Failure::new(
            ErrorClass::DeadlineExceeded,
            "DEADLINE_EXCEEDED",
            text,
        ));
    }
    Ok(())
}

/// Counts those who wait, down again on drop.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let entered = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
            (now < limit).then_some(now + 1)
        });
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
        .filter(|id| {
            (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
        })
        .map_or_else(|| uuid::Uuid::now_v7().to_string(), ToOwned::to_owned)
}
