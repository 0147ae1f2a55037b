//! From a model in memory to one at rest: sealed, signed and on record.

use std::{collections::BTreeMap, sync::Arc};

use asterism_chassis::call::Caller;
use asterism_client::{manifest::WrappedKey, proto::kms::KeyType};
use asterism_crypto::{Digest, KeyRef, envelope};
use asterism_learn::metrics::Evaluation;
use asterism_policy::Verb;

use crate::{
    error::InferenceError,
    flow::{Flow, MODEL_KEK, MODEL_SIGNER, blocking},
    models::{
        Content, FORMAT, ImportedFrom, MODEL_MANIFEST_DOMAIN, Method, ModelId, ModelManifest, RequestKey,
        Verified, model_context,
    },
};

/// What a manifest will say of a model, besides what follows from storing it.
pub(crate) struct Draft {
    pub(crate) display_name: String,
    pub(crate) method: Method,
    pub(crate) dataset: String,
    pub(crate) dataset_manifest_sha256: Option<Digest>,
    pub(crate) label: String,
    pub(crate) features: Vec<String>,
    pub(crate) classes: Vec<String>,
    pub(crate) test_fraction: f64,
    pub(crate) seed: u64,
    pub(crate) hyperparameters: BTreeMap<String, String>,
    pub(crate) evaluation: Option<Evaluation>,
}

impl Flow {
    /// Stores a model that was trained elsewhere, encrypted and signed like others.
    ///
    /// # Errors
    /// [`InferenceError::NotImportable`]; the services behind.
    pub async fn import(
        &self,
        caller: &Caller,
        display_name: String,
        file: Vec<u8>,
        request: Option<RequestKey>,
    ) -> Result<Arc<Verified>, InferenceError> {
        if let Some(request) = &request
            && let Some(id) = self.registry().made_by(request)?
        {
            return self.verified(caller, Verb::Get, id).await;
        }
        let method = Method::Imported(ImportedFrom::ImportedXgboost);
        let (file, content) = blocking(move || {
            let content = Content::read(method, &file).map_err(InferenceError::NotImportable)?;
            Ok((file, content))
        })
        .await?;
        let draft = Draft {
            display_name,
            method,
            dataset: String::new(),
            dataset_manifest_sha256: None,
            label: String::new(),
            features: content.features().to_vec(),
            classes: content.classes().to_vec(),
            test_fraction: 0.0,
            seed: 0,
            hyperparameters: BTreeMap::new(),
            evaluation: None,
        };
        let id = self.store(caller, draft, &file, request).await?;
        self.load(caller, id).await
    }

    /// Seals, signs and stores a model.
    pub(crate) async fn store(
        &self,
        caller: &Caller,
        draft: Draft,
        plaintext: &[u8],
        request: Option<RequestKey>,
    ) -> Result<ModelId, InferenceError> {
        let kms = self.kms_for(caller);
        kms.ensure_key(MODEL_KEK, KeyType::Aes256Gcm)
            .await
            .map_err(InferenceError::kms)?;
        kms.ensure_key(MODEL_SIGNER, KeyType::EcSignP256Sha256)
            .await
            .map_err(InferenceError::kms)?;
        let id = ModelId::generate();
        let owner = caller.owner().to_string();
        let context = model_context(id, &owner);
        let data_key = kms
            .generate_data_key(MODEL_KEK, &context)
            .await
            .map_err(InferenceError::kms)?;
        let key_ref = KeyRef {
            key: MODEL_KEK.to_owned(),
            version: data_key.key_version,
        };
        let ciphertext = envelope::seal(&data_key.key, &key_ref, plaintext, &context)?;
        let manifest = ModelManifest {
            format: FORMAT,
            model: id.to_string(),
            display_name: draft.display_name,
            owner: owner.clone(),
            created_at: jiff::Timestamp::now().to_string(),
            algorithm: draft.method,
            dataset: draft.dataset,
            dataset_manifest_sha256: draft.dataset_manifest_sha256,
            label: draft.label,
            features: draft.features,
            classes: draft.classes,
            test_fraction: draft.test_fraction,
            seed: draft.seed,
            hyperparameters: draft.hyperparameters,
            evaluation: draft.evaluation,
            ciphertext_sha256: Digest::of(&ciphertext),
            data_key: WrappedKey {
                key: MODEL_KEK.to_owned(),
                version: data_key.key_version,
                wrapped: data_key.wrapped,
            },
        };
        let signed = kms
            .sign_statement(MODEL_SIGNER, MODEL_MANIFEST_DOMAIN, manifest.to_bytes())
            .await
            .map_err(InferenceError::kms)?;
        let registry = self.registry().clone();
        blocking(move || registry.put(id, &owner, &ciphertext, &signed, request.as_ref())).await
    }
}
