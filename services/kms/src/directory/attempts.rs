//! Failed attempts: each takes longer than the one before, and after many none is taken for a while.
//!
//! Counted by principal, whether there is one or not, and by network. What is counted is durable before anything is answered, so that a
//! restart forgets nothing.

use std::{net::IpAddr, time::Duration};

use asterism_chassis::identity::PrincipalId;
use asterism_store::Batch;

use super::{
    Directory,
    error::DirectoryError,
    records::{ATTEMPTS_MS, AttemptsRecord, attempts_at, encode},
};

/// Failures that cost nothing, then those that double the wait from a second on, then a lock.
struct Pace {
    free: u32,
    /// From this failure on the wait is [`Pace::lock_ms`].
    lock_at: u32,
    lock_ms: u64,
}

/// A principal: 3 free, 1 s to 32 s, from the tenth on a quarter of an hour.
const PRINCIPAL: Pace = Pace {
    free: 3,
    lock_at: 10,
    lock_ms: 15 * 60 * 1000,
};
/// A network, which many may share: 30 free, 1 s to 32 s, then a minute each.
const NETWORK: Pace = Pace {
    free: 30,
    lock_at: 37,
    lock_ms: 60 * 1000,
};

impl Pace {
    fn wait_ms(&self, failures: u32) -> u64 {
        if failures >= self.lock_at {
            self.lock_ms
        } else {
            failures
                .checked_sub(self.free + 1)
                .map_or(0, |over| 1000 << over.min(16))
        }
    }
}

/// Whose attempts.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    at: Vec<u8>,
    is_principal: bool,
}

impl Subject {
    pub(super) fn principal(id: &PrincipalId) -> Self {
        Self {
            at: attempts_at("principal", id.as_str()),
            is_principal: true,
        }
    }

    /// An IPv4 address, or the /64 of an IPv6 address.
    pub(super) fn network(network: Option<IpAddr>) -> Self {
        let name = match network {
            Some(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
            Some(IpAddr::V4(address)) => address.to_string(),
            None => "unknown".to_owned(),
        };
        Self {
            at: attempts_at("network", &name),
            is_principal: false,
        }
    }

    fn pace(&self) -> &'static Pace {
        if self.is_principal { &PRINCIPAL } else { &NETWORK }
    }
}

impl Directory {
    /// Refuses while an attempt would come too soon.
    pub(super) fn may_try(&self, subject: &Subject, now_ms: u64) -> Result<(), DirectoryError> {
        let record = self.attempts(subject, now_ms)?;
        let Some(wait) = record.until_ms.checked_sub(now_ms).filter(|wait| *wait > 0) else {
            return Ok(());
        };
        let wait = Duration::from_millis(wait);
        if subject.is_principal && record.failures >= PRINCIPAL.lock_at {
            Err(DirectoryError::Locked(wait))
        } else {
            Err(DirectoryError::Backoff(wait))
        }
    }

    /// Counts an attempt as failed, durably, until [`Directory::succeeded`] takes it back. By who holds the turn.
    pub(super) fn count(&self, subjects: &[&Subject], now_ms: u64) -> Result<(), DirectoryError> {
        let mut batch = Batch::new();
        for subject in subjects {
            let mut record = self.attempts(subject, now_ms)?;
            record.failures = record.failures.saturating_add(1);
            record.last_ms = now_ms;
            record.until_ms = now_ms.saturating_add(subject.pace().wait_ms(record.failures));
            batch = batch.put(subject.at.clone(), encode(&record));
        }
        Ok(self.records.commit(batch)?)
    }

    /// Forgets the attempts of a principal, and one of its network's. By who holds the turn.
    pub(super) fn succeeded(
        &self,
        principal: &Subject,
        network: &Subject,
        now_ms: u64,
    ) -> Result<(), DirectoryError> {
        let mut record = self.attempts(network, now_ms)?;
        record.failures = record.failures.saturating_sub(1);
        record.until_ms = now_ms;
        let batch = Batch::new().delete(principal.at.clone());
        let batch = if record.failures == 0 {
            batch.delete(network.at.clone())
        } else {
            batch.put(network.at.clone(), encode(&record))
        };
        Ok(self.records.commit(batch)?)
    }

    fn attempts(&self, subject: &Subject, now_ms: u64) -> Result<AttemptsRecord, DirectoryError> {
        let record: AttemptsRecord = self.read(&subject.at)?.unwrap_or_default();
        // A clock that was set back must not lock for longer than the longest wait.
        let over = record.last_ms.saturating_add(ATTEMPTS_MS) <= now_ms
            || record.last_ms > now_ms.saturating_add(ATTEMPTS_MS);
        Ok(if over { AttemptsRecord::default() } else { record })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_end_in_a_lock() {
        let waits: Vec<u64> = (1..=11)
            .map(|failures| PRINCIPAL.wait_ms(failures) / 1000)
            .collect();
        assert_eq!(waits, [0, 0, 0, 1, 2, 4, 8, 16, 32, 900, 900]);
        assert_eq!(NETWORK.wait_ms(30), 0);
        assert_eq!(NETWORK.wait_ms(31), 1000);
        assert_eq!(NETWORK.wait_ms(u32::MAX), 60_000);
    }

    #[test]
    fn neighbours_in_an_ipv6_network_are_one() {
        let at = |text: &str| Subject::network(text.parse().ok()).at;
        assert_eq!(at("2001:db8:1:2::1"), at("2001:db8:1:2:ffff::9"));
        assert_ne!(at("2001:db8:1:2::1"), at("2001:db8:1:3::1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }
}
