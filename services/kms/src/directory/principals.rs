//! Principals: reading and changing them.

use asterism_channel::PublicKey;
use asterism_chassis::identity::{PrincipalId, Role};
use asterism_crypto::VerifyingKey;
use asterism_store::Batch;
use serde::{Deserialize, Serialize};

use super::{
    Directory, DirectoryError, FactorKind,
    records::{
        FORMAT, FactorRecord, PRINCIPAL, PrincipalRecord, decode, encode, factor_at, password_at,
        principal_at,
    },
};

/// Static keys of the channel that a principal may be bound to.
const MAX_CHANNEL_KEYS: usize = 8;

/// Whether a principal may log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalState {
    /// It may.
    Enabled,
    /// It may not, and has no sessions.
    Disabled,
}

/// A person, a service or a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Who.
    pub id: PrincipalId,
    /// What it may do in general.
    pub roles: Vec<Role>,
    /// Whether it may log in.
    pub state: PrincipalState,
    /// Whether it may log in with a password.
    pub has_password: bool,
    /// Keys that it may log in with: SubjectPublicKeyInfo in DER.
    pub login_keys: Vec<Vec<u8>>,
    /// Static keys from which it may log in; none for any.
    pub channel_keys: Vec<String>,
    /// Second factors.
    pub factors: Vec<Factor>,
    /// Milliseconds since 1970.
    pub created_ms: u64,
    /// Milliseconds since 1970.
    pub last_login_ms: Option<u64>,
    /// Changes with every change that people make.
    pub etag: String,
}

/// A second factor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factor {
    /// Its id.
    pub id: String,
    /// What it is.
    pub kind: FactorKind,
    /// Whether it counts at logins.
    pub confirmed: bool,
    /// Milliseconds since 1970.
    pub created_ms: u64,
}

/// What is to change; `None` stays.
#[derive(Clone, Debug, Default)]
pub struct PrincipalUpdate {
    /// Only if the principal still has this etag; empty for any.
    pub etag: String,
    /// New roles.
    pub roles: Option<Vec<Role>>,
    /// New state.
    pub state: Option<PrincipalState>,
    /// New keys of the channel.
    pub channel_keys: Option<Vec<PublicKey>>,
}

