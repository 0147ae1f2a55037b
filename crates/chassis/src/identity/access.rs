//! Access tokens: what they say, and what is believed of them.
//!
//! ES256 tokens that kms signs after a login, for ten minutes (`docs/formats.md`). A token names the session that it comes from and the generation of its principal, so that one
//! token, one session or all of a principal can be refused at once, and the static key of the channel that it came over, without which it is good
//! on the loopback interface only.

use std::net::IpAddr;

use asterism_channel::PublicKey;
use asterism_crypto::{Digest, SigningKey, jws};
use serde::{Deserialize, Serialize};

use super::{Principal, PrincipalId, Role, unauthenticated};
use crate::error::Failure;

/// Who issues access tokens.
pub const ISSUER: &str = "asterism/kms";
/// The audience that stands for every service.
pub const EVERYWHERE: &str = "asterism";
/// Seconds by which a token may be early: kms' clock is known a little late.
const LEEWAY: u64 = 5;

/// What an access token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Issuer: [`ISSUER`].
    pub iss: String,
    /// Principal.
    pub sub: String,
    /// Services it is for; [`EVERYWHERE`] for all.
    pub aud: Vec<String>,
    /// Issued, seconds since 1970 by the clock of kms.
    pub iat: u64,
    /// Not good before.
    pub nbf: u64,
    /// Not good from then on.
    pub exp: u64,
    /// Id of this token.
    pub jti: String,
    /// Id of the session.
    pub sid: String,
    /// Generation of the principal's tokens.
    #[serde(rename = "gen")]
    pub generation: u64,
    /// What the principal may do in general.
    pub roles: Vec<Role>,
    /// How it was proved who it is (RFC 8176 names for some of them).
    pub amr: Vec<String>,
    /// Whose token it is on the wire (RFC 7800); none for the loopback interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
}

/// The key that has to be at the other end of the channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// [`thumbprint`] of a static key.
    #[serde(rename = "asx#S256")]
    pub channel_key: String,
}

/// SHA-256 of a static key, as hex.
pub fn thumbprint(key: &PublicKey) -> String {
    Digest::of(key.as_bytes()).to_string()
}

impl Claims {
    /// Signs them with the key that services know as `kid`.
    pub fn sign(&self, key: &SigningKey, kid: &str) -> String {
        let payload = serde_json::to_vec(self).expect("claims are plain data and serialise");
        jws::sign(key, kid, &payload)
    }
}

/// A token whose signature and form are right. Whether it is good now, and here, [`super::Trust::admit`] says.
#[derive(Clone, Debug)]
pub struct Access {
    /// Whose it is.
    pub principal: Principal,
    /// What it says.
    pub claims: Claims,
    pub(super) kid: String,
}

impl Access {
    /// Reads the payload of a token that was verified under the key `kid`.
    ///
    /// # Errors
    /// `TOKEN_INVALID`, `TOKEN_AUDIENCE`.
    pub(super) fn read(payload: &[u8], kid: &str, service: &str) -> Result<Self, Failure> {
        let claims: Claims = serde_json::from_slice(payload).map_err(|_| invalid())?;
        let id: PrincipalId = claims.sub.parse().map_err(|_| invalid())?;
        if claims.iss != ISSUER || claims.jti.is_empty() || claims.sid.is_empty() || claims.nbf >= claims.exp
        {
            return Err(invalid());
        }
        if !claims.aud.iter().any(|aud| aud == EVERYWHERE || aud == service) {
            let text = "the token is for other services; log in for this one";
            return Err(unauthenticated("TOKEN_AUDIENCE", text));
        }
        Ok(Self {
            principal: Principal {
                id,
                roles: claims.roles.clone(),
            },
            claims,
            kid: kid.to_owned(),
        })
    }

    /// Whether it is good at a time, by the clock of kms.
    pub(super) fn in_time(&self, now: u64) -> Result<(), Failure> {
        if self.claims.exp <= now {
            return Err(unauthenticated(
                "TOKEN_EXPIRED",
                "the token has expired; get a fresh one",
            ));
        }
        if self.claims.nbf > now.saturating_add(LEEWAY) {
            let ahead = self.claims.nbf - now;
            let text = format!("the token is good in {ahead} s only; the clocks differ, set them");
            return Err(unauthenticated("TOKEN_NOT_YET_VALID", &text));
        }
        Ok(())
    }

    /// Whether it came the way that it is bound to.
    pub(super) fn by_its_sender(
        &self,
        key: Option<&PublicKey>,
        network: Option<IpAddr>,
    ) -> Result<(), Failure> {
        let fits = match (&self.claims.cnf, key) {
            (Some(bound), Some(key)) => bound.channel_key == thumbprint(key),
            (None, None) => network.is_some_and(|address| address.is_loopback()),
            _ => false,
        };
        if fits {
            return Ok(());
        }
        Err(unauthenticated(
            "CHANNEL_MISMATCH",
            "the token is not one of the party at the other end of the channel",
        ))
    }
}

pub(super) fn invalid() -> Failure {
    unauthenticated("TOKEN_INVALID", "the token is not one of this constellation")
}
