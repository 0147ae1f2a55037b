//! The walk over all entries.
//!
//! Roots are computed twice: over the entries, and over what the tiles say the entries were. Where a checkpoint has the first,
//! the tiles are wrong; where it has the second, the entries are; so what is told is what happened, and not all that follows
//! from it.

use std::ops::Range;

use asterism_crypto::Digest;
use rayon::prelude::*;

use super::{
    Log, Problem, ProblemKind,
    compare::{Difference, compare},
    heads::{Head, Heads},
    tiles::StoredTiles,
};
use crate::{
    frontier::Frontier,
    hash::leaf_hash,
    node::{NodeId, Nodes},
    tile::{BundleError, MAX_BUNDLE, TILE, TileId, TileKind, TileNodes, split_bundle, subtree},
};

/// Bundles that are looked at before their results are joined: some 2 million entries.
const CHUNK: u64 = 8192;

/// A hash over the entries, and over what the tiles say that they were.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) entries: Digest,
    pub(super) tiles: Digest,
}

/// What the walk found.
pub(super) struct Walked {
    /// Over all entries.
    pub(super) root: Option<Digest>,
    /// Checkpoints of the log whose roots are those of the entries.
    pub(super) consistent: usize,
    /// Entries below are those that the log signed.
    pub(super) proven: u64,
    /// The nodes over full bundles, from the first on.
    pub(super) nodes: Vec<Option<Pair>>,
}

/// What was found of one bundle.
#[derive(Default)]
struct Bundle {
    problems: Vec<Problem>,
    difference: Option<Difference>,
    /// There were more or fewer entries than there should be; the hashes are those of the tile.
    is_miscounted: bool,
    /// The node over it when it is full; for every checkpoint that ends within it, the hash over what comes before.
    whole: Option<Pair>,
    parts: Vec<Option<Pair>>,
}

/// Hashes every entry from the first on, and holds the roots against the checkpoints.
pub(super) fn walk(log: &Log<'_>, heads: &Heads, problems: &mut Vec<Problem>) -> Walked {
    let mut walk = Walk::begin(log, heads, problems);
    let bundles = log.first / TILE..log.size.div_ceil(TILE);
    let mut start = bundles.start;
    while start < bundles.end {
        let chunk = start..bundles.end.min(start + CHUNK);
        let found: Vec<_> = chunk
            .clone()
            .into_par_iter()
            .map(|index| look(log, index, heads.within(index)))
            .collect();
        for (index, bundle) in chunk.clone().zip(found) {
            walk.take(index, bundle);
        }
        start = chunk.end;
    }
    walk.end()
}

impl Heads {
    /// The checkpoints that end within a bundle, neither at its beginning nor at its end.
    fn within(&self, bundle: u64) -> &[Head] {
        self.between(bundle * TILE + 1..(bundle + 1) * TILE)
    }

    fn between(&self, sizes: Range<u64>) -> &[Head] {
        let at = |size| self.heads.partition_point(|head| head.size < size);
        &self.heads[at(sizes.start)..at(sizes.end)]
    }
}

struct Walk<'a> {
    log: &'a Log<'a>,
    heads: &'a Heads,
    problems: &'a mut Vec<Problem>,
    /// Over the entries and over the tiles, of bundles; none after a gap.
    frontiers: Option<(Frontier, Frontier)>,
    differences: Vec<(u64, Difference, bool)>,
    /// How far the tiles, or the entries, have a root that the log signed.
    known: u64,
    /// A checkpoint since then did not fit.
    lost: bool,
    root: Option<Digest>,
    walked: Walked,
}

