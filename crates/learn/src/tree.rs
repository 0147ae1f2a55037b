//! Decision trees over bins.

use serde::{Deserialize, Serialize};

use crate::model::NodeView;

/// A tree whose leaves hold an `L`; node 0 is the root, children come after their parents.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tree<L> {
    pub(crate) nodes: Vec<Node<L>>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Node<L> {
    /// Goes right when the bin is above the edge's index: the value is at or above the edge.
    Split {
        feature: u32,
        edge: u8,
        left: u32,
        right: u32,
    },
    Leaf {
        weight: L,
    },
}

impl<L> Tree<L> {
    /// What the leaf holds that a row comes to, given the bin of each of its features.
    pub(crate) fn leaf(&self, bin: impl Fn(u32) -> u8) -> &L {
        let mut at = 0;
        loop {
            match &self.nodes[at] {
                Node::Leaf { weight } => return weight,
                Node::Split {
                    feature,
                    edge,
                    left,
                    right,
                } => {
                    at = *(if bin(*feature) > *edge { right } else { left }) as usize;
                }
            }
        }
    }

    /// Puts a split where a leaf was, above two new leaves; gives their places.
    pub(crate) fn split(&mut self, at: usize, feature: u32, edge: u8, leaves: [L; 2]) -> (usize, usize) {
        let left = self.nodes.len();
        self.nodes.extend(leaves.map(|weight| Node::Leaf { weight }));
        self.nodes[at] = Node::Split {
            feature,
            edge,
            left: left as u32,
            right: left as u32 + 1,
        };
        (left, left + 1)
    }

    /// The nodes, given what the values of a leaf are.
    pub(crate) fn view<'a>(&'a self, values: impl Fn(&'a L) -> &'a [f64]) -> Vec<NodeView<'a>> {
        let node = |node: &'a Node<L>| match node {
            Node::Split {
                feature,
                edge,
                left,
                right,
            } => NodeView::Split {
                feature: *feature as usize,
                edge: usize::from(*edge),
                left: *left as usize,
                right: *right as usize,
            },
            Node::Leaf { weight } => NodeView::Leaf(values(weight)),
        };
        self.nodes.iter().map(node).collect()
    }

    /// Children after parents: every walk ends.
    pub(crate) fn is_consistent(&self, edges: &[Vec<f64>], is_leaf: impl Fn(&L) -> bool) -> bool {
        let fits = |(at, node): (usize, &Node<L>)| match node {
            Node::Leaf { weight } => is_leaf(weight),
            Node::Split {
                feature,
                edge,
                left,
                right,
            } => {
                let children = [*left as usize, *right as usize];
                children
                    .iter()
                    .all(|child| *child > at && *child < self.nodes.len())
                    && edges
                        .get(*feature as usize)
                        .is_some_and(|edges| usize::from(*edge) < edges.len())
            }
        };
        !self.nodes.is_empty() && self.nodes.iter().enumerate().all(fits)
    }
}
