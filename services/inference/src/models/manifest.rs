//! The model manifest: what is signed about a stored model.

use std::collections::BTreeMap;

use asterism_client::manifest::WrappedKey;
use asterism_crypto::{Context, Digest};
use asterism_learn::metrics::Evaluation;
use serde::{Deserialize, Serialize};

use crate::{
    error::InferenceError,
    models::{Method, ModelId},
};

/// What a manifest's signature is made for: a signature for another purpose never fits.
pub const MODEL_MANIFEST_DOMAIN: &str = "asterism/model-manifest/v1";

/// The format that this code writes; every other is refused.
pub const FORMAT: u32 = 1;

/// Describes a stored model completely: where it comes from, how good it is, and its digest and data key.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct ModelManifest {
    /// Always [`FORMAT`].
    pub format: u32,
    /// Model id, without `models/`.
    pub model: String,
    /// For people.
    pub display_name: String,
    /// Principal that owns it.
    pub owner: String,
    /// RFC 3339, UTC.
    pub created_at: String,
    /// How it came to be.
    pub algorithm: Method,
    /// `datasets/{id}` that it was trained on; empty for an imported model.
    pub dataset: String,
    /// SHA-256 of that dataset's signed manifest; none for an imported model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_manifest_sha256: Option<Digest>,
    /// Column that it predicts; empty for an imported model.
    pub label: String,
    /// Columns that it reads, in order.
    pub features: Vec<String>,
    /// Classes that it tells apart, in order.
    pub classes: Vec<String>,
    /// Share of the rows held out.
    pub test_fraction: f64,
    /// Seed of the split and of the training.
    pub seed: u64,
    /// As asked for.
    pub hyperparameters: BTreeMap<String, String>,
    /// On the held-out rows; none for an imported model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Evaluation>,
    /// SHA-256 of the encrypted model as stored.
    pub ciphertext_sha256: Digest,
    /// The data key.
    pub data_key: WrappedKey,
}

impl ModelManifest {
    /// The bytes that are signed and stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest has string keys only and serialises")
    }

    /// Reads a manifest whose signature was checked.
    ///
    /// # Errors
    /// [`InferenceError::ModelRefused`] for another format or unknown fields.
    pub fn parse(id: ModelId, bytes: &[u8]) -> Result<Self, InferenceError> {
        let refused = |problem| InferenceError::ModelRefused {
            model: id.name(),
            problem,
        };
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|_| refused("its manifest cannot be read"))?;
        if manifest.format != FORMAT {
            return Err(refused(
                "its manifest has a format that this version does not know",
            ));
        }
        if manifest.model != id.to_string() {
            return Err(refused("its manifest belongs to another model"));
        }
        Ok(manifest)
    }
}

/// What the wrapped data key and the encrypted model are bound to: model id and owner.
pub fn model_context(id: ModelId, owner: &str) -> Vec<u8> {
    Context::new("asterism/model/v1")
        .field("model", &id.to_string())
        .field("owner", owner)
        .encode()
}
