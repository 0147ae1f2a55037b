//! Names of keys.

use std::{fmt, str::FromStr};

use crate::error::KmsError;

/// Identifies a key: 1–63 of `a-z0-9-`, starting with a letter; `keys/{id}` on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(String);

impl KeyId {
    /// A fresh id.
    pub fn generate() -> Self {
        Self(format!("key-{}", uuid::Uuid::now_v7()))
    }

    /// Reads `keys/{id}`.
    ///
    /// # Errors
    /// [`KmsError::Field`] when it is nothing like it.
    pub fn from_name(name: &str) -> Result<Self, KmsError> {
        let id = name
            .strip_prefix("keys/")
            .ok_or_else(|| KmsError::field("name", "must be `keys/{key_id}`"))?;
        id.parse()
            .map_err(|_| KmsError::field("name", "must be `keys/{key_id}`, the id of a-z, 0-9 and -"))
    }

    /// `keys/{id}`.
    pub fn name(&self) -> String {
        format!("keys/{}", self.0)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = KmsError;

    fn from_str(text: &str) -> Result<Self, KmsError> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        let rest = text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if first && rest && text.len() <= 63 {
            Ok(Self(text.to_owned()))
        } else {
            Err(KmsError::field(
                "key_id",
                "must be 1 to 63 of a-z, 0-9 and -, starting with a letter",
            ))
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
