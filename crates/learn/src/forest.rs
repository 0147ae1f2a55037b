//! Classification trees (Breiman et al., "Classification and Regression Trees", 1984), alone and in random forests
//! (Breiman, Machine Learning 45, 2001).
//!
//! A tree of a forest sees rows drawn with replacement, and at each split as many features, drawn anew, as the square root
//! of their number. A lone tree sees everything and draws nothing.

use std::ops::ControlFlow;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{
    HyperparameterViolation, LearnError,
    bins::{self, Binned},
    model::{DecisionTreeParameters, ForestParameters, View},
    train::{Progress, Samples},
    tree::{Node, Tree},
};

mod grow;
#[cfg(test)]
mod tests;

use self::grow::Grower;

/// Most numbers in all trees together: a stored model must not exceed what is read back.
const MOST_NUMBERS: usize = 8 << 20;

/// Trees whose answers are averaged.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Forest {
    /// Ascending bin edges, by feature.
    edges: Vec<Vec<f64>>,
    /// A leaf holds the share of each class among its rows.
    trees: Vec<Tree<Vec<f64>>>,
}

impl Forest {
    /// A single tree; progress is told level by level.
    pub(crate) fn train_tree(
        samples: &Samples,
        parameters: &DecisionTreeParameters,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self, LearnError> {
        let edges = bins::learn(samples, parameters.bins);
        let grower = Grower {
            samples,
            binned: &Binned::new(samples, &edges),
            edges: &edges,
            depth: parameters.depth,
            min_samples_leaf: parameters.min_samples_leaf,
            // Nothing is drawn.
            tried: None,
        };
        let mut each_level = |step, loss| {
            progress(Progress {
                step,
                total: parameters.depth,
                loss,
            })
        };
        let rows = (0..samples.len() as u32).collect();
        let tree = grower.grow(rows, &mut ChaCha8Rng::seed_from_u64(0), &mut each_level)?;
        Ok(Self {
            edges,
            trees: vec![tree],
        })
    }

    /// Progress is told tree by tree.
    pub(crate) fn train(
        samples: &Samples,
        parameters: &ForestParameters,
        seed: u64,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self, LearnError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let edges = bins::learn(samples, parameters.bins);
        let binned = Binned::new(samples, &edges);
        let grower = Grower {
            samples,
            binned: &binned,
            edges: &edges,
            depth: parameters.depth,
            min_samples_leaf: parameters.min_samples_leaf,
            tried: Some(samples.width.isqrt().max(1)),
        };
        let count = samples.len() as u32;
        let mut trees = Vec::with_capacity(parameters.trees);
        let mut numbers = 0_usize;
        // Sums over the trees so far of the probability of each row's own class.
        let mut sums = vec![0.0; samples.len()];
        for index in 0..parameters.trees {
            let drawn = (0..count).map(|_| rng.random_range(0..count)).collect();
            let tree = grower.grow(drawn, &mut rng, &mut |_, _| ControlFlow::Continue(()))?;
            numbers += self::numbers(&tree);
            if numbers > MOST_NUMBERS {
                return Err(too_large());
            }
            let grown = index + 1;
            let mut loss = 0.0;
            for (row, (sum, label)) in sums.iter_mut().zip(&samples.labels).enumerate() {
                *sum += tree.leaf(|feature| binned.of(feature)[row])[*label as usize];
                loss -= (*sum / grown as f64).max(f64::MIN_POSITIVE).ln();
            }
            trees.push(tree);
            let step = Progress {
                step: grown,
                total: parameters.trees,
                loss: loss / samples.len().max(1) as f64,
            };
            if progress(step).is_break() {
                return Err(LearnError::Cancelled);
            }
        }
        Ok(Self { edges, trees })
    }

    /// Probability of each class.
    pub(crate) fn probabilities(&self, row: &[f64]) -> Vec<f64> {
        let bins = bins::of_row(row, &self.edges);
        let mut trees = self
            .trees
            .iter()
            .map(|tree| tree.leaf(|feature| bins[feature as usize]));
        let mut sums = trees.next().cloned().unwrap_or_default();
        for leaf in trees {
            sums.iter_mut().zip(leaf).for_each(|(sum, share)| *sum += share);
        }
        let count = self.trees.len() as f64;
        sums.iter_mut().for_each(|sum| *sum /= count);
        sums
    }

    /// The first and the last edge, by feature; the median where there is none.
    pub(crate) fn ranges(&self, medians: &[f64]) -> Vec<(f64, f64)> {
        bins::ranges(&self.edges, medians)
    }

    pub(crate) fn view(&self) -> View<'_> {
        View::Forest {
            edges: &self.edges,
            trees: self.trees.iter().map(|tree| tree.view(Vec::as_slice)).collect(),
        }
    }

    pub(crate) fn is_tree(&self) -> bool {
        self.trees.len() == 1
    }

    pub(crate) fn is_consistent(&self, features: usize, classes: usize) -> bool {
        // Shares are stored to the last bit, so their sum misses 1 by rounding only.
        let are_shares = |leaf: &Vec<f64>| {
            leaf.len() == classes
                && leaf.iter().all(|share| (0.0..=1.0).contains(share))
                && (leaf.iter().sum::<f64>() - 1.0).abs() < 1e-9
        };
        bins::are_consistent(&self.edges, features)
            && !self.trees.is_empty()
            && self
                .trees
                .iter()
                .all(|tree| tree.is_consistent(&self.edges, are_shares))
    }
}

/// About how many numbers a tree is.
fn numbers(tree: &Tree<Vec<f64>>) -> usize {
    let of = |node: &Node<Vec<f64>>| match node {
        Node::Split { .. } => 4,
        Node::Leaf { weight } => 1 + weight.len(),
    };
    tree.nodes.iter().map(of).sum()
}

fn too_large() -> LearnError {
    LearnError::Hyperparameters {
        violations: vec![HyperparameterViolation {
            name: "trees".to_owned(),
            problem: "makes a model too large to store; lower trees or depth, or raise min_samples_leaf"
                .to_owned(),
        }],
    }
}
