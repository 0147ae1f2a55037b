//! One file of a spool.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use crc32c::crc32c;

use crate::{StoreError, files::sync_dir};

/// No UTF-8 text holds the first byte, so that no entry's text can pass for a frame.
const SEGMENT_MAGIC: [u8; 8] = *b"\xFFASspl1\n";
const FRAME_MAGIC: [u8; 4] = *b"\xFFASf";
const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const ENTRY_HEADER: usize = 12;
/// Frames begin at multiples of this.
const ALIGN: usize = 16;
/// Larger files are not ours.
const MOST_BYTES: u64 = 64 << 20;

/// Where an entry lies; within a frame that is not written yet, from the frame's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) sequence: u64,
    offset: u64,
    length: u32,
}

impl Place {
    pub(super) fn read(&self, file: &File) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; self.length as usize];
        file.read_exact_at(&mut bytes, self.offset)?;
        Ok(bytes)
    }
}

/// A group of entries on its way to the disk.
pub(super) struct Frame {
    bytes: Vec<u8>,
    entries: Vec<Place>,
}

impl Frame {
    pub(super) fn new(trimmed: u64) -> Self {
        let mut bytes = vec![0; FRAME_HEADER];
        bytes[16..].copy_from_slice(&trimmed.to_be_bytes());
        Self {
            bytes,
            entries: vec![],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn push(&mut self, sequence: u64, entry: &[u8]) {
        let length = entry.len() as u32;
        self.bytes.extend_from_slice(&sequence.to_be_bytes());
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.entries.push(Place {
            sequence,
            offset: self.bytes.len() as u64,
            length,
        });
        self.bytes.extend_from_slice(entry);
    }

    /// The frame as it is stored, and its entries.
    pub(super) fn finish(mut self) -> (Vec<u8>, Vec<Place>) {
        let length = (self.bytes.len() - FRAME_HEADER) as u32;
        self.bytes[..4].copy_from_slice(&FRAME_MAGIC);
        self.bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c(&self.bytes[8..]);
        self.bytes[4..8].copy_from_slice(&crc.to_be_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        (self.bytes, self.entries)
    }
}

/// A frame that was read: its entries (from the frame's first byte), what was trimmed, and its length.
struct Stored {
    entries: Vec<Place>,
    trimmed: u64,
    length: usize,
}

impl Stored {
    /// The frame at the start of `bytes`, if a good one is there.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER>()?;
        if header[..4] != FRAME_MAGIC {
            return None;
        }
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = word(8) as usize;
        let payload = rest.get(..length)?;
        if crc32c(&bytes[8..FRAME_HEADER + length]) != word(4) {
            return None;
        }
        let mut entries = vec![];
        let mut at = 0;
        while at < payload.len() {
            let (head, data) = payload[at..].split_first_chunk::<ENTRY_HEADER>()?;
            let (sequence, size) = head.split_first_chunk::<8>()?;
            let size = u32::from_be_bytes(size.try_into().ok()?);
            data.get(..size as usize)?;
            entries.push(Place {
                sequence: u64::from_be_bytes(*sequence),
                offset: (FRAME_HEADER + at + ENTRY_HEADER) as u64,
                length: size,
            });
            at += ENTRY_HEADER + size as usize;
        }
        let mut trimmed = [0; 8];
        trimmed.copy_from_slice(&header[16..]);
        Some(Self {
            entries,
            trimmed: u64::from_be_bytes(trimmed),
            length: (FRAME_HEADER + length).next_multiple_of(ALIGN),
        })
    }
}

/// One file, and where its entries lie.
pub(super) struct Segment {
    file: Arc<File>,
    path: PathBuf,
    first: u64,
    end: u64,
    places: Vec<Place>,
}

impl Segment {
    /// Makes an empty segment of `bytes`, durable.
    pub(super) fn create(dir: &Path, first: u64, bytes: usize) -> Result<Self, StoreError> {
        let path = dir.join(format!("{first:020}.spool"));
        let mut content = vec![0; bytes];
        content[..8].copy_from_slice(&SEGMENT_MAGIC);
        content[8..16].copy_from_slice(&first.to_be_bytes());
        let crc = crc32c(&content[..16]);
        content[16..20].copy_from_slice(&crc.to_be_bytes());
        let mut staged = tempfile::Builder::new().prefix(".staged-").tempfile_in(dir)?;
        staged.write_all(&content)?;
        staged.as_file().sync_all()?;
        let file = staged
            .persist(&path)
            .map_err(|error| StoreError::from(error.error))?;
        sync_dir(dir)?;
        Ok(Self {
            file: Arc::new(file),
            path,
            first,
            end: HEADER as u64,
            places: vec![],
        })
    }

    /// Reads a segment; gives also what was trimmed by its last frame. Only the last of a spool may end in a frame that
    /// was not written to its end: that is wiped.
    fn open(path: PathBuf, is_last: bool) -> Result<(Self, u64), StoreError> {
        let damaged = |what: &str| StoreError::Damaged(format!("{}: {what}", path.display()));
        let file = File::options().read(true).write(true).open(&path)?;
        if file.metadata()?.len() > MOST_BYTES {
            return Err(damaged("too large for a spool"));
        }
        let mut bytes = vec![];
        (&file).read_to_end(&mut bytes)?;
        let header = bytes.first_chunk::<HEADER>().ok_or_else(|| damaged("cut off"))?;
        if header[..8] != SEGMENT_MAGIC || header[16..20] != crc32c(&header[..16]).to_be_bytes() {
            return Err(damaged("its header does not fit"));
        }
        let mut first = [0; 8];
        first.copy_from_slice(&header[8..16]);
        let mut segment = Self {
            file: Arc::new(file),
            path: path.clone(),
            first: u64::from_be_bytes(first),
            end: HEADER as u64,
            places: vec![],
        };
        let mut trimmed = 0;
        while let Some(frame) = bytes.get(segment.end as usize..).and_then(Stored::parse) {
            for entry in &frame.entries {
                if entry.sequence < segment.next() {
                    return Err(damaged("its numbers do not ascend"));
                }
            }
            trimmed = frame.trimmed.max(trimmed);
            segment.extend(&frame.entries, frame.length as u64);
        }
        let rest = bytes.get(segment.end as usize..).unwrap_or_default();
        if rest.iter().any(|byte| *byte != 0) {
            let follows = |at: &usize| rest.get(*at..).is_some_and(|rest| Stored::parse(rest).is_some());
            if !is_last || (0..rest.len()).step_by(ALIGN).any(|at| follows(&at)) {
                return Err(damaged("an entry does not fit its checksum"));
            }
            tracing::warn!(path = %path.display(), "wiping an entry that was cut off while it was written");
            write(&segment.file, segment.end, &vec![0; rest.len()])?;
        }
        Ok((segment, trimmed))
    }

    pub(super) fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Where the next frame goes.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The number after its last entry.
    pub(super) fn next(&self) -> u64 {
        self.places
            .last()
            .map_or(self.first, |last| last.sequence.saturating_add(1))
    }

    pub(super) fn places_from(&self, from: u64) -> &[Place] {
        let start = self.places.partition_point(|place| place.sequence < from);
        &self.places[start..]
    }

    /// Takes note of a frame of `length` bytes that was written at the end.
    pub(super) fn extend(&mut self, entries: &[Place], length: u64) {
        let end = self.end;
        self.places.extend(entries.iter().map(|place| Place {
            offset: place.offset + end,
            ..*place
        }));
        self.end += length;
    }

    /// Deletes the file; if that fails, it comes back at the next start, and its entries are trimmed again.
    pub(super) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a segment could not be removed");
        }
    }
}

/// Writes and makes durable.
pub(super) fn write(file: &File, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
    file.write_all_at(bytes, offset)?;
    file.sync_data().map_err(StoreError::Io)
}

/// All segments of a directory in order, and the highest number below which they were trimmed.
pub(super) fn open_all(dir: &Path) -> Result<(VecDeque<Segment>, u64), StoreError> {
    let mut paths = vec![];
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(".staged-") {
            fs::remove_file(&path)?;
        } else if name.ends_with(".spool") {
            paths.push(path);
        }
    }
    // Of fixed width, so that names sort as their numbers do.
    paths.sort();
    let mut segments: VecDeque<Segment> = VecDeque::new();
    let mut trimmed = 0;
    let last = paths.len().saturating_sub(1);
    for (index, path) in paths.into_iter().enumerate() {
        let (segment, below) = Segment::open(path, index == last)?;
        if segments
            .back()
            .is_some_and(|before| segment.first < before.next())
        {
            return Err(StoreError::Damaged("the segments of a spool overlap".to_owned()));
        }
        trimmed = below.max(trimmed);
        segments.push_back(segment);
    }
    Ok((segments, trimmed))
}
