//! A durable queue of small numbered entries that wait to be sent elsewhere.
//!
//! Segment files of a fixed size, filled with zeros and fsynced before their first use: an entry changes no metadata, so
//! one `fdatasync` makes it durable, in about half of the time that a commit in sled takes. Each group of entries is one
//! frame, and a frame is written only after the one before it is on the disk. So a frame that does not fit its checksum
//! was never acknowledged, unless a good one follows it: then it is damage, and the spool does not open.
//!
//! ```text
//! segment NNNN.spool: magic 8 | first sequence 8 | CRC32C of both 4 | zeros to 32 | frames | zeros
//! frame: magic 4 | CRC32C of the rest 4 | length of the entries 4 | zeros 4 | trimmed below 8 | entries | zeros to 16
//! entry: sequence 8 | length 4 | bytes
//! ```

mod segment;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use self::segment::{Frame, Place, Segment};
use crate::{
    StoreError, Ticket,
    files::{DirLock, create_private_dir, free_bytes, lock_dir_patiently},
    group::{GroupCommit, Queued},
};

/// Largest entry.
pub const MAX_ENTRY: usize = 4096;
/// Most bytes of entries in a frame.
const MAX_FRAME: usize = 256 << 10;

/// How a spool is opened.
#[derive(Debug, Clone, Copy)]
pub struct SpoolOptions {
    /// Bytes of a segment, which is made and removed as a whole; at least 16 KiB.
    pub segment_bytes: usize,
    /// Free bytes on the disk below which no segment is made.
    pub min_free_bytes: u64,
    /// As in [`SledOptions`](crate::SledOptions).
    pub lock_patience: Duration,
}

impl Default for SpoolOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 20,
            min_free_bytes: 16 << 20,
            lock_patience: Duration::ZERO,
        }
    }
}

/// Numbered entries in order. What [`Spool::append`] acknowledged survives a power cut, until it is trimmed.
pub trait Spool: Send + Sync {
    /// One more than the highest number that was ever durable; 1 in a new spool.
    fn next(&self) -> u64;

    /// Entries that are durable and not trimmed.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an entry. Numbers must ascend in the order of the calls; holes are fine.
    ///
    /// The ticket answers [`StoreError::TooLarge`] over [`MAX_ENTRY`], [`StoreError::NoSpace`], and after a failed write
    /// [`StoreError::Closed`] for ever.
    fn append(&self, sequence: u64, entry: Vec<u8>) -> Ticket;

    /// Durable entries from `from` on, ascending, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Io`]
    fn read(&self, from: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError>;

    /// Forgets the entries below `below`. Takes effect at once; durable with the next entry, or by [`Spool::settle`].
    fn trim(&self, below: u64);

    /// Makes the trimming durable: a restart does not bring trimmed entries back.
    fn settle(&self) -> Ticket;
}

/// A spool in a directory of its own.
pub struct FileSpool {
    // Dropped in this order: what is queued is written, then the directory's lock goes.
    group: GroupCommit<Entry>,
    shared: Arc<Shared>,
    _lock: DirLock,
}

/// An entry, or a mark of the trimming alone.
enum Entry {
    Data(u64, Vec<u8>),
    Mark,
}

struct Shared {
    dir: PathBuf,
    options: SpoolOptions,
    state: Mutex<State>,
    closed: AtomicBool,
}

struct State {
    /// At least one; entries go into the last.
    segments: VecDeque<Segment>,
    next: u64,
    trimmed: u64,
}

impl FileSpool {
    /// Opens or creates the spool in `dir`.
    ///
    /// # Errors
    /// [`StoreError::Locked`], [`StoreError::Damaged`], [`StoreError::NoSpace`], [`StoreError::Io`].
    pub fn open(dir: &Path, options: SpoolOptions) -> Result<Self, StoreError> {
        create_private_dir(dir)?;
        let lock = lock_dir_patiently(dir, options.lock_patience)?;
        let options = SpoolOptions {
            segment_bytes: options.segment_bytes.max(16 << 10),
            ..options
        };
        let (mut segments, trimmed) = segment::open_all(dir)?;
        if segments.is_empty() {
            segments.push_back(Segment::create(dir, 1, options.segment_bytes)?);
        }
        let next = segments.iter().map(Segment::next).max().unwrap_or(1);
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            options,
            state: Mutex::new(State {
                segments,
                next,
                trimmed: 0,
            }),
            closed: AtomicBool::new(false),
        });
        shared.trim(trimmed);
        let committer = shared.clone();
        let group = GroupCommit::start(Box::new(move |group| committer.commit(group)))?;
        Ok(Self {
            group,
            shared,
            _lock: lock,
        })
    }
}

