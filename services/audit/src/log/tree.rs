//! The Merkle tree over the entries (RFC 6962), and how its nodes are stored.
//!
//! ```text
//! 'M' level l, tile t -> the 128 nodes at height 7 l from t * 128 on, 32 bytes each
//! ```
//! Leaves are not stored: they follow from the entries, and are computed from what is read back. A tile is written once, in the
//! batch of the append that fills it; what is in no full tile yet is kept in memory (at most 127 hashes a level), and computed
//! again at a start.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use asterism_crypto::Digest;
use asterism_store::Records;
use asterism_tlog::{Frontier, NodeId, Nodes, node_hash};

use super::{keys, missing, read};
use crate::error::AuditError;

/// Height of a tile.
const HEIGHT: u8 = 7;
/// Nodes of a full tile.
const TILE: usize = 1 << HEIGHT;

/// A tile that is full.
pub(super) struct FullTile {
    pub(super) level: u8,
    pub(super) number: u64,
    pub(super) nodes: Vec<Digest>,
}

impl FullTile {
    pub(super) fn key(&self) -> [u8; 10] {
        keys::tile(self.level, self.number)
    }

    pub(super) fn value(&self) -> Vec<u8> {
        let nodes = self.nodes.iter();
        nodes.flat_map(|node| *node.as_bytes()).collect()
    }
}

/// The right edge of the tree: what appending needs, and the nodes that no full tile has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    frontier: Frontier,
    /// Of level 1, 2, …
    open: Vec<Vec<Digest>>,
}

impl Tree {
    /// The tree over the first `size` entries, which are stored.
    ///
    /// # Errors
    /// [`AuditError::Damaged`] when something of it is missing.
    pub(super) fn load(records: &dyn Records, size: u64) -> Result<Self, AuditError> {
        let stored = StoredNodes::new(records, size, &[]);
        let mut open = Vec::new();
        for level in (1_u8..).take_while(|level| size >> (HEIGHT * level) > 0) {
            let count = size >> (HEIGHT * level);
            let first = count & !(TILE as u64 - 1);
            let nodes: Result<Vec<_>, _> = (first..count)
                .map(|index| {
                    stored.node(NodeId {
                        level: HEIGHT * level,
                        index,
                    })
                })
                .collect();
            open.push(nodes?);
        }
        let stored = StoredNodes::new(records, size, &open);
        let frontier = Frontier::load(&stored, size)?;
        Ok(Self { frontier, open })
    }

    pub(super) fn size(&self) -> u64 {
        self.frontier.size()
    }

    pub(super) fn root(&self) -> Digest {
        self.frontier.root()
    }

    /// Appends a leaf; gives the tiles that it fills.
    pub(super) fn append(&mut self, leaf: Digest, mut filled: impl FnMut(FullTile)) {
        let open = &mut self.open;
        self.frontier.append_with(leaf, |id, hash| {
            if id.level == 0 || id.level % HEIGHT > 0 {
                return;
            }
            let level = id.level / HEIGHT;
            let at = usize::from(level - 1);
            if open.len() <= at {
                open.resize(at + 1, Vec::new());
            }
            open[at].push(hash);
            if open[at].len() == TILE {
                filled(FullTile {
                    level,
                    number: id.index / TILE as u64,
                    nodes: std::mem::take(&mut open[at]),
                });
            }
        });
    }

    /// The nodes of this tree, for proofs; its entries and full tiles are in `records`.
    pub(super) fn nodes<'a>(&'a self, records: &'a dyn Records) -> StoredNodes<'a> {
        StoredNodes::new(records, self.size(), &self.open)
    }
}

/// The nodes at the foot of a tile.
type Foot = Rc<Vec<Digest>>;

/// Nodes, from wherever they are. What was read once is kept: for one proof.
pub(super) struct StoredNodes<'a> {
    records: &'a dyn Records,
    size: u64,
    open: &'a [Vec<Digest>],
    read: RefCell<HashMap<(u8, u64), Foot>>,
}

