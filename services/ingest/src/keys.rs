//! What the domain asks of whoever holds the keys.

use asterism_client::manifest::WrappedKey;
use asterism_crypto::{SecretKey, Signed, VerifyingKey};

use crate::error::IngestError;

/// A data key, to be used now, and as it is stored.
pub struct FreshKey {
    /// The key; wiped on drop.
    pub key: SecretKey,
    /// The key as the manifest carries it.
    pub wrapped: WrappedKey,
}

/// Data keys and signatures. An `Err` says that the keys could not be asked; `None` says that they refuse.
pub trait Keys {
    /// A fresh data key, bound to `context`.
    fn fresh(&self, context: &[u8]) -> Result<FreshKey, IngestError>;

    /// The data key again, or `None` when it was not wrapped for `context` by that key.
    fn unwrap_key(&self, wrapped: &WrappedKey, context: &[u8]) -> Result<Option<SecretKey>, IngestError>;

    /// Signs a statement for `domain`.
    fn sign(&self, domain: &str, payload: Vec<u8>) -> Result<Signed, IngestError>;

    /// Id of the key that signs: a statement of another key is refused.
    fn signer(&self) -> &str;

    /// The public key of a version of the signer, or `None` when there is no such version.
    fn public_key(&self, version: u32) -> Result<Option<VerifyingKey>, IngestError>;
}
