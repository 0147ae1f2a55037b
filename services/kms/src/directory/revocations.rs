//! What is refused although it was signed, until it would have expired.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::Ordering,
};

use asterism_chassis::identity::{PrincipalId, TrustView};
use asterism_store::Batch;

use super::{
    Directory, DirectoryError, TOKEN_MS,
    records::{
        CUT, CutRecord, PrincipalRecord, REVOKED, RevokedRecord, SESSION, SessionRecord, cut_at, decode,
        encode, revoked_at, session_at,
    },
};

/// Longer than any token may be taken for good: its life, and what clocks differ by.
const REMEMBERED_MS: u64 = TOKEN_MS + 60_000;
/// Single tokens and sessions that are remembered as revoked. Beyond, all tokens of the principal are refused instead.
const MAX_REVOKED: usize = 20_000;
const MAX_ID_BYTES: usize = 64;
/// Records that are read in one go.
const STRIDE: usize = 1000;

impl Directory {
    /// Refuses a token, or all of a session, by its id.
    ///
    /// # Errors
    /// [`DirectoryError::Field`] for what is no id, [`DirectoryError::TooMany`].
    pub fn revoke_token(&self, id: &str, now_ms: u64) -> Result<(), DirectoryError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if id.is_empty() || id.len() > MAX_ID_BYTES || !id.bytes().all(plain) {
            return Err(DirectoryError::field(
                "token_id",
                "must be an id as events name it",
            ));
        }
        let _turn = self.turn();
        if self.trust.view().revoked.len() >= MAX_REVOKED {
            return Err(DirectoryError::TooMany(
                "very many tokens are revoked at once: revoke by principal",
            ));
        }
        self.records
            .commit(revoked(Batch::new(), id, now_ms).delete(session_at(id)))?;
        self.publish(now_ms)
    }

    /// Ends a session, and refuses its tokens.
    ///
    /// # Errors
    /// [`DirectoryError::Store`]
    pub fn end_session(&self, session: &str, of: &PrincipalId, now_ms: u64) -> Result<(), DirectoryError> {
        if self.trust.view().revoked.len() >= MAX_REVOKED {
            return self.revoke_all(of, now_ms).map(|_| ());
        }
        let _turn = self.turn();
        self.records
            .commit(revoked(Batch::new(), session, now_ms).delete(session_at(session)))?;
        self.publish(now_ms)
    }

    /// Refuses all tokens that a principal has, and writes it with `batch`. By who holds the turn.
    pub(super) fn cut(
        &self,
        mut record: PrincipalRecord,
        ends_sessions: bool,
        batch: Batch,
        now_ms: u64,
    ) -> Result<PrincipalRecord, DirectoryError> {
        let id: PrincipalId = record
            .id
            .parse()
            .map_err(|_| DirectoryError::Damaged("name of a principal"))?;
        record.generation = (record.generation + 1).max(now_ms);
        let cut = CutRecord {
            min_generation: record.generation,
            until_ms: now_ms.saturating_add(REMEMBERED_MS),
        };
        let mut batch = self.changed(batch, &mut record)?.put(cut_at(&id), encode(&cut));
        if ends_sessions {
            for at in self.sessions_of(&id)? {
                batch = batch.delete(at);
            }
        }
        self.records.commit(batch)?;
        self.publish(now_ms)?;
        Ok(record)
    }

    /// The lowest generation that somebody new of this name may have: deleted ones had lower.
    pub(super) fn first_generation(&self, id: &PrincipalId, now_ms: u64) -> Result<u64, DirectoryError> {
        let cut: Option<CutRecord> = self.read(&cut_at(id))?;
        Ok(cut.map_or(now_ms, |cut| cut.min_generation.max(now_ms)))
    }

    /// Tells [`Trust`](asterism_chassis::identity::Trust) what holds. By who holds the turn.
    pub(super) fn publish(&self, now_ms: u64) -> Result<(), DirectoryError> {
        let mut revoked = HashSet::new();
        self.each(REVOKED, |id, value| {
            if decode::<RevokedRecord>(value)?.until_ms > now_ms {
                revoked.insert(id);
            }
            Ok(())
        })?;
        let mut cuts = HashMap::new();
        self.each(CUT, |id, value| {
            let cut: CutRecord = decode(value)?;
            if cut.until_ms > now_ms {
                cuts.insert(id, cut.min_generation);
            }
            Ok(())
        })?;
        self.trust.replace(TrustView {
            revision: self.revision.fetch_add(1, Ordering::AcqRel) + 1,
            keys: self.keys.public(),
            revoked,
            cuts,
        });
        Ok(())
    }

    fn sessions_of(&self, id: &PrincipalId) -> Result<Vec<Vec<u8>>, DirectoryError> {
        let mut found = Vec::new();
        self.each(SESSION, |session, value| {
            if decode::<SessionRecord>(value)?.principal == id.as_str() {
                found.push(session_at(&session));
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Every record of a kind, by the rest of its name.
    fn each(
        &self,
        kind: &[u8],
        mut with: impl FnMut(String, &[u8]) -> Result<(), DirectoryError>,
    ) -> Result<(), DirectoryError> {
        let mut from = kind.to_vec();
        loop {
            let page = self.records.scan(&from, kind, STRIDE)?;
            for (at, value) in &page {
                let id = at.get(kind.len()..).and_then(|id| str::from_utf8(id).ok());
                with(
                    id.ok_or(DirectoryError::Damaged("name of a record"))?.to_owned(),
                    value,
                )?;
            }
            match page.last() {
                Some((last, _)) if page.len() == STRIDE => from = [last.as_slice(), &[0]].concat(),
                _ => return Ok(()),
            }
        }
    }
}

fn revoked(batch: Batch, id: &str, now_ms: u64) -> Batch {
    let record = RevokedRecord {
        until_ms: now_ms.saturating_add(REMEMBERED_MS),
    };
    batch.put(revoked_at(id), encode(&record))
}
