//! Whether the root key is in memory, and everything that was opened with it.
//!
//! What is opened with the root key lives and dies together, in one [`Unsealed`]. A call takes it once and works on it to its end, so that
//! sealing waits for no caller's good will: who comes later finds nothing.
//!
//! The rule: there is never more than one. Two would each have locks and caches of their own over the same records; so an unsealing
//! waits until the last call of before has let go, and is refused if that takes too long.

mod rotation;
mod turn;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use asterism_chassis::{Foundation, identity::Trust, outbox::Outbox};
use asterism_store::Records;
use tokio::sync::{Notify, watch};

pub(crate) use rotation::wrap_anew;
pub(crate) use turn::Turn;

use crate::{
    Clock, Config, KmsError, VERSION_KEYS_DIR, backup,
    directory::Directory,
    keys::{FileVersionKeys, Keyring, evaluation::EvaluationKeys},
    policy::Policy,
    root::{RootError, Roots, Seal, SealFacts, Secret},
    sweeper,
};

use rotation::Progress;

/// Everything that is opened with the root key.
pub(crate) struct Unsealed {
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) directory: Directory,
    pub(crate) policy: Policy,
    pub(crate) evaluation_keys: EvaluationKeys,
    progress: Progress,
    /// The last field: dropped when nothing else is left. Its receiver hears that.
    _end: mpsc::Sender<()>,
}

/// The seal of a service, and what lies behind it while it is open.
pub(crate) struct Vault {
    seal: Seal,
    records: Arc<dyn Records>,
    trust: Arc<Trust>,
    outbox: Outbox,
    data_dir: PathBuf,
    min_window_ms: u64,
    clock: Clock,
    open: RwLock<Option<Arc<Unsealed>>>,
    unsealed: watch::Sender<bool>,
    turn: Mutex<turn::State>,
    /// Shares that were given so far.
    given: AtomicUsize,
    /// Told when a rotation of the root key has begun.
    rotating: Arc<Notify>,
}

/// What may be known of the vault.
pub(crate) struct Status {
    pub(crate) facts: SealFacts,
    /// Shares that were given so far.
    pub(crate) given: usize,
    /// Of the newest root key; none while sealed.
    pub(crate) root_version: Option<u32>,
    /// Versions wrapped anew, and since when, while the root key is rotated.
    pub(crate) rotation: Option<(u64, Duration)>,
}

impl Vault {
    /// A vault that is sealed yet.
    ///
    /// # Errors
    /// As [`Seal::open`].
    pub(crate) fn new(config: &Config, foundation: &Foundation, clock: Clock) -> Result<Self, RootError> {
        let data_dir = config.common.data_dir.clone();
        let records = foundation.records.clone();
        Ok(Self {
            seal: Seal::open(&data_dir, &config.root_key, &*records, clock())?,
            records,
            trust: foundation.trust.clone(),
            outbox: foundation.gate.outbox().clone(),
            data_dir,
            min_window_ms: config.lifecycle.min_destroy_window_seconds.saturating_mul(1000),
            clock,
            open: RwLock::default(),
            unsealed: watch::Sender::new(false),
            turn: Mutex::default(),
            given: AtomicUsize::new(0),
            rotating: Arc::default(),
        })
    }

    /// What lies behind the seal.
    ///
    /// # Errors
    /// [`KmsError::Sealed`]
    pub(crate) fn get(&self) -> Result<Arc<Unsealed>, KmsError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or(KmsError::Sealed)
    }

    /// Whether the vault is open, as it changes.
    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.unsealed.subscribe()
    }

    /// Waits for the place of the one who seals, unseals, or changes the seal: one at a time, since a passphrase takes memory.
    pub(crate) fn turn(&self) -> Turn<'_> {
        Turn::take(self)
    }

    /// Has what is under an older root key wrapped anew, beside everything else.
    pub(crate) fn wrap_anew(&self) {
        self.rotating.notify_one();
    }

    /// How things stand.
    pub(crate) fn status(&self) -> Status {
        let open = self.get().ok();
        Status {
            facts: self.seal.facts(),
            given: self.given.load(Ordering::Acquire),
            root_version: open.as_ref().map(|open| open.keyring.roots().newest_version()),
            rotation: open
                .filter(|open| open.keyring.roots().is_rotating())
                .map(|open| open.progress.so_far()),
        }
    }

    /// The keyring of a store whose material has to be copied before the store can be opened.
    ///
    /// # Errors
    /// As [`Turn::unseal`].
    pub(crate) fn keyring_of_format_1(&self) -> Result<Keyring, KmsError> {
        let roots = self.seal.unseal(&[], &*self.records, (self.clock)())?;
        self.keyring(roots)
    }

    fn keyring(&self, roots: Roots) -> Result<Keyring, KmsError> {
        let version_keys = FileVersionKeys::open(&self.data_dir.join(VERSION_KEYS_DIR))?;
        Ok(Keyring::new(
            self.records.clone(),
            Arc::new(version_keys),
            roots,
            self.min_window_ms,
        ))
    }

    /// Opens everything, and does what became due meanwhile. By who has the turn, and knows that nothing else is open.
    fn open(&self, secrets: &[Secret]) -> Result<(Unsealed, mpsc::Receiver<()>), KmsError> {
        let roots = self.seal.unseal(secrets, &*self.records, (self.clock)())?;
        let keyring = self.keyring(roots.clone())?;
        let mut swept = 0;
        if !keyring.is_current()? {
            if keyring.needs_upgrade()? {
                return Err(KmsError::UpgradeAtStart);
            }
            swept += keyring.sweep_orphans()?;
            keyring.make_current()?;
        }
        backup::report(&self.data_dir, &self.outbox)?;
        swept += keyring.settle_pending()?;
        if swept > 0 {
            tracing::info!(
                count = swept,
                "shredded wrapping keys of versions that were never made"
            );
        }
        sweeper::sweep(&keyring, &self.outbox, (self.clock)());
        self.trust.govern(self.clock.clone());
        let keyring = Arc::new(keyring);
        let (end, ended) = mpsc::channel();
        let unsealed = Unsealed {
            directory: Directory::open(
                self.records.clone(),
                roots.newest(),
                self.trust.clone(),
                (self.clock)(),
            )
            .map_err(RootError::from)?,
            policy: Policy::open(&self.records, keyring.clone())?,
            evaluation_keys: EvaluationKeys::new(self.records.clone()),
            keyring,
            progress: Progress::default(),
            _end: end,
        };
        Ok((unsealed, ended))
    }
}
