//! The tiles above those of the leaves, and what files hold.

use asterism_crypto::Digest;

use super::{
    Log, Problem, ProblemKind,
    bundles::{Pair, Walked},
};
use crate::tile::{LEVELS, TILE, TileId, TileKind, Tiles, decode_hashes, subtree};

/// Holds the tiles above level 0 against the nodes over the bundles.
pub(super) fn check(log: &Log<'_>, walked: &Walked, problems: &mut Vec<Problem>) {
    let mut level = Level {
        height: 1,
        first: log.first / TILE,
        nodes: walked.nodes.clone(),
    };
    while level.height < LEVELS && log.size >> (8 * level.height) > 0 {
        level = level.check(log, walked.proven, problems);
    }
}

/// The nodes that the tiles of one level should have.
struct Level {
    height: u8,
    /// Those before are known from the tiles alone.
    first: u64,
    nodes: Vec<Option<Pair>>,
}

impl Level {
    /// Checks the tiles of this level and gives the next.
    fn check(self, log: &Log<'_>, proven: u64, problems: &mut Vec<Problem>) -> Self {
        let mut above = Vec::new();
        let count = log.size >> (8 * self.height);
        for index in self.first / TILE..count.div_ceil(TILE) {
            let Some(id) = TileId::at(TileKind::Hashes(self.height), index, log.size) else {
                break;
            };
            let found = log.read_hashes(self.height, index, problems);
            let nodes: Vec<_> = (id.start()..id.start() + id.width())
                .zip(0..)
                .map(|(node, at)| self.node(node, found.as_ref().map(|found| found[at])))
                .collect();
            if let Some(found) = found {
                problems.extend(self.first_difference(id, &found, &nodes, proven));
            }
            if id.is_full() {
                above.push(whole(&nodes));
            }
        }
        Self {
            height: self.height + 1,
            first: self.first / TILE,
            nodes: above,
        }
    }

    fn node(&self, index: u64, found: Option<Digest>) -> Option<Pair> {
        match index.checked_sub(self.first) {
            Some(at) => self.nodes.get(at as usize).copied().flatten(),
            None => found.map(|hash| Pair {
                entries: hash,
                tiles: hash,
            }),
        }
    }

    fn first_difference(
        &self,
        id: TileId,
        found: &[Digest],
        nodes: &[Option<Pair>],
        proven: u64,
    ) -> Option<Problem> {
        let differs = |(found, node): (&Digest, &Option<Pair>)| {
            node.is_some_and(|node| *found != node.entries && *found != node.tiles)
        };
        let at = found.iter().zip(nodes).position(differs)?;
        let from = (id.start() + at as u64) << (8 * self.height);
        let to = from + (1 << (8 * self.height));
        let (kind, detail) = if to <= proven {
            let detail = format!(
                "{id} does not have the hash of the entries from {from} to {to}, which are as the log signed them"
            );
            (ProblemKind::Tile, detail)
        } else {
            let detail = format!("the entries from {from} to {to} are not those whose hash {id} has");
            (ProblemKind::Inconsistent, detail)
        };
        Some(Problem::of_entry(kind, from, &id, detail))
    }
}

/// The node over a full tile.
fn whole(nodes: &[Option<Pair>]) -> Option<Pair> {
    let nodes: Vec<Pair> = nodes.iter().copied().collect::<Option<_>>()?;
    let over = |hash: fn(&Pair) -> Digest| subtree(&nodes.iter().map(hash).collect::<Vec<_>>());
    Some(Pair {
        entries: over(|node| node.entries),
        tiles: over(|node| node.tiles),
    })
}

impl Log<'_> {
    /// The bytes of a tile or bundle. Where it is not there, that was told.
    pub(super) fn read(&self, id: TileId, limit: usize, problems: &mut Vec<Problem>) -> Option<Vec<u8>> {
        if !self.files.has(id) {
            return None;
        }
        self.source
            .read(&id.to_string(), limit)
            .map_err(|error| {
                let detail = format!("{id} cannot be read: {error}");
                problems.push(Problem::of_file(ProblemKind::Unreadable, id, detail));
            })
            .ok()
    }

    /// The hashes of a tile.
    pub(super) fn read_hashes(
        &self,
        level: u8,
        index: u64,
        problems: &mut Vec<Problem>,
    ) -> Option<Vec<Digest>> {
        let id = TileId::at(TileKind::Hashes(level), index, self.size)?;
        let bytes = self.read(id, 32 * TILE as usize, problems)?;
        self.check_narrower(id, &bytes, problems);
        decode_hashes(&bytes, id.width())
            .map_err(|error| {
                let detail = format!("{id} is malformed: {error}");
                problems.push(Problem::of_file(ProblemKind::Tile, id, detail));
            })
            .ok()
    }

    /// What was written when a tile or bundle was narrower is the beginning of what it is now.
    pub(super) fn check_narrower(&self, id: TileId, bytes: &[u8], problems: &mut Vec<Problem>) {
        for narrow in self.files.at(id.kind(), id.index()) {
            if narrow.width() >= id.width() {
                continue;
            }
            let fits = |narrow: &[u8]| bytes.starts_with(narrow) && narrow.len() < bytes.len();
            match self.read(*narrow, bytes.len(), problems) {
                Some(narrow_bytes) if !self.is_whole(*narrow, &narrow_bytes) || !fits(&narrow_bytes) => {
                    let detail = format!("{narrow} is not the beginning of {id}");
                    problems.push(Problem::of_file(ProblemKind::Tile, narrow, detail));
                }
                _ => {}
            }
        }
    }

    /// Whether it has as much as its name says.
    fn is_whole(&self, id: TileId, bytes: &[u8]) -> bool {
        match id.kind() {
            TileKind::Entries => crate::tile::decode_bundle(bytes, id.width()).is_ok(),
            TileKind::Hashes(_) => bytes.len() as u64 == 32 * id.width(),
        }
    }
}

/// The tiles of a log as its files have them.
pub(super) struct StoredTiles<'a>(pub(super) &'a Log<'a>);

impl Tiles for StoredTiles<'_> {
    type Error = String;

    fn tile(&self, id: TileId) -> Result<Vec<Digest>, String> {
        let path = id.to_string();
        let bytes = self.0.source.read(&path, 32 * TILE as usize);
        let bytes = bytes.map_err(|error| format!("{path}: {error}"))?;
        decode_hashes(&bytes, id.width()).map_err(|error| format!("{path}: {error}"))
    }
}
