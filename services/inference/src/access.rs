//! Whether a caller may do that to a model or a dataset: kms decides, by its grants and whose it is.

use asterism_chassis::{call::Caller, identity::Role};
use asterism_client::{Asker, Connection, Question, Verdict};
use asterism_policy::Verb;

use crate::error::InferenceError;

/// Asks kms for each call.
pub(crate) struct Access {
    asker: Asker,
}

impl Access {
    pub(crate) fn new(kms: Connection) -> Self {
        Self {
            asker: Asker::new(kms),
        }
    }

    /// Whether the caller may do that to `resource`, which is `owner`'s; `false` when it does not exist for them. A service
    /// acts for somebody, and has asked about them by what they want before it calls: it passes.
    ///
    /// # Errors
    /// [`InferenceError::Denied`] for who may see it; [`InferenceError::PolicyUnavailable`] when kms gives no answer.
    pub(crate) async fn may(
        &self,
        caller: &Caller,
        verb: Verb,
        resource: String,
        owner: &str,
    ) -> Result<bool, InferenceError> {
        if caller.principal.is(Role::Service) {
            return Ok(true);
        }
        let question = Question {
            principal: caller.principal.id.to_string(),
            roles: caller.principal.roles.iter().map(|role| role.name()).collect(),
            verb: verb.as_str(),
            resource: resource.clone(),
            owner: owner.to_owned(),
            network: caller.network,
        };
        match self.asker.judge(question, &caller.trace_id).await {
            Ok(Verdict::Allowed) => Ok(true),
            Ok(Verdict::Hidden) => Ok(false),
            Ok(Verdict::Denied) => Err(InferenceError::Denied { verb, resource }),
            Err(error) => {
                tracing::warn!(%error, "kms does not say who may do what");
                Err(InferenceError::PolicyUnavailable(Box::new(error)))
            }
        }
    }
}
