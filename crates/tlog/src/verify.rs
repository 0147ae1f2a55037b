//! Verifies a log that lies in plain files, offline, trusting nothing but the log's public keys.
//!
//! Every entry is hashed again, and from that every node, every tile and the root at the size of every checkpoint. Since all
//! of those roots are of one sequence of entries, the checkpoints are consistent with each other. What was altered, dropped,
//! put in or moved is told from what the tiles and checkpoints have kept of it.
//!
//! The files are those of [`crate::tile`] and [`crate::export`]; any other is a problem, as is a signature that no key was
//! given for: no byte goes unread.

use std::io;

use serde::Serialize;

use crate::{
    checkpoint::SignedCheckpoint,
    key::VerifierKey,
    source::Source,
    tile::{TILE, TileId},
};

mod bundles;
mod compare;
mod files;
mod heads;
mod tiles;

/// The most problems that a report lists.
pub const MAX_PROBLEMS: usize = 100;

/// Looks at an entry's meaning: gives what is wrong with the entry at that index, if anything. Called from several threads,
/// in no order.
pub type EntryCheck<'a> = dyn Fn(u64, &[u8]) -> Result<(), String> + Sync + 'a;

/// What to hold a log against.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The keys of the log and of its witnesses.
    pub keys: Vec<VerifierKey>,
    /// Checkpoints that were kept elsewhere. A log that does not reach them was rolled back.
    pub seen: Vec<SignedCheckpoint>,
    /// The first entry that must be there; older ones may have been archived. Rounded down to a full bundle.
    pub first: u64,
    /// How many witnesses must stand behind the newest checkpoint.
    pub witnesses: usize,
    /// Signatures that no key was given for are no problem.
    pub ignore_unknown_signatures: bool,
    /// Files that are not the log's are no problem.
    pub ignore_other_files: bool,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether everything is as the log signed it.
    pub ok: bool,
    /// The log's name.
    pub origin: String,
    /// The number of entries, from the newest checkpoint.
    pub size: u64,
    /// The first entry that was verified.
    pub first: u64,
    /// The root over all entries, in hexadecimal, recomputed; none when it could not be.
    pub root: Option<String>,
    /// Checkpoints whose signatures verify and whose roots are those of the entries.
    pub checkpoints: usize,
    /// Checkpoints of fewer entries than `first`: their signatures were verified, their roots cannot be.
    pub checkpoints_before_first: usize,
    /// Files of entries before `first`, which were not looked at.
    pub files_before_first: usize,
    /// Witnesses behind the newest checkpoint.
    pub witnesses: Vec<String>,
    /// What is wrong, entries first, each list in order; at most [`MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub more_problems: usize,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Of what kind.
    pub kind: ProblemKind,
    /// The entry that it begins at, where one can be named.
    pub index: Option<u64>,
    /// The file, where one can be named.
    pub path: Option<String>,
    /// All of it in words.
    pub detail: String,
}

/// Kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// An entry is not the one that was logged.
    Altered,
    /// An entry that was logged is not there.
    Dropped,
    /// An entry is there once more than it was logged.
    Duplicated,
    /// An entry is there that was not logged.
    Inserted,
    /// Entries stand in another order.
    Reordered,
    /// The entries are not those whose root a checkpoint has.
    Inconsistent,
    /// A checkpoint that was seen before is not of this log.
    RolledBack,
    /// An entry does not say anything sensible.
    Invalid,
    /// A bundle is malformed.
    Bundle,
    /// A tile does not have the hashes of the entries.
    Tile,
    /// A checkpoint is malformed, of another log, or not signed by the log.
    Checkpoint,
    /// A signature cannot be checked, for no key was given.
    UnknownSignature,
    /// Too few witnesses stand behind the newest checkpoint.
    Witnesses,
    /// A file of the log is not there.
    Missing,
    /// A file cannot be read.
    Unreadable,
    /// A file is none of the log's.
    Stray,
}

impl Problem {
    fn of_entry(kind: ProblemKind, index: u64, path: &TileId, detail: impl Into<String>) -> Self {
        Self {
            kind,
            index: Some(index),
            path: Some(path.to_string()),
            detail: detail.into(),
        }
    }

    fn of_file(kind: ProblemKind, path: impl ToString, detail: impl Into<String>) -> Self {
        Self {
            kind,
            index: None,
            path: Some(path.to_string()),
            detail: detail.into(),
        }
    }
}

/// Verifies the log in `source`. `check` looks at the meaning of every entry.
///
/// # Errors
/// When the files cannot be listed. Whatever is wrong with the log itself is in the report.
pub fn verify(source: &dyn Source, options: &Options, check: &EntryCheck<'_>) -> io::Result<Report> {
    let mut files = files::Files::list(source)?;
    let mut problems = std::mem::take(&mut files.problems);
    if options.ignore_other_files {
        problems.clear();
    }
    let heads = heads::Heads::read(source, &files, options, &mut problems);
    let first = options.first.min(heads.size) / TILE * TILE;
    let log = Log {
        source,
        files: &files,
        size: heads.size,
        first,
        check,
    };
    let files_before_first = log.check_names(&mut problems);
    let walked = files_before_first.map(|_| {
        let walked = bundles::walk(&log, &heads, &mut problems);
        tiles::check(&log, &walked, &mut problems);
        walked
    });

    problems.sort();
    problems.dedup();
    let more_problems = problems.len().saturating_sub(MAX_PROBLEMS);
    Ok(Report {
        ok: problems.is_empty(),
        origin: heads.origin.clone(),
        size: heads.size,
        first,
        root: walked
            .as_ref()
            .and_then(|walked| walked.root)
            .map(|root| root.to_string()),
        checkpoints: walked.as_ref().map_or(0, |walked| walked.consistent),
        checkpoints_before_first: heads.heads.iter().filter(|head| head.size < first).count(),
        files_before_first: files_before_first.unwrap_or(0),
        witnesses: heads.witnesses.clone(),
        problems: problems.into_iter().take(MAX_PROBLEMS).collect(),
        more_problems,
    })
}

/// The log that is verified.
struct Log<'a> {
    source: &'a dyn Source,
    files: &'a files::Files,
    size: u64,
    /// A multiple of 256.
    first: u64,
    check: &'a EntryCheck<'a>,
}
