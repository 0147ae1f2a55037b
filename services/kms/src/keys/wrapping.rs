//! How material lies on the disk: wrapped under a root key and a wrapping key of its version.

use std::sync::{Arc, PoisonError};

use asterism_crypto::{SecretBytes, envelope};
use asterism_store::Batch;

use crate::{
    error::KmsError,
    keys::{
        Key, KeyId, KeyType, Keyring, State,
        material::Material,
        record::{VersionRecord, decode, encode, version_record, wrap_context},
        version_keys,
    },
    root::Roots,
};

impl Keyring {
    /// The material of a version, unwrapped at its first use. Whether it may be used is for the caller to ask first.
    pub(crate) fn material(&self, key: &Key, version: u32) -> Result<Arc<Material>, KmsError> {
        if let Some(material) = key
            .materials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&version)
        {
            return Ok(material.clone());
        }
        let bytes = self.raw_material(key, version)?;
        let material = Material::from_bytes(key, version, &bytes);
        let material = Arc::new(material.map_err(|_| KmsError::Damaged("unwrapped key material"))?);
        key.materials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(version, material.clone());
        Ok(material)
    }

    /// The bytes of a version's material. Whether they may be used is for the caller to ask first.
    pub(crate) fn raw_material(&self, key: &Key, version: u32) -> Result<SecretBytes, KmsError> {
        key.version(version)?;
        let at = version_record(&key.id, version);
        let mut read = self.records.get(&at)?;
        loop {
            let Some(stored) = &read else {
                return Err(self.gone(key, version));
            };
            let unwrapped = self.unwrap(&key.id, version, key.key_type, &decode(stored)?);
            if let Ok(Some(bytes)) = unwrapped {
                return Ok(bytes);
            }
            // It may have been wrapped anew since it was read.
            let now = self.records.get(&at)?;
            if now == read {
                return unwrapped?.ok_or_else(|| self.gone(key, version));
            }
            read = now;
        }
    }

    /// Why there is no material: it was destroyed after `key` was read, or else somebody took it away.
    fn gone(&self, key: &Key, version: u32) -> KmsError {
        let state = match self.load(&key.id) {
            Ok(now) => now.key.version(version).map(|version| version.record().state),
            Err(error) => Err(error),
        };
        match state {
            Ok(state @ (State::DestroyScheduled | State::Destroyed)) => key.refused(version, state),
            Ok(_) => KmsError::Damaged("a version is missing"),
            Err(error) => error,
        }
    }

    /// Adds wrapped material to a batch; gives also the name of its wrapping key, which is durable.
    pub(crate) fn with_version(
        &self,
        roots: &Roots,
        batch: Batch,
        id: &KeyId,
        version: u32,
        key_type: KeyType,
        material: &SecretBytes,
    ) -> Result<(Batch, String), KmsError> {
        let (record, name) = self.wrap(roots, id, version, key_type, material)?;
        let at = version_record(id, version);
        Ok((batch.expect_absent(at.clone()).put(at, encode(&record)), name))
    }

    /// Wraps material under a fresh wrapping key, which is durable when this returns, and named.
    pub(crate) fn wrap(
        &self,
        roots: &Roots,
        id: &KeyId,
        version: u32,
        key_type: KeyType,
        bytes: &SecretBytes,
    ) -> Result<(VersionRecord, String), KmsError> {
        let (name, half) = version_keys::fresh()?;
        let record = wrap_under(roots, (&name, &half), id, version, key_type, bytes)?;
        self.version_keys.put(&name, (id, version), &half)?;
        Ok((record, name))
    }

    /// Unwraps material; `None` when its wrapping key is gone.
    pub(crate) fn unwrap(
        &self,
        id: &KeyId,
        version: u32,
        key_type: KeyType,
        record: &VersionRecord,
    ) -> Result<Option<SecretBytes>, KmsError> {
        let context = wrap_context(id, version, key_type);
        let header = envelope::parse_header(&record.wrapped);
        let roots = self.roots();
        let root = header.ok().and_then(|header| roots.get(header.key_ref.version));
        let root = root.ok_or(KmsError::Damaged("root key of wrapped key material"))?;
        let opened = match &record.wrapping_key {
            Some(name) => {
                let Some(half) = self.version_keys.get(name)? else {
                    return Ok(None);
                };
                let wrapping = version_keys::wrapping_key(root, &half, name);
                envelope::open(&wrapping, &record.wrapped, &context)
            }
            None => envelope::open(root, &record.wrapped, &context),
        };
        opened
            .map(Some)
            .map_err(|_| KmsError::Damaged("wrapped key material"))
    }
}

/// Material wrapped under the newest root and half a wrapping key, with its name.
pub(crate) fn wrap_under(
    roots: &Roots,
    (name, half): (&str, &[u8; 32]),
    id: &KeyId,
    version: u32,
    key_type: KeyType,
    bytes: &SecretBytes,
) -> Result<VersionRecord, KmsError> {
    let wrapping = version_keys::wrapping_key(roots.newest(), half, name);
    let context = wrap_context(id, version, key_type);
    Ok(VersionRecord {
        wrapped: envelope::seal(&wrapping, &roots.reference(), bytes.expose(), &context)?,
        wrapping_key: Some(name.to_owned()),
    })
}
