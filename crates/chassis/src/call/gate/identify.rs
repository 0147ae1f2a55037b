//! Who asks: reads the token of a request, and judges it.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError},
    time::SystemTime,
};

use asterism_crypto::Digest;
use tonic::metadata::MetadataMap;

use super::Gate;
use crate::{
    call::Caller,
    channel::{ChannelPeer, constrain},
    error::Failure,
    identity::{Authority, Principal, access::Access, seconds, unauthenticated},
};

/// Verified tokens that are remembered, so that a busy caller's signature is not checked at every request.
const REMEMBERED_TOKENS: usize = 1024;

/// A token that was verified: its signature need not be checked again.
#[derive(Clone)]
pub(super) enum Known {
    /// Of the authority key, until a second since 1970.
    Authority(Principal, u64),
    /// An access token. Whether it holds still is asked at every request.
    Access(Arc<Access>),
}

impl Gate {
    /// Reads and judges the token of a request.
    pub(super) fn identify(
        &self,
        metadata: &MetadataMap,
        caller: &Caller,
        peer: Option<&ChannelPeer>,
    ) -> Result<(Principal, Option<Arc<Access>>), Failure> {
        let missing = || unauthenticated("TOKEN_MISSING", "pass a token as `authorization: Bearer …`");
        let header = metadata
            .get("authorization")
            .ok_or_else(missing)?
            .to_str()
            .map_err(|_| missing())?;
        let token = header.strip_prefix("Bearer ").ok_or_else(missing)?;
        let (principal, access) = match self.known(token)? {
            Known::Authority(principal, _) => {
                self.check_authority_token(&principal, peer)?;
                (principal, None)
            }
            Known::Access(access) => {
                self.trust
                    .admit(&access, caller.channel_key.as_ref(), caller.network)?;
                (access.principal.clone(), Some(access))
            }
        };
        // A token that is bound to the key of a peer whom the directory of keys does not know is bound well enough.
        let bound = access.as_ref().is_some_and(|access| access.claims.cnf.is_some());
        let unknown = peer.is_some_and(|peer| peer.principal.is_none());
        if self.constrained && !(bound && unknown) {
            constrain(&principal, peer)?;
        }
        Ok((principal, access))
    }

    fn check_authority_token(
        &self,
        principal: &Principal,
        peer: Option<&ChannelPeer>,
    ) -> Result<(), Failure> {
        let own = peer.and_then(|peer| peer.principal.as_ref()) == Some(&principal.id);
        if self.takes_authority_tokens || (own && principal.id.is_service()) {
            return Ok(());
        }
        let text = "tokens of the authority key are not taken here; log in with `asterism login`";
        Err(unauthenticated("AUTHORITY_TOKEN_REFUSED", text))
    }

    /// Verifies a token, or remembers that it was.
    fn known(&self, token: &str) -> Result<Known, Failure> {
        let now = SystemTime::now();
        let digest = Digest::of(token.as_bytes());
        match self.tokens().get(&digest) {
            Some(Known::Authority(_, expires)) if *expires <= seconds(now) => {}
            Some(known) => return Ok(known.clone()),
            None => {}
        }
        let known = if Authority::made(token) {
            let (principal, expires) = self.shared.authority.verify_with_expiry(token, now)?;
            Known::Authority(principal, expires)
        } else {
            Known::Access(Arc::new(self.trust.verify(token)?))
        };
        let mut tokens = self.tokens();
        if tokens.len() >= REMEMBERED_TOKENS {
            tokens.clear();
        }
        tokens.insert(digest, known.clone());
        Ok(known)
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<Digest, Known>> {
        self.shared.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
