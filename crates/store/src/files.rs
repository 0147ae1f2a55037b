//! Small durable files.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use crate::StoreError;

/// Writes a file so that after a crash either the old or the new content is there; with exactly the permissions `mode`.
///
/// # Errors
/// [`StoreError::NoSpace`], [`StoreError::Io`].
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let dir = dir_of(path);
    let mut staged = tempfile::Builder::new().prefix(".staged-").tempfile_in(dir)?;
    staged.write_all(bytes)?;
    staged.as_file().set_permissions(Permissions::from_mode(mode))?;
    staged.as_file().sync_all()?;
    staged
        .persist(path)
        .map_err(|error| StoreError::from(error.error))?;
    sync_dir(dir)
}

/// As [`write_atomic`] for a file whose old content has to become unreadable, as [`shred`] does it. It is in one place by its name, old or new, whenever a
/// crash comes; what a crash leaves of the other is for [`settle_replaced`]. Only one at a time.
///
/// # Errors
/// [`StoreError::NoSpace`], [`StoreError::Io`]. Then the file has the old content, or the new and [`settle_replaced`] is missing.
pub fn replace_shredding(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    settle_replaced(path)?;
    let (next, replaced) = (beside(path, ".next"), beside(path, ".replaced"));
    let dir = dir_of(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&next)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    match fs::hard_link(path, &replaced) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        done => done?,
    }
    sync_dir(dir)?;
    fs::rename(&next, path)?;
    sync_dir(dir)?;
    settle_replaced(path)
}

/// Ends a [`replace_shredding`] that a crash interrupted. Before the file is read.
///
/// # Errors
/// [`StoreError::Io`]
pub fn settle_replaced(path: &Path) -> Result<(), StoreError> {
    let (next, replaced) = (beside(path, ".next"), beside(path, ".replaced"));
    if let Some(old) = identity(&replaced)? {
        match identity(path)? {
            // The new content did not take its place: this is a second name of the file.
            Some(now) if now == old => {
                fs::remove_file(&replaced)?;
                sync_dir(dir_of(path))?;
            }
            Some(_) => shred(&replaced)?,
            // Somebody took the file away: better a second look than a loss.
            None => rename(&replaced, path)?,
        }
    }
    if identity(&next)?.is_some() {
        shred(&next)?;
    }
    Ok(())
}

/// `.NAMEsuffix` in the same directory.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(suffix);
    path.with_file_name(name)
}

fn dir_of(path: &Path) -> &Path {
    path.parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Device and inode of a file, `None` when it is not there.
fn identity(path: &Path) -> Result<Option<(u64, u64)>, StoreError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
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
    sync_dir(dir_of(to))
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
    let dir = dir_of(path);
    match OpenOptions::new().write(true).open(path) {
        Ok(mut file) => {
            overwrite(&mut file)?;
            file.sync_all()?;
            fs::remove_file(path)?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    sync_dir(dir)
}

/// As [`shred`] for many files of the file system of `dir`, sooner than one by one. After a crash a file may be there again, holding zeros.
///
/// # Errors
/// [`StoreError::Io`]
pub fn shred_all(dir: &Path, paths: &[PathBuf]) -> Result<(), StoreError> {
    let mut there = Vec::with_capacity(paths.len());
    for path in paths {
        match OpenOptions::new().write(true).open(path) {
            Ok(mut file) => {
                overwrite(&mut file)?;
                there.push(path);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    if there.is_empty() {
        return Ok(());
    }
    sync_file_system(dir)?;
    for path in there {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

fn overwrite(file: &mut File) -> Result<(), StoreError> {
    let length = file.metadata()?.len();
    std::io::copy(&mut std::io::repeat(0).take(length), file)?;
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .expect("directory")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_file_held_before_it_was_replaced_is_overwritten() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("seal");
        replace_shredding(&path, b"old", 0o600).expect("made");
        // A second name shows what becomes of the old bytes.
        let witness = dir.path().join("witness");
        fs::hard_link(&path, &witness).expect("linked");
        replace_shredding(&path, b"new and longer", 0o640).expect("replaced");
        assert_eq!(fs::read(&path).expect("read"), b"new and longer");
        assert_eq!(
            fs::metadata(&path).expect("there").permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(fs::read(&witness).expect("read"), [0; 3]);
        assert_eq!(names(dir.path()), ["seal", "witness"]);
    }

    #[test]
    fn a_crash_anywhere_in_a_replacement_leaves_one_whole_file() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("seal");
        let [next, replaced] = [".next", ".replaced"].map(|suffix| beside(&path, suffix));
        let settled = |expected: &[u8]| {
            settle_replaced(&path).expect("settled");
            assert_eq!(fs::read(&path).expect("read"), expected);
            assert_eq!(names(dir.path()), ["seal"]);
            settle_replaced(&path).expect("settled again");
        };
        write_atomic(&path, b"old", 0o600).expect("written");
        fs::write(&next, b"ne").expect("half written");
        settled(b"old");
        fs::write(&next, b"new").expect("written");
        fs::hard_link(&path, &replaced).expect("linked");
        settled(b"old");
        fs::hard_link(&path, &replaced).expect("linked");
        fs::write(&next, b"new").expect("written");
        fs::rename(&next, &path).expect("renamed");
        settled(b"new");
        fs::rename(&path, &replaced).expect("taken away");
        settled(b"new");
        // A replacement begins by ending the one before it.
        fs::write(&next, b"left").expect("written");
        replace_shredding(&path, b"newer", 0o600).expect("replaced");
        settled(b"newer");
    }
}
