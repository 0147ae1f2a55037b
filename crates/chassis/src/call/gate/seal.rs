//! A service that cannot work before somebody opens it.

use tokio::sync::watch;

use super::Gate;
use crate::error::{ErrorClass, Failure};

/// Whether the service is open, and what it answers if not.
#[derive(Clone)]
pub(super) struct Seal {
    unsealed: watch::Receiver<bool>,
    exempt: &'static [&'static str],
}

impl Gate {
    /// Refuses every method but `exempt`, each `package.Service/Method`, while `unsealed` is false: before anybody asks who calls,
    /// and without an event, since nothing was attempted.
    #[must_use]
    pub fn sealed_unless(mut self, unsealed: watch::Receiver<bool>, exempt: &'static [&'static str]) -> Self {
        self.seal = Some(Seal { unsealed, exempt });
        self
    }

    /// Whether the service is sealed, for a method that is answered all the same.
    pub(super) fn answers(&self, method: &str) -> Result<bool, Failure> {
        let Some(seal) = &self.seal else { return Ok(false) };
        let sealed = !*seal.unsealed.borrow();
        if !sealed || seal.exempt.contains(&method) {
            return Ok(sealed);
        }
        let text = "the service is sealed; unseal it with `asterism kms unseal`";
        Err(Failure::new(ErrorClass::Precondition, "SEALED", text))
    }
}