impl<'a> Walk<'a> {
    fn begin(log: &'a Log<'a>, heads: &'a Heads, problems: &'a mut Vec<Problem>) -> Self {
        let stored = Raised(TileNodes::new(StoredTiles(log), log.size));
        let frontier = match Frontier::load(&stored, log.first / TILE) {
            Ok(frontier) => Some(frontier),
            Err(error) => {
                let detail = format!("the tree before entry {} cannot be had: {error}", log.first);
                problems.push(Problem {
                    kind: ProblemKind::Missing,
                    index: Some(log.first),
                    path: None,
                    detail,
                });
                None
            }
        };
        Self {
            log,
            heads,
            problems,
            frontiers: frontier.map(|frontier| (frontier.clone(), frontier)),
            differences: Vec::new(),
            known: log.first,
            lost: false,
            root: None,
            walked: Walked {
                root: None,
                consistent: 0,
                proven: 0,
                nodes: Vec::new(),
            },
        }
    }

    fn take(&mut self, index: u64, bundle: Bundle) {
        self.problems.extend(bundle.problems);
        let difference = bundle.difference;
        self.differences
            .extend(difference.map(|difference| (index, difference, bundle.is_miscounted)));
        self.check_heads(index * TILE..index * TILE + 1, &[]);
        self.check_heads(index * TILE + 1..(index + 1) * TILE, &bundle.parts);
        let is_last = (index + 1) * TILE > self.log.size;
        if is_last {
            self.root = self.roots(bundle.whole).map(|pair| pair.entries);
            return;
        }
        self.walked.nodes.push(bundle.whole);
        self.frontiers = self
            .frontiers
            .take()
            .zip(bundle.whole)
            .map(|((mut entries, mut tiles), whole)| {
                entries.append(whole.entries);
                tiles.append(whole.tiles);
                (entries, tiles)
            });
    }

    fn end(mut self) -> Walked {
        if self.log.size.is_multiple_of(TILE) {
            self.check_heads(self.log.size..self.log.size + 1, &[]);
            self.root = self.frontiers.as_ref().map(|(entries, _)| entries.root());
        }
        for (index, difference, is_miscounted) in std::mem::take(&mut self.differences) {
            self.problems.push(self.told(index, difference, is_miscounted));
        }
        self.walked.root = self.root;
        self.walked
    }

    /// Holds the checkpoints of these sizes against the bundles so far and a part of the next.
    fn check_heads(&mut self, sizes: Range<u64>, parts: &[Option<Pair>]) {
        if sizes.start < self.log.first {
            return;
        }
        let heads = self.heads.between(sizes);
        for (at, head) in heads.iter().enumerate() {
            let roots = match parts.get(at) {
                None => self.frontiers.as_ref().map(|(entries, tiles)| Pair {
                    entries: entries.root(),
                    tiles: tiles.root(),
                }),
                Some(part) => self.roots(*part),
            };
            // Where there is a gap, that was told.
            let Some(roots) = roots else { continue };
            if roots.entries == head.root {
                self.walked.proven = head.size;
                self.walked.consistent += usize::from(head.path.is_some());
            } else if roots.tiles != head.root {
                self.tell_inconsistent(head);
                continue;
            }
            self.known = head.size;
            self.lost = false;
        }
    }

    /// Tells of the first checkpoint that does not fit; what comes later cannot fit either.
    fn tell_inconsistent(&mut self, head: &Head) {
        let (index, detail) = if head.size == self.known {
            let detail = format!(
                "{} has another root than that of its {} entries, which the log signed as well",
                head.name, head.size
            );
            (None, detail)
        } else if self.lost {
            return;
        } else {
            self.lost = true;
            let detail = format!(
                "the entries from {} to {} are not those that the log signed: {} has another root",
                self.known, head.size, head.name
            );
            (Some(self.known), detail)
        };
        self.problems.push(Problem {
            kind: ProblemKind::Inconsistent,
            index,
            path: head.path.clone(),
            detail,
        });
    }

    /// The roots over all bundles so far and a part of the next.
    fn roots(&self, part: Option<Pair>) -> Option<Pair> {
        let (entries, tiles) = self.frontiers.as_ref()?;
        let part = part?;
        Some(Pair {
            entries: entries.root_with(part.entries),
            tiles: tiles.root_with(part.tiles),
        })
    }

