//! When a grant counts.

use std::net::IpAddr;

use asterism_crypto::{Digest, signed::base64_bytes};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{GrantError, Request};

/// Networks of a grant.
pub const MAX_NETWORKS: usize = 16;
/// Bytes of required additional authenticated data.
pub const MAX_AAD_BYTES: usize = 512;

/// What the additional authenticated data of a call has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum AadRule {
    /// These bytes.
    Exact(#[serde(with = "base64_bytes")] Vec<u8>),
    /// Any that begin so.
    Prefix(#[serde(with = "base64_bytes")] Vec<u8>),
    /// Bytes of this SHA-256.
    Sha256(Digest),
}

impl AadRule {
    fn holds(&self, aad: &[u8]) -> bool {
        match self {
            Self::Exact(bytes) => aad == bytes.as_slice(),
            Self::Prefix(bytes) => aad.starts_with(bytes),
            Self::Sha256(digest) => Digest::of(aad) == *digest,
        }
    }
}

/// When a grant counts: all that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// Milliseconds since 1970: from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before_ms: Option<u64>,
    /// Milliseconds since 1970: before then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after_ms: Option<u64>,
    /// The call comes from one of these; empty for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<IpNet>,
    /// Required additional authenticated data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aad: Option<AadRule>,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    Holds,
    /// What is needed to tell is not known.
    Unknown(&'static str),
    Fails(&'static str),
}

impl Conditions {
    pub(crate) fn check(&self) -> Result<(), GrantError> {
        if let (Some(from), Some(until)) = (self.not_before_ms, self.not_after_ms)
            && from >= until
        {
            return Err(GrantError::new(
                "conditions.not_after",
                "must be after not_before",
            ));
        }
        if self.networks.len() > MAX_NETWORKS {
            return Err(GrantError::new("conditions.networks", "may be at most 16"));
        }
        match &self.aad {
            Some(AadRule::Exact(bytes) | AadRule::Prefix(bytes)) if bytes.len() > MAX_AAD_BYTES => {
                Err(GrantError::new(
                    "conditions.aad",
                    "has at most 512 bytes; give the SHA-256 of more",
                ))
            }
            Some(AadRule::Prefix(bytes)) if bytes.is_empty() => Err(GrantError::new(
                "conditions.aad",
                "an empty prefix fits everything",
            )),
            _ => Ok(()),
        }
    }

    /// What does not hold tells more than what is not known.
    pub(crate) fn fit(&self, request: &Request<'_>) -> Fit {
        let fits = [
            self.time(request.now_ms),
            self.network(request.network),
            self.aad(request.aad),
        ];
        let failed = fits.into_iter().find(|fit| matches!(fit, Fit::Fails(_)));
        let unknown = || fits.into_iter().find(|fit| *fit != Fit::Holds);
        failed.or_else(unknown).unwrap_or(Fit::Holds)
    }

    fn time(&self, now_ms: u64) -> Fit {
        if self.not_before_ms.is_some_and(|from| now_ms < from) {
            Fit::Fails("its time has not come")
        } else if self.not_after_ms.is_some_and(|until| now_ms >= until) {
            Fit::Fails("its time is over")
        } else {
            Fit::Holds
        }
    }

    fn network(&self, network: Option<IpAddr>) -> Fit {
        match network {
            _ if self.networks.is_empty() => Fit::Holds,
            None => Fit::Unknown("the network of the call is not known"),
            Some(address) if self.networks.iter().any(|net| net.contains(&address)) => Fit::Holds,
            Some(_) => Fit::Fails("the call comes from another network"),
        }
    }

    fn aad(&self, aad: Option<&[u8]>) -> Fit {
        match (&self.aad, aad) {
            (None, _) => Fit::Holds,
            (Some(_), None) => Fit::Unknown("the call has no additional authenticated data"),
            (Some(rule), Some(aad)) if rule.holds(aad) => Fit::Holds,
            _ => Fit::Fails("the additional authenticated data is other than required"),
        }
    }
}
