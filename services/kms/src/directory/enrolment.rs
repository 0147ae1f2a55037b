//! Invitations, and how they are used up.

use std::net::IpAddr;

use asterism_chassis::identity::{PrincipalId, Role};
use asterism_crypto::{Signature, VerifyingKey, login_key, opaque, random_array};
use asterism_store::{Batch, StoreError};

use super::{
    Directory, DirectoryError, Principal, Sender,
    attempts::Subject,
    principals::checked_roles,
    records::{InvitationRecord, LoginKey, PrincipalRecord, encode, invitation_at, password_at},
};

const PREFIX: &str = "asi1-";
const SECRET_BYTES: usize = 16;
const MIN_LIFETIME_MS: u64 = 60 * 1000;
const MAX_LIFETIME_MS: u64 = 30 * 24 * 3600 * 1000;
const MAX_LOGIN_KEYS: usize = 8;

/// A fresh invitation.
pub struct Invitation {
    /// What the invited one gives: shown once.
    pub text: String,
    /// Milliseconds since 1970.
    pub expires_ms: u64,
}

/// What somebody enrols.
pub enum Credential {
    /// The last message of an OPAQUE registration.
    Password(Vec<u8>),
    /// A public key (SubjectPublicKeyInfo in DER), and a signature by its private half over [`login_key::enrolment_statement`].
    Key {
        /// The key.
        public: Vec<u8>,
        /// In DER.
        signature: Vec<u8>,
    },
}

impl Directory {
    /// Invites somebody new, who will have these roles; or, without roles, somebody known to set another password or key.
    ///
    /// # Errors
    /// [`DirectoryError::PrincipalExists`], [`DirectoryError::PrincipalNotFound`], [`DirectoryError::Field`].
    pub fn invite(
        &self,
        id: &PrincipalId,
        roles: &[Role],
        lifetime_ms: u64,
        by: &str,
        now_ms: u64,
    ) -> Result<Invitation, DirectoryError> {
        if !(MIN_LIFETIME_MS..=MAX_LIFETIME_MS).contains(&lifetime_ms) {
            return Err(DirectoryError::field("lifetime", "must be 1 minute to 30 days"));
        }
        let _turn = self.turn();
        let roles = match (self.find(id)?, roles) {
            (Some(_), []) => vec![],
            (Some(_), _) => return Err(DirectoryError::PrincipalExists(id.to_string())),
            (None, roles) => checked_roles("roles", id, roles)?,
        };
        let secret: [u8; SECRET_BYTES] = random_array()?;
        let record = InvitationRecord {
            principal: id.to_string(),
            roles,
            created_by: by.to_owned(),
            expires_ms: now_ms.saturating_add(lifetime_ms),
        };
        self.records
            .commit(Batch::new().put(invitation_at(&secret), encode(&record)))?;
        Ok(Invitation {
            text: format!("{PREFIX}{:032x}", u128::from_be_bytes(secret)),
            expires_ms: record.expires_ms,
        })
    }

    /// For whom an invitation is, and the answer to the first message of an OPAQUE registration.
    ///
    /// # Errors
    /// [`DirectoryError::InvitationInvalid`], [`DirectoryError::InvitationExpired`], [`DirectoryError::Backoff`], [`DirectoryError::Field`].
    pub fn start_enrolment(
        &self,
        invitation: &str,
        request: Option<&[u8]>,
        network: Option<IpAddr>,
        now_ms: u64,
    ) -> Result<(PrincipalId, Option<Vec<u8>>), DirectoryError> {
        let (_, _, id) = self.invitation(invitation, network, now_ms)?;
        let answer = request
            .map(|request| self.opaque.register(id.as_str(), request))
            .transpose()
            .map_err(|_| DirectoryError::field("registration_request", "must be a message of OPAQUE"))?;
        Ok((id, answer))
    }

