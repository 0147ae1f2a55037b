//! Sealing, unsealing, and changes of the seal.

use std::{
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering, mpsc},
    time::Duration,
};

use super::{Unsealed, Vault};
use crate::{
    KmsError,
    root::{GivenShares, NewSeal, Secret},
};

/// How long calls that were under way when the vault was sealed may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What only one at a time may see.
#[derive(Default)]
pub(super) struct State {
    given: GivenShares,
    /// Hears when nobody holds any more what was opened last.
    last: Option<mpsc::Receiver<()>>,
}

/// The place of the one who seals, unseals, or changes the seal.
pub(crate) struct Turn<'a> {
    vault: &'a Vault,
    state: MutexGuard<'a, State>,
}

impl<'a> Turn<'a> {
    pub(super) fn take(vault: &'a Vault) -> Self {
        let state = vault.turn.lock().unwrap_or_else(PoisonError::into_inner);
        Self { vault, state }
    }

    /// Opens the vault, or takes a share towards that; tells whether it is open. What is open already stays as it is, whatever is given.
    ///
    /// # Errors
    /// [`RootError`](crate::root::RootError) for a secret that does not open it; [`KmsError::CallsUnderWay`],
    /// [`KmsError::UpgradeAtStart`], and whatever is wrong with what lies behind.
    pub(crate) fn unseal(&mut self, secret: Option<Secret>) -> Result<bool, KmsError> {
        if self.vault.get().is_ok() {
            return Ok(true);
        }
        let secrets = match secret {
            Some(Secret::Share(share)) => {
                let given = self.state.given.add(&self.vault.seal, share)?;
                self.count();
                if given < usize::from(self.vault.seal.facts().threshold) {
                    return Ok(false);
                }
                self.state.given.take()
            }
            Some(passphrase) => vec![passphrase],
            None => vec![],
        };
        let opened = self.open(&secrets);
        if opened.is_err() {
            // Each was found to be one of the seal's: their holders need not come again for a disk that was full.
            for secret in secrets {
                if let Secret::Share(share) = secret {
                    self.state.given.add(&self.vault.seal, share)?;
                }
            }
        }
        self.count();
        opened.map(|()| true)
    }

    /// Forgets the shares that were given so far; gives how many those were.
    pub(crate) fn reset(&mut self) -> usize {
        let forgotten = self.state.given.take().len();
        self.count();
        forgotten
    }

    /// Forgets everything that was opened, as soon as the calls that are under way end. Tells whether they have.
    pub(crate) fn seal(&mut self) -> bool {
        let vault = self.vault;
        // From here on the gate refuses, streams without an end are ended and no page of a rotation is begun.
        let open = self.become_open(None);
        vault.trust.withdraw();
        drop(open);
        self.last_is_over()
    }

    /// Puts the root keys under another seal.
    ///
    /// # Errors
    /// [`RootError`](crate::root::RootError), [`KmsError::Sealed`]; then the seal is as it was.
    pub(crate) fn rekey(&mut self, secrets: &[Secret], new: NewSeal) -> Result<(), KmsError> {
        let vault = self.vault;
        vault.get()?;
        vault.seal.rekey(secrets, new, &*vault.records, (vault.clock)())?;
        Ok(())
    }

    /// Makes a new root key, under which everything is wrapped from now on, and gives its version. What is there waits for
    /// [`Vault::wrap_anew`].
    ///
    /// # Errors
    /// [`RootError`](crate::root::RootError), [`KmsError::Sealed`].
    pub(crate) fn rotate_root(&mut self, secrets: &[Secret]) -> Result<u32, KmsError> {
        let vault = self.vault;
        let unsealed = vault.get()?;
        let roots = vault
            .seal
            .begin_rotation(secrets, &*vault.records, (vault.clock)())?;
        let version = roots.newest_version();
        unsealed.progress.begin();
        unsealed.keyring.adopt(roots);
        Ok(version)
    }

    fn open(&mut self, secrets: &[Secret]) -> Result<(), KmsError> {
        if !self.last_is_over() {
            return Err(KmsError::CallsUnderWay);
        }
        let vault = self.vault;
        let (unsealed, ended) = vault.open(secrets).inspect_err(|_| vault.trust.withdraw())?;
        self.state.last = Some(ended);
        self.become_open(Some(Arc::new(unsealed)));
        Ok(())
    }

    /// Puts this in the place of what is open, which it gives; whoever is told finds it so.
    fn become_open(&self, next: Option<Arc<Unsealed>>) -> Option<Arc<Unsealed>> {
        let mut open = self.vault.open.write().unwrap_or_else(PoisonError::into_inner);
        self.vault.unsealed.send_replace(next.is_some());
        std::mem::replace(&mut *open, next)
    }

    /// Whether nobody holds any more what was opened last; waits a while for that.
    fn last_is_over(&mut self) -> bool {
        let over = self.state.last.as_ref().is_none_or(|last| {
            // Nobody sends: the end is that the sender is gone.
            last.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Disconnected)
        });
        if over {
            self.state.last = None;
        }
        over
    }

    fn count(&self) {
        self.vault
            .given
            .store(self.state.given.count(), Ordering::Release);
    }
}
