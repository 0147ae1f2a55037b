//! A log as plain files (C2SP `tlog-tiles`): 256 hashes to a tile, 256 entries to a bundle.
//!
//! ```text
//! tile/<level>/<index>[.p/<width>]      hashes, 32 bytes each; level L holds the nodes of height 8 * L
//! tile/entries/<index>[.p/<width>]      entries, each after its length in 2 bytes, big-endian
//!
//! index = decimal in groups of three digits, every one but the last begun with `x`: 1234067 is x001/x234/067
//! width = 1 to 255, for what has fewer than 256
//! ```
//!
//! A full tile never changes. The last of a level is partial unless its size is a multiple of 256, and none is empty.

use std::{fmt, num::NonZeroU16, str::FromStr};

use asterism_crypto::Digest;

use crate::{
    checkpoint::parse_decimal,
    node::{MAX_SIZE, NodeId, Nodes, range_hash},
};

/// Hashes in a full tile, entries in a full bundle.
pub const TILE: u64 = 256;

/// The most bytes of an entry: its length has 2 bytes.
pub const MAX_ENTRY: usize = u16::MAX as usize;

/// The most bytes of a bundle.
pub const MAX_BUNDLE: usize = (MAX_ENTRY + 2) * TILE as usize;

/// The levels that a log of up to [`MAX_SIZE`] entries has tiles at.
pub const LEVELS: u8 = 8;

/// What a file of the log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileKind {
    /// Entries.
    Entries,
    /// Nodes of height 8 times this.
    Hashes(u8),
}

/// One tile or entry bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TileId {
    kind: TileKind,
    index: u64,
    width: NonZeroU16,
}

impl TileId {
    /// The tile or bundle at `index` in a log of `size` entries, as wide as that size makes it; `None` when it would be
    /// empty.
    pub fn at(kind: TileKind, index: u64, size: u64) -> Option<Self> {
        let rest = count(kind, size)?.checked_sub(index.checked_mul(TILE)?)?;
        let width = NonZeroU16::new(rest.min(TILE) as u16)?;
        Some(Self { kind, index, width })
    }

    /// What it holds.
    pub fn kind(&self) -> TileKind {
        self.kind
    }

    /// Its position among those of its kind.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries it holds, 1 to 256.
    pub fn width(&self) -> u64 {
        u64::from(self.width.get())
    }

    /// Whether it will never change.
    pub fn is_full(&self) -> bool {
        self.width() == TILE
    }

    /// The position of its first hash or entry among those of its kind.
    pub fn start(&self) -> u64 {
        self.index * TILE
    }

    /// The nodes whose hashes a tile holds, from the left, and for a bundle the leaves of its entries.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        let level = match self.kind {
            TileKind::Entries => 0,
            TileKind::Hashes(level) => 8 * level,
        };
        (self.start()..self.start() + self.width()).map(move |index| NodeId { level, index })
    }
}

/// Every tile and bundle of a log of `size` entries: bundles first, then tiles level by level, each from the left.
pub fn tiles_of(size: u64) -> impl Iterator<Item = TileId> {
    new_tiles(0, size)
}

/// The tiles and bundles that a log of `new` entries has and that of the first `old` has not, or has narrower. Those are
/// to be written when it grows.
pub fn new_tiles(old: u64, new: u64) -> impl Iterator<Item = TileId> {
    std::iter::once(TileKind::Entries)
        .chain((0..LEVELS).map(TileKind::Hashes))
        .flat_map(move |kind| {
            let (before, after) = (count(kind, old).unwrap_or(0), count(kind, new).unwrap_or(0));
            let range = if before < after {
                before / TILE..after.div_ceil(TILE)
            } else {
                0..0
            };
            range.filter_map(move |index| TileId::at(kind, index, new))
        })
}

/// How many hashes or entries of a kind a log of `size` entries has.
fn count(kind: TileKind, size: u64) -> Option<u64> {
    match kind {
        _ if size > MAX_SIZE => None,
        TileKind::Entries => Some(size),
        TileKind::Hashes(level) if level < LEVELS => Some(size >> (8 * level)),
        TileKind::Hashes(_) => None,
    }
}

