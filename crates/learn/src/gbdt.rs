//! Gradient-boosted trees on histograms, second order (Chen and Guestrin, "XGBoost", KDD 2016).
//!
//! Features are binned by edges that stay in the model; every split is an edge, and `value >= edge` goes right. So
//! prediction sees exactly what training saw, and a later compiler for encrypted inference finds bins and depth as they are.

use std::ops::ControlFlow;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{
    LearnError,
    model::{TreeParameters, softmax},
    train::Progress,
};

const MAX_DEPTH: usize = 8;

/// An ensemble; one tree per round for two classes, else one per class and round.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trees {
    /// Ascending bin edges, by feature.
    edges: Vec<Vec<f64>>,
    /// Score before the first tree, by output.
    base: Vec<f64>,
    /// Tree `i` adds to output `i % base.len()`.
    trees: Vec<Tree>,
}

/// A tree; node 0 is the root, children come after their parents.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
struct Tree {
    nodes: Vec<Node>,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Node {
    Split { feature: u32, edge: u16, left: u32, right: u32 },
    Leaf { weight: f64 },
}

impl Trees {
    pub(crate) fn train(
        rows: &[Vec<f64>],
        labels: &[u32],
        classes: usize,
        parameters: &TreeParameters,
        seed: u64,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self, LearnError> {
        let features = rows.first().map_or(0, Vec::len);
        let edges: Vec<Vec<f64>> =
            (0..features).map(|feature| bin_edges(rows.iter().map(|row| row[feature]), parameters.bins)).collect();
        let binned = Binned::new(rows, &edges);
        let outputs = if classes == 2 { 1 } else { classes };
        let base = base_scores(labels, classes, outputs);
        let mut scores: Vec<f64> = rows.iter().flat_map(|_| base.iter().copied()).collect();
        let mut ensemble = Self { edges, base, trees: Vec::with_capacity(parameters.trees * outputs) };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for round in 0..parameters.trees {
            let (gradients, loss) = gradients(&scores, labels, outputs);
            let sample: Vec<u32> = (0..rows.len() as u32)
                .filter(|_| parameters.subsample >= 1.0 || rng.random::<f64>() < parameters.subsample)
                .collect();
            for output in 0..outputs {
                let of_output = |row: u32| gradients[row as usize * outputs + output];
                let grower = Grower { binned: &binned, edges: &ensemble.edges, parameters, gradient: &of_output };
                let tree = grower.grow(sample.clone());
                for (row, value) in scores.iter_mut().skip(output).step_by(outputs).enumerate() {
                    *value += tree.weight(|feature| binned.bin(row as u32, feature));
                }
                ensemble.trees.push(tree);
            }
            let step = Progress { step: round + 1, total: parameters.trees, loss };
            if progress(step).is_break() {
                return Err(LearnError::Cancelled);
            }
        }
        Ok(ensemble)
    }

    /// One score per class; softmax makes probabilities of them.
    pub(crate) fn scores(&self, row: &[f64]) -> Vec<f64> {
        let bins: Vec<u16> = row.iter().zip(&self.edges).map(|(value, edges)| bin(*value, edges)).collect();
        let mut scores = self.base.clone();
        let outputs = scores.len();
        for (index, tree) in self.trees.iter().enumerate() {
            scores[index % outputs] += tree.weight(|feature| bins[feature as usize]);
        }
        // softmax([0, s]) is the logistic function of s.
        if outputs == 1 { vec![0.0, scores[0]] } else { scores }
    }

    pub(crate) fn is_consistent(&self, features: usize, classes: usize) -> bool {
        let outputs = if classes == 2 { 1 } else { classes };
        self.edges.len() == features
            && self.edges.iter().all(|edges| {
                edges.len() < usize::from(u16::MAX)
                    && edges.iter().all(|edge| edge.is_finite())
                    && edges.is_sorted_by(|a, b| a < b)
            })
            && self.base.len() == outputs
            && self.base.iter().all(|score| score.is_finite())
            && self.trees.iter().all(|tree| tree.is_consistent(&self.edges))
    }
}

impl Tree {
    fn weight(&self, bin: impl Fn(u32) -> u16) -> f64 {
        let mut at = 0;
        loop {
            match self.nodes[at] {
                Node::Leaf { weight } => return weight,
                Node::Split { feature, edge, left, right } => {
                    at = if bin(feature) > edge { right } else { left } as usize;
                }
            }
        }
    }

    /// Children after parents: every walk ends.
    fn is_consistent(&self, edges: &[Vec<f64>]) -> bool {
        let fits = |(at, node): (usize, &Node)| match node {
            Node::Leaf { weight } => weight.is_finite(),
            Node::Split { feature, edge, left, right } => {
                let children = [*left as usize, *right as usize];
                children.iter().all(|child| *child > at && *child < self.nodes.len())
                    && edges.get(*feature as usize).is_some_and(|edges| usize::from(*edge) < edges.len())
            }
        };
        !self.nodes.is_empty() && self.nodes.iter().enumerate().all(fits)
    }
}

/// At most `bins - 1` ascending edges that part the values into bins of about equal counts.
fn bin_edges(values: impl Iterator<Item = f64>, bins: usize) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let mut edges: Vec<f64> = Vec::new();
    let mut distinct = sorted.clone();
    distinct.dedup();
    // Halfway between neighbours, so that unseen values fall on the nearer side.
    let between = |low: f64, high: f64| (low / 2.0 + high / 2.0).max(low.next_up());
    if distinct.len() <= bins {
        edges.extend(distinct.windows(2).map(|pair| between(pair[0], pair[1])));
    } else {
        for cut in 1..bins {
            let at = cut * sorted.len() / bins;
            let (low, high) = (sorted[at - 1], sorted[at]);
            if low < high {
                edges.push(between(low, high));
            } else {
                // A run of equal values: cut in front of it.
                let first = sorted.partition_point(|value| *value < high);
                if first > 0 {
                    edges.push(between(sorted[first - 1], high));
                }
            }
        }
    }
    edges.dedup();
    edges
}

/// Number of edges at or below `value`.
fn bin(value: f64, edges: &[f64]) -> u16 {
    edges.partition_point(|edge| *edge <= value) as u16
}

/// Bins of all training rows, column by column.
struct Binned {
    rows: usize,
    bins: Vec<u16>,
}

impl Binned {
    fn new(rows: &[Vec<f64>], edges: &[Vec<f64>]) -> Self {
        let mut bins = Vec::with_capacity(rows.len() * edges.len());
        for (feature, edges) in edges.iter().enumerate() {
            bins.extend(rows.iter().map(|row| bin(row[feature], edges)));
        }
        Self { rows: rows.len(), bins }
    }

