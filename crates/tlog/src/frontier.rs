//! The right edge of a growing tree: all that appending needs.

use asterism_crypto::Digest;

use crate::{
    hash::{empty_root, node_hash},
    node::{MAX_SIZE, NodeId, Nodes, full_nodes},
};

/// The full nodes that cover a tree, one for each bit set in its size: at most 62 hashes for a log of any size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// From the left, which is from the largest.
    nodes: Vec<Digest>,
}

impl Frontier {
    /// The frontier of the tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// The frontier of the first `size` leaves of a tree whose nodes are stored.
    ///
    /// # Errors
    /// Those of `nodes`.
    pub fn load<N: Nodes>(nodes: &N, size: u64) -> Result<Self, N::Error> {
        let nodes = full_nodes(0, size)
            .into_iter()
            .map(|id| nodes.node(id))
            .collect::<Result<_, _>>()?;
        Ok(Self { size, nodes })
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of the tree.
    pub fn root(&self) -> Digest {
        match self.nodes.split_last() {
            None => empty_root(),
            Some((last, nodes)) => hash_onto(*last, nodes),
        }
    }

    /// The root with one more node at the right, of whatever is not below a full one.
    pub(crate) fn root_with(&self, right: Digest) -> Digest {
        hash_onto(right, &self.nodes)
    }

    /// Appends a leaf by its hash and says where it stands.
    pub fn append(&mut self, leaf: Digest) -> u64 {
        self.append_with(leaf, |_, _| ())
    }

    /// Appends a leaf by its hash, gives every node that it completes (the leaf first, then upwards; two on average), and
    /// says where it stands. Whoever stores these nodes can serve every proof later.
    pub fn append_with(&mut self, leaf: Digest, mut completed: impl FnMut(NodeId, Digest)) -> u64 {
        let index = self.size;
        let mut id = NodeId::leaf(index);
        let mut hash = leaf;
        completed(id, hash);
        for _ in 0..index.trailing_ones() {
            let left = self.nodes.pop().expect("a node for every bit set in the size");
            hash = node_hash(&left, &hash);
            id = id.parent();
            completed(id, hash);
        }
        self.nodes.push(hash);
        self.size += 1;
        index
    }

    /// The size, 8 bytes big-endian, then the nodes' hashes from the left, 32 bytes each.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + 32 * self.nodes.len());
        bytes.extend_from_slice(&self.size.to_be_bytes());
        for node in &self.nodes {
            bytes.extend_from_slice(node.as_bytes());
        }
        bytes
    }

    /// Reads what [`Frontier::encode`] wrote.
    ///
    /// # Errors
    /// [`MalformedFrontier`] when the size is beyond [`MAX_SIZE`] or the number of hashes does not fit it.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedFrontier> {
        let (size, hashes) = bytes.split_first_chunk::<8>().ok_or(MalformedFrontier)?;
        let size = u64::from_be_bytes(*size);
        let (hashes, rest) = hashes.as_chunks::<32>();
        if size > MAX_SIZE || hashes.len() != size.count_ones() as usize || !rest.is_empty() {
            return Err(MalformedFrontier);
        }
        let nodes = hashes.iter().map(|hash| Digest::from_bytes(*hash)).collect();
        Ok(Self { size, nodes })
    }
}

/// The hash over `nodes` and what stands to their right.
fn hash_onto(right: Digest, nodes: &[Digest]) -> Digest {
    nodes
        .iter()
        .rev()
        .fold(right, |right, left| node_hash(left, &right))
}

/// The bytes are no frontier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frontier's size and the number of its hashes do not fit each other")]
pub struct MalformedFrontier;