/// The path below the log's prefix.
impl fmt::Display for TileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TileKind::Entries => f.write_str("tile/entries/")?,
            TileKind::Hashes(level) => write!(f, "tile/{level}/")?,
        }
        f.write_str(&index_path(self.index))?;
        if self.is_full() {
            Ok(())
        } else {
            write!(f, ".p/{}", self.width)
        }
    }
}

impl FromStr for TileId {
    type Err = MalformedPath;

    fn from_str(path: &str) -> Result<Self, MalformedPath> {
        let (kind, rest) = path
            .strip_prefix("tile/")
            .and_then(|path| path.split_once('/'))
            .ok_or(MalformedPath)?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes(parse_number(level, u64::from(LEVELS) - 1)? as u8),
        };
        let (index, width) = match rest.split_once(".p/") {
            None => (rest, TILE),
            Some((index, width)) => (index, parse_number(width, TILE - 1)?),
        };
        let index = parse_index_path(index).ok_or(MalformedPath)?;
        let width = NonZeroU16::new(width as u16).ok_or(MalformedPath)?;
        if index > MAX_SIZE / TILE {
            return Err(MalformedPath);
        }
        Ok(Self { kind, index, width })
    }
}

/// The path is none of a tile or entry bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path is none of a tile or entry bundle")]
pub struct MalformedPath;

fn parse_number(text: &str, most: u64) -> Result<u64, MalformedPath> {
    parse_decimal(text)
        .filter(|number| *number <= most)
        .ok_or(MalformedPath)
}

/// A number as path elements of three digits: `1234067` is `x001/x234/067`.
pub fn index_path(index: u64) -> String {
    let mut path = format!("{:03}", index % 1000);
    let mut rest = index / 1000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1000);
        rest /= 1000;
    }
    path
}

/// Reads what [`index_path`] wrote, and nothing else.
pub fn parse_index_path(path: &str) -> Option<u64> {
    let mut index = 0_u64;
    let mut elements = path.split('/').peekable();
    while let Some(element) = elements.next() {
        let digits = match elements.peek() {
            Some(_) => element.strip_prefix('x')?,
            None => element,
        };
        if digits.len() != 3 || !digits.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    // One number, one path: no `x000` in front.
    (index_path(index) == path).then_some(index)
}

/// The hashes of a tile as its file has them.
pub fn encode_hashes(hashes: &[Digest]) -> Vec<u8> {
    hashes.iter().flat_map(Digest::as_bytes).copied().collect()
}

/// Reads the file of a tile of `width` hashes.
///
/// # Errors
/// [`WrongWidth`]
pub fn decode_hashes(bytes: &[u8], width: u64) -> Result<Vec<Digest>, WrongWidth> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if hashes.len() as u64 != width || !rest.is_empty() {
        return Err(WrongWidth {
            width,
            bytes: bytes.len(),
        });
    }
    Ok(hashes.iter().map(|hash| Digest::from_bytes(*hash)).collect())
}

/// The file of a tile has another length than its width calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tile of {width} hashes has {} bytes, not {bytes}", 32 * width)]
pub struct WrongWidth {
    /// The width that its name says.
    pub width: u64,
    /// The bytes it has.
    pub bytes: usize,
}

/// Appends an entry to the bytes of a bundle.
///
/// # Errors
/// [`EntryTooLarge`]
pub fn push_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), EntryTooLarge> {
    let length = u16::try_from(entry.len()).map_err(|_| EntryTooLarge(entry.len()))?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// The entry does not fit a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entry of {0} bytes is too large for a bundle; the most is {MAX_ENTRY}")]
pub struct EntryTooLarge(pub usize);

/// Reads the file of a bundle of `width` entries.
///
/// # Errors
/// [`BundleError`]
pub fn decode_bundle(bytes: &[u8], width: u64) -> Result<Vec<&[u8]>, BundleError> {
    match split_bundle(bytes, width) {
        (entries, None) => Ok(entries),
        (_, Some(error)) => Err(error),
    }
}

/// The entries that are there, at most one more than `width`, and what is wrong with the bundle.
pub(crate) fn split_bundle(bytes: &[u8], width: u64) -> (Vec<&[u8]>, Option<BundleError>) {
    let mut entries = Vec::with_capacity(TILE as usize);
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let Some((entry, after)) = after.split_at_checked(usize::from(u16::from_be_bytes(*length))) else {
            break;
        };
        entries.push(entry);
        if entries.len() as u64 > width {
            let bytes = rest.len();
            return (entries, Some(BundleError::TooMany { width, bytes }));
        }
        rest = after;
    }
    let found = entries.len();
    let error = if !rest.is_empty() {
        Some(match found as u64 == width {
            true => BundleError::TooMany {
                width,
                bytes: rest.len(),
            },
            false => BundleError::CutOff(found),
        })
    } else if (found as u64) < width {
        Some(BundleError::TooFew { width, found })
    } else {
        None
    };
    (entries, error)
}

