//! Gradient-boosted trees on histograms, second order (Chen and Guestrin, "XGBoost", KDD 2016).

use std::ops::ControlFlow;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{
    LearnError,
    bins::{self, Binned, MOST_BINS},
    model::{TreeParameters, View, softmax},
    train::{Progress, Samples},
    tree::{Node, Tree},
};

/// An ensemble; one tree per round for two classes, else one per class and round.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trees {
    /// Ascending bin edges, by feature.
    edges: Vec<Vec<f64>>,
    /// Score before the first tree, by output.
    base: Vec<f64>,
    /// Tree `i` adds to output `i % base.len()`.
    trees: Vec<Tree<f64>>,
}

impl Trees {
    pub(crate) fn train(
        samples: &Samples,
        parameters: &TreeParameters,
        seed: u64,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self, LearnError> {
        let edges = bins::learn(samples, parameters.bins);
        let binned = Binned::new(samples, &edges);
        let outputs = outputs(samples.classes);
        let base = base_scores(samples, outputs);
        let mut scores = base.repeat(samples.len());
        let mut ensemble = Self {
            edges,
            base,
            trees: Vec::with_capacity(parameters.trees * outputs),
        };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut slopes = Slopes::new(&scores, samples, outputs);
        for round in 0..parameters.trees {
            let sample: Vec<u32> = (0..samples.len() as u32)
                .filter(|_| parameters.subsample >= 1.0 || rng.random::<f64>() < parameters.subsample)
                .collect();
            for output in 0..outputs {
                let grower = Grower {
                    binned: &binned,
                    edges: &ensemble.edges,
                    parameters,
                    slopes: &slopes.by_output[output],
                };
                let tree = grower.grow(sample.clone());
                for (row, score) in scores.iter_mut().skip(output).step_by(outputs).enumerate() {
                    *score += tree.leaf(|feature| binned.of(feature)[row]);
                }
                ensemble.trees.push(tree);
            }
            slopes = Slopes::new(&scores, samples, outputs);
            let step = Progress {
                step: round + 1,
                total: parameters.trees,
                loss: slopes.loss,
            };
            if progress(step).is_break() {
                return Err(LearnError::Cancelled);
            }
        }
        Ok(ensemble)
    }

    /// One score per class; softmax makes probabilities of them.
    pub(crate) fn scores(&self, row: &[f64]) -> Vec<f64> {
        let bins = bins::of_row(row, &self.edges);
        let mut scores = self.base.clone();
        let outputs = scores.len();
        for (index, tree) in self.trees.iter().enumerate() {
            scores[index % outputs] += tree.leaf(|feature| bins[feature as usize]);
        }
        // softmax([0, s]) is the logistic function of s.
        if outputs == 1 {
            vec![0.0, scores[0]]
        } else {
            scores
        }
    }

    /// The first and the last edge, by feature; the median where there is none.
    pub(crate) fn ranges(&self, medians: &[f64]) -> Vec<(f64, f64)> {
        bins::ranges(&self.edges, medians)
    }

    pub(crate) fn view(&self) -> View<'_> {
        View::Boosted {
            edges: &self.edges,
            base: &self.base,
            trees: self
                .trees
                .iter()
                .map(|tree| tree.view(std::slice::from_ref))
                .collect(),
        }
    }

    pub(crate) fn is_consistent(&self, features: usize, classes: usize) -> bool {
        let outputs = outputs(classes);
        bins::are_consistent(&self.edges, features)
            && self.base.len() == outputs
            && self.base.iter().all(|score| score.is_finite())
            && self
                .trees
                .iter()
                .all(|tree| tree.is_consistent(&self.edges, |weight| weight.is_finite()))
    }
}

/// Scores that the trees make: one for two classes, that of the second; else one per class.
fn outputs(classes: usize) -> usize {
    if classes == 2 { 1 } else { classes }
}

/// The log-odds of the classes among the samples, each counted once more than it occurs.
fn base_scores(samples: &Samples, outputs: usize) -> Vec<f64> {
    let mut counts = vec![1.0; samples.classes];
    for label in &samples.labels {
        counts[*label as usize] += 1.0;
    }
    if outputs == 1 {
        vec![f64::ln(counts[1] / counts[0])]
    } else {
        counts.into_iter().map(f64::ln).collect()
    }
}

/// First and second derivative of the loss.
#[derive(Debug, Default, Clone, Copy)]
struct Slope {
    g: f64,
    h: f64,
}

impl Slope {
    fn add(&mut self, other: Self) {
        self.g += other.g;
        self.h += other.h;
    }
}

