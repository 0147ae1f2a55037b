//! Signed checkpoints: what this service says in public of its log, and cannot take back.
//!
//! A checkpoint is on the disk before anybody sees it (`checkpoint`, beside the store), and the next start holds the log against
//! it: a store that is behind the last checkpoint, or has another root there, was rolled back or rewritten. The key is this
//! service's own, Ed25519, made at the first start; `checkpoint.key` has it:
//!
//! ```text
//! id of the log 8 | seed 32
//! ```
//! The log's name, which is the origin of its checkpoints, is `asterism-audit/` and the id in hexadecimal.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use asterism_crypto::{SecretKey, random_array};
use asterism_store::{StoreError, files};
use asterism_tlog::{Checkpoint, InclusionProof, KeyName, NoteSigner, Receipt, SignedCheckpoint};
use zeroize::Zeroizing;

use crate::{
    error::AuditError,
    log::{Head, Log},
};

const KEY_FILE: &str = "checkpoint.key";
const CHECKPOINT_FILE: &str = "checkpoint";
const ID_BYTES: usize = 8;
const KEY_BYTES: usize = ID_BYTES + 32;

/// Signs checkpoints of a log.
pub(crate) struct Checkpoints {
    log: Arc<Log>,
    signer: NoteSigner,
    path: PathBuf,
    last: Mutex<Option<SignedCheckpoint>>,
}

impl Checkpoints {
    /// Loads the key, or makes one, and holds the log against the last checkpoint.
    ///
    /// # Errors
    /// [`AuditError::RolledBack`], [`AuditError::Damaged`], the file system's own.
    pub(crate) fn open(data_dir: &Path, log: Arc<Log>) -> Result<Self, AuditError> {
        let signer = load_or_create(&data_dir.join(KEY_FILE))?;
        let path = data_dir.join(CHECKPOINT_FILE);
        let last = read(&path, &signer)?;
        if let Some(last) = &last {
            check(&log, last.checkpoint())?;
        }
        Ok(Self {
            log,
            signer,
            path,
            last: Mutex::new(last),
        })
    }

    /// A checkpoint of the log as it is now; durable before this returns.
    ///
    /// # Errors
    /// The file system's own.
    pub(crate) fn publish(&self) -> Result<SignedCheckpoint, AuditError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken while nobody else publishes, so that checkpoints never go back.
        let Head { size, root } = self.log.head();
        if let Some(last) = &*last
            && last.checkpoint().size == size
        {
            return Ok(last.clone());
        }
        let checkpoint = Checkpoint::new(self.signer.verifier().name(), size, root);
        let signature = self.signer.sign(&checkpoint.to_string());
        let signed = SignedCheckpoint::new(&checkpoint, vec![signature]).map_err(unwritable)?;
        files::write_atomic(&self.path, signed.to_string().as_bytes(), 0o600)?;
        *last = Some(signed.clone());
        Ok(signed)
    }

    /// The keys that checkpoints are signed with, as text.
    pub(crate) fn verifier_keys(&self) -> Vec<String> {
        vec![self.signer.verifier().to_string()]
    }

    /// A receipt for an entry that was proved in the tree of `checkpoint`.
    ///
    /// # Errors
    /// When the two are of different sizes.
    pub(crate) fn receipt(proof: InclusionProof, checkpoint: SignedCheckpoint) -> Result<String, AuditError> {
        let receipt = Receipt::new(proof, checkpoint);
        receipt
            .map(|receipt| receipt.to_string())
            .map_err(|error| AuditError::damaged(error.to_string()))
    }
}

fn check(log: &Log, last: &Checkpoint) -> Result<(), AuditError> {
    if log.size() < last.size {
        let text = format!(
            "it has {} entries, and a checkpoint was signed for {}",
            log.size(),
            last.size
        );
        return Err(AuditError::RolledBack(text));
    }
    if log.root_at(last.size)? != last.root {
        let text = format!(
            "its first {} entries are not those that a checkpoint was signed for",
            last.size
        );
        return Err(AuditError::RolledBack(text));
    }
    Ok(())
}

fn read(path: &Path, signer: &NoteSigner) -> Result<Option<SignedCheckpoint>, AuditError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(AuditError::Store(error.into())),
    };
    let unreadable = || AuditError::damaged(format!("{} is no checkpoint of this log", path.display()));
    let signed = SignedCheckpoint::parse(&bytes).map_err(|_| unreadable())?;
    let keys = [signer.verifier().clone()];
    signed.verify(&keys).map_err(|_| unreadable())?;
    Ok(Some(signed))
}

fn load_or_create(path: &Path) -> Result<NoteSigner, AuditError> {
    let unusable = |_| AuditError::damaged(format!("{} cannot be used", path.display()));
    let bytes = match files::read_private(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(StoreError::Io(error)) if error.kind() == ErrorKind::NotFound => create(path)?,
        Err(error) => return Err(error.into()),
    };
    let (id, seed) = bytes.split_at_checked(ID_BYTES).unwrap_or_default();
    let seed = SecretKey::try_from_slice(seed).map_err(unusable)?;
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let name: KeyName = format!("asterism-audit/{id}")
        .parse()
        .expect("hexadecimal digits make a name");
    Ok(NoteSigner::new(name, &seed))
}