impl<'a> StoredNodes<'a> {
    fn new(records: &'a dyn Records, size: u64, open: &'a [Vec<Digest>]) -> Self {
        Self {
            records,
            size,
            open,
            read: RefCell::default(),
        }
    }

    /// Nodes `first` to `first + count` at the foot of tiles of `level`; all in one tile.
    fn foot(&self, level: u8, first: u64, count: usize) -> Result<Vec<Digest>, AuditError> {
        let tile = first / TILE as u64;
        let from = (first % TILE as u64) as usize;
        let nodes = match self.open.get(usize::from(level).wrapping_sub(1)) {
            _ if level == 0 => self.cached(level, tile, || self.leaves(tile))?,
            _ if self.is_full(level, tile) => self.cached(level, tile, || self.tile(level, tile))?,
            Some(open) => return cut(open, from, count, level, tile),
            // Only while the open nodes themselves are computed.
            None => {
                return (first..first + count as u64)
                    .map(|index| Ok(top(self.foot(level - 1, index * TILE as u64, TILE)?)))
                    .collect();
            }
        };
        cut(&nodes, from, count, level, tile)
    }

    fn is_full(&self, level: u8, tile: u64) -> bool {
        u128::from(tile + 1) << (HEIGHT * (level + 1)) <= u128::from(self.size)
    }

    fn cached(
        &self,
        level: u8,
        tile: u64,
        load: impl FnOnce() -> Result<Vec<Digest>, AuditError>,
    ) -> Result<Foot, AuditError> {
        if let Some(nodes) = self.read.borrow().get(&(level, tile)) {
            return Ok(nodes.clone());
        }
        let nodes = Rc::new(load()?);
        let mut read = self.read.borrow_mut();
        if read.len() > 64 {
            read.clear();
        }
        read.insert((level, tile), nodes.clone());
        Ok(nodes)
    }

    fn tile(&self, level: u8, tile: u64) -> Result<Vec<Digest>, AuditError> {
        let stored = self.records.get(&keys::tile(level, tile))?;
        let stored = stored.ok_or_else(|| no_node(level, tile))?;
        let (nodes, rest) = stored.as_chunks::<32>();
        if nodes.len() != TILE || !rest.is_empty() {
            return Err(no_node(level, tile));
        }
        Ok(nodes.iter().map(|node| Digest::from_bytes(*node)).collect())
    }

    fn leaves(&self, tile: u64) -> Result<Vec<Digest>, AuditError> {
        let from = tile * TILE as u64;
        let until = self.size.min(from + TILE as u64);
        let entries = read::entries(self.records, from, until, TILE)?;
        let last = from + entries.len() as u64;
        if last < until {
            return Err(missing(last));
        }
        Ok(entries.iter().map(|entry| entry.leaf).collect())
    }
}

impl Nodes for StoredNodes<'_> {
    type Error = AuditError;

    fn node(&self, id: NodeId) -> Result<Digest, AuditError> {
        let (level, height) = (id.level / HEIGHT, id.level % HEIGHT);
        Ok(top(self.foot(level, id.index << height, 1 << height)?))
    }
}

/// The node above a full row of nodes.
fn top(mut nodes: Vec<Digest>) -> Digest {
    while nodes.len() > 1 {
        let (pairs, _) = nodes.as_chunks::<2>();
        nodes = pairs.iter().map(|[left, right]| node_hash(left, right)).collect();
    }
    nodes[0]
}

fn cut(nodes: &[Digest], from: usize, count: usize, level: u8, tile: u64) -> Result<Vec<Digest>, AuditError> {
    let nodes = nodes.get(from..from + count).filter(|nodes| !nodes.is_empty());
    nodes.map(<[_]>::to_vec).ok_or_else(|| no_node(level, tile))
}

fn no_node(level: u8, tile: u64) -> AuditError {
    AuditError::Damaged(format!(
        "tile {tile} of level {level} of its tree is missing or cannot be read"
    ))
}
