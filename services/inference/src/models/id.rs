//! Names of models.

use std::{fmt, str::FromStr};

use asterism_store::BlobName;
use uuid::Uuid;

use crate::error::InferenceError;

/// Identifies a model; `models/{id}` on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ModelId(Uuid);

impl ModelId {
    /// A fresh id; ids made later sort later.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// From the bytes of a store key.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }

    /// For a store key.
    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Reads `models/{id}`.
    ///
    /// # Errors
    /// [`InferenceError::Field`] when it is nothing like it.
    pub fn from_name(name: &str) -> Result<Self, InferenceError> {
        name.strip_prefix("models/")
            .and_then(|id| Uuid::try_parse(id).ok().filter(|uuid| uuid.to_string() == id))
            .map(Self)
            .ok_or_else(|| InferenceError::field("name", "must be a model's name, `models/{id}`"))
    }

    /// `models/{id}`.
    pub fn name(&self) -> String {
        format!("models/{self}")
    }

    /// Where the encrypted model lies.
    pub(crate) fn model_blob(&self) -> BlobName {
        self.blob("model")
    }

    /// Where the signed manifest lies.
    pub(crate) fn manifest_blob(&self) -> BlobName {
        self.blob("manifest")
    }

    fn blob(&self, kind: &str) -> BlobName {
        BlobName::from_str(&format!("{self}.{kind}"))
            .expect("a hyphenated UUID and a short suffix are a blob name")
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_and_others_are_refused() {
        let id = ModelId::generate();
        assert_eq!(ModelId::from_name(&id.name()).expect("own name"), id);
        for bad in [
            "",
            "models/",
            "models/../x",
            &id.to_string(),
            &id.name().to_uppercase(),
            "datasets/1",
        ] {
            assert!(ModelId::from_name(bad).is_err(), "{bad}");
        }
    }
}
