//! Large immutable files.

use std::{
    fmt,
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use tempfile::NamedTempFile;

use crate::{
    StoreError,
    files::{create_private_dir, free_bytes, sync_dir},
};

/// Files are staged under this prefix, which no blob name has.
const STAGED: &str = ".staged-";
/// Blobs leave so much of a disk free: twice what records need to go on.
const MIN_FREE_BYTES: u64 = 32 << 20;
/// How often the free space is looked at while a blob grows.
const CHECK_EVERY: u64 = 1 << 20;

/// Large immutable files by name. What [`BlobWriter::commit`] acknowledged survives a power cut.
pub trait Blobs: Send + Sync {
    /// Starts a blob; nobody sees it before its commit.
    fn create(&self) -> Result<Box<dyn BlobWriter>, StoreError>;
    /// Opens a blob, or answers [`StoreError::NotFound`].
    fn open(&self, name: &BlobName) -> Result<Box<dyn BlobReader>, StoreError>;
    /// Deletes a blob, or answers [`StoreError::NotFound`].
    fn delete(&self, name: &BlobName) -> Result<(), StoreError>;
    /// All names, in no order.
    fn list(&self) -> Result<Vec<BlobName>, StoreError>;
    /// Whether there is such a blob.
    fn contains(&self, name: &BlobName) -> Result<bool, StoreError>;
    /// Where an operator finds the blob, if that is a file.
    fn path_hint(&self, name: &BlobName) -> Option<PathBuf>;
}

/// Writes one blob. Dropped without commit, it leaves nothing.
pub trait BlobWriter: Write + Send {
    /// Makes the blob durable under `name`, in place of an older one.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Io`]; nothing is left then.
    fn commit(self: Box<Self>, name: &BlobName) -> Result<(), StoreError>;
    /// Bytes so far.
    fn bytes_written(&self) -> u64;
}

/// Reads one blob.
pub trait BlobReader: Read + Seek + Send {
    /// Its size.
    fn len(&self) -> u64;
    /// Whether it has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A name: 1–128 of `a-z0-9._-`, starting with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobName(String);

impl FromStr for BlobName {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let starts = text.bytes().next().is_some_and(plain);
        if starts && text.len() <= 128 && text.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-')) {
            Ok(Self(text.to_owned()))
        } else {
            Err(StoreError::Io(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a blob name",
            )))
        }
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Blobs as files in one directory.
#[derive(Debug)]
pub struct FsBlobs {
    dir: PathBuf,
}

impl FsBlobs {
    /// Opens or creates the directory, and removes what crashed writers staged.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        create_private_dir(dir)?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(STAGED) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { dir: dir.to_owned() })
    }

    fn path(&self, name: &BlobName) -> PathBuf {
        self.dir.join(&name.0)
    }
}

impl Blobs for FsBlobs {
    fn create(&self) -> Result<Box<dyn BlobWriter>, StoreError> {
        // tempfile makes files of mode 0600.
        let staged = tempfile::Builder::new().prefix(STAGED).tempfile_in(&self.dir)?;
        Ok(Box::new(FsWriter {
            staged,
            dir: self.dir.clone(),
            written: 0,
            check_at: 0,
        }))
    }

    fn open(&self, name: &BlobName) -> Result<Box<dyn BlobReader>, StoreError> {
        let file = File::open(self.path(name)).map_err(missing)?;
        let len = file.metadata()?.len();
        Ok(Box::new(FsReader {
            file: BufReader::with_capacity(64 << 10, file),
            len,
        }))
    }

    fn delete(&self, name: &BlobName) -> Result<(), StoreError> {
        fs::remove_file(self.path(name)).map_err(missing)?;
        sync_dir(&self.dir)
    }

    fn list(&self) -> Result<Vec<BlobName>, StoreError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            // Files that are no blobs are somebody else's, or staged.
            names.extend(entry?.file_name().to_str().and_then(|name| name.parse().ok()));
        }
        Ok(names)
    }

    fn contains(&self, name: &BlobName) -> Result<bool, StoreError> {
        Ok(self.path(name).try_exists()?)
    }

    fn path_hint(&self, name: &BlobName) -> Option<PathBuf> {
        Some(self.path(name))
    }
}

/// Deletes every blob that `keep` does not claim; gives their names. For start-up, before anybody writes.
///
/// # Errors
/// [`StoreError::Io`]
pub fn sweep(blobs: &dyn Blobs, keep: &dyn Fn(&BlobName) -> bool) -> Result<Vec<BlobName>, StoreError> {
    let mut unclaimed = blobs.list()?;
    unclaimed.retain(|name| !keep(name));
    for name in &unclaimed {
        blobs.delete(name)?;
    }
    Ok(unclaimed)
}

struct FsWriter {
    staged: NamedTempFile,
    dir: PathBuf,
    written: u64,
    /// When the free space is looked at next.
    check_at: u64,
}

impl Write for FsWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written >= self.check_at {
            if free_bytes(&self.dir)? < MIN_FREE_BYTES {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.check_at = self.written + CHECK_EVERY;
        }
        let count = self.staged.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.staged.flush()
    }
}

impl BlobWriter for FsWriter {
    fn commit(self: Box<Self>, name: &BlobName) -> Result<(), StoreError> {
        self.staged.as_file().sync_all()?;
        self.staged
            .persist(self.dir.join(&name.0))
            .map_err(|error| StoreError::from(error.error))?;
        sync_dir(&self.dir)
    }

    fn bytes_written(&self) -> u64 {
        self.written
    }
}

struct FsReader {
    file: BufReader<File>,
    len: u64,
}

impl Read for FsReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for FsReader {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

impl BlobReader for FsReader {
    fn len(&self) -> u64 {
        self.len
    }
}

fn missing(error: io::Error) -> StoreError {
    if error.kind() == io::ErrorKind::NotFound {
        StoreError::NotFound
    } else {
        error.into()
    }
}
