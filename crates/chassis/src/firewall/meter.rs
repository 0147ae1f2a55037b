//! Rates: the generic cell rate algorithm, one number for each who calls.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{Nanos, SECOND};

/// A rate and a burst, as times.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// Between two requests at the sustained rate; rounded up, so that never more pass.
    interval: Nanos,
    /// How far ahead of that rate somebody may be.
    tolerance: Nanos,
}

impl Limit {
    pub(super) fn new(per_second: f64, burst: u32) -> Self {
        // Within 10^3 and 10^11: the rates are checked.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive and small"
        )]
        let interval = (SECOND as f64 / per_second).ceil() as Nanos;
        Self {
            interval,
            tolerance: interval.saturating_mul(u64::from(burst.saturating_sub(1))),
        }
    }
}

/// What each one has used of its limit. Of bounded size: who has used nothing is forgotten first, then who has used least.
pub(super) struct Meters<K> {
    /// When the next request would be on time, were all sent at the sustained rate.
    due: Mutex<HashMap<K, Nanos>>,
    bound: usize,
}

impl<K: Hash + Eq + Clone> Meters<K> {
    pub(super) fn new(bound: usize) -> Self {
        Self {
            due: Mutex::default(),
            bound,
        }
    }

    /// Counts a request; the error is how long it has to wait.
    pub(super) fn take<Q>(&self, key: &Q, limit: &Limit, now: Nanos) -> Result<(), Duration>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(due) = due.get_mut(key) {
            // A clock that was set back, or a limit that was raised, must not lock anybody out for longer than the limit does.
            let latest = now.saturating_add(limit.tolerance).saturating_add(limit.interval);
            let at = (*due).clamp(now, latest);
            let ahead = at - now;
            if ahead > limit.tolerance {
                *due = at;
                return Err(Duration::from_nanos(ahead - limit.tolerance));
            }
            *due = at.saturating_add(limit.interval);
            return Ok(());
        }
        if due.len() >= self.bound {
            make_room(&mut due, now);
        }
        due.insert(key.to_owned(), now.saturating_add(limit.interval));
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Forgets who has used nothing.
    pub(super) fn tidy(&self, now: Nanos) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        due.retain(|_, due| *due > now);
    }
}

/// Frees an eighth at least, so that this happens seldom.
fn make_room<K: Hash + Eq>(due: &mut HashMap<K, Nanos>, now: Nanos) {
    let before = due.len();
    due.retain(|_, due| *due > now);
    let wanted = before - before / 8;
    if due.len() < wanted || before < 8 {
        return;
    }
    let mut times: Vec<Nanos> = due.values().copied().collect();
    let (_, threshold, _) = times.select_nth_unstable(before / 8);
    let threshold = *threshold;
    let mut left = due.len().saturating_sub(wanted).saturating_add(1);
    due.retain(|_, due| {
        let goes = *due <= threshold && left > 0;
        left -= usize::from(goes);
        !goes
    });
}