    /// Uses an invitation up. What sessions and tokens the principal had end.
    ///
    /// # Errors
    /// As [`Directory::start_enrolment`]; of several that use one invitation at the same time, one succeeds.
    pub fn finish_enrolment(
        &self,
        invitation: &str,
        credential: &Credential,
        bind: Option<&Sender>,
        network: Option<IpAddr>,
        now_ms: u64,
    ) -> Result<Principal, DirectoryError> {
        let (at, stored, id) = self.invitation(invitation, network, now_ms)?;
        let _turn = self.turn();
        let mut record = match self.find(&id)? {
            Some(record) => record,
            None if stored.roles.is_empty() => return Err(DirectoryError::InvitationInvalid),
            None => {
                let generation = self.first_generation(&id, now_ms)?;
                PrincipalRecord::new(&id, stored.roles.clone(), generation, now_ms)
            }
        };
        // Whoever uses it second finds it changed.
        let mut batch = Batch::new().expect_value(at.clone(), encode(&stored)).delete(at);
        match credential {
            Credential::Password(upload) => {
                let kept = opaque::Server::accept(upload).map_err(|_| {
                    DirectoryError::field("registration_upload", "must be a message of OPAQUE")
                })?;
                let sealed = self.vault.seal("password", id.as_str(), kept.expose())?;
                record.has_password = true;
                batch = batch.put(password_at(&id), sealed);
            }
            Credential::Key { public, signature } => {
                add_key(&mut record, checked_key(invitation, &id, public, signature)?)?;
            }
        }
        match bind {
            Some(Sender::Channel(key)) => {
                let key = key.to_string();
                if !record.channel_keys.contains(&key) {
                    record.channel_keys.push(key);
                }
            }
            Some(Sender::Loopback) => return Err(DirectoryError::ChannelRequired),
            None => {}
        }
        match self.cut(record, true, batch, now_ms) {
            Err(DirectoryError::Store(StoreError::Conflict)) => Err(DirectoryError::InvitationInvalid),
            other => other.and_then(|_| self.principal(&id)),
        }
    }

    /// Finds an invitation; a wrong one counts against the network that it comes from.
    fn invitation(
        &self,
        text: &str,
        network: Option<IpAddr>,
        now_ms: u64,
    ) -> Result<(Vec<u8>, InvitationRecord, PrincipalId), DirectoryError> {
        let subject = Subject::network(network);
        self.may_try(&subject, now_ms)?;
        let at = secret_of(text).map(|secret| invitation_at(&secret));
        let stored = match &at {
            Some(at) => self.read::<InvitationRecord>(at)?,
            None => None,
        };
        let (Some(at), Some(stored)) = (at, stored) else {
            let _turn = self.turn();
            self.count(&[&subject], now_ms)?;
            return Err(DirectoryError::InvitationInvalid);
        };
        if stored.expires_ms <= now_ms {
            return Err(DirectoryError::InvitationExpired);
        }
        let id = stored
            .principal
            .parse()
            .map_err(|_| DirectoryError::Damaged("invitation"))?;
        Ok((at, stored, id))
    }
}

fn secret_of(text: &str) -> Option<[u8; SECRET_BYTES]> {
    let hex = text.strip_prefix(PREFIX)?;
    let plain = hex.len() == 2 * SECRET_BYTES && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u128::from_str_radix(hex, 16).ok().filter(|_| plain)?;
    Some(number.to_be_bytes())
}

fn checked_key(
    invitation: &str,
    id: &PrincipalId,
    public: &[u8],
    signature: &[u8],
) -> Result<VerifyingKey, DirectoryError> {
    let key = VerifyingKey::from_spki_der(public).map_err(|_| {
        DirectoryError::field(
            "key.public_key",
            "must be a P-256 key, SubjectPublicKeyInfo in DER",
        )
    })?;
    let statement = login_key::enrolment_statement(invitation, id.as_str(), &key);
    Signature::from_der(signature)
        .and_then(|signature| key.verify(&statement, &signature))
        .map_err(|_| {
            DirectoryError::field("key.signature", "does not prove that the private key is there")
        })?;
    Ok(key)
}

fn add_key(record: &mut PrincipalRecord, key: VerifyingKey) -> Result<(), DirectoryError> {
    let key = LoginKey {
        spki: key.to_spki_der(),
    };
    if record.login_keys.contains(&key) {
        return Ok(());
    }
    if record.login_keys.len() >= MAX_LOGIN_KEYS {
        return Err(DirectoryError::TooMany("a principal has at most 8 login keys"));
    }
    record.login_keys.push(key);
    Ok(())
}
