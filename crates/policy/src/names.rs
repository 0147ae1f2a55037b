//! Whom and what grants are about, and how that is written.

use std::{fmt, str::FromStr};

use asterism_chassis::identity::{PrincipalId, Role};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::GrantError;

const COLLECTIONS: [&str; 3] = ["keys", "datasets", "models"];
const MAX_ID_BYTES: usize = 100;

/// Whom a grant is about: `user/bob`, `role:analyst` or `everyone`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// One person, service or device.
    Principal(String),
    /// All who have the role.
    Role(&'static str),
    /// All.
    Everyone,
}

impl Subject {
    /// Whether it is about somebody who is `who` and has `roles`.
    pub fn covers(&self, who: &[&str], roles: &[Role]) -> bool {
        match self {
            Self::Principal(id) => who.contains(&id.as_str()),
            Self::Role(name) => roles.iter().any(|role| role.name() == *name),
            Self::Everyone => true,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Principal(id) => f.write_str(id),
            Self::Role(name) => write!(f, "role:{name}"),
            Self::Everyone => f.write_str("everyone"),
        }
    }
}

impl FromStr for Subject {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let wrong = || GrantError::new("subject", "must be like user/bob, role:analyst or everyone");
        if text == "everyone" {
            return Ok(Self::Everyone);
        }
        if let Some(role) = text.strip_prefix("role:") {
            return Ok(Self::Role(role.parse::<Role>().map_err(|_| wrong())?.name()));
        }
        let id: PrincipalId = text.parse().map_err(|_| wrong())?;
        Ok(Self::Principal(id.to_string()))
    }
}

/// What a grant is about: `keys/x` or `keys/*`; also datasets and models.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// Everything in a collection.
    All(&'static str),
    /// One thing, by its full name.
    One(String),
}

impl Pattern {
    /// `keys`, `datasets` or `models`.
    pub fn collection(&self) -> &str {
        match self {
            Self::All(collection) => collection,
            Self::One(name) => name.split_once('/').map_or("", |(collection, _)| collection),
        }
    }

    /// Whether it is about the resource of that full name.
    pub fn covers(&self, resource: &str) -> bool {
        match self {
            Self::All(collection) => resource
                .strip_prefix(collection)
                .is_some_and(|rest| rest.starts_with('/')),
            Self::One(name) => name == resource,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(collection) => write!(f, "{collection}/*"),
            Self::One(name) => f.write_str(name),
        }
    }
}

impl FromStr for Pattern {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let wrong = || GrantError::new("resource", "must be like keys/x, keys/*, datasets/* or models/*");
        let (collection, id) = text.split_once('/').ok_or_else(wrong)?;
        let known = COLLECTIONS.into_iter().find(|known| *known == collection);
        let collection = known.ok_or_else(wrong)?;
        if id == "*" {
            return Ok(Self::All(collection));
        }
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(plain) {
            return Ok(Self::One(text.to_owned()));
        }
        Err(wrong())
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text!(Subject, Pattern);
