//! Names of datasets.

use std::{fmt, str::FromStr as _};

use asterism_store::BlobName;
use uuid::Uuid;

use crate::error::IngestError;

/// Identifies a dataset; `datasets/{id}` on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DatasetId(Uuid);

impl DatasetId {
    /// A fresh id; ids made later sort later.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// Reads `datasets/{id}`.
    ///
    /// # Errors
    /// [`IngestError::Field`] when it is nothing like it.
    pub fn from_name(name: &str) -> Result<Self, IngestError> {
        name.strip_prefix("datasets/")
            .and_then(Self::parse)
            .ok_or(IngestError::field(
                "name",
                "must be a dataset's name, `datasets/{id}`",
            ))
    }

    /// `datasets/{id}`.
    pub fn name(&self) -> String {
        format!("datasets/{self}")
    }

    /// Reads the id alone, in the one form that [`fmt::Display`] writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text)
            .ok()
            .filter(|uuid| uuid.to_string() == text)
            .map(Self)
    }

    /// From the bytes of a store key.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }

    /// For a store key.
    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Stream header and encrypted chunks.
    pub(crate) fn data_blob(&self) -> BlobName {
        self.blob("data")
    }

    /// SHA-256 of every encrypted chunk, 32 bytes each.
    pub(crate) fn table_blob(&self) -> BlobName {
        self.blob("table")
    }

    /// The signed manifest, JSON.
    pub(crate) fn manifest_blob(&self) -> BlobName {
        self.blob("manifest")
    }

    pub(crate) fn blobs(&self) -> [BlobName; 3] {
        [self.data_blob(), self.table_blob(), self.manifest_blob()]
    }

    fn blob(&self, kind: &str) -> BlobName {
        BlobName::from_str(&format!("{self}.{kind}"))
            .expect("a hyphenated UUID and a short suffix are a blob name")
    }
}

impl fmt::Display for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_and_others_are_refused() {
        let id = DatasetId::generate();
        assert_eq!(DatasetId::from_name(&id.name()).expect("own name"), id);
        for bad in [
            "",
            "datasets/",
            "datasets/../x",
            &id.to_string(),
            &id.name().to_uppercase(),
            "models/1",
        ] {
            assert!(DatasetId::from_name(bad).is_err(), "{bad}");
        }
    }
}
