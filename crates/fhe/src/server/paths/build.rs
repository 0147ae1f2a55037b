//! Trees into tables and splits: what an evaluation of plan `paths` goes through.

use super::{Group, Root, Split, Table, Value, Work};
use crate::{
    quantised::{QuantisedNode, QuantisedTree},
    server::selectors::Layout,
};

/// Turns trees into tables and splits.
pub(super) struct Builder<'a> {
    layout: &'a Layout,
    n: usize,
    stride: usize,
    /// Distances between scores on the torus, one for each ciphertext of a score.
    deltas: &'a [u64],
    /// By feature: the table that still has room, and its next free coefficient.
    open: Vec<Option<(usize, usize)>>,
    pub(super) entries: usize,
    group: Group,
}

/// A subtree, evaluated: its value, and the CMUX gates on the longest way.
type Built = (Value, usize);

impl<'a> Builder<'a> {
    pub(super) fn new(layout: &'a Layout, n: usize, stride: usize, deltas: &'a [u64]) -> Self {
        Self {
            layout,
            n,
            stride,
            deltas,
            open: vec![None; layout.bits.len()],
            entries: 0,
            group: Group {
                tables: vec![],
                heights: vec![],
                roots: vec![],
            },
        }
    }

    /// Places `from..from + width` of the leaves of a tree, a place being a ciphertext of a score.
    pub(super) fn tree(&mut self, tree: &QuantisedTree, from: usize, width: usize, work: &mut Work) {
        // Children come after their parents: from the back, every child is built before its parent.
        let mut built: Vec<Option<Built>> = vec![None; tree.nodes.len()];
        let only = only_feature(tree);
        for at in (0..tree.nodes.len()).rev() {
            let value = match &tree.nodes[at] {
                QuantisedNode::Leaf(values) => {
                    (Value::Leaf(places(self.deltas, values, from, width).collect()), 0)
                }
                QuantisedNode::Split {
                    feature,
                    threshold,
                    left,
                    right,
                } => match only[at] {
                    // Built when its parent asks, or as a root.
                    Only::Feature(_) if at != 0 => continue,
                    Only::Feature(feature) => self.entry(tree, at, feature, from, width),
                    _ => {
                        let mut child = |child: usize| match (built[child].take(), only[child]) {
                            (Some(built), _) => built,
                            (None, Only::Feature(feature)) => self.entry(tree, child, feature, from, width),
                            (None, _) => (Value::Leaf(vec![0; width]), 0),
                        };
                        let ((left, left_chain), (right, right_chain)) = (child(*left), child(*right));
                        let chain = left_chain.max(right_chain);
                        self.split(*feature, *threshold, left, right, chain)
                    }
                },
            };
            built[at] = Some(value);
        }
        if let Some((value, chain)) = built[0].take() {
            let output = tree.output * self.deltas.len() + from;
            for chain_of in &mut work.chain[output..output + width] {
                *chain_of += chain;
            }
            self.group.roots.push(Root { value, output, width });
        }
    }

    /// A subtree over one feature, as an entry of a table.
    fn entry(&mut self, tree: &QuantisedTree, at: usize, feature: usize, from: usize, width: usize) -> Built {
        let bits = self.layout.bits[feature];
        // Scores of one leaf are `stride` apart in every table, so that they meet in the sum.
        let size = if width == 1 {
            1 << bits
        } else {
            width * self.stride
        };
        let (table, start) = match self.open[feature] {
            Some((table, free)) if free + size <= self.n => (table, free),
            _ => {
                self.group.tables.push(Table {
                    first: self.layout.first[feature],
                    bits,
                    body: vec![0; self.n],
                });
                (self.group.tables.len() - 1, 0)
            }
        };
        self.open[feature] = Some((table, start + size));
        self.entries += 1;
        let body = &mut self.group.tables[table].body;
        for bin in 0..1usize << bits {
            let values = places(self.deltas, leaf_below(tree, at, bin), from, width);
            for (place, value) in values.enumerate() {
                body[start + place * self.stride + bin] = value;
            }
        }
        (Value::Entry { table, at: start }, bits)
    }

