//! Wraps all material anew under the newest root key, while the service serves.
//!
//! The store's old segments keep the old records for long. What makes them worthless is that the older root key is dropped in the end, and, for each version
//! by itself, that it gets a wrapping key of its own anew and the one before is shredded.
//!
//! A page of versions is: new wrapping keys, pending and durable; all records in one batch; new wrapping keys kept; old ones shredded. What a crash leaves in
//! between, the start settles (`pending/`) or the last look of a rotation finds: wrapping keys that no record names any more.

use std::{
    collections::HashSet,
    sync::{
        PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use asterism_crypto::envelope;
use asterism_store::{Batch, StoreError};

use crate::{
    error::KmsError,
    keys::{
        KeyId, Keyring, State,
        record::{
            KeyRecord, StateRecord, VERSION, VersionRecord, decode, encode, key_record, state_record,
            version_at,
        },
        version_keys::{self, Fresh},
        wrapping::wrap_under,
    },
    root::{AllWrapped, Roots},
};

/// Versions that are wrapped anew at once: whoever changes a key waits for so many.
const STRIDE: usize = 128;

/// How a look through all material ended.
pub enum Rewrapped {
    /// Everything is under the newest root key.
    All(AllWrapped),
    /// It was told to stop.
    Stopped,
    /// So many versions cannot be unwrapped, each of which was logged; everything else is under the newest root key. The older ones are kept, should what
    /// was lost come back from a backup.
    Damaged(u64),
}

/// A record of material.
type Stored = (Vec<u8>, Vec<u8>);

impl Keyring {
    /// Wraps under these roots' newest from now on, and knows no others: when this returns, nothing more comes under an older one.
    pub fn adopt(&self, roots: Roots) {
        let _changing = self.changing();
        *self.roots.write().unwrap_or_else(PoisonError::into_inner) = roots;
    }

    /// Wraps everything that is under an older root key anew, each version under a new wrapping key of its own, and shreds what was before: page by
    /// page, so that changes of keys wait for one page at most. `done` counts the versions; `stop` is asked before each page. May be
    /// interrupted anywhere, and called again; one at a time.
    ///
    /// # Errors
    /// The store's own; what was done stays done.
    pub fn rewrap(&self, done: &AtomicU64, stop: &dyn Fn() -> bool) -> Result<Rewrapped, KmsError> {
        let roots = self.roots();
        let mut from = vec![VERSION];
        loop {
            if stop() {
                return Ok(Rewrapped::Stopped);
            }
            match self.rewrap_page(&roots, (&from, STRIDE), done)? {
                Some(next) => from = next,
                None => break,
            }
        }
        self.look_through(roots, stop)
    }

    /// Wraps the versions of a page of so many anew; gives where the next begins, `None` after the last.
    pub(crate) fn rewrap_page(
        &self,
        roots: &Roots,
        (from, limit): (&[u8], usize),
        done: &AtomicU64,
    ) -> Result<Option<Vec<u8>>, KmsError> {
        // Without a lock: most pages of a rotation that goes on hold nothing of interest.
        let page = self.records.scan(from, &[VERSION], limit)?;
        let Some((last, _)) = page.last() else {
            return Ok(None);
        };
        let next = [last.as_slice(), &[0]].concat();
        let mut older = Vec::new();
        for (at, stored) in page {
            if root_version(&decode(&stored)?)? < roots.newest_version() {
                older.push(at);
            }
        }
        if !older.is_empty() {
            self.rewrap_these(roots, &older, done)?;
        }
        Ok(Some(next))
    }

    fn rewrap_these(&self, roots: &Roots, places: &[Vec<u8>], done: &AtomicU64) -> Result<(), KmsError> {
        let _destroying = self.destroying();
        let _changing = self.changing();
        let mut versions = Vec::with_capacity(places.len());
        for at in places {
            // As it is now: it may have been destroyed.
            let stored = self.records.get(at)?;
            let (id, version) = version_at(at)?;
            versions.extend(stored.map(|stored| ((at.clone(), stored), id, version)));
        }
        let (mut batch, mut fresh, mut replaced) = (Batch::new(), Vec::new(), Vec::new());
        for ((at, stored), id, version) in &versions {
            let old: VersionRecord = decode(stored)?;
            // What cannot be unwrapped stays as it is; the last look tells.
            let Ok(Some(new)) = self.wrap_anew(roots, (id, *version), &old) else {
                continue;
            };
            let (record, made) = new;
            batch = batch
                .expect_value(at.clone(), stored.clone())
                .put(at.clone(), encode(&record));
            fresh.push(made);
            replaced.extend(old.wrapping_key);
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = fresh.iter().map(|fresh| fresh.name.clone()).collect();
        if let Err(error) = self.version_keys.put_all(&fresh) {
            // The disk is full, say: the next try makes others.
            self.version_keys.shred_all(&names)?;
            return Err(error);
        }
        drop(fresh);
        if let Err(error) = self.records.commit(batch) {
            // Unless it is known that nothing was written, a record may name them.
            if matches!(error, StoreError::NoSpace | StoreError::Conflict) {
                self.version_keys.shred_all(&names)?;
            }
            return Err(error.into());
        }
        for name in &names {
            self.version_keys.keep(name)?;
        }
        self.version_keys.shred_all(&replaced)?;
        done.fetch_add(names.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The same material under the newest root and a fresh wrapping key; `None` when its own is gone.
    fn wrap_anew<'a>(
        &self,
        roots: &Roots,
        (id, version): (&'a KeyId, u32),
        old: &VersionRecord,
    ) -> Result<Option<(VersionRecord, Fresh<'a>)>, KmsError> {
        let key = self
            .records
            .get(&key_record(id.as_str()))?
            .ok_or(KmsError::Damaged("a version without its key"))?;
        let key_type = KeyRecord::read(&key)?.key_type;
        let Some(bytes) = self.unwrap(id, version, key_type, old)? else {
            return Ok(None);
        };
        let (name, half) = version_keys::fresh()?;
        let record = wrap_under(roots, (&name, &half), id, version, key_type, &bytes)?;
        let of = (id, version);
        Ok(Some((record, Fresh { name, of, half })))
    }

    /// Looks whether everything is under the newest root, and shreds wrapping keys that no record names.
    fn look_through(&self, roots: Roots, stop: &dyn Fn() -> bool) -> Result<Rewrapped, KmsError> {
        // Listed first: each of these was named by a record before, so one that no record names any more is nobody's.
        let listed = self.version_keys.kept()?;
        let mut named = HashSet::with_capacity(listed.len());
        let mut older = Vec::new();
        let mut from = vec![VERSION];
        loop {
            if stop() {
                return Ok(Rewrapped::Stopped);
            }
            let page = self.records.scan(&from, &[VERSION], super::keyring::PAGE)?;
            let Some((last, _)) = page.last() else {
                break;
            };
            from = [last.as_slice(), &[0]].concat();
            for (at, stored) in page {
                let record: VersionRecord = decode(&stored)?;
                if root_version(&record)? < roots.newest_version() {
                    older.push((at, stored));
                }
                named.extend(record.wrapping_key);
            }
        }
        let damaged = self.count_damaged(&older)?;
        let orphans: Vec<String> = listed.into_iter().filter(|name| !named.contains(name)).collect();
        for page in orphans.chunks(STRIDE) {
            self.version_keys.shred_all(page)?;
        }
        if damaged > 0 {
            return Ok(Rewrapped::Damaged(damaged));
        }
        Ok(Rewrapped::All(AllWrapped {
            roots: roots.newest_only(),
        }))
    }

    /// How many of these are lost. One whose wrapping key was shredded because it is being destroyed is none: its destruction ends with the next sweep.
    fn count_damaged(&self, older: &[Stored]) -> Result<u64, KmsError> {
        let mut damaged = 0;
        for (at, stored) in older {
            // Nobody wraps under an older root: it is as it was, or destroyed meanwhile.
            if self.records.get(at)?.as_ref() != Some(stored) {
                continue;
            }
            let (id, version) = version_at(at)?;
            let record: VersionRecord = decode(stored)?;
            if self.is_half_destroyed(&id, version, &record)? {
                continue;
            }
            tracing::error!(key = %id, version, "a version cannot be wrapped under the new root key: its material cannot be read");
            damaged += 1;
        }
        Ok(damaged)
    }

    fn is_half_destroyed(&self, id: &KeyId, version: u32, record: &VersionRecord) -> Result<bool, KmsError> {
        let Some(name) = &record.wrapping_key else {
            return Ok(false);
        };
        let state = self.records.get(&state_record(id, version))?;
        let ends = match state {
            Some(stored) => decode::<StateRecord>(&stored)?.state == State::DestroyScheduled,
            None => false,
        };
        Ok(ends && self.version_keys.get(name)?.is_none())
    }
}

/// Under which root key material is wrapped.
fn root_version(record: &VersionRecord) -> Result<u32, KmsError> {
    envelope::parse_header(&record.wrapped)
        .map(|header| header.key_ref.version)
        .map_err(|_| KmsError::Damaged("wrapped key material"))
}