/// Why a bundle was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The file ends within an entry, this one of the bundle, from 0.
    #[error("the bundle ends within its entry {0}")]
    CutOff(usize),
    /// Fewer entries than its name says.
    #[error("the bundle has {found} entries where its name says {width}")]
    TooFew {
        /// What the name says.
        width: u64,
        /// What is there.
        found: usize,
    },
    /// More bytes than its entries need.
    #[error("the bundle goes on for {bytes} bytes after its {width} entries")]
    TooMany {
        /// What the name says.
        width: u64,
        /// How many bytes are left.
        bytes: usize,
    },
}

/// Gives tiles of hashes.
pub trait Tiles {
    /// Why a tile could not be given.
    type Error;

    /// The hashes of the tile, as many as its width.
    ///
    /// # Errors
    /// When the tile is missing or cannot be read.
    fn tile(&self, id: TileId) -> Result<Vec<Digest>, Self::Error>;
}

/// The nodes of a log whose tiles are stored for `size` entries. Those between the levels of tiles are hashed anew, from at
/// most 128 hashes.
#[derive(Clone, Debug)]
pub struct TileNodes<T> {
    tiles: T,
    size: u64,
}

impl<T: Tiles> TileNodes<T> {
    /// The nodes of the tiles of a log of `size` entries.
    pub fn new(tiles: T, size: u64) -> Self {
        Self { tiles, size }
    }
}

/// Why a node could not be had from tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileNodeError<E> {
    /// The node is not among the log's.
    #[error("there is no node {} at level {} yet", .0.index, .0.level)]
    OutOfRange(NodeId),
    /// The tile has fewer hashes than it should.
    #[error("the tile {0} is too narrow")]
    Narrow(TileId),
    /// The tile could not be read.
    #[error("a tile could not be read: {0}")]
    Tile(E),
}

impl<T: Tiles> Nodes for TileNodes<T> {
    type Error = TileNodeError<T::Error>;

    fn node(&self, id: NodeId) -> Result<Digest, Self::Error> {
        let within = id.level % 8;
        let first = id.index.checked_shl(u32::from(within)).unwrap_or(u64::MAX);
        let tile = TileId::at(TileKind::Hashes(id.level / 8), first / TILE, self.size)
            .ok_or(TileNodeError::OutOfRange(id))?;
        let hashes = self.tiles.tile(tile).map_err(TileNodeError::Tile)?;
        let start = (first % TILE) as usize;
        match hashes.get(start..start + (1 << within)) {
            Some(hashes) => Ok(subtree(hashes)),
            None if start as u64 + (1 << within) > tile.width() => Err(TileNodeError::OutOfRange(id)),
            None => Err(TileNodeError::Narrow(tile)),
        }
    }
}

/// The hash over some consecutive nodes, at least one; RFC 6962 splits them as it does leaves.
pub fn subtree(hashes: &[Digest]) -> Digest {
    struct Slice<'a>(&'a [Digest]);
    impl Nodes for Slice<'_> {
        type Error = std::convert::Infallible;
        fn node(&self, id: NodeId) -> Result<Digest, Self::Error> {
            Ok(full_subtree(
                &self.0[(id.index as usize) << id.level..][..1 << id.level],
            ))
        }
    }
    let Ok(hash) = range_hash(&Slice(hashes), 0, hashes.len() as u64);
    hash
}

/// The hash over a power of two of nodes.
fn full_subtree(hashes: &[Digest]) -> Digest {
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[left, right]| crate::hash::node_hash(left, right))
            .collect();
    }
    level[0]
}
