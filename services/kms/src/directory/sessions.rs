//! Sessions, and the tokens of a session.
//!
//! A refresh token stays the same as long as its session: it is bound to the static key of the channel, or to the loopback interface, so that a stolen one is of no use
//! elsewhere, and several processes of one person may use it at the same time.

use std::time::Duration;

use asterism_chassis::identity::{
    PrincipalId, Role,
    access::{Claims, Confirmation, EVERYWHERE, ISSUER},
};
use asterism_crypto::{Digest, random_array};
use asterism_store::Batch;
use uuid::Uuid;

use super::{
    Directory, DirectoryError, PrincipalState, Sender,
    records::{PrincipalRecord, SessionRecord, encode, principal_at, session_at},
};

/// How long an access token is good.
pub const TOKEN_MS: u64 = 10 * 60 * 1000;
/// How long a session lasts.
pub const SESSION_MS: u64 = 12 * 3600 * 1000;
const REFRESH_PREFIX: &str = "asr1";

/// What a login gives.
pub struct Tokens {
    /// For calls.
    pub access: String,
    /// How long that is good.
    pub expires_in: Duration,
    /// For the next access token.
    pub refresh: String,
    /// How long the session goes on.
    pub refresh_expires_in: Duration,
    /// Whose they are.
    pub principal: PrincipalId,
    /// What the access token says that it may.
    pub roles: Vec<Role>,
    /// Id of the access token.
    pub token_id: String,
}

impl Directory {
    /// Begins a session, durably, for who has proved who it is. By who holds the turn.
    pub(super) fn begin_session(
        &self,
        mut record: PrincipalRecord,
        sender: &Sender,
        audience: &[String],
        methods: Vec<String>,
        now_ms: u64,
    ) -> Result<Tokens, DirectoryError> {
        let id: PrincipalId = record
            .id
            .parse()
            .map_err(|_| DirectoryError::Damaged("name of a principal"))?;
        let session = Uuid::new_v4().simple().to_string();
        let secret: [u8; 32] = random_array()?;
        let stored = SessionRecord {
            principal: record.id.clone(),
            secret: Digest::of(&secret),
            channel_key: sender.thumbprint(),
            audience: audience.to_vec(),
            methods,
            expires_ms: now_ms.saturating_add(SESSION_MS),
        };
        record.last_login_ms = Some(now_ms);
        let batch = Batch::new()
            .put(session_at(&session), encode(&stored))
            .put(principal_at(&id), encode(&record));
        self.records.commit(batch)?;
        let refresh = format!("{REFRESH_PREFIX}-{session}-{}", Digest::from_bytes(secret));
        self.issue(id, &record, &session, &stored, refresh, now_ms)
    }

    /// A fresh access token of the session that `refresh` belongs to.
    ///
    /// # Errors
    /// [`DirectoryError::SessionEnded`], [`DirectoryError::Disabled`], [`DirectoryError::ChannelMismatch`].
    pub fn refresh(&self, refresh: &str, sender: &Sender, now_ms: u64) -> Result<Tokens, DirectoryError> {
        let (session, stored, id) = self.session_of(refresh, sender, now_ms)?;
        let record = self.find(&id)?.ok_or(DirectoryError::SessionEnded)?;
        if record.state == PrincipalState::Disabled {
            return Err(DirectoryError::Disabled);
        }
        self.issue(id, &record, session, &stored, refresh.to_owned(), now_ms)
    }

    /// Ends the session that `refresh` belongs to, and refuses its tokens; gives whose it was.
    ///
    /// # Errors
    /// [`DirectoryError::SessionEnded`], [`DirectoryError::ChannelMismatch`].
    pub fn log_out(
        &self,
        refresh: &str,
        sender: &Sender,
        now_ms: u64,
    ) -> Result<PrincipalId, DirectoryError> {
        let (session, _, id) = self.session_of(refresh, sender, now_ms)?;
        self.end_session(session, &id, now_ms)?;
        Ok(id)
    }

    /// The session of a refresh token, from where it is good.
    fn session_of<'a>(
        &self,
        refresh: &'a str,
        sender: &Sender,
        now_ms: u64,
    ) -> Result<(&'a str, SessionRecord, PrincipalId), DirectoryError> {
        let (session, secret) = parse(refresh).ok_or(DirectoryError::SessionEnded)?;
        let stored: SessionRecord = self
            .read(&session_at(session))?
            .ok_or(DirectoryError::SessionEnded)?;
        // Digests of random secrets may be compared in any time.
        if Digest::of(secret.as_bytes()) != stored.secret || stored.expires_ms <= now_ms {
            return Err(DirectoryError::SessionEnded);
        }
        if stored.channel_key != sender.thumbprint() {
            return Err(DirectoryError::ChannelMismatch);
        }
        let id = stored
            .principal
            .parse()
            .map_err(|_| DirectoryError::Damaged("name of a principal"))?;
        Ok((session, stored, id))
    }

    fn issue(
        &self,
        id: PrincipalId,
        record: &PrincipalRecord,
        session: &str,
        stored: &SessionRecord,
        refresh: String,
        now_ms: u64,
    ) -> Result<Tokens, DirectoryError> {
        let life_ms = TOKEN_MS.min(stored.expires_ms.saturating_sub(now_ms));
        let now = now_ms / 1000;
        let token_id = Uuid::now_v7().simple().to_string();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: record.id.clone(),
            aud: if stored.audience.is_empty() {
                vec![EVERYWHERE.to_owned()]
            } else {
                stored.audience.clone()
            },
            iat: now,
            nbf: now,
            exp: now + (life_ms / 1000).max(1),
            jti: token_id.clone(),
            sid: session.to_owned(),
            generation: record.generation,
            roles: record.roles.clone(),
            amr: stored.methods.clone(),
            cnf: stored
                .channel_key
                .clone()
                .map(|channel_key| Confirmation { channel_key }),
        };
        let access = self
            .keys
            .sign(now_ms, |key, kid| claims.sign(key, kid))
            .ok_or(DirectoryError::Damaged("list of token keys"))?;
        Ok(Tokens {
            access,
            expires_in: Duration::from_secs(claims.exp - now),
            refresh,
            refresh_expires_in: Duration::from_millis(stored.expires_ms.saturating_sub(now_ms)),
            principal: id,
            roles: record.roles.clone(),
            token_id,
        })
    }
}

/// `asr1-session-secret`, both in hex.
fn parse(refresh: &str) -> Option<(&str, Digest)> {
    let (session, secret) = refresh
        .strip_prefix(REFRESH_PREFIX)?
        .strip_prefix('-')?
        .split_once('-')?;
    let decent = session.len() == 32 && session.bytes().all(|byte| byte.is_ascii_hexdigit());
    let secret: Digest = secret.parse().ok()?;
    decent.then_some((session, secret))
}
