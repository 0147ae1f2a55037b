//! Who there is, and how they prove it: principals, invitations, logins, sessions, and the tokens that come of them.
//!
//! Synchronous, and free of gRPC; time is an argument everywhere. Secrets (OPAQUE's keys and records, secrets of second factors, keys that sign
//! tokens) lie on the disk sealed by the [`Vault`] only; of invitations and refresh tokens there are digests.
//!
//! What must never be: an answer to the first message of a password login before the attempt is counted, durably (`logins.rs`); a change that takes rights away and is
//! acknowledged before [`Trust`] has it (`revocations.rs`); a code, an invitation, a challenge or a proof that serves twice.

mod attempts;
mod enrolment;
mod error;
mod factors;
mod logins;
mod principals;
mod records;
mod revocations;
mod sessions;
#[cfg(test)]
mod tests;
mod tokens;
pub(crate) mod vault;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use asterism_channel::PublicKey;
use asterism_chassis::identity::{Trust, access};
use asterism_crypto::{SecretKey, SigningKey, VerifyingKey, opaque};
use asterism_store::{Batch, Records, StoreError};

pub use enrolment::{Credential, Invitation};
pub use error::DirectoryError;
pub use factors::{FactorKind, SecondFactor};
pub use logins::{Challenge, LoginStep, Proof};
pub use principals::{Factor, Principal, PrincipalState, PrincipalUpdate};
pub use sessions::{SESSION_MS, TOKEN_MS, Tokens};
pub use vault::{RECORD as VAULT_RECORD, Vault, rewrap};

use records::{OPAQUE_KEYS, decode};

/// Where a call comes from, as far as tokens are bound to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Over the channel, from the party with this static key.
    Channel(PublicKey),
    /// In the clear, from this machine.
    Loopback,
}

impl Sender {
    /// Of a call from `network`, over the channel if there is a key.
    ///
    /// # Errors
    /// [`DirectoryError::ChannelRequired`] in the clear from elsewhere.
    pub fn of(key: Option<PublicKey>, network: Option<IpAddr>) -> Result<Self, DirectoryError> {
        match key {
            Some(key) => Ok(Self::Channel(key)),
            None if network.is_some_and(|address| address.is_loopback()) => Ok(Self::Loopback),
            None => Err(DirectoryError::ChannelRequired),
        }
    }

    /// The name that tokens and sessions have for it; none for the loopback interface.
    fn thumbprint(&self) -> Option<String> {
        match self {
            Self::Channel(key) => Some(access::thumbprint(key)),
            Self::Loopback => None,
        }
    }

    /// As it stands in what a key signs at a login.
    fn name(&self) -> String {
        match self {
            Self::Channel(key) => key.to_string(),
            Self::Loopback => "loopback".to_owned(),
        }
    }
}

/// The directory of principals.
pub struct Directory {
    records: Arc<dyn Records>,
    vault: Vault,
    opaque: opaque::Server,
    /// Stands for the record of who has none, sealed as those are.
    decoy: Vec<u8>,
    /// Stands for the login key of who has none; nobody has its private half.
    decoy_key: VerifyingKey,
    keys: tokens::TokenKeys,
    factors: Vec<Box<dyn SecondFactor>>,
    pending: Mutex<HashMap<String, logins::Pending>>,
    trust: Arc<Trust>,
    revision: AtomicU64,
    /// Held by who reads, decides and writes.
    turn: Mutex<()>,
}

impl Directory {
    /// Opens the directory, or makes it at the first start; `root` is the root key. Tells `trust` what holds.
    ///
    /// # Errors
    /// [`DirectoryError::Damaged`] when something does not open under this root key; [`DirectoryError::Store`].
    pub fn open(
        records: Arc<dyn Records>,
        root: &SecretKey,
        trust: Arc<Trust>,
        now_ms: u64,
    ) -> Result<Self, DirectoryError> {
        let vault = Vault::open(root, &*records)?;
        let opaque = opaque_keys(&*records, &vault)?;
        let decoy = vault.seal("password", logins::NOBODY, opaque.decoy()?.expose())?;
        let keys = tokens::TokenKeys::open(records.clone(), &vault, now_ms)?;
        let directory = Self {
            records,
            vault,
            opaque,
            decoy,
            decoy_key: SigningKey::generate()?.verifying_key(),
            keys,
            factors: factors::all(),
            pending: Mutex::default(),
            trust,
            // Later than any that a former process gave, unless the clock was set back by more than it ran.
            revision: AtomicU64::new(now_ms),
            turn: Mutex::default(),
        };
        directory.publish(now_ms)?;
        Ok(directory)
    }

    /// Forgets what is over, and rotates the key that signs tokens when it is old. From time to time.
    ///
    /// # Errors
    /// [`DirectoryError::Store`], [`DirectoryError::Crypto`]
    pub fn sweep(&self, now_ms: u64) -> Result<(), DirectoryError> {
        let _turn = self.turn();
        self.forget_logins(now_ms);
        let mut changed = self.keys.rotate_when_due(&self.vault, now_ms)?;
        for (kind, over) in records::TEMPORARY {
            changed |= self.forget(kind, *over, now_ms)?;
        }
        if changed {
            self.publish(now_ms)?;
        }
        Ok(())
    }

    /// Deletes records of a kind that are over; whether there were any.
    fn forget(
        &self,
        kind: &[u8],
        over: fn(&[u8], u64) -> Result<bool, DirectoryError>,
        now_ms: u64,
    ) -> Result<bool, DirectoryError> {
        const STRIDE: usize = 256;
        let (mut from, mut any) = (kind.to_vec(), false);
        loop {
            let page = self.records.scan(&from, kind, STRIDE)?;
            let full = page.len() == STRIDE;
            let mut batch = Batch::new();
            for (at, value) in page {
                from = [at.as_slice(), &[0]].concat();
                if over(&value, now_ms)? {
                    batch = batch.delete(at);
                }
            }
            if !batch.is_empty() {
                self.records.commit(batch)?;
                any = true;
            }
            if !full {
                return Ok(any);
            }
        }
    }

    fn read<T: serde::de::DeserializeOwned>(&self, at: &[u8]) -> Result<Option<T>, DirectoryError> {
        self.records.get(at)?.map(|bytes| decode(&bytes)).transpose()
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// OPAQUE's keys, made at the first start.
fn opaque_keys(records: &dyn Records, vault: &Vault) -> Result<opaque::Server, DirectoryError> {
    if let Some(sealed) = records.get(OPAQUE_KEYS)? {
        let bytes = vault.open_sealed("opaque-keys", "", &sealed)?;
        return opaque::Server::from_bytes(bytes.expose())
            .map_err(|_| DirectoryError::Damaged("OPAQUE's keys"));
    }
    let server = opaque::Server::generate()?;
    let sealed = vault.seal("opaque-keys", "", server.to_secret_bytes().expose())?;
    match records.commit(Batch::new().expect_absent(OPAQUE_KEYS).put(OPAQUE_KEYS, sealed)) {
        Ok(()) => Ok(server),
        Err(StoreError::Conflict) => opaque_keys(records, vault),
        Err(error) => Err(error.into()),
    }
}
