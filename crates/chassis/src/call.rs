//! One way through which every request goes: who asks, may they, is there room, do the work, record it, answer.
//!
//! The rule: the result of an operation leaves only after its event is durable in the [`Outbox`]; a refusal or a failure
//! is an event too. The work runs detached from the caller: when the caller goes away, it ends and is recorded all the same.

mod gate;
mod stream;

use std::{borrow::Cow, net::IpAddr, sync::Arc, time::Instant};

use asterism_channel::PublicKey;
use asterism_crypto::Digest;

pub use gate::Gate;
pub use stream::{Emitter, ReplyStream};

use crate::{
    error::{ErrorClass, Failure},
    identity::{Principal, PrincipalId, Role, access::Access},
    outbox::{AuditEvent, Outbox, Outcome, Room},
};

/// Who asks, and for how long.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The authenticated principal.
    pub principal: Principal,
    /// For whom, when a service acts for somebody.
    pub on_behalf_of: Option<PrincipalId>,
    /// Of this request.
    pub request_id: String,
    /// W3C trace id, 32 hex digits.
    pub trace_id: String,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// The address that the call comes from.
    pub network: Option<IpAddr>,
    /// The static key at the other end of the channel, if the call comes over it.
    pub channel_key: Option<PublicKey>,
    /// The access token that proves who asks; none for tokens of the authority key, and for methods that need no token.
    pub access: Option<Arc<Access>>,
}

impl Caller {
    /// Whose the things are that this request makes.
    pub fn owner(&self) -> &PrincipalId {
        self.on_behalf_of.as_ref().unwrap_or(&self.principal.id)
    }

    /// Whether this caller may touch what belongs to `owner`: its owner, an administrator, or a service (which has to
    /// check for whom it acts).
    pub fn may_access(&self, owner: &str) -> bool {
        self.owner().as_str() == owner || self.principal.is(Role::Admin) || self.principal.is(Role::Service)
    }

    /// Whether nobody waits any more.
    pub fn expired(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }
}

/// What the event of a request will say besides who and when. Filled in by the work.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    resource: String,
    key_version: u32,
    input: Option<Digest>,
    output: Option<Digest>,
    silent: bool,
    remark: &'static str,
    items: Option<(u32, u32)>,
}

impl Trail {
    /// What the operation is about.
    pub fn resource(&mut self, resource: impl Into<String>) -> &mut Self {
        self.resource = resource.into();
        self
    }

    /// The version of the key that was used.
    pub fn key_version(&mut self, version: u32) -> &mut Self {
        self.key_version = version;
        self
    }

    /// Digests what went in. Not for guessable secrets: a digest of those gives them away.
    pub fn input(&mut self, bytes: &[u8]) -> &mut Self {
        self.input_digest(Digest::of(bytes))
    }

    /// What went in, digested elsewhere.
    pub fn input_digest(&mut self, digest: Digest) -> &mut Self {
        self.input = Some(digest);
        self
    }

    /// Digests what came out. Not for guessable secrets.
    pub fn output(&mut self, bytes: &[u8]) -> &mut Self {
        self.output_digest(Digest::of(bytes))
    }

    /// What came out, digested elsewhere.
    pub fn output_digest(&mut self, digest: Digest) -> &mut Self {
        self.output = Some(digest);
        self
    }

    /// Success needs no event: for reads of metadata, and for the parts of a larger operation. Failures always have one.
    pub fn silent(&mut self) -> &mut Self {
        self.silent = true;
        self
    }

    /// What a success has to say for itself, as a reason in upper case: that a compromised key was used, for one.
    pub fn remark(&mut self, reason: &'static str) -> &mut Self {
        self.remark = reason;
        self
    }

    /// Of the items of a batch, how many succeeded and how many failed: said in the event, which is one of a failure when any failed.
    pub fn items(&mut self, succeeded: u32, failed: u32) -> &mut Self {
        self.items = Some((succeeded, failed));
        self
    }

    /// What is said of a success.
    fn remarks(&self) -> Cow<'static, str> {
        match self.items {
            None => self.remark.into(),
            Some((succeeded, failed)) => {
                let counts = format!("BATCH succeeded={succeeded} failed={failed}");
                format!("{} {counts}", self.remark).trim_start().to_owned().into()
            }
        }
    }

    fn event(
        &self,
        operation: &'static str,
        caller: Option<&Caller>,
        failure: Option<&Failure>,
    ) -> AuditEvent {
        let recorded = failure.map(Failure::recorded);
        AuditEvent {
            occurred_at: std::time::SystemTime::now(),
            principal: caller.map(|c| c.principal.id.to_string()).unwrap_or_default(),
            on_behalf_of: caller
                .and_then(|c| c.on_behalf_of.as_ref())
                .map(ToString::to_string)
                .unwrap_or_default(),
            operation,
            resource: self.resource.clone(),
            key_version: self.key_version,
            outcome: match recorded.map(|(class, _)| class) {
                None if self.items.is_some_and(|(_, failed)| failed > 0) => Outcome::Failed,
                None => Outcome::Succeeded,
                Some(ErrorClass::Denied | ErrorClass::Unauthenticated) => Outcome::Denied,
                Some(_) => Outcome::Failed,
            },
            reason: recorded.map_or_else(|| self.remarks(), |(_, reason)| reason.into()),
            request_id: caller.map(|c| c.request_id.clone()).unwrap_or_default(),
            trace_id: caller.map(|c| c.trace_id.clone()).unwrap_or_default(),
            token_id: caller
                .and_then(|c| c.access.as_ref())
                .map(|access| access.claims.jti.clone())
                .unwrap_or_default(),
            network: caller
                .and_then(|c| c.network)
                .map(|address| address.to_string())
                .unwrap_or_default(),
            input: self.input,
            output: self.output,
        }
    }
}

/// Records how an operation ended, in the room that was taken for it. A failure stays what it is even when it cannot be
/// recorded: it releases nothing. For a task that is not dropped halfway.
async fn conclude<T>(
    outbox: &Outbox,
    room: Option<Room>,
    operation: &'static str,
    caller: Option<&Caller>,
    trail: &Trail,
    result: Result<T, Failure>,
) -> Result<T, Failure> {
    if result.is_ok() && trail.silent {
        return result;
    }
    let event = trail.event(operation, caller, result.as_ref().err());
    let room = match room {
        Some(room) => Ok(room),
        None => outbox.reserve(),
    };
    let recorded = match room {
        Ok(room) => room.record_async(event).await,
        Err(full) => Err(full),
    };
    match (recorded, result) {
        (Err(unrecorded), Ok(_)) => Err(unrecorded),
        (Err(_), Err(failure)) => {
            tracing::warn!(
                operation,
                reason = failure.reason(),
                "a failure could not be recorded"
            );
            Err(failure)
        }
        (Ok(()), result) => result,
    }
}

#[cfg(test)]
mod tests;
