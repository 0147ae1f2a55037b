//! The dataset manifest: what ingest signs and everybody can verify.

use asterism_crypto::{Context, Digest, DigestWriter, signed::base64_bytes};
use serde::{Deserialize, Serialize};

use crate::error::ClientError;

/// What a manifest's signature is made for: a signature for another purpose never fits.
pub const DATASET_MANIFEST_DOMAIN: &str = "asterism/dataset-manifest/v1";
/// The format that this code writes; every other is refused.
pub const FORMAT: u32 = 1;

/// Describes a stored dataset completely: schema, sizes, digests and the wrapped data key.
///
/// Stored and signed as the exact bytes of [`DatasetManifest::to_bytes`].
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct DatasetManifest {
    /// Always [`FORMAT`].
    pub format: u32,
    /// Dataset id, without `datasets/`.
    pub dataset: String,
    /// For people.
    pub display_name: String,
    /// Principal that owns it, e.g. `user/alice`.
    pub owner: String,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// Data rows, the header not counted.
    pub rows: u64,
    /// Bytes of the CSV in plaintext.
    pub bytes: u64,
    /// One per column, in file order.
    pub columns: Vec<ManifestColumn>,
    /// Plaintext bytes of every chunk but the last.
    pub chunk_bytes: u32,
    /// Number of chunks.
    pub chunks: u64,
    /// [`chunk_table_digest`] of the chunk table.
    pub chunk_table_sha256: Digest,
    /// SHA-256 of the stream header and the chunk table: of every stored byte, each hashed once.
    pub ciphertext_sha256: Digest,
    /// HMAC-SHA256 of the same under `asterism_crypto::stream::mac_key` of the data key: whoever made the manifest held
    /// the key that opens these bytes, and meant them. No digest of the plaintext is stored, as that of guessable data
    /// would give it away.
    pub hmac: Digest,
    /// The data key.
    pub data_key: WrappedKey,
}

/// A manifest whose signature was checked.
#[derive(Clone, Debug)]
pub struct VerifiedManifest {
    /// The manifest.
    pub manifest: DatasetManifest,
    /// SHA-256 of the bytes that were signed.
    pub sha256: Digest,
}

/// A data key as kms wrapped it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct WrappedKey {
    /// Id of the wrapping key.
    pub key: String,
    /// Its version.
    pub version: u32,
    /// The envelope, base64 in JSON.
    #[serde(with = "base64_bytes")]
    pub wrapped: Vec<u8>,
}

/// Profile of a column.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ManifestColumn {
    /// From the header.
    pub name: String,
    /// `integer`, `float`, `boolean`, `text` or `empty`.
    pub kind: String,
    /// Cells without a value.
    pub missing: u64,
    /// Distinct values, or an estimate.
    pub distinct: u64,
    /// Whether `distinct` is exact.
    pub distinct_exact: bool,
    /// Smallest value of a numeric column.
    pub min: Option<f64>,
    /// Largest value of a numeric column.
    pub max: Option<f64>,
    /// Mean of a numeric column.
    pub mean: Option<f64>,
}

impl DatasetManifest {
    /// The bytes that are signed and stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has string keys only and serialises")
    }

    /// Reads and validates a manifest. Check its signature first.
    ///
    /// # Errors
    /// [`ClientError::Verification`] for another format, unknown fields or inconsistent sizes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ClientError> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| ClientError::Verification(format!("the manifest cannot be read: {error}")))?;
        let bad = |what: &str| {
            Err(ClientError::Verification(format!(
                "the manifest is inconsistent: {what}"
            )))
        };
        if manifest.format != FORMAT {
            return bad("its format is not 1; use a newer asterism");
        }
        if manifest.chunk_bytes == 0 || manifest.columns.is_empty() {
            return bad("no chunk size or no columns");
        }
        if manifest.chunks != manifest.bytes.div_ceil(manifest.chunk_bytes.into()).max(1) {
            return bad("the number of chunks does not fit the size");
        }
        Ok(manifest)
    }

    /// Additional authenticated data of this dataset: see [`dataset_context`].
    pub fn context(&self) -> Vec<u8> {
        dataset_context(&self.dataset, &self.owner)
    }
}

/// What the wrapped data key and every chunk are bound to: dataset id and owner.
pub fn dataset_context(dataset: &str, owner: &str) -> Vec<u8> {
    Context::new("asterism/dataset/v1")
        .field("dataset", dataset)
        .field("owner", owner)
        .encode()
}

/// SHA-256 over the concatenated SHA-256 digests of the ciphertext chunks.
pub fn chunk_table_digest(table: &[Digest]) -> Digest {
    let mut writer = DigestWriter::new();
    for digest in table {
        writer.update(digest.as_bytes());
    }
    writer.finish()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn sample() -> DatasetManifest {
        DatasetManifest {
            format: FORMAT,
            dataset: "d1".into(),
            display_name: "sample".into(),
            owner: "user/alice".into(),
            created_at: "2026-01-01T00:00:00Z".into(),
            rows: 2,
            bytes: 10,
            columns: vec![ManifestColumn {
                name: "a".into(),
                kind: "float".into(),
                missing: 0,
                distinct: 2,
                distinct_exact: true,
                min: Some(0.1),
                max: Some(1e300),
                mean: Some(1.0 / 3.0),
            }],
            chunk_bytes: 4096,
            chunks: 1,
            chunk_table_sha256: Digest::of(b"table"),
            ciphertext_sha256: Digest::of(b"blob"),
            hmac: Digest::of(b"mac"),
            data_key: WrappedKey {
                key: "dataset-kek".into(),
                version: 1,
                wrapped: vec![1, 2, 3],
            },
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_manifest_survives_its_bytes(
            name in ".*", rows: u64, chunk_bytes in 1u32.., bytes: u64,
            mean in proptest::option::of(proptest::num::f64::NORMAL), wrapped: Vec<u8>,
        ) {
            let mut manifest = sample();
            manifest.columns[0].name = name;
            manifest.columns[0].mean = mean;
            manifest.rows = rows;
            manifest.bytes = bytes;
            manifest.chunk_bytes = chunk_bytes;
            manifest.chunks = bytes.div_ceil(chunk_bytes.into()).max(1);
            manifest.data_key.wrapped = wrapped;
            prop_assert_eq!(DatasetManifest::parse(&manifest.to_bytes()).expect("parses"), manifest);
        }

        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(bytes: Vec<u8>) {
            prop_assert!(DatasetManifest::parse(&bytes).is_err());
        }
    }

    #[test]
    fn other_formats_unknown_fields_and_wrong_counts_are_refused() {
        let mut other = sample();
        other.format = 2;
        assert!(DatasetManifest::parse(&other.to_bytes()).is_err());
        let mut other = sample();
        other.chunks = 2;
        assert!(DatasetManifest::parse(&other.to_bytes()).is_err());
        let extended =
            String::from_utf8(sample().to_bytes())
                .expect("JSON")
                .replacen('{', r#"{"extra":1,"#, 1);
        assert!(DatasetManifest::parse(extended.as_bytes()).is_err());
    }
}
