//! Who may do what: grants as they are kept, what is asked of them at every call, and approvals by other people.
//!
//! The decision itself is in `asterism_policy`; here are its inputs. Grants are read from memory; a change is durable before it counts.

mod access;
mod approvals;
mod error;
mod grants;
mod service;
mod wire;

use std::sync::Arc;

use asterism_store::Records;

pub use access::Access;
pub(crate) use access::hidden;
pub(crate) use approvals::MAX_REQUIRED;
pub use approvals::{Approval, ApprovalState, Approvals, Asked};
pub use error::PolicyError;
pub use grants::{Grants, Held};
pub(crate) use service::PolicyAdapter;

use crate::keys::Keyring;

/// What decides about calls.
#[derive(Clone)]
pub struct Policy {
    /// Whether a call passes.
    pub access: Arc<Access>,
    /// What other people have to say yes to.
    pub approvals: Arc<Approvals>,
}

impl Policy {
    /// Reads grants and approvals.
    ///
    /// # Errors
    /// [`PolicyError::Damaged`] when a record cannot be read: without all of them nobody knows what is denied.
    pub fn open(records: &Arc<dyn Records>, keyring: Arc<Keyring>) -> Result<Self, PolicyError> {
        let grants = Arc::new(Grants::open(records.clone())?);
        Ok(Self {
            access: Arc::new(Access::new(grants, keyring)),
            approvals: Arc::new(Approvals::open(records.clone())?),
        })
    }
}

/// Reads all records under `prefix`, in order.
fn each(
    records: &dyn Records,
    prefix: &[u8],
    mut see: impl FnMut(&[u8], &[u8]) -> Result<(), PolicyError>,
) -> Result<(), PolicyError> {
    const PAGE: usize = 256;
    let mut from = prefix.to_vec();
    loop {
        let page = records.scan(&from, prefix, PAGE)?;
        for (at, stored) in &page {
            see(at, stored)?;
        }
        match page.into_iter().next_back() {
            Some((at, _)) => from = [at.as_slice(), &[0]].concat(),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
