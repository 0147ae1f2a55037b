//! Second factors: one trait, and what is behind it. The first is codes by time.

use asterism_chassis::identity::PrincipalId;
use asterism_crypto::{
    CryptoError, SecretBytes, random_array,
    totp::{SECRET_BYTES, TotpSecret},
};
use asterism_store::Batch;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Directory, DirectoryError, Factor, Principal,
    attempts::Subject,
    records::{FactorRecord, PrincipalRecord, factor_at},
};

const MAX_FACTORS: usize = 4;
const MAX_ANSWER_BYTES: usize = 64;

/// What a second factor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactorKind {
    /// Codes by time.
    Totp,
}

/// A kind of second factor.
pub trait SecondFactor: Send + Sync {
    /// Which.
    fn kind(&self) -> FactorKind;
    /// A fresh secret for somebody, and what they are shown, once, to answer by it.
    ///
    /// # Errors
    /// [`CryptoError::Randomness`]
    fn enrol(&self, whose: &PrincipalId) -> Result<(SecretBytes, String), CryptoError>;
    /// Whether an answer is right. Gives what has to be remembered of it, and passed as `memory` with the next one, so that no answer serves twice.
    fn check(&self, secret: &SecretBytes, memory: Option<u64>, answer: &str, now_ms: u64) -> Option<u64>;
}

/// Every kind that there is.
pub(super) fn all() -> Vec<Box<dyn SecondFactor>> {
    vec![Box::new(Totp)]
}

struct Totp;

impl SecondFactor for Totp {
    fn kind(&self) -> FactorKind {
        FactorKind::Totp
    }

    fn enrol(&self, whose: &PrincipalId) -> Result<(SecretBytes, String), CryptoError> {
        let secret = SecretBytes::new(random_array::<SECRET_BYTES>()?.to_vec());
        let text = base32(secret.expose());
        // Of the characters of a principal only `/` and `@` have another form in a path.
        let whose = whose.as_str().replace('/', "%2F").replace('@', "%40");
        let shown = format!("otpauth://totp/Asterism:{whose}?secret={text}&issuer=Asterism");
        Ok((secret, shown))
    }

    fn check(&self, secret: &SecretBytes, memory: Option<u64>, answer: &str, now_ms: u64) -> Option<u64> {
        let secret = TotpSecret::from_bytes(secret.expose()).ok()?;
        secret.check(answer, now_ms / 1000, memory)
    }
}

impl Directory {
    /// Makes a second factor, which does not count yet; and what to show of it, once.
    ///
    /// # Errors
    /// [`DirectoryError::TooMany`], [`DirectoryError::PrincipalNotFound`] for who is not in the directory.
    pub fn add_factor(
        &self,
        id: &PrincipalId,
        kind: FactorKind,
        now_ms: u64,
    ) -> Result<(Factor, String), DirectoryError> {
        let _turn = self.turn();
        let mut record = self.record_of(id)?;
        let mut batch = Batch::new();
        // What was never confirmed makes room.
        for factor in record.factors.extract_if(.., |factor| !factor.confirmed) {
            batch = batch.delete(factor_at(id, &factor.id));
        }
        if record.factors.len() >= MAX_FACTORS {
            return Err(DirectoryError::TooMany(
                "a principal has at most 4 second factors",
            ));
        }
        let (secret, shown) = self.of_kind(kind)?.enrol(id)?;
        let factor = FactorRecord {
            id: Uuid::new_v4().simple().to_string(),
            kind,
            confirmed: false,
            created_ms: now_ms,
            memory: None,
        };
        let sealed = self
            .vault
            .seal("factor", &whose(id, &factor.id), secret.expose())?;
        record.factors.push(factor.clone());
        let batch = self
            .changed(batch, &mut record)?
            .put(factor_at(id, &factor.id), sealed);
        self.records.commit(batch)?;
        Ok((factor.shown(), shown))
    }

