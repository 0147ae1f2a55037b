//! The command line of the offline verifier, for the small binary of its own and for any larger one.
//!
//! Links neither a store nor a network: whoever doubts the log needs to build and read little more than
//! [`asterism_tlog::verify`].

use std::{
    fs,
    io::{self, Read as _, Write},
    path::{Path, PathBuf},
};

use asterism_tlog::{
    Directory, KeyError, SignedCheckpoint, VerifierKey,
    note::MAX_NOTE,
    parse_keys,
    verify::{EntryCheck, Options, Report, verify},
};
use clap::Args;

/// What to verify, and against what.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// Directory of the exported log
    pub directory: PathBuf,
    /// File with the public keys of the log and of its witnesses, one a line (name+hash+base64); may be given again
    #[arg(long = "key", value_name = "FILE", required = true)]
    pub keys: Vec<PathBuf>,
    /// Signed checkpoint that was kept elsewhere: the log must not have been rolled back behind it; may be given again
    #[arg(long, value_name = "FILE")]
    pub seen: Vec<PathBuf>,
    /// First entry that must be there; older ones may have been archived
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    pub first: u64,
    /// Witnesses that must stand behind the newest checkpoint
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub witnesses: usize,
    /// Signatures that no key was given for are no problem
    #[arg(long)]
    pub ignore_unknown_signatures: bool,
    /// Files that are not the log's are no problem
    #[arg(long)]
    pub ignore_other_files: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Why a log could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file of keys or a checkpoint, or the directory.
    #[error("{} cannot be read: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file of keys has something else.
    #[error("line {line} of {} is no key: {error}", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// Why.
        error: KeyError,
    },
    /// The files of keys are empty.
    #[error("no key was given: write those of the log, one a line, into the file that --key names")]
    NoKey,
    /// A file has no checkpoint.
    #[error("{} has no signed checkpoint: {error}", path.display())]
    Checkpoint {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: asterism_tlog::CheckpointError,
    },
    /// The report could not be written.
    #[error("the report cannot be written: {0}")]
    Write(io::Error),
}

impl VerifyArgs {
    /// Verifies, writes the report to `out`, and says whether all is well. `check` looks at the meaning of every entry.
    ///
    /// # Errors
    /// [`VerifyError`] when it could not be looked at.
    pub fn run(&self, check: &EntryCheck<'_>, out: &mut dyn Write) -> Result<bool, VerifyError> {
        let report = self.report(check)?;
        if self.json {
            serde_json::to_writer_pretty(&mut *out, &report)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(out))
        } else {
            write_text(&report, out)
        }
        .map_err(VerifyError::Write)?;
        Ok(report.ok)
    }

    /// Verifies.
    ///
    /// # Errors
    /// [`VerifyError`] when it could not be looked at.
    pub fn report(&self, check: &EntryCheck<'_>) -> Result<Report, VerifyError> {
        let keys: Vec<_> = self
            .keys
            .iter()
            .map(|path| read_keys(path))
            .collect::<Result<_, _>>()?;
        let options = Options {
            keys: keys.concat(),
            seen: self
                .seen
                .iter()
                .map(|path| read_checkpoint(path))
                .collect::<Result<_, _>>()?,
            first: self.first,
            witnesses: self.witnesses,
            ignore_unknown_signatures: self.ignore_unknown_signatures,
            ignore_other_files: self.ignore_other_files,
        };
        if options.keys.is_empty() {
            return Err(VerifyError::NoKey);
        }
        verify(&Directory::new(&self.directory), &options, check).map_err(|error| VerifyError::Read {
            path: self.directory.clone(),
            error,
        })
    }
}

fn write_text(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let verdict = if report.ok {
        "is as it was signed"
    } else {
        "is NOT as it was signed"
    };
    writeln!(
        out,
        "The log {} of {} entries {verdict}",
        report.origin, report.size
    )?;
    if report.first > 0 {
        writeln!(out, "Verified from entry {} on", report.first)?;
    }
    if let Some(root) = &report.root {
        writeln!(out, "Root: {root}")?;
    }
    writeln!(out, "Checkpoints that fit: {}", report.checkpoints)?;
    if !report.witnesses.is_empty() {
        writeln!(out, "Witnesses: {}", report.witnesses.join(", "))?;
    }
    for problem in &report.problems {
        writeln!(out, "- {}", problem.detail)?;
    }
    if report.more_problems > 0 {
        writeln!(out, "- and {} more", report.more_problems)?;
    }
    Ok(())
}

fn read_keys(path: &Path) -> Result<Vec<VerifierKey>, VerifyError> {
    let text = String::from_utf8(read(path)?).map_err(|error| VerifyError::Read {
        path: path.to_owned(),
        error: io::Error::new(io::ErrorKind::InvalidData, error),
    })?;
    parse_keys(&text).map_err(|(line, error)| VerifyError::Key {
        path: path.to_owned(),
        line,
        error,
    })
}

fn read_checkpoint(path: &Path) -> Result<SignedCheckpoint, VerifyError> {
    SignedCheckpoint::parse(&read(path)?).map_err(|error| VerifyError::Checkpoint {
        path: path.to_owned(),
        error,
    })
}

/// Neither keys nor checkpoints are larger than a note.
fn read(path: &Path) -> Result<Vec<u8>, VerifyError> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_NOTE as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| VerifyError::Read {
            path: path.to_owned(),
            error,
        })?;
    Ok(bytes)
}
