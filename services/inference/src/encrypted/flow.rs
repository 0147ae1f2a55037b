//! The use cases of encrypted prediction, across services: kms is the authority on evaluation keys, and signs receipts.

use std::{sync::Arc, time::Duration};

use asterism_chassis::call::Caller;
use asterism_client::{
    proto::kms::KeyType,
    receipt::{ENCRYPTED_REPLY_DOMAIN, REPLY_SIGNER, ReplyReceipt},
};
use asterism_crypto::{Digest, Signed};
use asterism_fhe::{
    compile::Options,
    server::{EvaluationKey, Stage},
};
use asterism_policy::Verb;
use tokio::sync::{Mutex, OnceCell};
use tonic::Code;

use crate::{
    encrypted::{
        Compiled, EncryptedError, Engine, EvaluationKeyId, EvaluationKeys, KeyHeader, KeyUpload, LoadedKeys,
        Programs, StoredKey, Waiter, programs,
    },
    error::InferenceError,
    flow::{Flow, blocking},
    models::{Compilation, ModelId, Verified},
};

/// Compiles models, keeps evaluation keys, and answers encrypted queries.
pub struct EncryptedFlow {
    flow: Arc<Flow>,
    programs: Programs,
    keys: Arc<EvaluationKeys>,
    loaded: LoadedKeys,
    /// Held while a key is loaded, so that two requests do not load the same at once.
    loading: Mutex<()>,
    engine: Engine,
    /// Set once the key that signs receipts is known to exist.
    signer: OnceCell<()>,
    max_query_bytes: usize,
}

/// A verified model and its program.
#[derive(Clone)]
pub struct Target {
    /// Which model.
    pub id: ModelId,
    /// The model in the clear.
    pub verified: Arc<Verified>,
    /// The model compiled.
    pub compiled: Arc<Compiled>,
}

/// What it takes to answer one caller's queries to one model.
#[derive(Clone)]
pub struct Session {
    caller: Caller,
    target: Target,
    key: Option<Arc<EvaluationKey>>,
}

impl Session {
    /// The model.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

/// A query that was evaluated; its reply is not signed yet.
pub struct Evaluated {
    query_sha256: Digest,
    reply: Vec<u8>,
    stages: Vec<(Stage, Duration)>,
}

/// An answered query.
pub struct Answered {
    /// SHA-256 of the query.
    pub query_sha256: Digest,
    /// SHA-256 of the reply.
    pub reply_sha256: Digest,
    /// For the client.
    pub reply: Vec<u8>,
    /// What the service answers for.
    pub receipt: Signed,
    /// How long each stage of the evaluation took.
    pub stages: Vec<(Stage, Duration)>,
}

impl EncryptedFlow {
    /// Use cases over trained models, stored keys and the threads for evaluations. Queries have at most `max_query_bytes`.
    pub fn new(
        flow: Arc<Flow>,
        programs: Programs,
        keys: Arc<EvaluationKeys>,
        loaded: LoadedKeys,
        engine: Engine,
        max_query_bytes: usize,
    ) -> Self {
        Self {
            flow,
            programs,
            keys,
            loaded,
            loading: Mutex::new(()),
            engine,
            signer: OnceCell::new(),
            max_query_bytes,
        }
    }

    /// Compiles a model, and remembers how: after a restart it is compiled the same way.
    ///
    /// # Errors
    /// As [`Flow::verified`] and [`programs::compile`]; [`EncryptedError::QueriesTooLarge`].
    pub async fn compile(
        &self,
        caller: &Caller,
        id: ModelId,
        options: Options,
    ) -> Result<Target, InferenceError> {
        let verified = self.flow.verified(caller, Verb::Update, id).await?;
        let compiled = self.compiled_with(id, &verified, options).await?;
        let query_bytes = compiled.program().query_bytes();
        if query_bytes > self.max_query_bytes {
            return Err(EncryptedError::QueriesTooLarge {
                query_bytes,
                limit: self.max_query_bytes,
            }
            .into());
        }
        let compilation = Compilation {
            plan: options.plan.map(|plan| plan.name().to_owned()),
            used_edges_only: options.used_edges_only,
            compiled_sha256: compiled.digest(),
        };
        let registry = self.flow.registry().clone();
        blocking(move || registry.put_compilation(id, &compilation)).await?;
        Ok(Target {
            id,
            verified,
            compiled,
        })
    }