impl PrincipalRecord {
    /// Somebody new.
    pub(super) fn new(id: &PrincipalId, roles: Vec<Role>, generation: u64, now_ms: u64) -> Self {
        Self {
            format: FORMAT,
            id: id.to_string(),
            roles,
            state: PrincipalState::Enabled,
            created_ms: now_ms,
            last_login_ms: None,
            generation,
            revision: 0,
            has_password: false,
            login_keys: vec![],
            channel_keys: vec![],
            factors: vec![],
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, DirectoryError> {
        let record: Self = decode(bytes)?;
        if record.format == FORMAT {
            Ok(record)
        } else {
            Err(DirectoryError::Damaged("format of a principal"))
        }
    }

    fn shown(self) -> Result<Principal, DirectoryError> {
        let id = self
            .id
            .parse()
            .map_err(|_| DirectoryError::Damaged("name of a principal"))?;
        Ok(Principal {
            id,
            roles: self.roles,
            state: self.state,
            has_password: self.has_password,
            login_keys: self.login_keys.into_iter().map(|key| key.spki).collect(),
            channel_keys: self.channel_keys,
            factors: self.factors.into_iter().map(FactorRecord::shown).collect(),
            created_ms: self.created_ms,
            last_login_ms: self.last_login_ms,
            etag: format!("{}-{}", self.created_ms, self.revision),
        })
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Result<VerifyingKey, DirectoryError>> {
        self.login_keys.iter().map(|key| {
            VerifyingKey::from_spki_der(&key.spki).map_err(|_| DirectoryError::Damaged("login key"))
        })
    }

    /// Whether factors stand between a proof and a token.
    pub(super) fn due_kinds(&self) -> Vec<FactorKind> {
        let confirmed = self.factors.iter().filter(|factor| factor.confirmed);
        let mut kinds: Vec<FactorKind> = confirmed.map(|factor| factor.kind).collect();
        kinds.dedup();
        kinds
    }
}

impl FactorRecord {
    pub(super) fn shown(self) -> Factor {
        Factor {
            id: self.id,
            kind: self.kind,
            confirmed: self.confirmed,
            created_ms: self.created_ms,
        }
    }
}

impl Directory {
    /// One principal.
    ///
    /// # Errors
    /// [`DirectoryError::PrincipalNotFound`]
    pub fn principal(&self, id: &PrincipalId) -> Result<Principal, DirectoryError> {
        self.record_of(id)?.shown()
    }

    /// Principals after `after`, by name, at most `limit`.
    ///
    /// # Errors
    /// [`DirectoryError::Store`]
    pub fn principals(
        &self,
        after: Option<&PrincipalId>,
        limit: usize,
    ) -> Result<Vec<Principal>, DirectoryError> {
        let from = after.map_or_else(
            || PRINCIPAL.to_vec(),
            |id| [principal_at(id).as_slice(), &[0]].concat(),
        );
        let page = self.records.scan(&from, PRINCIPAL, limit)?;
        page.iter()
            .map(|(_, value)| PrincipalRecord::read(value)?.shown())
            .collect()
    }

    /// Changes a principal. Tokens from before are refused when this returns.
    ///
    /// # Errors
    /// [`DirectoryError::PrincipalNotFound`], [`DirectoryError::EtagMismatch`], [`DirectoryError::Field`].
    pub fn update(
        &self,
        id: &PrincipalId,
        update: &PrincipalUpdate,
        now_ms: u64,
    ) -> Result<Principal, DirectoryError> {
        let _turn = self.turn();
        let mut record = self.record_of(id)?;
        let etag = record.clone().shown()?.etag;
        if !update.etag.is_empty() && update.etag != etag {
            return Err(DirectoryError::EtagMismatch(id.to_string()));
        }
        if let Some(roles) = &update.roles {
            record.roles = checked_roles("principal.roles", id, roles)?;
        }
        if let Some(state) = update.state {
            record.state = state;
        }
        if let Some(keys) = &update.channel_keys {
            if keys.len() > MAX_CHANNEL_KEYS {
                return Err(DirectoryError::field("principal.channel_keys", "at most 8"));
            }
            record.channel_keys = keys.iter().map(ToString::to_string).collect();
        }
        let ends_sessions = record.state == PrincipalState::Disabled || update.channel_keys.is_some();
        self.cut(record, ends_sessions, Batch::new(), now_ms)?.shown()
    }

    /// Deletes a principal with all that it has. Its tokens are refused when this returns.
    ///
    /// # Errors
    /// [`DirectoryError::PrincipalNotFound`]
    pub fn delete(&self, id: &PrincipalId, now_ms: u64) -> Result<(), DirectoryError> {
        let _turn = self.turn();
        let record = self.record_of(id)?;
        let factors = record.factors.clone();
        let mut batch = Batch::new().delete(password_at(id));
        for factor in factors {
            batch = batch.delete(factor_at(id, &factor.id));
        }
        // First nothing holds any more, then it is gone.
        self.cut(record, true, batch, now_ms)?;
        Ok(self.records.commit(Batch::new().delete(principal_at(id)))?)
    }

    /// Ends all sessions of a principal, and refuses all tokens that it has.
    ///
    /// # Errors
    /// [`DirectoryError::PrincipalNotFound`]
    pub fn revoke_all(&self, id: &PrincipalId, now_ms: u64) -> Result<Principal, DirectoryError> {
        let _turn = self.turn();
        let record = self.record_of(id)?;
        self.cut(record, true, Batch::new(), now_ms)?.shown()
    }

    pub(super) fn record_of(&self, id: &PrincipalId) -> Result<PrincipalRecord, DirectoryError> {
        self.find(id)?
            .ok_or_else(|| DirectoryError::PrincipalNotFound(id.to_string()))
    }

    pub(super) fn find(&self, id: &PrincipalId) -> Result<Option<PrincipalRecord>, DirectoryError> {
        let stored = self.records.get(&principal_at(id))?;
        stored.map(|bytes| PrincipalRecord::read(&bytes)).transpose()
    }

    /// Adds a record to what is written, one revision further.
    pub(super) fn changed(
        &self,
        batch: Batch,
        record: &mut PrincipalRecord,
    ) -> Result<Batch, DirectoryError> {
        let id: PrincipalId = record
            .id
            .parse()
            .map_err(|_| DirectoryError::Damaged("name of a principal"))?;
        record.revision += 1;
        Ok(batch.put(principal_at(&id), encode(record)))
    }
}

/// Roles that a principal may have, each once.
pub(super) fn checked_roles(
    field: &'static str,
    id: &PrincipalId,
    roles: &[Role],
) -> Result<Vec<Role>, DirectoryError> {
    let mut kept: Vec<Role> = Vec::new();
    for role in roles {
        if !kept.contains(role) {
            kept.push(*role);
        }
    }
    // A service's tokens are trusted with others' names: who is no service must not have them.
    if kept.contains(&Role::Service) != id.is_service() {
        return Err(DirectoryError::field(
            field,
            "service is the role of principals like service/ingest, and of them only",
        ));
    }
    if kept.is_empty() {
        return Err(DirectoryError::field(field, "must name at least one role"));
    }
    Ok(kept)
}
