//! Puts a backup where a service can start from it.

use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};

use asterism_crypto::Digest;
use asterism_store::{Batch, Records as _, SledOptions, SledRecords, exchange::shred_all, files};

use super::{
    BackupError, Opener, Verified,
    capture::ROOT_FILES,
    entry::{Entry, Kind},
    inventory::Inventory,
    mark, read,
};
use crate::{RECORDS_DIR, VERSION_KEYS_DIR};

/// Records that are written at once.
const PAGE: usize = 512;

/// What is to be restored.
pub struct Order<'a> {
    /// The backup.
    pub backup: &'a Path,
    /// What opens it.
    pub opener: &'a Opener,
    /// The fingerprint of the key that must have signed it; `None` trusts whoever gave the file.
    pub signer: Option<Digest>,
    /// The data directory of the service to be: empty, or not there.
    pub data_dir: &'a Path,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

/// Restores a backup into an empty directory: it is there whole and durable when this returns, or else not at all. `progress` is told
/// how many bytes were read.
///
/// # Errors
/// [`BackupError`], saying what is wrong with the backup or the directory.
pub fn restore(order: &Order<'_>, progress: &mut dyn FnMut(u64)) -> Result<Verified, BackupError> {
    check_empty(order.data_dir)?;
    let verified = read::verify(BufReader::new(File::open(order.backup)?))?;
    if let Some(signer) = &order.signer {
        verified.expect_signer(signer)?;
    }
    let staging = Staging::make(order.data_dir)?;
    let mut target = Target::make(&staging.path)?;
    read::open(
        BufReader::new(File::open(order.backup)?),
        &verified,
        order.opener,
        &mut |entry| target.take(entry),
        progress,
    )?;
    target.finish()?;
    mark::leave(&staging.path, &verified, order.now_ms)?;
    files::sync_file_system(&staging.path)?;
    check_empty(order.data_dir)?;
    staging.become_dir(order.data_dir)?;
    Ok(verified)
}

fn check_empty(dir: &Path) -> Result<(), BackupError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(BackupError::TargetNotEmpty(dir.display().to_string())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The directory under another name, until it is whole; shredded if it never is.
struct Staging {
    path: PathBuf,
    done: bool,
}

impl Staging {
    fn make(target: &Path) -> Result<Self, BackupError> {
        let parent = target.parent().filter(|dir| !dir.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        files::create_private_dir(parent)?;
        // Only its owner may enter.
        let dir = tempfile::Builder::new()
            .prefix(".restoring-")
            .tempdir_in(parent)?;
        Ok(Self {
            path: dir.keep(),
            done: false,
        })
    }

    fn become_dir(mut self, target: &Path) -> Result<(), BackupError> {
        files::rename(&self.path, target)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.done && shred_all(&self.path).is_err() {
            tracing::warn!(dir = %self.path.display(), "remains of a restore could not be removed; delete them");
        }
    }
}

/// A store in the making.
struct Target {
    dir: PathBuf,
    records: SledRecords,
    batch: Batch,
    waiting: usize,
    inventory: Inventory,
}

impl Target {
    fn make(dir: &Path) -> Result<Self, BackupError> {
        let records = SledRecords::open(&dir.join(RECORDS_DIR), SledOptions::default())?;
        files::create_private_dir(&dir.join(VERSION_KEYS_DIR))?;
        Ok(Self {
            dir: dir.to_owned(),
            records,
            batch: Batch::new(),
            waiting: 0,
            inventory: Inventory::default(),
        })
    }

    fn take(&mut self, entry: &Entry<'_>) -> Result<(), BackupError> {
        match entry.kind {
            Kind::Record => {
                self.inventory.record(entry.name, entry.value)?;
                self.batch = std::mem::take(&mut self.batch).put(entry.name, entry.value);
                self.waiting += 1;
                if self.waiting == PAGE {
                    self.flush()?;
                }
                Ok(())
            }
            Kind::WrappingKey => {
                let name = str::from_utf8(entry.name).unwrap_or_default();
                let ours = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
                if !ours || entry.value.len() != 32 || !self.inventory.wrapping_key(name) {
                    return Err(BackupError::Malformed("wrapping key"));
                }
                let path = self.dir.join(VERSION_KEYS_DIR).join(format!("{name}.key"));
                Ok(files::write_new(&path, entry.value)?)
            }
            Kind::File => {
                // A file of another name would be written wherever the name says.
                let name = ROOT_FILES.iter().find(|name| name.as_bytes() == entry.name);
                let name = name.ok_or(BackupError::Malformed("name of a file"))?;
                Ok(files::write_new(&self.dir.join(name), entry.value)?)
            }
            Kind::End => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), BackupError> {
        self.waiting = 0;
        Ok(self.records.commit(std::mem::take(&mut self.batch))?)
    }

    fn finish(mut self) -> Result<(), BackupError> {
        self.flush()?;
        self.inventory.check()
    }
}
