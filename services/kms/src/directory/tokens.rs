//! The keys that sign access tokens.
//!
//! A new key is told to everybody before it signs, and an old one stays known until its last token has expired.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use asterism_crypto::{SigningKey, VerifyingKey};
use asterism_store::{Batch, Records};

use super::{
    DirectoryError, TOKEN_MS, Vault,
    records::{TOKEN_KEY, TokenKeyRecord, decode, encode, token_key_at},
};

/// Old enough to be followed by another.
const ROTATE_MS: u64 = 30 * 24 * 3600 * 1000;
/// Between a key is told and signs.
const ANNOUNCE_MS: u64 = 60_000;
const MAX_KEYS: usize = 64;
const KID_CHARACTERS: usize = 16;

/// One key.
struct TokenKey {
    kid: String,
    key: SigningKey,
    active_from_ms: u64,
}

/// All keys that sign, will sign or have signed tokens which hold still; oldest first.
pub(super) struct TokenKeys {
    records: Arc<dyn Records>,
    keys: RwLock<Arc<Vec<TokenKey>>>,
}

impl TokenKeys {
    /// Reads the keys; makes the first one.
    pub(super) fn open(
        records: Arc<dyn Records>,
        vault: &Vault,
        now_ms: u64,
    ) -> Result<Self, DirectoryError> {
        let mut keys = Vec::new();
        for (at, value) in records.scan(TOKEN_KEY, TOKEN_KEY, MAX_KEYS)? {
            let kid = at.get(TOKEN_KEY.len()..).and_then(|kid| str::from_utf8(kid).ok());
            let kid = kid
                .ok_or(DirectoryError::Damaged("name of a token key"))?
                .to_owned();
            let record: TokenKeyRecord = decode(&value)?;
            let scalar = vault.open_sealed("token-key", &kid, &record.sealed)?;
            keys.push(TokenKey {
                key: SigningKey::from_bytes(scalar.expose())?,
                active_from_ms: record.active_from_ms,
                kid,
            });
        }
        keys.sort_by_key(|key| key.active_from_ms);
        let first = keys.is_empty();
        let keys = Self {
            records,
            keys: RwLock::new(Arc::new(keys)),
        };
        if first {
            keys.add(vault, now_ms)?;
        }
        Ok(keys)
    }

    /// Signs by the newest key that everybody knows.
    pub(super) fn sign<T>(&self, now_ms: u64, sign: impl FnOnce(&SigningKey, &str) -> T) -> Option<T> {
        let keys = self.all();
        let active = keys.iter().rev().find(|key| key.active_from_ms <= now_ms);
        // A clock that was set back leaves the oldest.
        active.or(keys.first()).map(|key| sign(&key.key, &key.kid))
    }

    /// The public keys.
    pub(super) fn public(&self) -> HashMap<String, VerifyingKey> {
        let keys = self.all();
        keys.iter()
            .map(|key| (key.kid.clone(), key.key.verifying_key()))
            .collect()
    }

    /// Announces a new key when the newest is old, and forgets keys whose tokens have all expired; whether anything changed.
    pub(super) fn rotate_when_due(&self, vault: &Vault, now_ms: u64) -> Result<bool, DirectoryError> {
        let newest = self.all().last().map_or(0, |key| key.active_from_ms);
        let due = newest.saturating_add(ROTATE_MS) <= now_ms;
        if due {
            self.add(vault, now_ms.saturating_add(ANNOUNCE_MS))?;
        }
        Ok(self.retire(now_ms)? || due)
    }

    fn add(&self, vault: &Vault, active_from_ms: u64) -> Result<(), DirectoryError> {
        let key = SigningKey::generate()?;
        let mut kid = key.verifying_key().fingerprint().to_string();
        kid.truncate(KID_CHARACTERS);
        let record = TokenKeyRecord {
            sealed: vault.seal("token-key", &kid, key.to_secret_bytes().expose())?,
            active_from_ms,
        };
        self.records
            .commit(Batch::new().put(token_key_at(&kid), encode(&record)))?;
        self.change(|keys| {
            keys.push(TokenKey {
                kid,
                key,
                active_from_ms,
            });
        })
    }

    fn retire(&self, now_ms: u64) -> Result<bool, DirectoryError> {
        let keys = self.all();
        let over = |followed_ms: u64| followed_ms.saturating_add(TOKEN_MS + ANNOUNCE_MS) <= now_ms;
        let retired: Vec<String> = keys
            .iter()
            .zip(keys.iter().skip(1))
            .filter(|(_, next)| over(next.active_from_ms))
            .map(|(key, _)| key.kid.clone())
            .collect();
        if retired.is_empty() {
            return Ok(false);
        }
        let batch = retired
            .iter()
            .fold(Batch::new(), |batch, kid| batch.delete(token_key_at(kid)));
        self.records.commit(batch)?;
        drop(keys);
        self.change(|keys| keys.retain(|key| !retired.contains(&key.kid)))?;
        Ok(true)
    }

    fn all(&self) -> Arc<Vec<TokenKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another list in place of the present one, which who reads it keeps.
    fn change(&self, change: impl FnOnce(&mut Vec<TokenKey>)) -> Result<(), DirectoryError> {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Vec::with_capacity(keys.len() + 1);
        for key in keys.iter() {
            next.push(TokenKey {
                kid: key.kid.clone(),
                key: SigningKey::from_bytes(key.key.to_secret_bytes().expose())?,
                active_from_ms: key.active_from_ms,
            });
        }
        change(&mut next);
        *keys = Arc::new(next);
        Ok(())
    }
}