fn create(path: &Path) -> Result<Zeroizing<Vec<u8>>, AuditError> {
    let no_randomness = |_| AuditError::damaged("the operating system gives no randomness");
    let id: [u8; ID_BYTES] = random_array().map_err(no_randomness)?;
    let seed = SecretKey::generate().map_err(no_randomness)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES));
    bytes.extend_from_slice(&id);
    bytes.extend_from_slice(seed.expose());
    files::write_atomic(path, &bytes, 0o600)?;
    Ok(bytes)
}

fn unwritable(error: impl std::fmt::Display) -> AuditError {
    AuditError::damaged(format!("a checkpoint cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc, time::SystemTime};

    use asterism_store::{MemoryRecords, Records};
    use tempfile::TempDir;

    use super::*;
    use crate::log::{Event, EventId, Facts, Outcome, Source};

    fn event(number: u64) -> Event {
        let mut id = [1; 16];
        id[8..].copy_from_slice(&number.to_be_bytes());
        Event::new(Facts {
            id: EventId::from_bytes(id),
            source: Source::Kms,
            source_sequence: number + 1,
            occurred_at: SystemTime::now().into(),
            outcome: Outcome::Succeeded,
            key_version: 0,
            input: None,
            output: None,
            principal: String::new(),
            on_behalf_of: String::new(),
            operation: "kms.Sign".into(),
            resource: String::new(),
            reason: String::new(),
            request_id: String::new(),
            trace_id: String::new(),
            token_id: String::new(),
            network: String::new(),
        })
        .unwrap()
    }

    fn grow(log: &Log, count: u64) {
        let events: Vec<_> = (log.size()..log.size() + count).map(event).collect();
        log.append(&events, SystemTime::now().into()).unwrap();
    }

    /// A log whose head is noted nowhere that the checkpoints know of.
    fn log(records: &Arc<dyn Records>) -> Arc<Log> {
        let elsewhere = tempfile::tempdir().unwrap();
        Arc::new(Log::open(records.clone(), &elsewhere.path().join("head.json")).unwrap())
    }

    fn memory() -> Arc<dyn Records> {
        Arc::new(MemoryRecords::new())
    }

    fn open(dir: &TempDir, log: &Arc<Log>) -> Result<Checkpoints, AuditError> {
        Checkpoints::open(dir.path(), log.clone())
    }

    #[test]
    fn a_checkpoint_is_signed_kept_and_found_again() {
        let (dir, records) = (tempfile::tempdir().unwrap(), memory());
        let log = log(&records);
        let checkpoints = open(&dir, &log).unwrap();
        assert_eq!(checkpoints.publish().unwrap().checkpoint().size, 0);
        grow(&log, 5);
        let signed = checkpoints.publish().unwrap();
        let keys = asterism_tlog::parse_keys(&checkpoints.verifier_keys().join("\n")).unwrap();
        signed.verify(&keys).unwrap();
        assert_eq!(
            (signed.checkpoint().size, signed.checkpoint().root),
            (5, log.head().root)
        );
        assert_eq!(
            fs::read_to_string(dir.path().join("checkpoint")).unwrap(),
            signed.to_string()
        );
        assert_eq!(checkpoints.publish().unwrap().to_string(), signed.to_string());
        let again = open(&dir, &log).unwrap();
        assert_eq!(again.publish().unwrap().to_string(), signed.to_string());
        assert_eq!(again.verifier_keys(), checkpoints.verifier_keys());
        let mode = fs::metadata(dir.path().join("checkpoint.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_log_that_does_not_fit_its_last_checkpoint_is_refused() {
        let (dir, records) = (tempfile::tempdir().unwrap(), memory());
        let whole = log(&records);
        grow(&whole, 5);
        open(&dir, &whole).unwrap().publish().unwrap();
        let shorter = log(&memory());
        grow(&shorter, 4);
        assert!(matches!(open(&dir, &shorter), Err(AuditError::RolledBack(_))));
        let other = log(&memory());
        grow(&other, 6);
        let refused = open(&dir, &other).err().unwrap();
        assert!(
            matches!(&refused, AuditError::RolledBack(text) if text.contains("first 5")),
            "{refused}"
        );
        grow(&whole, 1);
        assert!(open(&dir, &whole).is_ok());
    }

    #[test]
    fn a_checkpoint_or_key_that_was_tampered_with_is_refused() {
        let (dir, records) = (tempfile::tempdir().unwrap(), memory());
        let log = log(&records);
        grow(&log, 5);
        open(&dir, &log).unwrap().publish().unwrap();
        let path = dir.path().join("checkpoint");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("\n5\n", "\n4\n", 1)).unwrap();
        assert!(matches!(open(&dir, &log), Err(AuditError::Damaged(_))));
        fs::write(&path, text).unwrap();
        let key = dir.path().join("checkpoint.key");
        let bytes = fs::read(&key).unwrap();
        fs::write(&key, &bytes[1..]).unwrap();
        assert!(matches!(open(&dir, &log), Err(AuditError::Damaged(_))));
        fs::write(&key, &bytes).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            open(&dir, &log),
            Err(AuditError::Store(StoreError::Exposed { .. }))
        ));
    }
}
