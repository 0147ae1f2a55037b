//! The seal of a data directory, from its start to its end.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use asterism_crypto::{SecretKey, shares::Share};
use asterism_store::{Records, files};

use super::{
    NewSeal, RootError, Roots, SealKind, Secret, check,
    file::{Kind, SEAL_FILE, SealFile, SealId, seal_path},
    key_file, legacy,
    secrets::{Surroundings, check_share},
};
use crate::config::RootKeyConfig;

/// What may be known of a seal while it is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealFacts {
    /// What opens it.
    pub kind: SealKind,
    /// Sixteen hex digits; empty for a store of an earlier release that was not opened since.
    pub id: String,
    /// Of shares: how many open it, else 0.
    pub threshold: u8,
    /// Of shares: how many there are, else 0.
    pub shares: u8,
    /// Whether [`Seal::unseal`] needs no secret.
    pub automatic: bool,
    /// Milliseconds since 1970; 0 as `id`.
    pub created_at_ms: u64,
}

/// Says that nothing in the store is wrapped under a root key older than the newest: only a look through all of it makes one.
pub struct AllWrapped {
    pub(crate) roots: Roots,
}

/// The seal of a data directory, which a service has open. Blocking: a passphrase takes a tenth of a second and 64 MiB, one at a time.
pub struct Seal {
    data_dir: PathBuf,
    config: RootKeyConfig,
    state: RwLock<State>,
    /// Held by who opens or changes the seal.
    turn: Mutex<()>,
}

#[derive(Clone)]
enum State {
    /// What `seal.json` says.
    Sealed(Arc<SealFile>),
    /// A store of an earlier release, and what opens it.
    Legacy(Arc<Kind>),
}

impl Seal {
    /// Reads the seal. Where there is no store yet, it is made as the settings say. Ends what a crash interrupted. Once the records are open, and before
    /// anything else is done in the data directory.
    ///
    /// # Errors
    /// [`RootError::Damaged`], [`RootError::Newer`]; for a new store also what makes a seal impossible.
    pub fn open(
        data_dir: &Path,
        config: &RootKeyConfig,
        records: &dyn Records,
        now_ms: u64,
    ) -> Result<Self, RootError> {
        files::settle_replaced(&seal_path(data_dir))?;
        let state = match SealFile::read(&seal_path(data_dir))? {
            Some(file) => State::Sealed(Arc::new(settle(data_dir, file)?)),
            None => match legacy::find(data_dir, config, records)? {
                Some(kind) => State::Legacy(Arc::new(kind)),
                None => State::Sealed(Arc::new(make(data_dir, config, None, now_ms)?)),
            },
        };
        Ok(Self {
            data_dir: data_dir.to_owned(),
            config: config.clone(),
            state: RwLock::new(state),
            turn: Mutex::default(),
        })
    }

    /// What may be known of it.
    pub fn facts(&self) -> SealFacts {
        match self.state() {
            State::Sealed(file) => self.facts_of(&file.kind, file.seal_id.to_string(), file.created_at_ms),
            State::Legacy(kind) => self.facts_of(&kind, String::new(), 0),
        }
    }

    /// Whether a share is one of this seal.
    ///
    /// # Errors
    /// [`RootError::WrongSecretKind`], [`RootError::ShareOfAnotherSeal`], [`RootError::WrongShare`].
    pub fn check_share(&self, share: &Share) -> Result<(), RootError> {
        match self.state() {
            State::Sealed(file) => match &file.kind {
                Kind::Shares { threshold, sha256 } => check_share(share, &file.seal_id, *threshold, sha256),
                other => Err(RootError::WrongSecretKind(other.kind())),
            },
            State::Legacy(kind) => Err(RootError::WrongSecretKind(kind.kind())),
        }
    }

    /// Opens the seal: a passphrase, or as many shares as its threshold; no secret for what the settings name. The newest root is the one that the
    /// check record and the directory's key are under. While the roots are [rotating](Roots::is_rotating), go on with
    /// [`Keyring::rewrap`](crate::keys::Keyring::rewrap).
    ///
    /// # Errors
    /// [`RootError`]
    pub fn unseal(&self, secrets: &[Secret], records: &dyn Records, now_ms: u64) -> Result<Roots, RootError> {
        let turn = self.turn();
        let (_, _, roots) = self.opened(&turn, secrets, records, now_ms)?;
        check::settle(records, &roots)?;
        Ok(roots)
    }

