//! What needs other services: data and keys come from ingest and kms, plaintext stays in this process.

use std::{
    io,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use asterism_chassis::call::Caller;
use asterism_client::{ClientError, Connection, Ingest, Kms, manifest::VerifiedManifest};
use asterism_crypto::{Digest, Signed, envelope};
use asterism_learn::{
    csv::{CsvLimits, CsvReader},
    metrics::Evaluation,
    table::{Table, TableBuilder},
    train,
};
use asterism_policy::Verb;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Code;

use crate::{
    access::Access,
    error::InferenceError,
    models::{
        Content, MODEL_MANIFEST_DOMAIN, Method, ModelCache, ModelId, ModelManifest, Origin, Predicted,
        Registry, RequestKey, Verified, model_context,
    },
    store::Draft,
    training::{self, Rows, TrainOrder},
};

/// Wraps the data keys of models.
pub(crate) const MODEL_KEK: &str = "model-kek";
/// Signs model manifests.
pub(crate) const MODEL_SIGNER: &str = "model-signer";
/// Models that are imported at once.
const IMPORTS_AT_ONCE: usize = 4;
/// Must have signed a dataset's manifest.
const DATASET_SIGNER: &str = "manifest-signer";

/// A step of a training, for the caller to see.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// `verify`, `train`, `evaluate` or `store`.
    pub stage: &'static str,
    /// From 1.
    pub step: u32,
    /// Steps of this stage.
    pub total: u32,
    /// Training loss after this step.
    pub loss: Option<f64>,
}

impl Step {
    fn of(stage: &'static str) -> Self {
        Self {
            stage,
            step: 1,
            total: 1,
            loss: None,
        }
    }
}

/// Told every step; `Break` cancels.
pub type OnStep = Arc<dyn Fn(Step) -> ControlFlow<()> + Send + Sync>;

/// Trains, evaluates and predicts; the domain's use cases across services.
pub struct Flow {
    registry: Arc<Registry>,
    cache: ModelCache,
    access: Access,
    kms: Connection,
    ingest: Connection,
    max_table_bytes: usize,
    imports: Arc<Semaphore>,
}

/// A dataset, decrypted and verified in memory.
struct Opened {
    table: Table,
    verified: VerifiedManifest,
}

impl Flow {
    /// Use cases over a registry and the two services.
    pub fn new(
        registry: Arc<Registry>,
        cached_models: usize,
        kms: Connection,
        ingest: Connection,
        max_table_bytes: usize,
    ) -> Self {
        Self {
            registry,
            cache: ModelCache::new(cached_models),
            access: Access::new(kms.clone()),
            kms,
            ingest,
            max_table_bytes,
            imports: Arc::new(Semaphore::new(IMPORTS_AT_ONCE)),
        }
    }

    /// Trains a model and stores it, encrypted and signed.
    ///
    /// # Errors
    /// What is wrong with the data, the wish, or the services behind.
    pub async fn train(
        &self,
        caller: &Caller,
        order: TrainOrder,
        request: Option<RequestKey>,
        on_step: OnStep,
    ) -> Result<Arc<Verified>, InferenceError> {
        if let Some(request) = &request
            && let Some(id) = self.registry.made_by(request)?
        {
            return self.verified(caller, Verb::Get, id).await;
        }
        tell(&on_step, Step::of("verify"))?;
        let opened = self.open_dataset(caller, Verb::Train, &order.dataset).await?;
        let dataset_sha256 = opened.verified.sha256;
        let steps = on_step.clone();
        let wish = order.clone();
        let (model, evaluation) = blocking(move || {
            let mut progress = |step: train::Progress| {
                let shown = Step {
                    stage: "train",
                    step: u32::try_from(step.step).unwrap_or(u32::MAX),
                    total: u32::try_from(step.total).unwrap_or(u32::MAX),
                    loss: Some(step.loss),
                };
                steps(shown)
            };
            training::fit(&opened.table, &wish, &mut progress)
        })
        .await?;
        tell(&on_step, Step::of("evaluate"))?;
        tell(&on_step, Step::of("store"))?;
        let draft = Draft {
            display_name: order.display_name,
            method: Method::Trained(order.algorithm),
            dataset: order.dataset,
            dataset_manifest_sha256: Some(dataset_sha256),
            label: order.label,
            features: model.feature_names().to_vec(),
            classes: model.classes().to_vec(),
            test_fraction: order.test_fraction,
            seed: order.seed,
            hyperparameters: order.hyperparameters,
            evaluation: Some(evaluation),
        };
        let id = self.store(caller, draft, &model.to_bytes(), request).await?;
        self.load(caller, id).await
    }

