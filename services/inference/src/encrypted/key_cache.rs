//! Evaluation keys between requests, in the form that evaluation needs: several times their stored size.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use asterism_fhe::server::EvaluationKey;

use crate::encrypted::EvaluationKeyId;

/// Keeps loaded keys within a budget of bytes. The least recently used goes first.
pub struct LoadedKeys {
    budget: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    clock: u64,
    bytes: usize,
    entries: HashMap<(String, EvaluationKeyId), Loaded>,
}

struct Loaded {
    key: Arc<EvaluationKey>,
    bytes: usize,
    last_use: u64,
}

impl LoadedKeys {
    /// A cache of at most `budget` bytes; 0 keeps none.
    pub fn new(budget: usize) -> Self {
        Self {
            budget,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of `owner`'s, if it is loaded.
    pub fn get(&self, owner: &str, id: EvaluationKeyId) -> Option<Arc<EvaluationKey>> {
        let mut state = self.state();
        state.clock += 1;
        let now = state.clock;
        let loaded = state.entries.get_mut(&(owner.to_owned(), id))?;
        loaded.last_use = now;
        Some(loaded.key.clone())
    }

    /// Keeps a key that was just loaded and checked, if it fits at all.
    pub fn put(&self, owner: &str, id: EvaluationKeyId, key: Arc<EvaluationKey>) {
        let bytes = key.memory_bytes();
        if bytes > self.budget {
            return;
        }
        self.remove(owner, id);
        let mut state = self.state();
        while state.bytes + bytes > self.budget {
            let oldest = state.entries.iter().min_by_key(|(_, loaded)| loaded.last_use);
            let Some(oldest) = oldest.map(|(at, _)| at.clone()) else {
                break;
            };
            state.remove(&oldest);
        }
        state.clock += 1;
        state.bytes += bytes;
        let loaded = Loaded {
            key,
            bytes,
            last_use: state.clock,
        };
        state.entries.insert((owner.to_owned(), id), loaded);
    }

    /// Forgets a key.
    pub fn remove(&self, owner: &str, id: EvaluationKeyId) {
        self.state().remove(&(owner.to_owned(), id));
    }
}

impl State {
    fn remove(&mut self, at: &(String, EvaluationKeyId)) {
        if let Some(loaded) = self.entries.remove(at) {
            self.bytes -= loaded.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use asterism_crypto::Digest;
    use asterism_fhe::{client, keys::SecretKey, params::ParamsId};

    use super::*;

    #[test]
    fn the_least_recently_used_goes_first_and_owners_do_not_share() {
        let secret = SecretKey::generate(ParamsId::Paths).unwrap();
        let bytes = client::evaluation_key(&secret).unwrap().unwrap();
        let key = || Arc::new(EvaluationKey::from_bytes(&bytes).unwrap());
        let id = |name: &[u8]| EvaluationKeyId(Digest::of(name));
        let size = key().memory_bytes();
        let cache = LoadedKeys::new(2 * size + size / 2);
        cache.put("user/alice", id(b"1"), key());
        assert!(cache.get("user/bob", id(b"1")).is_none());
        cache.put("user/bob", id(b"1"), key());
        assert!(cache.get("user/alice", id(b"1")).is_some());
        cache.put("user/alice", id(b"2"), key());
        assert!(cache.get("user/bob", id(b"1")).is_none(), "the oldest stayed");
        assert!(cache.get("user/alice", id(b"1")).is_some());
        cache.remove("user/alice", id(b"1"));
        assert!(cache.get("user/alice", id(b"1")).is_none());
        assert_eq!(cache.state().bytes, size);
        let none = LoadedKeys::new(size - 1);
        none.put("user/alice", id(b"1"), key());
        assert!(none.get("user/alice", id(b"1")).is_none());
    }
}
