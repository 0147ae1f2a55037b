//! Models in integers: the arithmetic that the server does under encryption, and anybody can do in the clear.

mod network;

use serde::Serialize;

pub(crate) use self::network::{Draft as NetworkDraft, QuantisedNetwork};
use crate::{
    FheError,
    bundle::ScoreCoding,
    model::{Ensemble, Linear, Node, Tree},
};

/// A model whose scores are integers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) enum Quantised {
    /// Weights by output, then feature.
    Linear(Vec<Vec<i64>>),
    /// Trees over bins.
    Trees(Vec<QuantisedTree>),
    /// One hidden layer over the bits of codes.
    Network(QuantisedNetwork),
}

/// A tree over bins; node 0 is the root, children come after their parents.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct QuantisedTree {
    /// The output that the first value of a leaf adds to.
    pub(crate) output: usize,
    /// Values in each leaf.
    pub(crate) width: usize,
    pub(crate) nodes: Vec<QuantisedNode>,
}

/// A node of a tree.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) enum QuantisedNode {
    /// Goes right when the bin is at or above the threshold.
    Split {
        feature: usize,
        threshold: u32,
        left: usize,
        right: usize,
    },
    Leaf(Vec<i64>),
}

impl Quantised {
    /// The scores of a row in integers.
    pub(crate) fn scores(&self, row: &[i32], outputs: usize) -> Vec<i64> {
        match self {
            Self::Linear(weights) => weights
                .iter()
                .map(|weights| weights.iter().zip(row).map(|(w, x)| w * i64::from(*x)).sum())
                .collect(),
            Self::Trees(trees) => {
                let mut scores = vec![0; outputs];
                for tree in trees {
                    for (score, value) in scores[tree.output..].iter_mut().zip(tree.leaf(row)) {
                        *score += value;
                    }
                }
                scores
            }
            Self::Network(network) => network.scores(row, outputs),
        }
    }
}

impl QuantisedTree {
    fn leaf(&self, row: &[i32]) -> &[i64] {
        let mut at = 0;
        loop {
            match &self.nodes[at] {
                QuantisedNode::Leaf(values) => return values,
                QuantisedNode::Split {
                    feature,
                    threshold,
                    left,
                    right,
                } => {
                    at = if row[*feature] >= *threshold as i32 {
                        *right
                    } else {
                        *left
                    };
                }
            }
        }
    }
}

/// Least and largest value of each place of a tree's leaves.
fn leaf_ranges(tree: &Tree) -> Vec<(f64, f64)> {
    let mut ranges = vec![(f64::INFINITY, f64::NEG_INFINITY); tree.width()];
    for node in &tree.nodes {
        if let Node::Leaf(values) = node {
            for ((low, high), value) in ranges.iter_mut().zip(values) {
                *low = low.min(*value);
                *high = high.max(*value);
            }
        }
    }
    ranges
}

/// Trees in integers, and how their scores are coded on so many levels, of which one ciphertext tells `digit` apart.
///
/// The middle of each tree's leaves goes to the offset, so that the levels serve what differs between rows. No row can reach
/// beyond the levels: the extremes of all trees together fit.
pub(crate) fn quantise_trees(
    ensemble: &Ensemble,
    levels: u32,
    digit: u32,
) -> Result<(Vec<QuantisedTree>, Vec<ScoreCoding>), FheError> {
    let ranges: Vec<_> = ensemble.trees.iter().map(leaf_ranges).collect();
    let mut codings: Vec<ScoreCoding> = ensemble
        .base
        .iter()
        .map(|base| ScoreCoding {
            offset: *base,
            unit: 0.0,
            levels,
            digit,
        })
        .collect();
    for (tree, ranges) in ensemble.trees.iter().zip(&ranges) {
        for (coding, (low, high)) in codings[tree.output..].iter_mut().zip(ranges) {
            coding.offset += low / 2.0 + high / 2.0;
            coding.unit += high / 2.0 - low / 2.0;
        }
    }
    let reach = |unit: f64, output: usize| -> i64 {
        let trees = ensemble.trees.iter().zip(&ranges);
        trees
            .filter_map(|(tree, ranges)| ranges.get(output.checked_sub(tree.output)?))
            .map(|(low, high)| ((high / 2.0 - low / 2.0) / unit).round() as i64)
            .sum()
    };
    for (output, coding) in codings.iter_mut().enumerate() {
        let limit = coding.limit();
        if limit < 1 || !coding.unit.is_finite() || !coding.offset.is_finite() {
            return Err(FheError::BadModel("its scores have too wide a range".into()));
        }
        // A constant output has no range; any unit serves.
        coding.unit = if coding.unit > 0.0 {
            coding.unit / limit as f64
        } else {
            1.0
        };
        // Rounding may reach beyond the levels by half a unit a tree.
        while reach(coding.unit, output) > limit {
            coding.unit *= 1.0 + 0.5 / limit as f64;
        }
    }
    let trees = ensemble
        .trees
        .iter()
        .zip(&ranges)
        .map(|(tree, ranges)| {
            let integer = |(place, value): (usize, &f64)| {
                let (low, high) = ranges[place];
                ((value - (low / 2.0 + high / 2.0)) / codings[tree.output + place].unit).round() as i64
            };
            let nodes = tree.nodes.iter().map(|node| match node {
                Node::Leaf(values) => QuantisedNode::Leaf(values.iter().enumerate().map(integer).collect()),
                Node::Split {
                    feature,
                    edge,
                    left,
                    right,
                } => QuantisedNode::Split {
                    feature: *feature,
                    threshold: *edge as u32 + 1,
                    left: *left,
                    right: *right,
                },
            });
            QuantisedTree {
                output: tree.output,
                width: ranges.len(),
                nodes: nodes.collect(),
            }
        })
        .collect();
    Ok((trees, codings))
}

