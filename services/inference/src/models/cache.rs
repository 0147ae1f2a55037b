//! Decrypted models between requests.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use asterism_crypto::Digest;

use crate::models::{Content, ModelId, ModelManifest};

/// A model whose signature, digest and decryption were all checked.
pub struct Verified {
    /// Its manifest.
    pub manifest: ModelManifest,
    /// SHA-256 of the manifest's bytes.
    pub manifest_sha256: Digest,
    /// The model itself.
    pub model: Content,
}

/// Which stored bytes a verified model came from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// SHA-256 of the signed manifest's file.
    pub signed_manifest: Digest,
    /// SHA-256 of the encrypted model's file.
    pub ciphertext: Digest,
}

struct Cached {
    origin: Origin,
    model: Arc<Verified>,
    last_use: u64,
}

/// Keeps verified models, bound to the digests of the stored bytes that they came from: when a file changes, the entry no
/// longer fits and everything is verified again. The least recently used entry goes first.
pub struct ModelCache {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    clock: u64,
    entries: HashMap<ModelId, Cached>,
}

impl ModelCache {
    /// A cache of at most `capacity` models; 0 keeps none.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            state: Mutex::default(),
        }
    }

    /// The model `id`, if the bytes stored now are those that it was verified from.
    pub fn get(&self, id: ModelId, origin: Origin) -> Option<Arc<Verified>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock += 1;
        let now = state.clock;
        let entry = state
            .entries
            .get_mut(&id)
            .filter(|entry| entry.origin == origin)?;
        entry.last_use = now;
        Some(entry.model.clone())
    }

    /// Keeps a model that was just verified.
    pub fn put(&self, id: ModelId, origin: Origin, model: Arc<Verified>) {
        if self.capacity == 0 {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock += 1;
        let last_use = state.clock;
        state.entries.insert(
            id,
            Cached {
                origin,
                model,
                last_use,
            },
        );
        if state.entries.len() > self.capacity
            && let Some(oldest) = state
                .entries
                .iter()
                .min_by_key(|(_, entry)| entry.last_use)
                .map(|(id, _)| *id)
        {
            state.entries.remove(&oldest);
        }
    }

    /// Forgets a model.
    pub fn remove(&self, id: ModelId) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entries
            .remove(&id);
    }
}