    /// Puts the root keys under another seal, and makes what opened the old one worthless. May be done while a rotation runs.
    ///
    /// # Errors
    /// [`RootError`], and the seal is as it was; but after an error of the store the new one may hold already, and what opened the old one may still be
    /// there until the next start.
    pub fn rekey(
        &self,
        secrets: &[Secret],
        new: NewSeal,
        records: &dyn Records,
        now_ms: u64,
    ) -> Result<SealFacts, RootError> {
        let turn = self.turn();
        let (old, _, roots) = self.opened(&turn, secrets, records, now_ms)?;
        check::settle(records, &roots)?;
        let (id, kind, unseal_key) = self.surroundings().make(new, false)?;
        let mut file = SealFile::new(id, kind, now_ms);
        file.add_all(&unseal_key, &old, &roots)?;
        if let Kind::KeyFile { file: name } = &old.kind {
            file.replaces = Some(name.clone());
        }
        self.write(&file)?;
        let file = settle(&self.data_dir, file)?;
        self.become_state(file);
        Ok(self.facts())
    }

    /// Makes a new root key: afterwards the check record and the directory's key are under it. Give the roots to
    /// [`Keyring::adopt`](crate::keys::Keyring::adopt), then [`Keyring::rewrap`](crate::keys::Keyring::rewrap), then [`Seal::finish_rotation`].
    ///
    /// # Errors
    /// [`RootError::RotationRunning`], and as [`Seal::unseal`].
    pub fn begin_rotation(
        &self,
        secrets: &[Secret],
        records: &dyn Records,
        now_ms: u64,
    ) -> Result<Roots, RootError> {
        let turn = self.turn();
        let (old, unseal_key, roots) = self.opened(&turn, secrets, records, now_ms)?;
        let begun_now = check::settle(records, &roots)?;
        if old.is_rotating() {
            // One whose second step failed begins here.
            return if begun_now {
                Ok(roots)
            } else {
                Err(RootError::RotationRunning)
            };
        }
        let version = old.newest_version() + 1;
        let root = SecretKey::generate()?;
        let mut file = SealFile::clone(&old);
        file.add(&unseal_key, version, &root, now_ms)?;
        self.write(&file)?;
        let roots = roots.with(version, root);
        check::settle(records, &roots)?;
        Ok(roots)
    }

    /// Forgets the older root keys for ever. Give the roots to [`Keyring::adopt`](crate::keys::Keyring::adopt).
    ///
    /// # Errors
    /// The store's own; then look through all of it again.
    pub fn finish_rotation(&self, all: AllWrapped) -> Result<Roots, RootError> {
        let _turn = self.turn();
        if let State::Sealed(file) = self.state()
            && file.is_rotating()
        {
            let mut file = SealFile::clone(&file);
            file.forget_before(all.roots.newest_version());
            self.write(&file)?;
        }
        Ok(all.roots)
    }

    /// What the seal holds: converts a store of an earlier release.
    fn opened(
        &self,
        _turn: &MutexGuard<'_, ()>,
        secrets: &[Secret],
        records: &dyn Records,
        now_ms: u64,
    ) -> Result<(Arc<SealFile>, SecretKey, Roots), RootError> {
        let around = self.surroundings();
        match self.state() {
            State::Sealed(file) => {
                let unseal_key = around.unseal_key(&file.seal_id, &file.kind, secrets)?;
                let roots = file
                    .roots(&unseal_key)
                    .ok_or_else(|| around.wrong_key(&file.kind))?;
                Ok((file, unseal_key, roots))
            }
            State::Legacy(kind) => {
                let id = SealId::random()?;
                let unseal_key = around.unseal_key(&id, &kind, secrets)?;
                legacy::check(&around, &kind, records, &unseal_key)?;
                let mut file = SealFile::new(id, Kind::clone(&kind), now_ms);
                file.add(&unseal_key, 1, &unseal_key, now_ms)?;
                file.write(&seal_path(&self.data_dir))?;
                let file = Arc::new(settle(&self.data_dir, file)?);
                *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Sealed(file.clone());
                tracing::info!(seal = %file.seal_id, "wrote {SEAL_FILE}, which this release seals the root key with");
                let root = SecretKey::try_from_slice(unseal_key.expose())?;
                Ok((file, unseal_key, Roots::from(root)))
            }
        }
    }

    /// Writes the file; from then on it is what holds, also when shredding what was before fails.
    fn write(&self, file: &SealFile) -> Result<(), RootError> {
        let path = seal_path(&self.data_dir);
        let written = file.write(&path);
        if written.is_err() {
            // Which of the two it is says the file.
            match SealFile::read(&path) {
                Ok(Some(there)) if there.seal_id == file.seal_id => self.become_state(there),
                _ => {}
            }
        } else {
            self.become_state(file.clone());
        }
        written
    }

