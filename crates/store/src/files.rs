//! Small durable files.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use crate::StoreError;

/// Writes a file so that after a crash either the old or the new content is there; with exactly the permissions `mode`.
///
/// # Errors
/// [`StoreError::NoSpace`], [`StoreError::Io`].
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut staged = tempfile::Builder::new().prefix(".staged-").tempfile_in(dir)?;
    staged.write_all(bytes)?;
    staged.as_file().set_permissions(Permissions::from_mode(mode))?;
    staged.as_file().sync_all()?;
    staged
        .persist(path)
        .map_err(|error| StoreError::from(error.error))?;
    sync_dir(dir)
}

/// Writes a file that must not be there yet, of mode 0600. Durable only after [`sync_file_system`].
///
/// # Errors
/// [`StoreError::NoSpace`], [`StoreError::Io`].
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(bytes)?)
}

/// Makes everything durable that was written to the file system of `dir`: for many files, sooner than each by itself.
///
/// # Errors
/// [`StoreError::Io`]
pub fn sync_file_system(dir: &Path) -> Result<(), StoreError> {
    rustix::fs::syncfs(File::open(dir)?).map_err(|error| StoreError::Io(error.into()))
}

/// Renames, durably: a directory only to where nothing is, or an empty directory.
///
/// # Errors
/// [`StoreError::Io`]
pub fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to)?;
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty());
    sync_dir(dir.unwrap_or(Path::new(".")))
}

/// Reads a secret file.
///
/// # Errors
/// [`StoreError::Exposed`] when group or others may read it, [`StoreError::Io`].
pub fn read_private(path: &Path) -> Result<Vec<u8>, StoreError> {
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        return Err(StoreError::Exposed {
            path: path.display().to_string(),
        });
    }
    Ok(fs::read(path)?)
}

/// Deletes a secret file: overwrites its bytes in place with zeros, fsyncs, unlinks, and fsyncs the directory. A file that
/// is not there is done already.
///
/// On file systems that copy on write, and on flash, old blocks may outlive this until they are reused: what must not be found there
/// has to lie on an encrypted disk.
///
/// # Errors
/// [`StoreError::Io`]
pub fn shred(path: &Path) -> Result<(), StoreError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    match OpenOptions::new().write(true).open(path) {
        Ok(mut file) => {
            let length = file.metadata()?.len();
            std::io::copy(&mut std::io::repeat(0).take(length), &mut file)?;
            file.sync_all()?;
            fs::remove_file(path)?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    sync_dir(dir)
}

/// Makes a directory, and those above it, that only its owner may enter.
///
/// # Errors
/// [`StoreError::Io`]
pub fn create_private_dir(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    Ok(())
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    Ok(File::open(dir)?.sync_all()?)
}

/// Held while a process uses a directory.
#[derive(Debug)]
pub struct DirLock(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] File);

/// Takes the directory for this process.
///
/// # Errors
/// [`StoreError::Locked`] when somebody has it.
pub fn lock_dir(dir: &Path) -> Result<DirLock, StoreError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(dir.join("lock"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(DirLock(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked),
        Err(error) => Err(StoreError::Io(error.into())),
    }
}

/// As [`lock_dir`], but waits for `patience` for a predecessor that is letting go.
///
/// # Errors
/// [`StoreError::Locked`]
pub(crate) fn lock_dir_patiently(dir: &Path, patience: Duration) -> Result<DirLock, StoreError> {
    let begun = Instant::now();
    loop {
        match lock_dir(dir) {
            Err(StoreError::Locked) if begun.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

/// Bytes that an ordinary user may still fill on the disk of `path`.
pub(crate) fn free_bytes(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