    fn split(&mut self, feature: usize, threshold: u32, left: Value, right: Value, chain: usize) -> Built {
        let bits = self.layout.bits[feature];
        let below = |value: &Value| match value {
            Value::Node { height, .. } => height + 1,
            _ => 0,
        };
        let height = below(&left).max(below(&right));
        while self.group.heights.len() <= height {
            self.group.heights.push(vec![]);
        }
        let own = bits - (threshold.trailing_zeros() as usize).min(bits);
        let splits = &mut self.group.heights[height];
        splits.push(Split {
            first: self.layout.first[feature],
            bits,
            threshold,
            left,
            right,
        });
        let index = splits.len() - 1;
        (Value::Node { height, index }, chain + own)
    }

    pub(super) fn finish(mut self, work: &mut Work) -> Group {
        // By feature, with the references following.
        let mut moved: Vec<Vec<usize>> = vec![];
        for splits in &mut self.group.heights {
            let mut order: Vec<usize> = (0..splits.len()).collect();
            order.sort_by_key(|index| splits[*index].first);
            let mut places = vec![0; order.len()];
            for (place, index) in order.iter().enumerate() {
                places[*index] = place;
            }
            splits.sort_by_key(|split| split.first);
            for split in splits.iter_mut() {
                split.left.follow(&moved);
                split.right.follow(&moved);
            }
            moved.push(places);
        }
        for root in &mut self.group.roots {
            root.value.follow(&moved);
        }
        self.sort_tables();
        let splits = self.group.heights.iter().flatten();
        work.gates += self.group.tables.iter().map(|table| table.bits).sum::<usize>();
        work.gates += splits
            .map(|split| split.bits - (split.threshold.trailing_zeros() as usize).min(split.bits))
            .sum::<usize>();
        self.group
    }
}

impl Builder<'_> {
    /// Tables by feature, with the references following.
    fn sort_tables(&mut self) {
        let tables = &mut self.group.tables;
        let mut order: Vec<usize> = (0..tables.len()).collect();
        order.sort_by_key(|index| tables[*index].first);
        let mut places = vec![0; order.len()];
        for (place, index) in order.iter().enumerate() {
            places[*index] = place;
        }
        tables.sort_by_key(|table| table.first);
        let splits = self.group.heights.iter_mut().flatten();
        let values = splits.flat_map(|split| [&mut split.left, &mut split.right]);
        for value in values.chain(self.group.roots.iter_mut().map(|root| &mut root.value)) {
            if let Value::Entry { table, .. } = value {
                *table = places[*table];
            }
        }
    }
}

impl Value {
    fn follow(&mut self, moved: &[Vec<usize>]) {
        if let Self::Node { height, index } = self {
            *index = moved[*height][*index];
        }
    }
}

/// The features that the splits of a subtree look at.
#[derive(Clone, Copy, PartialEq)]
enum Only {
    None,
    Feature(usize),
    Several,
}

fn only_feature(tree: &QuantisedTree) -> Vec<Only> {
    let mut only = vec![Only::None; tree.nodes.len()];
    for at in (0..tree.nodes.len()).rev() {
        if let QuantisedNode::Split {
            feature, left, right, ..
        } = &tree.nodes[at]
        {
            let same =
                |child: usize| matches!(only[child], Only::None) || only[child] == Only::Feature(*feature);
            only[at] = if same(*left) && same(*right) {
                Only::Feature(*feature)
            } else {
                Only::Several
            };
        }
    }
    only
}

/// Places of a leaf on the torus: each value once for each ciphertext of a score.
fn places<'a>(
    deltas: &'a [u64],
    values: &'a [i64],
    from: usize,
    width: usize,
) -> impl Iterator<Item = u64> + 'a {
    (from..from + width)
        .map(|place| deltas[place % deltas.len()].wrapping_mul(values[place / deltas.len()] as u64))
}

/// The leaf of a subtree over one feature.
fn leaf_below(tree: &QuantisedTree, at: usize, bin: usize) -> &[i64] {
    let mut at = at;
    loop {
        match &tree.nodes[at] {
            QuantisedNode::Leaf(values) => return values,
            QuantisedNode::Split {
                threshold,
                left,
                right,
                ..
            } => {
                at = if bin >= *threshold as usize { *right } else { *left };
            }
        }
    }
}
