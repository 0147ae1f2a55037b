//! Whether a call on a key passes.

use std::sync::Arc;

use asterism_chassis::{call::Caller, error::Failure, identity::PrincipalId};
use asterism_policy::{Decision, Request, Verb, allows, decide};

use crate::{
    error::KmsError,
    keys::{Key, KeyId, Keyring},
    policy::{Grants, PolicyError},
};

/// Whether a call on a key passes: asked anew for every call.
pub struct Access {
    /// What was granted.
    pub grants: Arc<Grants>,
    keyring: Arc<Keyring>,
}

impl Access {
    /// Over these grants and keys.
    pub fn new(grants: Arc<Grants>, keyring: Arc<Keyring>) -> Self {
        Self { grants, keyring }
    }

    /// The key, if the caller may do that to it with each of the given additional authenticated data. To who may not even see it, it
    /// does not exist: the answer and the work are those for a key that is not there, and only the event says that there is one.
    ///
    /// # Errors
    /// [`KmsError::KeyNotFound`]; [`PolicyError::Denied`] for who may see it.
    pub fn key(
        &self,
        caller: &Caller,
        id: &KeyId,
        verb: Verb,
        aads: &[&[u8]],
        now_ms: u64,
    ) -> Result<Arc<Key>, Failure> {
        let name = id.name();
        let key = match self.keyring.get(id) {
            Ok(key) => Some(key),
            Err(KmsError::KeyNotFound(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let owner = key.as_ref().map_or("", |key| key.owner.as_str());
        let index = self.grants.now();
        let may = |verb, aad| {
            let request = request(caller, verb, &name, Some(owner), aad, now_ms);
            allows(&request, index.about(&name))
        };
        let passes = match aads {
            [] => may(verb, None),
            aads => aads.iter().all(|aad| may(verb, Some(aad))),
        };
        let visible = passes || may(Verb::Get, None);
        match key {
            Some(key) if passes => Ok(key),
            Some(_) if visible => Err(PolicyError::Denied { verb, resource: name }.into()),
            Some(_) => {
                self.keyring.look_for(id)?;
                Err(hidden(name))
            }
            None => Err(KmsError::KeyNotFound(name).into()),
        }
    }

    /// Whether the caller may do that to a key that is there.
    pub fn may(&self, caller: &Caller, key: &Key, verb: Verb, now_ms: u64) -> bool {
        let name = key.id.name();
        let request = request(caller, verb, &name, Some(&key.owner), None, now_ms);
        allows(&request, self.grants.now().about(&name))
    }

    /// Whether the public half of a key is kept from the caller: others have it too, unless that is denied.
    pub fn hides_public_key(&self, caller: &Caller, key: &Key, now_ms: u64) -> bool {
        let (name, own) = (key.id.name(), caller.principal.id.as_str());
        let request = request(caller, Verb::Get, &name, Some(own), None, now_ms);
        !allows(&request, self.grants.now().about(&name))
    }

    /// Whether a call passes that is described rather than made.
    pub fn allows(&self, request: &Request<'_>) -> bool {
        allows(request, self.grants.now().about(request.resource))
    }

    /// As [`Access::allows`], with the reasons.
    pub fn explain(&self, request: &Request<'_>) -> Decision {
        decide(request, self.grants.now().about(request.resource))
    }

    /// The key of that name, for who decides about it.
    pub(super) fn key_named(&self, name: &str) -> Option<Arc<Key>> {
        self.keyring.get(&KeyId::from_name(name).ok()?).ok()
    }
}

/// The answer for a key that there is not, given about one that is hidden from the caller.
pub(crate) fn hidden(name: String) -> Failure {
    Failure::from(KmsError::KeyNotFound(name)).recorded_as_denial("KEY_HIDDEN")
}

/// The call of `caller`, as grants see it.
fn request<'a>(
    caller: &'a Caller,
    verb: Verb,
    resource: &'a str,
    owner: Option<&'a str>,
    aad: Option<&'a [u8]>,
    now_ms: u64,
) -> Request<'a> {
    let request = Request {
        principal: caller.principal.id.as_str(),
        on_behalf_of: caller.on_behalf_of.as_ref().map(PrincipalId::as_str),
        roles: &caller.principal.roles,
        verb,
        resource,
        owner,
        network: caller.network,
        aad,
        now_ms,
    };
    with_bound_owner(request)
}

/// A data key of a dataset is wrapped by a key of ingest's, for the dataset's owner, who is bound into it as additional authenticated
/// data. To unwrap that one data key, that owner counts as the owner of the key: with another name there, it does not unwrap.
pub(super) fn with_bound_owner(mut request: Request<'_>) -> Request<'_> {
    let of_a_service = request.owner.is_some_and(|owner| owner.starts_with("service/"));
    if request.verb == Verb::Decrypt
        && of_a_service
        && let Some(aad) = request.aad
        && bound_owner(aad) == Some(request.principal.as_bytes())
    {
        request.owner = Some(request.principal);
    }
    request
}

/// The owner in the context of a dataset, as `asterism_crypto::Context` writes it.
fn bound_owner(aad: &[u8]) -> Option<&[u8]> {
    let mut rest = aad;
    let mut part = || {
        let (len, after) = rest.split_first_chunk::<8>()?;
        let (bytes, after) = after.split_at_checked(usize::try_from(u64::from_be_bytes(*len)).ok()?)?;
        rest = after;
        Some(bytes)
    };
    let dataset = part()? == b"asterism/dataset/v1" && part()? == b"dataset" && !part()?.is_empty();
    let owner = (part()? == b"owner").then_some(part()?)?;
    (dataset && rest.is_empty()).then_some(owner)
}

#[cfg(test)]
mod tests {
    use asterism_crypto::Context;

    use super::*;

    #[test]
    fn only_the_exact_context_of_a_dataset_names_an_owner() {
        let context = |purpose: &str, field: &str| {
            Context::new(purpose)
                .field("dataset", "datasets/x")
                .field(field, "user/bob")
                .encode()
        };
        let good = context("asterism/dataset/v1", "owner");
        assert_eq!(bound_owner(&good), Some(b"user/bob".as_slice()));
        for bad in [
            context("asterism/model/v1", "owner"),
            context("asterism/dataset/v1", "reader"),
            [good.as_slice(), b"x"].concat(),
            good[..good.len() - 1].to_vec(),
            vec![0xff; 64],
            vec![],
        ] {
            assert_eq!(bound_owner(&bad), None);
        }
    }
}
