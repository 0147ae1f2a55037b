//! Who may do what to which key, dataset or model: grants, and the decision with its reasons. Pure: no clock, no store.
//!
//! The order of things, in [`decide`]: an administrator may always administer the policy itself, so that nobody can lock everybody
//! out; then any grant that denies wins, over owners and administrators too; then come owners, what roles may, and grants that
//! allow; what nothing allows is refused. A condition that cannot be checked counts against the caller: it holds for a denial and
//! fails for an allowance.
#![cfg_attr(test, allow(clippy::panic, clippy::unwrap_used))]

mod conditions;
mod decide;
mod names;
mod verb;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use conditions::{AadRule, Conditions, MAX_AAD_BYTES, MAX_NETWORKS};
pub use decide::{Decision, Request, Step, Weight, allows, decide};
pub use ipnet::IpNet;
pub use names::{Pattern, Subject};
pub use verb::Verb;

/// Bytes of a comment.
pub const MAX_COMMENT_BYTES: usize = 256;

/// What of a grant cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {description}")]
pub struct GrantError {
    /// Path of the field.
    pub field: &'static str,
    /// What would be right.
    pub description: &'static str,
}

impl GrantError {
    fn new(field: &'static str, description: &'static str) -> Self {
        Self { field, description }
    }
}

/// What a grant does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Adds to what the subject may.
    Allow,
    /// Takes away, whatever else allows it.
    Deny,
}

/// Who may, or may not, do what to which resource, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Its id.
    pub id: String,
    /// Whether it gives or takes.
    pub effect: Effect,
    /// Whom it is about.
    pub subject: Subject,
    /// What it is about.
    pub resource: Pattern,
    /// Acts it is about; not empty.
    pub verbs: BTreeSet<Verb>,
    /// When it counts; all must hold.
    #[serde(default)]
    pub conditions: Conditions,
    /// For people.
    #[serde(default)]
    pub comment: String,
}

impl Grant {
    /// Whether the grant makes sense.
    ///
    /// # Errors
    /// The first field that does not.
    pub fn check(&self) -> Result<(), GrantError> {
        if self.verbs.is_empty() {
            return Err(GrantError::new("verbs", "must name at least one"));
        }
        let fits = |verb: &Verb| verb.fits(self.resource.collection());
        if !self.verbs.iter().all(fits) {
            return Err(GrantError::new(
                "verbs",
                "one of them is not for resources of this kind",
            ));
        }
        if self.comment.len() > MAX_COMMENT_BYTES || self.comment.chars().any(char::is_control) {
            return Err(GrantError::new(
                "comment",
                "must be at most 256 bytes on one line",
            ));
        }
        self.conditions.check()
    }
}

#[cfg(test)]
mod tests;
