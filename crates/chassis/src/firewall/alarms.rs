//! What the log of events learns of refusals: each subject's first at once, further ones as a count now and then.

use std::collections::HashMap;

use super::{Nanos, SECOND};

/// How often the count of one subject is told.
const INTERVAL: Nanos = 60 * SECOND;
/// Subjects that are told apart; further ones count together.
const MAX_SUBJECTS: usize = 256;
/// Stands for the subjects that are not told apart.
const OTHERS: &str = "networks/others";

/// What is told: which operation, of whom, why.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Alarm {
    pub(super) operation: &'static str,
    pub(super) resource: String,
    pub(super) reason: &'static str,
}

struct Pending {
    told: Nanos,
    count: u64,
}

/// Subjects of which something was told lately.
#[derive(Default)]
pub(super) struct Alarms {
    pending: HashMap<Alarm, Pending>,
}

impl Alarms {
    /// Counts; answers what has to be told at once.
    pub(super) fn count(&mut self, mut alarm: Alarm, now: Nanos) -> Option<Alarm> {
        if self.pending.len() >= MAX_SUBJECTS && !self.pending.contains_key(&alarm) {
            OTHERS.clone_into(&mut alarm.resource);
        }
        if let Some(pending) = self.pending.get_mut(&alarm) {
            pending.count += 1;
            return None;
        }
        self.pending
            .insert(alarm.clone(), Pending { told: now, count: 0 });
        Some(alarm)
    }

    /// The counts that are due; with `all`, also those that are not. Subjects that were quiet are forgotten.
    pub(super) fn due(&mut self, now: Nanos, all: bool) -> Vec<(Alarm, u64)> {
        let mut due = vec![];
        self.pending.retain(|alarm, pending| {
            // The clock may have been set back.
            let is_due = all || pending.told > now || now - pending.told >= INTERVAL;
            if !is_due {
                return true;
            }
            if pending.count == 0 {
                return false;
            }
            due.push((alarm.clone(), pending.count));
            *pending = Pending { told: now, count: 0 };
            true
        });
        due
    }
}