    fn bin(&self, row: u32, feature: u32) -> u16 {
        self.bins[feature as usize * self.rows + row as usize]
    }
}

fn base_scores(labels: &[u32], classes: usize, outputs: usize) -> Vec<f64> {
    let mut counts = vec![1.0; classes];
    for label in labels {
        counts[*label as usize] += 1.0;
    }
    if outputs == 1 { vec![f64::ln(counts[1] / counts[0])] } else { counts.into_iter().map(f64::ln).collect() }
}

/// First and second derivatives of the loss by row and output, and the mean loss.
fn gradients(scores: &[f64], labels: &[u32], outputs: usize) -> (Vec<(f64, f64)>, f64) {
    let mut gradients = Vec::with_capacity(scores.len());
    let mut loss = 0.0;
    for (row, label) in scores.chunks_exact(outputs).zip(labels) {
        if let [score] = row {
            let mut probabilities = [0.0, *score];
            softmax(&mut probabilities);
            let p = probabilities[1];
            loss -= probabilities[*label as usize].max(1e-15).ln();
            gradients.push((p - f64::from(*label), (p * (1.0 - p)).max(1e-16)));
            continue;
        }
        let mut probabilities = row.to_vec();
        softmax(&mut probabilities);
        loss -= probabilities[*label as usize].max(1e-15).ln();
        gradients.extend(probabilities.iter().enumerate().map(|(class, p)| {
            let hit = if class == *label as usize { 1.0 } else { 0.0 };
            (p - hit, (2.0 * p * (1.0 - p)).max(1e-16))
        }));
    }
    (gradients, loss / labels.len().max(1) as f64)
}

struct Grower<'a> {
    binned: &'a Binned,
    edges: &'a [Vec<f64>],
    parameters: &'a TreeParameters,
    gradient: &'a dyn Fn(u32) -> (f64, f64),
}

/// The best way found to part a node's rows.
struct Cut {
    feature: u32,
    edge: u16,
    gain: f64,
}

impl Grower<'_> {
    fn grow(&self, rows: Vec<u32>) -> Tree {
        let mut tree = Tree { nodes: vec![Node::Leaf { weight: 0.0 }] };
        let mut open = vec![(0, rows, 0)];
        while let Some((at, rows, depth)) = open.pop() {
            let (g, h) = rows.iter().map(|row| (self.gradient)(*row)).fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
            let cut = if depth < self.parameters.depth.min(MAX_DEPTH) { self.best_cut(&rows, g, h) } else { None };
            let Some(cut) = cut else {
                let weight = -self.parameters.learning_rate * g / (h + self.parameters.lambda).max(1e-12);
                tree.nodes[at] = Node::Leaf { weight };
                continue;
            };
            let (right, left): (Vec<u32>, Vec<u32>) =
                rows.into_iter().partition(|row| self.binned.bin(*row, cut.feature) > cut.edge);
            let first = tree.nodes.len();
            tree.nodes.extend([Node::Leaf { weight: 0.0 }; 2]);
            tree.nodes[at] = Node::Split {
                feature: cut.feature,
                edge: cut.edge,
                left: first as u32,
                right: first as u32 + 1,
            };
            open.push((first + 1, right, depth + 1));
            open.push((first, left, depth + 1));
        }
        tree
    }

    fn best_cut(&self, rows: &[u32], g: f64, h: f64) -> Option<Cut> {
        let TreeParameters { lambda, min_child_weight, .. } = *self.parameters;
        let score = |g: f64, h: f64| g * g / (h + lambda).max(1e-12);
        let mut best: Option<Cut> = None;
        let gradients: Vec<(f64, f64)> = rows.iter().map(|row| (self.gradient)(*row)).collect();
        let mut histogram = Vec::new();
        for (feature, edges) in (0..).zip(self.edges) {
            histogram.clear();
            histogram.resize(edges.len() + 1, (0.0, 0.0));
            for (row, (g, h)) in rows.iter().zip(&gradients) {
                let bin: &mut (f64, f64) = &mut histogram[usize::from(self.binned.bin(*row, feature))];
                bin.0 += g;
                bin.1 += h;
            }
            let (mut left_g, mut left_h) = (0.0, 0.0);
            for (edge, (bin_g, bin_h)) in (0..).zip(&histogram[..edges.len()]) {
                left_g += bin_g;
                left_h += bin_h;
                let (right_g, right_h) = (g - left_g, h - left_h);
                if left_h < min_child_weight.max(1e-9) || right_h < min_child_weight.max(1e-9) {
                    continue;
                }
                let gain = score(left_g, left_h) + score(right_g, right_h) - score(g, h);
                if gain > best.as_ref().map_or(1e-9, |cut| cut.gain) {
                    best = Some(Cut { feature, edge, gain });
                }
            }
        }
        best
    }
}
