//! Material from outside, and to it. Both ways it is encrypted to a public key, and bound to what it is.
//!
//! The private key of an import job lives in memory only, for a day at most and for one import: whoever later gets disk, backup and
//! root key cannot open the uploads that went over the network. A restart of the service ends all jobs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use asterism_crypto::{DecryptionKey, Digest, EncryptionKey, SecretBytes, random_array, transfer};

use crate::{
    error::KmsError,
    keys::{Key, KeyId, KeyType, Keyring, NewKey, RequestId, lifecycle::Operation, material::Material},
};

/// How long a job is good for.
const JOB_MS: u64 = 24 * 3600 * 1000;
/// Jobs of one principal at a time.
const MAX_JOBS_OF_ONE: usize = 16;
/// Jobs of everybody at a time.
const MAX_JOBS: usize = 4096;

/// What a principal needs to import material.
pub struct ImportJob {
    /// 32 hex digits.
    pub id: String,
    /// Which key it is for.
    pub key: KeyId,
    /// Of which type.
    pub key_type: KeyType,
    /// The material is encrypted to this.
    pub public_key: EncryptionKey,
    /// When the job ends.
    pub expires_at_ms: u64,
}

/// What an import asks for.
pub struct Import {
    /// Which job.
    pub job: String,
    /// The material, encrypted.
    pub sealed: Vec<u8>,
    /// For the key, if it is a new one: labels, and whether it is exportable.
    pub labels: std::collections::BTreeMap<String, String>,
    /// See there.
    pub exportable: bool,
    /// When the version becomes active; `None` for at once.
    pub active_from_ms: Option<u64>,
}

/// Jobs that were not used yet.
#[derive(Default)]
pub(crate) struct ImportJobs(Mutex<HashMap<String, Pending>>);

struct Pending {
    principal: String,
    key: KeyId,
    key_type: KeyType,
    private: DecryptionKey,
    expires_at_ms: u64,
}

impl ImportJobs {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job out: nobody else has it then.
    fn take(&self, id: &str, principal: &str, now_ms: u64) -> Option<Pending> {
        let mut jobs = self.lock();
        let usable = |job: &Pending| job.principal == principal && job.expires_at_ms > now_ms;
        if jobs.get(id).is_some_and(usable) {
            jobs.remove(id)
        } else {
            None
        }
    }
}

impl Keyring {
    /// A job for one import of material of `key_type` into `key`, which may be there or not.
    ///
    /// # Errors
    /// [`KmsError::WrongKeyType`] when it is there with another type; [`KmsError::TooManyImportJobs`].
    pub fn create_import_job(
        &self,
        key: KeyId,
        key_type: KeyType,
        principal: &str,
        now_ms: u64,
    ) -> Result<ImportJob, KmsError> {
        match self.get(&key) {
            Ok(there) => check_type(&there, key_type)?,
            Err(KmsError::KeyNotFound(_)) => {}
            Err(error) => return Err(error),
        }
        let private = DecryptionKey::generate()?;
        let job = ImportJob {
            id: format!("{:032x}", u128::from_be_bytes(random_array()?)),
            key: key.clone(),
            key_type,
            public_key: private.encryption_key(),
            expires_at_ms: now_ms.saturating_add(JOB_MS),
        };
        let mut jobs = self.import_jobs.lock();
        jobs.retain(|_, job| job.expires_at_ms > now_ms);
        let own = jobs.values().filter(|job| job.principal == principal).count();
        if own >= MAX_JOBS_OF_ONE || jobs.len() >= MAX_JOBS {
            return Err(KmsError::TooManyImportJobs);
        }
        let pending = Pending {
            principal: principal.to_owned(),
            key,
            key_type,
            private,
            expires_at_ms: job.expires_at_ms,
        };
        jobs.insert(job.id.clone(), pending);
        Ok(job)
    }