    fn become_state(&self, file: SealFile) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::Sealed(Arc::new(file));
    }

    fn facts_of(&self, kind: &Kind, id: String, created_at_ms: u64) -> SealFacts {
        let (threshold, shares) = match kind {
            Kind::Shares { threshold, sha256 } => (*threshold, sha256.len() as u8),
            _ => (0, 0),
        };
        SealFacts {
            kind: kind.kind(),
            id,
            threshold,
            shares,
            automatic: self.surroundings().is_automatic(kind),
            created_at_ms,
        }
    }

    fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            data_dir: &self.data_dir,
            config: &self.config,
        }
    }

    fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seals a data directory that has no store yet, so that a service finds it sealed. Offline.
///
/// # Errors
/// [`RootError::Occupied`] where there is a store; [`RootError::Field`], [`RootError::Token`], and the store's own.
pub fn init(
    data_dir: &Path,
    config: &RootKeyConfig,
    new: NewSeal,
    now_ms: u64,
) -> Result<SealFacts, RootError> {
    files::create_private_dir(data_dir)?;
    let records = data_dir.join(crate::RECORDS_DIR);
    files::create_private_dir(&records)?;
    // As a service takes it.
    let _lock = files::lock_dir(&records)?;
    let mut there = std::fs::read_dir(&records).map_err(asterism_store::StoreError::from)?;
    let used = there.any(|entry| !entry.is_ok_and(|entry| entry.file_name() == "lock"));
    if used || is_sealed(data_dir) {
        return Err(RootError::Occupied(data_dir.display().to_string()));
    }
    let file = make(data_dir, config, Some(new), now_ms)?;
    let seal = Seal {
        data_dir: data_dir.to_owned(),
        config: config.clone(),
        state: RwLock::new(State::Sealed(Arc::new(file))),
        turn: Mutex::default(),
    };
    Ok(seal.facts())
}

/// Whether there is a seal, of this release or an earlier one, so that [`init`] would refuse: to look before shares are handed out.
pub fn is_sealed(data_dir: &Path) -> bool {
    let mut seals = legacy::FILES.into_iter().chain([SEAL_FILE]);
    seals.any(|name| data_dir.join(name).exists())
}

/// The key file that opens the seal of a directory, if it is of that kind and the file is not there: a backup has never one.
///
/// # Errors
/// [`RootError::Damaged`], [`RootError::Newer`], and the store's own.
pub fn missing_key_file(data_dir: &Path) -> Result<Option<PathBuf>, RootError> {
    let Some(file) = SealFile::read(&seal_path(data_dir))? else {
        return Ok(None);
    };
    Ok(match file.kind {
        Kind::KeyFile { file } if !file.is_in(data_dir) => Some(data_dir.join(file.as_str())),
        _ => None,
    })
}

/// Makes the first seal and the first root key; as the settings say unless `new` does.
fn make(
    data_dir: &Path,
    config: &RootKeyConfig,
    new: Option<NewSeal>,
    now_ms: u64,
) -> Result<SealFile, RootError> {
    let around = Surroundings { data_dir, config };
    let new = match new {
        Some(new) => new,
        None => around.default_seal()?,
    };
    let (id, kind, unseal_key) = match new {
        // Somebody put it there.
        NewSeal::KeyFile if legacy::key_file().is_in(data_dir) => {
            let (id, file) = (SealId::random()?, legacy::key_file());
            let key = key_file::read(data_dir, &file)?;
            (id, Kind::KeyFile { file }, key)
        }
        new => around.make(new, true)?,
    };
    let mut file = SealFile::new(id, kind, now_ms);
    file.add(&unseal_key, 1, &SecretKey::generate()?, now_ms)?;
    file.write(&seal_path(data_dir))?;
    let file = settle(data_dir, file)?;
    if let Kind::KeyFile { file } = &file.kind {
        tracing::warn!(
            file = %data_dir.join(file.as_str()).display(),
            "made a root key; back it up, apart from backups of the data, or seal with a passphrase"
        );
    }
    Ok(file)
}

/// Ends what follows once `seal.json` is written: the new key file gets its name, and what opened the seal before is shredded.
fn settle(data_dir: &Path, mut file: SealFile) -> Result<SealFile, RootError> {
    let ours = match &file.kind {
        Kind::KeyFile { file } => Some(file),
        _ => None,
    };
    key_file::settle(data_dir, ours)?;
    legacy::forget(data_dir)?;
    if let Some(old) = file.replaces.take() {
        if ours != Some(&old) {
            key_file::shred(data_dir, &old)?;
        }
        file.write(&seal_path(data_dir))?;
    }
    Ok(file)
}
