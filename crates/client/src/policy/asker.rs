//! Asks kms what its grants say, for the services that keep datasets and models.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use asterism_proto::policy as pb;

use super::Policy;
use crate::{connection::Connection, error::ClientError};

/// How long an answer is good, counted from before kms was asked: a change of grants counts everywhere after that.
pub const ANSWERS_HOLD_FOR: Duration = Duration::from_secs(2);
/// Most answers kept.
const MAX_ANSWERS: usize = 4096;
/// How long kms may take for an answer, tries included.
const DEADLINE: Duration = Duration::from_secs(5);

/// What kms is asked: may they do that?
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// Who calls.
    pub principal: String,
    /// With which roles.
    pub roles: Vec<&'static str>,
    /// What is to be done.
    pub verb: &'static str,
    /// To what: `datasets/{id}` or `models/{id}`.
    pub resource: String,
    /// Whose that is; kms does not know.
    pub owner: String,
    /// The address that the call comes from.
    pub network: Option<IpAddr>,
}

impl Question {
    fn request(&self) -> pb::CheckAccessRequest {
        pb::CheckAccessRequest {
            principal: self.principal.clone(),
            roles: self.roles.iter().map(|role| (*role).to_owned()).collect(),
            verb: self.verb.to_owned(),
            resource: self.resource.clone(),
            owner: self.owner.clone(),
            network: self.network.map(|address| address.to_string()),
        }
    }
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Allowed,
    /// It is refused, to somebody who may know of the resource.
    Denied,
    /// To who calls, the resource does not exist.
    Hidden,
}

/// Asks kms, and remembers each answer for [`ANSWERS_HOLD_FOR`].
pub struct Asker {
    connection: Connection,
    answers: Answers,
}

impl Asker {
    /// Over a connection to kms as the service, not on behalf of anybody.
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            answers: Answers::default(),
        }
    }

    /// What becomes of a call, which belongs to the trace `trace_id`.
    ///
    /// # Errors
    /// When kms gives no answer. The call must not pass then.
    pub async fn judge(&self, question: Question, trace_id: &str) -> Result<Verdict, ClientError> {
        let policy = Policy::new(self.connection.clone().in_trace(trace_id));
        let check = |request| {
            let policy = policy.clone();
            async move { policy.check(request).await }
        };
        let judged = self.answers.judge(question, Instant::now, check);
        match tokio::time::timeout(DEADLINE, judged).await {
            Ok(verdict) => verdict,
            Err(_) => Err(ClientError::Deadline {
                endpoint: self.connection.endpoint().to_owned(),
            }),
        }
    }
}

/// Answers of kms, and when each was asked for.
#[derive(Default)]
struct Answers {
    kept: Mutex<HashMap<Question, (bool, Instant)>>,
}

impl Answers {
    /// Who may not do it, and not even see that the resource is there, is told that it is not.
    async fn judge<F: Future<Output = Result<bool, ClientError>>>(
        &self,
        question: Question,
        now: impl Fn() -> Instant,
        check: impl Fn(pb::CheckAccessRequest) -> F,
    ) -> Result<Verdict, ClientError> {
        if self.allows(&question, &now, &check).await? {
            return Ok(Verdict::Allowed);
        }
        let sees = Question {
            verb: "get",
            ..question
        };
        Ok(if self.allows(&sees, &now, &check).await? {
            Verdict::Denied
        } else {
            Verdict::Hidden
        })
    }

    async fn allows<F: Future<Output = Result<bool, ClientError>>>(
        &self,
        question: &Question,
        now: &impl Fn() -> Instant,
        check: &impl Fn(pb::CheckAccessRequest) -> F,
    ) -> Result<bool, ClientError> {
        let asked = now();
        if let Some(allowed) = self.known(question, asked) {
            return Ok(allowed);
        }
        let allowed = check(question.request()).await?;
        self.keep(question.clone(), allowed, asked);
        Ok(allowed)
    }

    fn known(&self, question: &Question, now: Instant) -> Option<bool> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (allowed, asked) = kept.get(question)?;
        holds(*asked, now).then_some(*allowed)
    }

    /// Makes room by dropping what is too old; where that is little, by dropping all, so that a flood of questions costs
    /// little each.
    fn keep(&self, question: Question, allowed: bool, asked: Instant) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_ANSWERS {
            kept.retain(|_, (_, at)| holds(*at, asked));
            if kept.len() > MAX_ANSWERS / 2 {
                kept.clear();
            }
        }
        kept.insert(question, (allowed, asked));
    }
}

fn holds(asked: Instant, now: Instant) -> bool {
    now.saturating_duration_since(asked) < ANSWERS_HOLD_FOR
}

#[cfg(test)]
#[path = "asker/tests.rs"]
mod tests;