    /// A model that was compiled, now or before a restart, if the caller may do that to it.
    ///
    /// # Errors
    /// As [`Flow::verified`]; [`EncryptedError::NotCompiled`]; [`EncryptedError::CompilationChanged`].
    pub async fn target(&self, caller: &Caller, verb: Verb, id: ModelId) -> Result<Target, InferenceError> {
        let verified = self.flow.verified(caller, verb, id).await?;
        let registry = self.flow.registry().clone();
        let compilation = blocking(move || registry.compilation(id)).await?;
        let compilation = compilation.ok_or_else(|| EncryptedError::NotCompiled(id.name()))?;
        let options = programs::options(&compilation)?;
        let compiled = self.compiled_with(id, &verified, options).await?;
        if compiled.digest() != compilation.compiled_sha256 {
            return Err(EncryptedError::CompilationChanged(id.name()).into());
        }
        Ok(Target {
            id,
            verified,
            compiled,
        })
    }

    async fn compiled_with(
        &self,
        id: ModelId,
        verified: &Arc<Verified>,
        options: Options,
    ) -> Result<Arc<Compiled>, InferenceError> {
        let slot = self.programs.slot(id, options);
        let compile = async || {
            let verified = verified.clone();
            blocking(move || {
                let model = verified.model.to_fhe()?;
                programs::compile(&model, options).map(Arc::new)
            })
            .await
        };
        slot.cell.get_or_try_init(compile).await.cloned()
    }

    /// Forgets what a deleted model was compiled to.
    pub fn forget(&self, id: ModelId) {
        self.programs.remove(id);
    }

    /// Begins the upload of an evaluation key.
    ///
    /// # Errors
    /// As [`EvaluationKeys::begin`].
    pub async fn begin_key(&self, caller: &Caller, header: KeyHeader) -> Result<KeyUpload, InferenceError> {
        let (keys, owner) = (self.keys.clone(), caller.owner().to_string());
        blocking(move || keys.begin(&owner, header)).await
    }

    /// Stores an evaluation key that came whole, and has kms record whose it is.
    ///
    /// # Errors
    /// As [`EvaluationKeys::keep`]; kms' own.
    pub async fn keep_key(&self, caller: &Caller, upload: KeyUpload) -> Result<StoredKey, InferenceError> {
        upload.check()?;
        let key = upload.key();
        // First, so that no key is stored that could not be used.
        self.flow
            .kms_for(caller)
            .record_evaluation_key(&key.sha256, &key.params, key.total_bytes)
            .await
            .map_err(InferenceError::kms)?;
        let keys = self.keys.clone();
        blocking(move || keys.keep(upload)).await
    }

    /// Evaluation keys of the caller's, after `after`, at most `limit`.
    pub async fn keys(
        &self,
        caller: &Caller,
        after: Option<EvaluationKeyId>,
        limit: usize,
    ) -> Result<Vec<StoredKey>, InferenceError> {
        let (keys, owner) = (self.keys.clone(), caller.owner().to_string());
        blocking(move || keys.page(&owner, after, limit)).await
    }

    /// Deletes an evaluation key of the caller's.
    ///
    /// # Errors
    /// [`EncryptedError::KeyNotFound`]
    pub async fn delete_key(&self, caller: &Caller, id: EvaluationKeyId) -> Result<(), InferenceError> {
        let (keys, owner) = (self.keys.clone(), caller.owner().to_string());
        blocking(move || keys.delete(&owner, id)).await?;
        self.loaded.remove(caller.owner().as_str(), id);
        match self
            .flow
            .kms_for(caller)
            .delete_evaluation_key_record(&id.0)
            .await
        {
            Err(error) if error.code() != Code::NotFound => Err(InferenceError::kms(error)),
            _ => Ok(()),
        }
    }

    /// Makes ready to answer the caller's queries to a model; `evaluation_key` is empty for plans without.
    ///
    /// # Errors
    /// As [`EncryptedFlow::target`]; what is wrong with the evaluation key.
    pub async fn open(
        &self,
        caller: &Caller,
        id: ModelId,
        evaluation_key: &str,
    ) -> Result<Session, InferenceError> {
        let target = self.target(caller, Verb::Predict, id).await?;
        let program = target.compiled.program();
        let params = program.bundle().params_id();
        let needed = program.explanation().key_bytes > 0;
        let key = match (needed, evaluation_key.is_empty()) {
            (false, true) => None,
            (false, false) => {
                return Err(InferenceError::field(
                    "evaluation_key",
                    "must be empty: the model's plan takes no evaluation key",
                ));
            }
            (true, true) => return Err(EncryptedError::KeyNeeded(params.name()).into()),
            (true, false) => {
                let id = EvaluationKeyId::from_name("evaluation_key", evaluation_key)?;
                let key = self.key(caller, id).await?;
                if key.params_id() != params {
                    return Err(EncryptedError::KeyOfOtherParams {
                        expected: params.name(),
                        found: key.params_id().name(),
                    }
                    .into());
                }
                Some(key)
            }
        };
        Ok(Session {
            caller: caller.clone(),
            target,
            key,
        })
    }

