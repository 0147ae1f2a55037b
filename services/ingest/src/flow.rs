//! What needs kms: data keys and signatures, asked for on behalf of the caller.

use std::future::Future;

use asterism_chassis::{call::Caller, error::ErrorClass};
use asterism_client::{ClientError, Connection, Kms, manifest::WrappedKey, proto::kms::KeyType};
use asterism_crypto::{SecretKey, Signed, VerifyingKey};
use tokio::runtime::Handle;
use tonic::Code;

use crate::{
    config::KeyConfig,
    error::IngestError,
    keys::{FreshKey, Keys},
};

/// Makes a [`KmsKeys`] for each request.
#[derive(Clone)]
pub struct KeySource {
    kms: Connection,
    names: KeyConfig,
    runtime: Handle,
}

impl KeySource {
    /// Over a connection to kms; calls are driven by `runtime`.
    pub fn new(kms: Connection, names: KeyConfig, runtime: Handle) -> Self {
        Self { kms, names, runtime }
    }

    /// The keys as `caller` may use them.
    pub fn for_caller(&self, caller: &Caller) -> KmsKeys {
        let acting = self
            .kms
            .clone()
            .on_behalf_of(caller.owner().as_str())
            .in_trace(&caller.trace_id);
        KmsKeys {
            kms: Kms::new(acting),
            names: self.names.clone(),
            runtime: self.runtime.clone(),
        }
    }
}

/// The keys of kms for synchronous callers: they block, and so never call from an async thread.
pub struct KmsKeys {
    kms: Kms,
    names: KeyConfig,
    runtime: Handle,
}

impl KmsKeys {
    /// Asks kms, and asks again once the key has been made if there was none.
    fn ask<T, F: Future<Output = Result<T, ClientError>>>(
        &self,
        id: &str,
        key_type: KeyType,
        call: impl Fn() -> F,
    ) -> Result<T, IngestError> {
        self.runtime.block_on(async {
            match call().await {
                Err(error) if error.code() == Code::NotFound => {
                    self.kms.ensure_key(id, key_type).await.map_err(unavailable)?;
                    call().await.map_err(unavailable)
                }
                answer => answer.map_err(unavailable),
            }
        })
    }
}

impl Keys for KmsKeys {
    fn fresh(&self, context: &[u8]) -> Result<FreshKey, IngestError> {
        let id = &self.names.data;
        let fresh = self.ask(id, KeyType::Aes256Gcm, || self.kms.generate_data_key(id, context))?;
        let wrapped = WrappedKey {
            key: id.clone(),
            version: fresh.key_version,
            wrapped: fresh.wrapped,
        };
        Ok(FreshKey {
            key: fresh.key,
            wrapped,
        })
    }

    fn unwrap_key(&self, wrapped: &WrappedKey, context: &[u8]) -> Result<Option<SecretKey>, IngestError> {
        refusal(
            self.runtime
                .block_on(self.kms.unwrap_data_key(&wrapped.key, &wrapped.wrapped, context)),
        )
    }

    fn sign(&self, domain: &str, payload: Vec<u8>) -> Result<Signed, IngestError> {
        let id = &self.names.signer;
        self.ask(id, KeyType::EcSignP256Sha256, || {
            self.kms.sign_statement(id, domain, payload.clone())
        })
    }

    fn signer(&self) -> &str {
        &self.names.signer
    }

    fn public_key(&self, version: u32) -> Result<Option<VerifyingKey>, IngestError> {
        refusal(
            self.runtime
                .block_on(self.kms.public_key(&self.names.signer, version)),
        )
    }
}

/// Tells "kms says no to these bytes", which is a finding, from "kms could not be asked".
fn refusal<T>(answer: Result<T, ClientError>) -> Result<Option<T>, IngestError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(ClientError::Crypto(_)) => Ok(None),
        Err(error) if error.is_of_a_seal() => Err(unavailable(error)),
        Err(error) => match error.code() {
            Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition => Ok(None),
            _ => Err(unavailable(error)),
        },
    }
}

fn unavailable(error: ClientError) -> IngestError {
    let class = match error.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => ErrorClass::Unavailable,
        Code::PermissionDenied => ErrorClass::Denied,
        _ if error.is_of_a_seal() => ErrorClass::Unavailable,
        _ => ErrorClass::Internal,
    };
    tracing::warn!(%error, "kms was asked in vain");
    IngestError::Keys {
        class,
        source: Box::new(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reason: &str) -> Result<(), ClientError> {
        Err(ClientError::Refused {
            code: Code::FailedPrecondition,
            reason: reason.to_owned(),
            message: String::new(),
            violations: vec![],
            retry_after: None,
            metadata: Default::default(),
        })
    }

    #[test]
    fn a_sealed_kms_is_no_finding_about_the_data() {
        assert!(matches!(refusal(refused("KEY_VERSION_DESTROYED")), Ok(None)));
        let sealed = refusal(refused("SEALED"));
        assert!(matches!(
            sealed,
            Err(IngestError::Keys {
                class: ErrorClass::Unavailable,
                ..
            })
        ));
    }
}
