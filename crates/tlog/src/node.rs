//! Where a node stands, and where its hash comes from.

use asterism_crypto::Digest;

use crate::hash::{empty_root, node_hash};

/// The most leaves that a log may say it has: 2^62. More is refused where sizes are read, so that arithmetic on sizes and
/// indexes cannot overflow.
pub const MAX_SIZE: u64 = 1 << 62;

/// A node over a full, aligned range of leaves: `[index * 2^level, (index + 1) * 2^level)`. Level 0 is the leaves.
///
/// Its hash never changes once all its leaves are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// Height above the leaves.
    pub level: u8,
    /// Position among the nodes of its level, from the left.
    pub index: u64,
}

impl NodeId {
    /// The leaf at `index`.
    pub fn leaf(index: u64) -> Self {
        Self { level: 0, index }
    }

    /// The node over this one and its sibling.
    pub fn parent(self) -> Self {
        Self {
            level: self.level + 1,
            index: self.index >> 1,
        }
    }

    /// The two nodes below; `None` for a leaf.
    pub fn children(self) -> Option<(Self, Self)> {
        let level = self.level.checked_sub(1)?;
        let index = self.index << 1;
        Some((
            Self { level, index },
            Self {
                level,
                index: index + 1,
            },
        ))
    }
}

/// Gives the hashes of full nodes.
///
/// Asked only for nodes whose leaves are all below the size that a proof was asked for.
pub trait Nodes {
    /// Why a node could not be given: its store failed, or it is not there.
    type Error;

    /// The hash of the node.
    ///
    /// # Errors
    /// When the node is missing or cannot be read.
    fn node(&self, id: NodeId) -> Result<Digest, Self::Error>;
}

impl<N: Nodes + ?Sized> Nodes for &N {
    type Error = N::Error;

    fn node(&self, id: NodeId) -> Result<Digest, Self::Error> {
        (**self).node(id)
    }
}

/// The root over the leaves `[0, size)`.
///
/// # Errors
/// Those of `nodes`.
pub fn root_at<N: Nodes>(nodes: &N, size: u64) -> Result<Digest, N::Error> {
    if size == 0 {
        Ok(empty_root())
    } else {
        range_hash(nodes, 0, size)
    }
}

/// The Merkle tree hash over the leaves `[start, end)` as RFC 6962 splits them. `start` is a multiple of the smallest power
/// of two that is not below `end - start`, as every range of that splitting is, and the range is not empty.
pub(crate) fn range_hash<N: Nodes>(nodes: &N, start: u64, end: u64) -> Result<Digest, N::Error> {
    let mut hash = None;
    // From the right, so that every full node is hashed onto what stands to its right.
    for id in full_nodes(start, end).into_iter().rev() {
        let left = nodes.node(id)?;
        hash = Some(match hash {
            None => left,
            Some(right) => node_hash(&left, &right),
        });
    }
    Ok(hash.expect("the range is not empty"))
}

/// The full nodes that cover `[start, end)`, from the left, which is from the largest.
pub(crate) fn full_nodes(start: u64, end: u64) -> Vec<NodeId> {
    let mut ids = Vec::new();
    let mut at = start;
    for level in (0..u64::BITS as u8).rev() {
        if (end - start) >> level & 1 == 1 {
            ids.push(NodeId {
                level,
                index: at >> level,
            });
            at += 1 << level;
        }
    }
    ids
}

/// All nodes of a tree in memory, for tests and small logs.
#[derive(Clone, Debug, Default)]
pub struct MemoryNodes {
    levels: Vec<Vec<Digest>>,
}

impl MemoryNodes {
    /// Takes a node that [`crate::Frontier::append_with`] completed. Nodes of one level come from left to right.
    pub fn push(&mut self, id: NodeId, hash: Digest) {
        let level = usize::from(id.level);
        if self.levels.len() <= level {
            self.levels.resize(level + 1, Vec::new());
        }
        self.levels[level].push(hash);
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// The root over the first `size` leaves; `None` where there are fewer.
    pub fn root_at(&self, size: u64) -> Option<Digest> {
        root_at(self, size).ok()
    }
}

/// The node is not in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no node {} at level {}", .0.index, .0.level)]
pub struct MissingNode(pub NodeId);

impl Nodes for MemoryNodes {
    type Error = MissingNode;

    fn node(&self, id: NodeId) -> Result<Digest, MissingNode> {
        let level = self.levels.get(usize::from(id.level));
        let index = usize::try_from(id.index).ok();
        level
            .zip(index)
            .and_then(|(level, index)| level.get(index).copied())
            .ok_or(MissingNode(id))
    }
}
