//! What a service knows of access tokens: the keys that sign them, what is refused, and when it last heard of it.
//!
//! kms governs it; the others follow (`follow.rs`). The rule: who has heard nothing for longer than the bound refuses every access token, since it
//! might be one that was revoked meanwhile. Tokens are judged by the clock of kms as it was last heard, so that this machine's may be wrong.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use asterism_channel::PublicKey;
use asterism_crypto::{VerifyingKey, jws::Unverified};
use tokio::sync::watch;

use super::{
    access::{Access, invalid},
    unauthenticated,
};
use crate::error::{ErrorClass, Failure};

/// Milliseconds since 1970.
type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What there is to know, at one moment.
#[derive(Clone, Debug, Default)]
pub struct TrustView {
    /// Goes up with every change.
    pub revision: u64,
    /// Keys that sign tokens, by the name that tokens call them.
    pub keys: HashMap<String, VerifyingKey>,
    /// Tokens and sessions that are refused.
    pub revoked: HashSet<String>,
    /// Of these principals, tokens of lower generations are refused.
    pub cuts: HashMap<String, u64>,
}

/// Judges access tokens for one service.
pub struct Trust {
    service: &'static str,
    bound: Duration,
    state: RwLock<State>,
    changes: watch::Sender<u64>,
}

struct State {
    view: Arc<TrustView>,
    word: Word,
}

/// When kms was last heard.
enum Word {
    Never,
    At {
        instant: Instant,
        now_ms: u64,
    },
    /// This is kms.
    Own(Clock),
}

impl Trust {
    /// Nothing known yet; refuses access tokens after `bound` without a word.
    pub fn new(service: &'static str, bound: Duration) -> Self {
        Self {
            service,
            bound,
            state: RwLock::new(State {
                view: Arc::default(),
                word: Word::Never,
            }),
            changes: watch::Sender::new(0),
        }
    }

    /// This service says what holds, and by which clock.
    pub fn govern(&self, clock: Clock) {
        self.change(|state| state.word = Word::Own(clock));
    }

    /// Nobody says any more what holds: every access token is refused from now on, as when kms is not heard.
    pub fn withdraw(&self) {
        self.change(|state| state.word = Word::Never);
        self.changes.send_modify(|_| ());
    }

    /// What holds from now on.
    pub fn replace(&self, view: TrustView) {
        let revision = view.revision;
        self.change(|state| state.view = Arc::new(view));
        self.changes.send_replace(revision);
    }

    /// A word of kms: what holds if that has changed, and what time it is there.
    pub fn hear(&self, view: Option<TrustView>, now_ms: u64, instant: Instant) {
        self.change(|state| state.word = Word::At { instant, now_ms });
        if let Some(view) = view {
            self.replace(view);
        }
    }

    /// What holds now.
    pub fn view(&self) -> Arc<TrustView> {
        self.read(|state| state.view.clone())
    }

    /// Revisions, as they change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Checks form, signature, issuer and audience of a token.
    ///
    /// # Errors
    /// `TOKEN_INVALID`, `TOKEN_AUDIENCE`, `TRUST_STALE`.
    pub fn verify(&self, token: &str) -> Result<Access, Failure> {
        let parsed = Unverified::parse(token).map_err(|_| invalid())?;
        let view = self.fresh(Instant::now())?.0;
        let kid = parsed.kid().to_owned();
        let key = view.keys.get(&kid).ok_or_else(invalid)?;
        let payload = parsed.verify(key).map_err(|_| invalid())?;
        Access::read(&payload, &kid, self.service)
    }

    /// Whether a token is good now, and from there.
    ///
    /// # Errors
    /// `TOKEN_EXPIRED`, `TOKEN_NOT_YET_VALID`, `CHANNEL_MISMATCH`, and as [`Trust::still_holds`].
    pub fn admit(
        &self,
        access: &Access,
        key: Option<&PublicKey>,
        network: Option<IpAddr>,
    ) -> Result<(), Failure> {
        let now = Instant::now();
        self.holds_at(access, now)?;
        let (_, now_ms) = self.fresh(now)?;
        access.in_time(now_ms / 1000)?;
        access.by_its_sender(key, network)
    }

    /// Whether a token was not revoked, whatever its time: for what goes on after it was let in.
    ///
    /// # Errors
    /// `TOKEN_REVOKED`, `TOKEN_INVALID` when its key is gone, `TRUST_STALE`.
    pub fn still_holds(&self, access: &Access) -> Result<(), Failure> {
        self.holds_at(access, Instant::now())
    }

    fn holds_at(&self, access: &Access, now: Instant) -> Result<(), Failure> {
        let (view, _) = self.fresh(now)?;
        let claims = &access.claims;
        let cut = view.cuts.get(&claims.sub).copied().unwrap_or(0);
        if claims.generation < cut || view.revoked.contains(&claims.jti) || view.revoked.contains(&claims.sid)
        {
            return Err(unauthenticated(
                "TOKEN_REVOKED",
                "the token was revoked; log in again",
            ));
        }
        if view.keys.contains_key(&access.kid) {
            Ok(())
        } else {
            Err(invalid())
        }
    }

    /// What holds, and the time at kms in milliseconds.
    fn fresh(&self, now: Instant) -> Result<(Arc<TrustView>, u64), Failure> {
        self.read(|state| {
            let now_ms = match &state.word {
                Word::Own(clock) => Some(clock()),
                Word::At { instant, now_ms } => {
                    let since = now.saturating_duration_since(*instant);
                    (since <= self.bound).then(|| now_ms.saturating_add(since.as_millis() as u64))
                }
                Word::Never => None,
            };
            now_ms
                .map(|now_ms| (state.view.clone(), now_ms))
                .ok_or_else(stale)
        })
    }

    fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }
}

fn stale() -> Failure {
    Failure::new(
        ErrorClass::Unavailable,
        "TRUST_STALE",
        "this service has not heard from kms which tokens hold; try again when kms is reachable from here",
    )
}

#[cfg(test)]
mod tests;