/// Derivatives at the present scores.
struct Slopes {
    /// By output, then by row.
    by_output: Vec<Vec<Slope>>,
    /// Mean cross-entropy.
    loss: f64,
}

impl Slopes {
    fn new(scores: &[f64], samples: &Samples, outputs: usize) -> Self {
        const LEAST: f64 = 1e-16;
        let mut by_output = vec![Vec::with_capacity(samples.len()); outputs];
        let mut loss = 0.0;
        let mut probabilities = Vec::new();
        for (row, label) in scores.chunks_exact(outputs).zip(&samples.labels) {
            let label = *label as usize;
            probabilities.clear();
            if outputs == 1 {
                probabilities.push(0.0);
            }
            probabilities.extend_from_slice(row);
            softmax(&mut probabilities);
            loss -= probabilities[label].max(f64::MIN_POSITIVE).ln();
            let first = probabilities.len() - outputs;
            // Beyond two classes the diagonal of the Hessian is doubled, as XGBoost does: it bounds the whole of it.
            let scale = if outputs == 1 { 1.0 } else { 2.0 };
            for (class, slopes) in (first..).zip(&mut by_output) {
                let p = probabilities[class];
                let hit = if class == label { 1.0 } else { 0.0 };
                slopes.push(Slope {
                    g: p - hit,
                    h: (scale * p * (1.0 - p)).max(LEAST),
                });
            }
        }
        Self {
            by_output,
            loss: loss / samples.len().max(1) as f64,
        }
    }
}

struct Grower<'a> {
    binned: &'a Binned,
    edges: &'a [Vec<f64>],
    parameters: &'a TreeParameters,
    /// By row.
    slopes: &'a [Slope],
}

/// The best way found to part a node's rows.
struct Cut {
    feature: u32,
    edge: u8,
    gain: f64,
}

impl Grower<'_> {
    fn grow(&self, rows: Vec<u32>) -> Tree<f64> {
        let mut tree = Tree {
            nodes: vec![Node::Leaf { weight: 0.0 }],
        };
        let mut open = vec![(0, rows, 0)];
        while let Some((at, rows, depth)) = open.pop() {
            let slopes: Vec<Slope> = rows.iter().map(|row| self.slopes[*row as usize]).collect();
            let mut total = Slope::default();
            slopes.iter().for_each(|slope| total.add(*slope));
            let cut = if depth < self.parameters.depth {
                self.best_cut(&rows, &slopes, total)
            } else {
                None
            };
            let Some(cut) = cut else {
                let weight = -self.parameters.learning_rate * total.g / self.penalised(total.h);
                tree.nodes[at] = Node::Leaf { weight };
                continue;
            };
            let bins = self.binned.of(cut.feature);
            let (right, left): (Vec<u32>, Vec<u32>) =
                rows.into_iter().partition(|row| bins[*row as usize] > cut.edge);
            let (left_at, right_at) = tree.split(at, cut.feature, cut.edge, [0.0; 2]);
            open.push((right_at, right, depth + 1));
            open.push((left_at, left, depth + 1));
        }
        tree
    }

    fn best_cut(&self, rows: &[u32], slopes: &[Slope], total: Slope) -> Option<Cut> {
        const LEAST_GAIN: f64 = 1e-9;
        let least_weight = self.parameters.min_child_weight.max(1e-9);
        let score = |slope: Slope| slope.g * slope.g / self.penalised(slope.h);
        let mut best: Option<Cut> = None;
        let mut histogram = [Slope::default(); MOST_BINS];
        for (feature, edges) in (0..).zip(self.edges) {
            histogram[..=edges.len()].fill(Slope::default());
            let bins = self.binned.of(feature);
            for (row, slope) in rows.iter().zip(slopes) {
                histogram[usize::from(bins[*row as usize])].add(*slope);
            }
            let mut left = Slope::default();
            for (edge, sum) in (0..=u8::MAX).zip(&histogram[..edges.len()]) {
                left.add(*sum);
                let right = Slope {
                    g: total.g - left.g,
                    h: total.h - left.h,
                };
                if left.h < least_weight || right.h < least_weight {
                    continue;
                }
                let gain = score(left) + score(right) - score(total);
                if gain > best.as_ref().map_or(LEAST_GAIN, |cut| cut.gain) {
                    best = Some(Cut { feature, edge, gain });
                }
            }
        }
        best
    }

    fn penalised(&self, h: f64) -> f64 {
        (h + self.parameters.lambda).max(1e-12)
    }
}
