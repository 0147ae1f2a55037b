//! How the directory is stored. Every record is JSON with a closed set of fields; names begin with `i` and a letter for the kind.

use asterism_chassis::identity::{PrincipalId, Role};
use asterism_crypto::{Context, Digest, signed::base64_bytes};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{error::DirectoryError, factors::FactorKind, principals::PrincipalState};

/// OPAQUE's keys, sealed.
pub(super) const OPAQUE_KEYS: &[u8] = b"io";
/// This and the principal -> [`PrincipalRecord`].
pub(super) const PRINCIPAL: &[u8] = b"ip";
/// This and the principal -> the OPAQUE record, sealed.
const PASSWORD: &[u8] = b"iw";
/// This, the principal, 0 and the factor's id -> its secret, sealed.
const FACTOR: &[u8] = b"if";
/// This and a digest -> [`InvitationRecord`].
const INVITATION: &[u8] = b"ii";
/// This and a digest -> [`AttemptsRecord`].
const ATTEMPTS: &[u8] = b"ia";
/// This and the session's id -> [`SessionRecord`].
pub(super) const SESSION: &[u8] = b"is";
/// This and the key's name -> [`TokenKeyRecord`].
pub(super) const TOKEN_KEY: &[u8] = b"it";
/// This and the id of a token or session -> [`RevokedRecord`].
pub(super) const REVOKED: &[u8] = b"iv";
/// This and the principal -> [`CutRecord`].
pub(super) const CUT: &[u8] = b"ic";

/// After so long without another, failed attempts are forgotten.
pub(super) const ATTEMPTS_MS: u64 = 24 * 3600 * 1000;

/// What ends by itself, and how it is seen.
type IsOver = fn(&[u8], u64) -> Result<bool, DirectoryError>;
pub(super) const TEMPORARY: &[(&[u8], IsOver)] = &[
    (INVITATION, |bytes, now_ms| {
        Ok(decode::<InvitationRecord>(bytes)?
            .expires_ms
            .saturating_add(ATTEMPTS_MS)
            <= now_ms)
    }),
    (ATTEMPTS, |bytes, now_ms| {
        Ok(decode::<AttemptsRecord>(bytes)?
            .last_ms
            .saturating_add(ATTEMPTS_MS)
            <= now_ms)
    }),
    (SESSION, |bytes, now_ms| {
        Ok(decode::<SessionRecord>(bytes)?.expires_ms <= now_ms)
    }),
    (REVOKED, |bytes, now_ms| {
        Ok(decode::<RevokedRecord>(bytes)?.until_ms <= now_ms)
    }),
    (CUT, |bytes, now_ms| {
        Ok(decode::<CutRecord>(bytes)?.until_ms <= now_ms)
    }),
];

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PrincipalRecord {
    pub(super) format: u32,
    pub(super) id: String,
    pub(super) roles: Vec<Role>,
    pub(super) state: PrincipalState,
    pub(super) created_ms: u64,
    pub(super) last_login_ms: Option<u64>,
    /// Tokens of lower ones are refused once it went up. Never goes down, not even over a deletion.
    pub(super) generation: u64,
    /// Goes up with every change that people make.
    pub(super) revision: u64,
    pub(super) has_password: bool,
    /// SubjectPublicKeyInfo in DER.
    pub(super) login_keys: Vec<LoginKey>,
    /// `asx1…`
    pub(super) channel_keys: Vec<String>,
    pub(super) factors: Vec<FactorRecord>,
}

pub(super) const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginKey {
    #[serde(with = "base64_bytes")]
    pub(super) spki: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FactorRecord {
    pub(super) id: String,
    pub(super) kind: FactorKind,
    pub(super) confirmed: bool,
    pub(super) created_ms: u64,
    /// What the factor has to remember of the last answer, so that each serves once.
    pub(super) memory: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InvitationRecord {
    pub(super) principal: String,
    /// Of somebody new; empty for somebody known.
    pub(super) roles: Vec<Role>,
    pub(super) created_by: String,
    pub(super) expires_ms: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AttemptsRecord {
    pub(super) failures: u32,
    pub(super) last_ms: u64,
    /// No attempt is taken before.
    pub(super) until_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionRecord {
    pub(super) principal: String,
    /// Of the secret half of the refresh token.
    pub(super) secret: Digest,
    /// Thumbprint of the static key that it is bound to; none for the loopback interface.
    pub(super) channel_key: Option<String>,
    pub(super) audience: Vec<String>,
    pub(super) methods: Vec<String>,
    pub(super) expires_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenKeyRecord {
    #[serde(with = "base64_bytes")]
    pub(super) sealed: Vec<u8>,
    /// Signs from then on, once it is known everywhere.
    pub(super) active_from_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokedRecord {
    pub(super) until_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CutRecord {
    pub(super) min_generation: u64,
    pub(super) until_ms: u64,
}

pub(super) fn principal_at(id: &PrincipalId) -> Vec<u8> {
    under(PRINCIPAL, id.as_str())
}

pub(super) fn password_at(id: &PrincipalId) -> Vec<u8> {
    under(PASSWORD, id.as_str())
}

pub(super) fn factor_at(id: &PrincipalId, factor: &str) -> Vec<u8> {
    under(FACTOR, &format!("{id}\0{factor}"))
}

pub(super) fn invitation_at(secret: &[u8]) -> Vec<u8> {
    [INVITATION, Digest::of(secret).as_bytes().as_slice()].concat()
}

/// Names of attempts are digests: anything may be tried.
pub(super) fn attempts_at(kind: &str, whose: &str) -> Vec<u8> {
    let context = Context::new("asterism/login-attempts/v1").field(kind, whose);
    [ATTEMPTS, Digest::of(&context.encode()).as_bytes().as_slice()].concat()
}

pub(super) fn session_at(id: &str) -> Vec<u8> {
    under(SESSION, id)
}

pub(super) fn token_key_at(kid: &str) -> Vec<u8> {
    under(TOKEN_KEY, kid)
}

pub(super) fn revoked_at(id: &str) -> Vec<u8> {
    under(REVOKED, id)
}

pub(super) fn cut_at(id: &PrincipalId) -> Vec<u8> {
    under(CUT, id.as_str())
}

fn under(kind: &[u8], name: &str) -> Vec<u8> {
    [kind, name.as_bytes()].concat()
}

pub(super) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have string keys only and serialise")
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DirectoryError> {
    serde_json::from_slice(bytes).map_err(|_| DirectoryError::Damaged("record"))
}