impl Spool for FileSpool {
    fn next(&self) -> u64 {
        self.shared.state().next
    }

    fn len(&self) -> u64 {
        let state = self.shared.state();
        let kept = |segment: &Segment| segment.places_from(state.trimmed).len() as u64;
        state.segments.iter().map(kept).sum()
    }

    fn append(&self, sequence: u64, entry: Vec<u8>) -> Ticket {
        let actual = entry.len();
        if actual > MAX_ENTRY {
            return Ticket::failed(StoreError::TooLarge {
                limit: MAX_ENTRY,
                actual,
            });
        }
        Ticket::pending(self.group.submit(Entry::Data(sequence, entry)))
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let places: Vec<(Arc<std::fs::File>, Place)> = {
            let state = self.shared.state();
            let from = from.max(state.trimmed);
            let found = state.segments.iter().flat_map(|segment| {
                segment
                    .places_from(from)
                    .iter()
                    .map(|place| (segment.file(), *place))
            });
            found.take(limit).collect()
        };
        // A segment that is removed meanwhile can still be read.
        places
            .into_iter()
            .map(|(file, place)| Ok((place.sequence, place.read(&file)?)))
            .collect()
    }

    fn trim(&self, below: u64) {
        self.shared.trim(below);
    }

    fn settle(&self) -> Ticket {
        Ticket::pending(self.group.submit(Entry::Mark))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trim(&self, below: u64) {
        let mut state = self.state();
        state.trimmed = state.trimmed.max(below);
        while state
            .segments
            .get(1)
            .is_some_and(|second| second.first() <= state.trimmed)
        {
            if let Some(segment) = state.segments.pop_front() {
                segment.remove();
            }
        }
    }

    /// Writes a group, frame by frame; answers each of it.
    fn commit(&self, group: Vec<Queued<Entry>>) {
        let mut rest = group.into_iter().peekable();
        while rest.peek().is_some() {
            let mut frame = Frame::new(self.state().trimmed);
            let mut answers = Vec::new();
            while let Some(queued) = rest.next_if(|_| frame.len() < MAX_FRAME) {
                if let Entry::Data(sequence, entry) = &queued.payload {
                    frame.push(*sequence, entry);
                }
                answers.push(queued.answer);
            }
            let mut written = self.write(frame);
            for answer in answers {
                // Only the first is told what happened; to the others the spool is full, or closed.
                let later = match &written {
                    Ok(()) => Ok(()),
                    Err(StoreError::NoSpace) => Err(StoreError::NoSpace),
                    Err(_) => Err(StoreError::Closed),
                };
                // Whoever no longer waits is fine.
                let _ = answer.send(std::mem::replace(&mut written, later));
            }
        }
    }

    fn write(&self, frame: Frame) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        let written = self.try_write(frame);
        if let Err(error) = &written
            && !matches!(error, StoreError::NoSpace)
        {
            // What is on the disk is unknown, and fsync must not be tried again: nothing more is promised.
            self.closed.store(true, Ordering::Release);
            tracing::error!(%error, "the spool is closed after a failed write; restart the service");
        }
        written
    }

    fn try_write(&self, frame: Frame) -> Result<(), StoreError> {
        let (bytes, entries) = frame.finish();
        let (mut file, mut offset) = self.state().end();
        if offset + bytes.len() as u64 > self.options.segment_bytes as u64 {
            if free_bytes(&self.dir)? < self.options.min_free_bytes {
                return Err(StoreError::NoSpace);
            }
            let first = entries.first().map_or(self.state().next, |place| place.sequence);
            let segment = Segment::create(&self.dir, first, self.options.segment_bytes)?;
            let mut state = self.state();
            state.segments.push_back(segment);
            (file, offset) = state.end();
        }
        segment::write(&file, offset, &bytes)?;
        let mut state = self.state();
        state.next = entries.last().map_or(state.next, |last| last.sequence + 1);
        if let Some(segment) = state.segments.back_mut() {
            segment.extend(&entries, bytes.len() as u64);
        }
        Ok(())
    }
}

impl State {
    /// Where the next frame goes.
    fn end(&self) -> (Arc<std::fs::File>, u64) {
        let last = self.segments.back().expect("a spool has a segment");
        (last.file(), last.end())
    }
}
