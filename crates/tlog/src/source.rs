//! Where the files of a log are read from.

use std::{
    fs,
    io::{self, Read as _},
    path::PathBuf,
};

/// The most files and directories that [`Directory`] lists: those of a log of some 10^10 entries.
const MAX_FILES: usize = 1 << 27;

/// The deepest file of a log, with room to spare.
const MAX_DEPTH: usize = 16;

/// A set of files that are named by paths with `/` between their elements.
pub trait Source: Sync {
    /// Every file, in no order.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn list(&self) -> io::Result<Vec<Listed>>;

    /// The bytes of a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`] beyond `limit` bytes, and whatever keeps it from being read.
    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>>;
}

/// One file of a [`Source`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its path. What is not UTF-8 in it is replaced.
    pub path: String,
    /// Whether it is a plain file, and can be read.
    pub is_file: bool,
}

/// A directory. Links are not followed, and nothing but plain files is opened.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// The directory at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl Source for Directory {
    fn list(&self) -> io::Result<Vec<Listed>> {
        let mut found = Vec::new();
        let mut open = vec![(self.0.clone(), String::new(), 0)];
        while let Some((directory, prefix, depth)) = open.pop() {
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
                let kind = entry.file_type()?;
                if kind.is_dir() && depth < MAX_DEPTH {
                    open.push((entry.path(), format!("{path}/"), depth + 1));
                } else {
                    let is_file = kind.is_file();
                    found.push(Listed { path, is_file });
                }
                if found.len() + open.len() > MAX_FILES {
                    return Err(io::Error::other("the directory has more files than any log"));
                }
            }
        }
        Ok(found)
    }

    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        let file = fs::File::open(self.0.join(path))?;
        let length = file.metadata()?.len();
        let mut bytes = Vec::with_capacity(length.min(limit as u64) as usize);
        // It may have grown since.
        file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it has more than {limit} bytes"),
            ));
        }
        Ok(bytes)
    }
}