    /// Evaluates on the held-out rows of the model's own dataset, or on every row of another.
    pub async fn evaluate(
        &self,
        caller: &Caller,
        verified: &Arc<Verified>,
        dataset: Option<&str>,
    ) -> Result<Evaluation, InferenceError> {
        let manifest = &verified.manifest;
        verified.model.trained()?;
        let opened = self
            .open_dataset(caller, Verb::Predict, dataset.unwrap_or(&manifest.dataset))
            .await?;
        let rows = if dataset.is_none_or(|name| name == manifest.dataset) {
            if Some(opened.verified.sha256) != manifest.dataset_manifest_sha256 {
                return Err(InferenceError::DatasetChanged);
            }
            Rows::HeldOut {
                test_fraction: manifest.test_fraction,
                seed: manifest.seed,
            }
        } else {
            Rows::All
        };
        let verified = verified.clone();
        blocking(move || {
            let model = verified.model.trained()?;
            training::evaluate(model, &verified.manifest.label, &opened.table, rows)
        })
        .await
    }

    /// Predicts rows in the order of the model's features.
    pub async fn predict(
        &self,
        verified: &Arc<Verified>,
        rows: Vec<Vec<f64>>,
    ) -> Result<Vec<Predicted>, InferenceError> {
        let verified = verified.clone();
        blocking(move || verified.model.predict(&rows)).await
    }

    /// The rows of an encrypted dataset in the order of the model's features, and the digest of its manifest.
    pub async fn feature_rows(
        &self,
        caller: &Caller,
        verified: &Arc<Verified>,
        dataset: &str,
    ) -> Result<(Vec<Vec<f64>>, Digest), InferenceError> {
        let opened = self.open_dataset(caller, Verb::Predict, dataset).await?;
        Ok((
            training::feature_rows(verified.model.features(), &opened.table)?,
            opened.verified.sha256,
        ))
    }

