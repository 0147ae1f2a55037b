//! Records in memory, for tests of what is built on them.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    StoreError,
    records::{Batch, Record, Records, Ticket},
};

/// Records that live as long as this does. The same contract as on disk, except for durability.
#[derive(Default)]
pub struct MemoryRecords {
    map: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl MemoryRecords {
    /// No records.
    pub fn new() -> Self {
        Self::default()
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        batch.check()?;
        let mut map = self.map();
        if batch
            .expectations
            .iter()
            .any(|(key, value)| map.get(key) != value.as_ref())
        {
            return Err(StoreError::Conflict);
        }
        for (key, value) in batch.writes {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        Ok(())
    }
}

impl Records for MemoryRecords {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.map().get(key).cloned())
    }

    fn scan(&self, from: &[u8], prefix: &[u8], limit: usize) -> Result<Vec<Record>, StoreError> {
        let start = from.max(prefix).to_vec();
        let map = self.map();
        let found = map
            .range(start..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit);
        Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn scan_back(
        &self,
        before: Option<&[u8]>,
        prefix: &[u8],
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let end = before.map_or(Bound::Unbounded, |key| Bound::Excluded(key.to_vec()));
        if before.is_some_and(|before| before <= prefix) {
            return Ok(vec![]);
        }
        let map = self.map();
        let found = map.range((Bound::Included(prefix.to_vec()), end)).rev();
        let under = found.filter(|(key, _)| key.starts_with(prefix)).take(limit);
        Ok(under.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn snapshot(&self, see: &mut crate::SeeRecord<'_>) -> Result<(), StoreError> {
        self.map().iter().try_for_each(|(key, value)| see(key, value))
    }

    fn submit(&self, batch: Batch) -> Ticket {
        Ticket::done(self.apply(batch))
    }

    fn bytes_on_disk(&self) -> Result<u64, StoreError> {
        Ok(self
            .map()
            .iter()
            .map(|(key, value)| (key.len() + value.len()) as u64)
            .sum())
    }
}