    /// Confirms a second factor by a first answer: from now on logins need it.
    ///
    /// # Errors
    /// [`DirectoryError::FactorNotFound`], [`DirectoryError::SecondFactorFailed`], and as attempts have it.
    pub fn confirm_factor(
        &self,
        id: &PrincipalId,
        factor: &str,
        answer: &str,
        now_ms: u64,
    ) -> Result<Principal, DirectoryError> {
        let _turn = self.turn();
        let mut record = self.record_of(id)?;
        self.may_try(&Subject::principal(id), now_ms)?;
        self.answered(id, &mut record, |known| known.id == factor, answer, now_ms)?;
        for known in record.factors.iter_mut().filter(|known| known.id == factor) {
            known.confirmed = true;
        }
        let batch = self.changed(Batch::new(), &mut record)?;
        self.records.commit(batch)?;
        self.principal(id)
    }

    /// Takes a second factor away; with an answer of it when it is one's own, without for an administrator.
    ///
    /// # Errors
    /// [`DirectoryError::FactorNotFound`], [`DirectoryError::SecondFactorFailed`].
    pub fn remove_factor(
        &self,
        id: &PrincipalId,
        factor: &str,
        answer: Option<&str>,
        now_ms: u64,
    ) -> Result<Principal, DirectoryError> {
        let _turn = self.turn();
        let mut record = self.record_of(id)?;
        if !record.factors.iter().any(|known| known.id == factor) {
            return Err(DirectoryError::FactorNotFound);
        }
        if let Some(answer) = answer {
            self.may_try(&Subject::principal(id), now_ms)?;
            self.answered(id, &mut record, |known| known.id == factor, answer, now_ms)?;
        }
        record.factors.retain(|known| known.id != factor);
        let batch = self
            .changed(Batch::new(), &mut record)?
            .delete(factor_at(id, factor));
        self.records.commit(batch)?;
        self.principal(id)
    }

    /// Checks an answer against those factors of a principal that `which` picks, and notes in its record that the answer was used. A wrong one
    /// counts as a failed attempt; whether one may be made is for the caller to ask. By who holds the turn; the record is to be written.
    pub(super) fn answered(
        &self,
        id: &PrincipalId,
        record: &mut PrincipalRecord,
        which: impl Fn(&FactorRecord) -> bool,
        answer: &str,
        now_ms: u64,
    ) -> Result<(), DirectoryError> {
        let mut any = false;
        for factor in record.factors.iter_mut().filter(|factor| which(factor)) {
            any = true;
            let sealed = self
                .records
                .get(&factor_at(id, &factor.id))?
                .ok_or(DirectoryError::Damaged("second factor"))?;
            let secret = self
                .vault
                .open_sealed("factor", &whose(id, &factor.id), &sealed)?;
            let capped = Some(answer).filter(|answer| answer.len() <= MAX_ANSWER_BYTES);
            let kind = self.of_kind(factor.kind)?;
            if let Some(memory) = capped.and_then(|answer| kind.check(&secret, factor.memory, answer, now_ms))
            {
                factor.memory = Some(memory);
                return Ok(());
            }
        }
        if !any {
            return Err(DirectoryError::FactorNotFound);
        }
        self.count(&[&Subject::principal(id)], now_ms)?;
        Err(DirectoryError::SecondFactorFailed)
    }

    fn of_kind(&self, kind: FactorKind) -> Result<&dyn SecondFactor, DirectoryError> {
        let found = self.factors.iter().find(|factor| factor.kind() == kind);
        found
            .map(|factor| &**factor)
            .ok_or(DirectoryError::FactorNotFound)
    }
}

fn whose(id: &PrincipalId, factor: &str) -> String {
    format!("{id} {factor}")
}

/// RFC 4648, 6, without padding, which is what authenticator apps read.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::new();
    for chunk in bytes.chunks(5) {
        let mut group = [0; 8];
        for (to, from) in group.iter_mut().skip(3).zip(chunk) {
            *to = *from;
        }
        let bits = u64::from_be_bytes(group);
        let characters = (chunk.len() * 8).div_ceil(5);
        for at in 0..characters {
            let index = (bits >> (35 - 5 * at)) & 31;
            text.extend(ALPHABET.get(index as usize).map(|byte| char::from(*byte)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_that_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn what_is_shown_is_read_by_apps() {
        let (secret, shown) = Totp
            .enrol(&"user/a.b@c".parse().expect("principal"))
            .expect("made");
        assert_eq!(secret.len(), SECRET_BYTES);
        let expected = format!(
            "otpauth://totp/Asterism:user%2Fa.b%40c?secret={}&issuer=Asterism",
            base32(secret.expose())
        );
        assert_eq!(shown, expected);
    }
}