    /// A place for an import, which holds a whole file in memory.
    ///
    /// # Errors
    /// [`InferenceError::ImportsBusy`]
    pub fn import_place(&self) -> Result<OwnedSemaphorePermit, InferenceError> {
        self.imports
            .clone()
            .try_acquire_owned()
            .map_err(|_| InferenceError::ImportsBusy)
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Models that the caller may know of as their owner or an administrator, after `after`, at most `limit`; and where the next page begins.
    pub fn owned(
        &self,
        caller: &Caller,
        mut after: Option<ModelId>,
        limit: usize,
    ) -> Result<(Vec<ModelId>, Option<ModelId>), InferenceError> {
        let mut owned = Vec::new();
        loop {
            let page = self.registry.page(after, limit)?;
            for (id, record) in &page {
                if caller.may_access(&record.owner) {
                    owned.push(*id);
                }
                after = Some(*id);
                if owned.len() == limit {
                    return Ok((owned, after));
                }
            }
            if page.len() < limit {
                return Ok((owned, None));
            }
        }
    }

    /// The model `id`, if the caller may do that to it, and after every check.
    ///
    /// # Errors
    /// [`InferenceError::ModelNotFound`] also when the caller may not know of it; [`InferenceError::Denied`];
    /// [`InferenceError::PolicyUnavailable`]; as [`Flow::load`].
    pub async fn verified(
        &self,
        caller: &Caller,
        verb: Verb,
        id: ModelId,
    ) -> Result<Arc<Verified>, InferenceError> {
        let registry = self.registry.clone();
        let record = blocking(move || registry.get(id)).await?;
        self.permit(caller, verb, id, &record.owner).await?;
        self.load(caller, id).await
    }

    /// Whether the caller may do that to the model `id`, which is `owner`'s.
    pub(crate) async fn permit(
        &self,
        caller: &Caller,
        verb: Verb,
        id: ModelId,
        owner: &str,
    ) -> Result<(), InferenceError> {
        if self.access.may(caller, verb, id.name(), owner).await? {
            Ok(())
        } else {
            Err(InferenceError::ModelNotFound(id.name()))
        }
    }

    /// The model `id`, for who is known to be allowed, after every check of what is stored: signature, digests, decryption.
    ///
    /// The stored bytes are read and digested at every call, so that a swapped file is refused even while the model it
    /// replaced is still in memory.
    ///
    /// # Errors
    /// [`InferenceError::ModelNotFound`]; [`InferenceError::ModelRefused`].
    pub(crate) async fn load(&self, caller: &Caller, id: ModelId) -> Result<Arc<Verified>, InferenceError> {
        let registry = self.registry.clone();
        let (record, signed, ciphertext) = blocking(move || {
            Ok((
                registry.get(id)?,
                registry.signed_manifest(id)?,
                registry.ciphertext(id)?,
            ))
        })
        .await?;
        let origin = Origin {
            signed_manifest: Digest::of(&signed),
            ciphertext: Digest::of(&ciphertext),
        };
        if let Some(cached) = self.cache.get(id, origin) {
            return Ok(cached);
        }
        let refused = |problem| InferenceError::ModelRefused {
            model: id.name(),
            problem,
        };
        let kms = self.kms_for(caller);
        let signed: Signed =
            serde_json::from_slice(&signed).map_err(|_| refused("its manifest cannot be read"))?;
        let payload = kms
            .verify_statement(MODEL_SIGNER, MODEL_MANIFEST_DOMAIN, &signed)
            .await
            .map_err(|error| match error {
                ClientError::Verification(_) => refused("its manifest was not signed by this constellation"),
                error if error.code() == Code::NotFound => refused("its signing key is unknown"),
                other => InferenceError::kms(other),
            })?;
        let manifest_sha256 = Digest::of(payload);
        let manifest = ModelManifest::parse(id, payload)?;
        if manifest_sha256 != record.manifest_sha256 || manifest.owner != record.owner {
            return Err(refused("its manifest is not the one that was recorded"));
        }
        if origin.ciphertext != manifest.ciphertext_sha256 {
            return Err(refused("its digest is not the one that was signed"));
        }
        let context = model_context(id, &manifest.owner);
        let wrapped = &manifest.data_key;
        let key = kms
            .unwrap_data_key(&wrapped.key, &wrapped.wrapped, &context)
            .await
            .map_err(|error| match error.code() {
                Code::InvalidArgument => refused("its data key does not fit"),
                _ => InferenceError::kms(error),
            })?;
        let bytes =
            envelope::open(&key, &ciphertext, &context).map_err(|_| refused("it does not decrypt"))?;
        let model = Content::read(manifest.algorithm, bytes.expose())
            .map_err(|_| refused("its content cannot be read"))?;
        let verified = Arc::new(Verified {
            manifest,
            manifest_sha256,
            model,
        });
        self.cache.put(id, origin, verified.clone());
        Ok(verified)
    }

    /// Deletes a model.
    ///
    /// # Errors
    /// As [`Flow::verified`], of who may not.
    pub async fn delete(&self, caller: &Caller, id: ModelId) -> Result<(), InferenceError> {
        let registry = self.registry.clone();
        let record = blocking(move || registry.get(id)).await?;
        self.permit(caller, Verb::Delete, id, &record.owner).await?;
        let registry = self.registry.clone();
        blocking(move || registry.delete(id)).await?;
        self.cache.remove(id);
        Ok(())
    }

    /// A dataset of which the caller may do that.
    async fn open_dataset(&self, caller: &Caller, verb: Verb, name: &str) -> Result<Opened, InferenceError> {
        let ingest = Ingest::new(self.acting(&self.ingest, caller));
        let dataset = ingest
            .get(name)
            .await
            .map_err(|error| InferenceError::ingest(name, error))?;
        // Ingest trusts this service for every dataset: what the caller may do with it is asked here.
        let may = self.access.may(caller, verb, dataset.name, &dataset.owner);
        if !may.await? {
            return Err(InferenceError::DatasetNotFound(name.to_owned()));
        }
        let mut reader = CsvReader::new(CsvLimits::default());
        let mut builder = TableBuilder::new(self.max_table_bytes);
        let failure = Mutex::new(None);
        let opened = ingest
            .open_dataset(&self.kms_for(caller), name, DATASET_SIGNER, |chunk| {
                reader.feed(chunk.expose(), &mut builder).map_err(|error| {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    unreadable()
                })
            })
            .await;
        if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error.into());
        }
        let verified = opened.map_err(|error| InferenceError::ingest(name, error))?;
        reader.finish(&mut builder)?;
        Ok(Opened {
            table: builder.finish()?,
            verified,
        })
    }

    pub(crate) fn kms_for(&self, caller: &Caller) -> Kms {
        Kms::new(self.acting(&self.kms, caller))
    }

    fn acting(&self, connection: &Connection, caller: &Caller) -> Connection {
        connection
            .clone()
            .on_behalf_of(&caller.owner().to_string())
            .in_trace(&caller.trace_id)
    }
}

fn tell(on_step: &OnStep, step: Step) -> Result<(), InferenceError> {
    match on_step(step) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(InferenceError::Cancelled),
    }
}

/// Runs CPU or disk work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, InferenceError> + Send + 'static,
) -> Result<T, InferenceError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            // The gate answers a panic of one request with INTERNAL.
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(InferenceError::Cancelled),
        },
    }
}

/// Ends the download; the CSV error that caused it is reported in its place.
fn unreadable() -> ClientError {
    ClientError::Io {
        path: "dataset".into(),
        source: io::ErrorKind::InvalidData.into(),
    }
}