    /// Makes a key of imported material, or a further version of one that `may_change` allows: durable when this returns. The job ends
    /// when it succeeds.
    ///
    /// # Errors
    /// [`KmsError::ImportJobNotFound`], [`KmsError::DecryptionFailed`] for what does not open under the job's key, [`KmsError::Field`] for
    /// what is no material of the type; else as [`Keyring::create`] and [`Keyring::rotate`], and what `may_change` answers.
    pub fn import<E: From<KmsError>>(
        &self,
        import: &Import,
        request: &RequestId<'_>,
        now_ms: u64,
        may_change: impl FnOnce(&KeyId) -> Result<Arc<Key>, E>,
    ) -> Result<Arc<Key>, E> {
        let parameters = format!(
            "import {} {} {:?} {} {:?}",
            import.job,
            Digest::of(&import.sealed),
            import.labels,
            import.exportable,
            import.active_from_ms
        );
        if let Some(id) = self.done_before(request, &Digest::of(parameters.as_bytes()))? {
            return may_change(&id);
        }
        let job = self
            .import_jobs
            .take(&import.job, request.principal, now_ms)
            .ok_or_else(|| KmsError::ImportJobNotFound(import.job.clone()))?;
        let imported = self.import_under(&job, import, &parameters, request, now_ms, may_change);
        if imported.is_err() {
            self.import_jobs.lock().insert(import.job.clone(), job);
        }
        imported
    }

    fn import_under<E: From<KmsError>>(
        &self,
        job: &Pending,
        import: &Import,
        parameters: &str,
        request: &RequestId<'_>,
        now_ms: u64,
        may_change: impl FnOnce(&KeyId) -> Result<Arc<Key>, E>,
    ) -> Result<Arc<Key>, E> {
        let material = open(job, import)?;
        match self.get(&job.key) {
            Err(KmsError::KeyNotFound(_)) => {
                let new = NewKey {
                    id: Some(job.key.clone()),
                    key_type: job.key_type,
                    labels: import.labels.clone(),
                    active_from_ms: import.active_from_ms,
                    exportable: import.exportable,
                    required_approvals: 0,
                };
                Ok(self.make(new, (&material, true), parameters, request, now_ms)?)
            }
            Err(error) => Err(error.into()),
            Ok(_) => {
                let key = may_change(&job.key)?;
                check_type(&key, job.key_type)?;
                if import.exportable || !import.labels.is_empty() {
                    let text = "and labels are for a new key; this one is there";
                    return Err(KmsError::field("exportable", text).into());
                }
                let active_from_ms = super::keyring::check_activation(import.active_from_ms, now_ms)?;
                let _changing = self.changing();
                let changed = self.change(&job.key, parameters, request, |loaded| {
                    self.add_version(&job.key, loaded, (&material, true), active_from_ms, now_ms)
                });
                Ok(changed?)
            }
        }
    }

    /// The material of a version, encrypted to `recipient`.
    ///
    /// # Errors
    /// [`KmsError::NotExportable`], [`KmsError::VersionNotFound`], [`KmsError::VersionState`], [`KmsError::VersionTooOld`].
    pub fn export(
        &self,
        key: &Key,
        version: u32,
        recipient: &EncryptionKey,
        now_ms: u64,
    ) -> Result<Vec<u8>, KmsError> {
        if !key.exportable {
            return Err(KmsError::NotExportable(key.id.name()));
        }
        key.permit(version, Operation::Process, now_ms)?;
        let material = self.raw_material(key, version)?;
        let info = transfer::export_info(key.id.as_str(), version, &key.key_type.to_string());
        Ok(recipient.seal(&info, b"", material.expose())?)
    }
}

fn open(job: &Pending, import: &Import) -> Result<SecretBytes, KmsError> {
    let info = transfer::import_info(&import.job, job.key.as_str(), &job.key_type.to_string());
    let material = job
        .private
        .open(&info, b"", &import.sealed)
        .map_err(|_| KmsError::DecryptionFailed)?;
    Material::check(job.key_type, &material).map_err(|_| {
        KmsError::field(
            "sealed_material",
            format!("does not hold a key of type {}", job.key_type),
        )
    })?;
    Ok(material)
}

fn check_type(key: &Key, needed: KeyType) -> Result<(), KmsError> {
    if key.key_type == needed {
        return Ok(());
    }
    Err(KmsError::WrongKeyType {
        key: key.id.name(),
        actual: key.key_type,
        needed: needed.to_string(),
    })
}