    fn told(&self, bundle: u64, difference: Difference, is_miscounted: bool) -> Problem {
        let index = bundle * TILE + difference.at as u64;
        let of = |kind| TileId::at(kind, bundle, self.log.size).expect("it was looked at");
        let tile = of(TileKind::Hashes(0));
        if index < self.walked.proven && !is_miscounted {
            let detail =
                format!("{tile} does not have the hash of entry {index}, which is as the log signed it");
            return Problem::of_entry(ProblemKind::Tile, index, &tile, detail);
        }
        let what = match difference.kind {
            ProblemKind::Dropped => "was dropped",
            ProblemKind::Duplicated => "is there twice",
            ProblemKind::Inserted => "was put in",
            ProblemKind::Reordered => "stands in another place",
            _ => "was altered",
        };
        let detail = format!("entry {index} {what}: {tile} has another hash for it");
        Problem::of_entry(difference.kind, index, &of(TileKind::Entries), detail)
    }
}

/// Reads a bundle and its tile, and hashes its entries.
fn look(log: &Log<'_>, index: u64, heads: &[Head]) -> Bundle {
    let mut bundle = Bundle::default();
    let tile = log.read_hashes(0, index, &mut bundle.problems);
    let leaves = read_leaves(log, index, tile.as_deref(), &mut bundle);
    let (Some(entries), Some(tiles)) = (
        leaves.as_ref().or(tile.as_ref()),
        tile.as_ref().or(leaves.as_ref()),
    ) else {
        bundle.parts = vec![None; heads.len()];
        return bundle;
    };
    let same = entries == tiles;
    let pair = |count: usize| {
        let entries = subtree(&entries[..count]);
        Pair {
            entries,
            tiles: if same { entries } else { subtree(&tiles[..count]) },
        }
    };
    bundle.parts = heads
        .iter()
        .map(|head| Some(pair((head.size % TILE) as usize)))
        .collect();
    bundle.whole = Some(pair(entries.len()));
    bundle
}

/// The leaf hashes of a bundle that has as many entries as it should.
fn read_leaves(
    log: &Log<'_>,
    index: u64,
    tile: Option<&[Digest]>,
    bundle: &mut Bundle,
) -> Option<Vec<Digest>> {
    let id = TileId::at(TileKind::Entries, index, log.size)?;
    let bytes = log.read(id, MAX_BUNDLE, &mut bundle.problems)?;
    log.check_narrower(id, &bytes, &mut bundle.problems);
    let (entries, error) = split_bundle(&bytes, id.width());
    for (index, entry) in (id.start()..).zip(entries.iter().take(id.width() as usize)) {
        if let Err(what) = (log.check)(index, entry) {
            let detail = format!("entry {index} makes no sense: {what}");
            bundle
                .problems
                .push(Problem::of_entry(ProblemKind::Invalid, index, &id, detail));
        }
    }
    let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    bundle.difference = tile.and_then(|tile| compare(&leaves, tile));
    let Some(error) = error else {
        return Some(leaves);
    };
    bundle.is_miscounted = true;
    // Where an entry can be named, that is why.
    if bundle.difference.is_none() || matches!(error, BundleError::CutOff(_)) {
        let detail = format!("{id} is malformed: {error}");
        let problem = Problem::of_entry(ProblemKind::Bundle, id.start(), &id, detail);
        bundle.problems.push(problem);
    }
    None
}

/// The nodes of a tree from the height of a bundle on, as if they were leaves.
struct Raised<N>(N);

impl<N: Nodes> Nodes for Raised<N> {
    type Error = N::Error;

    fn node(&self, id: NodeId) -> Result<Digest, N::Error> {
        let level = id.level + 8;
        self.0.node(NodeId { level, ..id })
    }
}