    /// An evaluation key of the caller's, loaded. The first time since the start it is read from the disk, and believed only
    /// if it is what kms has on record.
    async fn key(&self, caller: &Caller, id: EvaluationKeyId) -> Result<Arc<EvaluationKey>, InferenceError> {
        let owner = caller.owner().to_string();
        let stored = {
            let (keys, owner) = (self.keys.clone(), owner.clone());
            blocking(move || keys.get(&owner, id)).await?
        };
        if let Some(key) = self.loaded.get(&owner, id) {
            return Ok(key);
        }
        let _loading = self.loading.lock().await;
        if let Some(key) = self.loaded.get(&owner, id) {
            return Ok(key);
        }
        let refused = move |problem| EncryptedError::KeyRefused {
            key: id.name(),
            problem,
        };
        let record = match self.flow.kms_for(caller).evaluation_key_record(&id.0).await {
            Ok(record) => record,
            Err(error) if error.code() == Code::NotFound => {
                return Err(refused("kms has no record of it").into());
            }
            Err(error) => return Err(InferenceError::kms(error)),
        };
        let same = record.owner == owner
            && stored.owner == owner
            && record.sha256 == id.0.as_bytes()
            && stored.sha256 == id.0
            && record.params == stored.params
            && record.total_bytes == stored.total_bytes;
        if !same {
            return Err(refused("its record is not the one that kms has").into());
        }
        let keys = self.keys.clone();
        let key = blocking(move || {
            let bytes = keys.read(&stored)?;
            if Digest::of(&bytes) != id.0 {
                return Err(refused("its digest is not the one on record").into());
            }
            let key = EvaluationKey::from_bytes(&bytes).map_err(|_| refused("it cannot be read"))?;
            if key.params_id().name() == stored.params {
                Ok(Arc::new(key))
            } else {
                Err(refused("it is for another parameter set than the one on record").into())
            }
        })
        .await?;
        self.loaded.put(&owner, id, key.clone());
        Ok(key)
    }

    /// Evaluates a query, if the caller may still predict with the model: a session may outlive what was granted.
    ///
    /// # Errors
    /// As [`Flow::verified`], of who may not; [`EncryptedError::Query`] before any work is done for it; as [`Engine::evaluate`].
    pub async fn evaluate(
        &self,
        session: &Session,
        query: Vec<u8>,
        waiter: &Waiter,
    ) -> Result<Evaluated, InferenceError> {
        let target = &session.target;
        let owner = &target.verified.manifest.owner;
        self.flow
            .permit(&session.caller, Verb::Predict, target.id, owner)
            .await?;
        let compiled = target.compiled.clone();
        compiled
            .program()
            .check(&query)
            .map_err(EncryptedError::of_query)?;
        let evaluation = self
            .engine
            .evaluate(compiled, session.key.clone(), query, waiter)
            .await?;
        Ok(Evaluated {
            query_sha256: Digest::from_bytes(evaluation.query_digest),
            reply: evaluation.reply,
            stages: evaluation.stages,
        })
    }

    /// Has kms sign which model answered which query by which reply.
    ///
    /// # Errors
    /// kms' own.
    pub async fn sign(&self, session: &Session, evaluated: Evaluated) -> Result<Answered, InferenceError> {
        let Evaluated {
            query_sha256,
            reply,
            stages,
        } = evaluated;
        let kms = self.flow.kms_for(&session.caller);
        self.signer
            .get_or_try_init(async || {
                let made = kms.ensure_key(REPLY_SIGNER, KeyType::EcSignP256Sha256).await;
                made.map(drop)
            })
            .await
            .map_err(InferenceError::kms)?;
        let reply_sha256 = Digest::of(&reply);
        let receipt = ReplyReceipt::new(
            session.target.id.name(),
            session.target.verified.manifest_sha256,
            session.target.compiled.digest(),
            query_sha256,
            reply_sha256,
            session.caller.owner().to_string(),
            jiff::Timestamp::now().to_string(),
        );
        let receipt = kms
            .sign_statement(REPLY_SIGNER, ENCRYPTED_REPLY_DOMAIN, receipt.to_bytes())
            .await
            .map_err(InferenceError::kms)?;
        Ok(Answered {
            query_sha256,
            reply_sha256,
            reply,
            receipt,
            stages,
        })
    }
}