/// What rounding leaves adds to the scores, in deviations of the scores themselves: the most of all outputs. Leaves count
/// as a walk that goes either way at every split meets them.
pub(crate) fn rounding_of_leaves(ensemble: &Ensemble, scores: &[ScoreCoding]) -> f64 {
    let mut variances = vec![(0.0, 0.0); scores.len()];
    for tree in &ensemble.trees {
        let outputs = variances[tree.output..].iter_mut().zip(&scores[tree.output..]);
        for (place, ((spread, rounding), score)) in outputs.take(tree.width()).enumerate() {
            let (mean, square) = tree.moments(place);
            *spread += (square - mean * mean).max(0.0);
            *rounding += score.unit * score.unit / 12.0;
        }
    }
    variances
        .into_iter()
        .filter(|(spread, _)| *spread > 0.0)
        .map(|(spread, rounding)| f64::sqrt(rounding / spread))
        .fold(0.0, f64::max)
}

/// Codes of a feature on either side of its middle, in the `linear` plan.
pub(crate) const STEPS: i32 = (1 << 11) - 1;

/// The same in the `neurons` plan, where every bit of a code costs a gate a unit.
pub(crate) const STEPS_OF_NETWORKS: i32 = (1 << 4) - 1;

/// `(middle, step)` of each feature, for so many codes on either side.
pub(crate) fn steps(ranges: &[(f64, f64)], limit: i32) -> Vec<(f64, f64)> {
    let of = |(low, high): &(f64, f64)| {
        let step = (high / 2.0 - low / 2.0) / f64::from(limit);
        (low / 2.0 + high / 2.0, if step > 0.0 { step } else { 1.0 })
    };
    ranges.iter().map(of).collect()
}

/// Weights in integers, and how their scores are coded on so many levels.
pub(crate) fn quantise_weights(
    linear: &Linear,
    levels: u32,
) -> Result<(Vec<Vec<i64>>, Vec<ScoreCoding>), FheError> {
    let steps = steps(&linear.ranges, STEPS);
    let mut all = vec![];
    let mut codings = vec![];
    for (weights, bias) in linear.weights.iter().zip(&linear.bias) {
        let offset = bias
            + weights
                .iter()
                .zip(&steps)
                .map(|(w, (middle, _))| w * middle)
                .sum::<f64>();
        // The score that one step of each feature is worth.
        let worth: Vec<f64> = weights
            .iter()
            .zip(&steps)
            .map(|(w, (_, step))| w * step)
            .collect();
        let sum: f64 = worth.iter().map(|worth| worth.abs()).sum();
        let mut coding = ScoreCoding {
            offset,
            unit: 1.0,
            levels,
            digit: levels,
        };
        // Rounded weights reach half a unit further, each.
        let room = coding.limit() / i64::from(STEPS) - weights.len() as i64 / 2 - 1;
        if room < 1 || !offset.is_finite() || !sum.is_finite() {
            return Err(FheError::BadModel(
                "it has too many features, or too wide a range".into(),
            ));
        }
        if sum > 0.0 {
            coding.unit = sum / room as f64;
        }
        all.push(
            worth
                .iter()
                .map(|worth| (worth / coding.unit).round() as i64)
                .collect(),
        );
        codings.push(coding);
    }
    Ok((all, codings))
}
