//! Growing a tree level by level, each node cut where the Gini impurity falls most.

use std::ops::ControlFlow;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use crate::{
    LearnError,
    bins::Binned,
    train::Samples,
    tree::{Node, Tree},
};

pub(super) struct Grower<'a> {
    pub(super) samples: &'a Samples,
    pub(super) binned: &'a Binned,
    pub(super) edges: &'a [Vec<f64>],
    /// Most splits on a way.
    pub(super) depth: usize,
    /// Least rows of a leaf, counted as often as they are drawn.
    pub(super) min_samples_leaf: usize,
    /// Features drawn for each split; `None` tries all. More are drawn while none of them can part the rows.
    pub(super) tried: Option<usize>,
}

/// The best way found to part a node's rows.
struct Cut {
    feature: u32,
    edge: u8,
    score: f64,
}

/// A leaf that may be split yet, and its rows.
struct Open {
    at: usize,
    rows: Vec<u32>,
}

impl Grower<'_> {
    /// Grows on these rows, of which some may occur several times. After each level `each_level` is told its number, from 1,
    /// and the mean cross-entropy of the rows; the last number is the depth.
    pub(super) fn grow(
        &self,
        rows: Vec<u32>,
        rng: &mut ChaCha8Rng,
        each_level: &mut dyn FnMut(usize, f64) -> ControlFlow<()>,
    ) -> Result<Tree<Vec<f64>>, LearnError> {
        let total = rows.len() as f64;
        let mut order: Vec<u32> = (0..self.edges.len() as u32).collect();
        let counts = self.counts(&rows);
        // What is not split any more has this share of the loss.
        let mut settled = 0.0;
        let mut tree = Tree {
            nodes: vec![leaf(&counts)],
        };
        let mut level = vec![Open { at: 0, rows }];
        let mut histogram = Vec::new();
        for number in 1..=self.depth {
            let mut next = Vec::new();
            let mut loss = 0.0;
            for Open { at, rows } in level {
                let counts = self.counts(&rows);
                let Some(cut) = self.best_cut(&rows, &counts, &mut order, &mut histogram, rng) else {
                    settled += entropy(&counts);
                    continue;
                };
                let bins = self.binned.of(cut.feature);
                let (right, left): (Vec<u32>, Vec<u32>) =
                    rows.into_iter().partition(|row| bins[*row as usize] > cut.edge);
                let (left_counts, right_counts) = (self.counts(&left), self.counts(&right));
                loss += entropy(&left_counts) + entropy(&right_counts);
                let leaves = [shares(&left_counts), shares(&right_counts)];
                let (left_at, right_at) = tree.split(at, cut.feature, cut.edge, leaves);
                next.push(Open {
                    at: left_at,
                    rows: left,
                });
                next.push(Open {
                    at: right_at,
                    rows: right,
                });
            }
            // When no leaf is open, this level is the last.
            let number = if next.is_empty() { self.depth } else { number };
            if each_level(number, (settled + loss) / total).is_break() {
                return Err(LearnError::Cancelled);
            }
            if next.is_empty() {
                break;
            }
            level = next;
        }
        Ok(tree)
    }

    /// Rows of each class.
    fn counts(&self, rows: &[u32]) -> Vec<u32> {
        let mut counts = vec![0; self.samples.classes];
        for row in rows {
            counts[self.samples.labels[*row as usize] as usize] += 1;
        }
        counts
    }

    /// `None` when all rows are of one class, or no feature parts them with enough rows on each side.
    fn best_cut(
        &self,
        rows: &[u32],
        counts: &[u32],
        order: &mut [u32],
        histogram: &mut Vec<u32>,
        rng: &mut ChaCha8Rng,
    ) -> Option<Cut> {
        let is_pure = counts.iter().filter(|count| **count > 0).count() < 2;
        if is_pure || rows.len() < self.min_samples_leaf.saturating_mul(2) {
            return None;
        }
        let mut best: Option<Cut> = None;
        for at in 0..order.len() {
            if let Some(tried) = self.tried {
                if at >= tried && best.is_some() {
                    break;
                }
                let drawn = rng.random_range(at..order.len());
                order.swap(at, drawn);
            }
            self.cuts(order[at], rows, counts, histogram, &mut best);
        }
        best
    }

    /// Looks for a better cut along a feature. The score, which the fall of the Gini impurity grows with, is
    /// `sum_c l_c^2 / l + sum_c r_c^2 / r` for `l_c` and `r_c` rows of class `c` on each side, `l` and `r` in all.
    fn cuts(
        &self,
        feature: u32,
        rows: &[u32],
        counts: &[u32],
        histogram: &mut Vec<u32>,
        best: &mut Option<Cut>,
    ) {
        let edges = self.edges[feature as usize].len();
        let classes = counts.len();
        histogram.clear();
        histogram.resize((edges + 1) * classes, 0);
        let bins = self.binned.of(feature);
        for row in rows {
            let (row, labels) = (*row as usize, &self.samples.labels);
            histogram[usize::from(bins[row]) * classes + labels[row] as usize] += 1;
        }
        let least = self.min_samples_leaf.max(1);
        let mut left = vec![0_u32; classes];
        let mut below = 0;
        for (edge, bin) in (0..=u8::MAX).zip(histogram.chunks_exact(classes).take(edges)) {
            let here: u32 = bin.iter().sum();
            // An empty bin parts the rows as the edge before it.
            if here == 0 {
                continue;
            }
            left.iter_mut().zip(bin).for_each(|(left, count)| *left += count);
            below += here as usize;
            let above = rows.len() - below;
            if below < least {
                continue;
            }
            if above < least {
                break;
            }
            let (mut of_left, mut of_right) = (0.0, 0.0);
            for (left, all) in left.iter().zip(counts) {
                of_left += f64::from(*left).powi(2);
                of_right += f64::from(all - left).powi(2);
            }
            let score = of_left / below as f64 + of_right / above as f64;
            if best.as_ref().is_none_or(|best| score > best.score) {
                *best = Some(Cut { feature, edge, score });
            }
        }
    }
}

fn leaf(counts: &[u32]) -> Node<Vec<f64>> {
    Node::Leaf {
        weight: shares(counts),
    }
}

/// The share of each class.
fn shares(counts: &[u32]) -> Vec<f64> {
    let total: f64 = counts.iter().copied().map(f64::from).sum();
    counts.iter().map(|count| f64::from(*count) / total).collect()
}

/// Cross-entropy in nats of rows of which so many are of each class, summed over the rows.
fn entropy(counts: &[u32]) -> f64 {
    let shares = shares(counts);
    counts
        .iter()
        .zip(shares)
        .filter(|(count, _)| **count > 0)
        .map(|(count, share)| -f64::from(*count) * share.ln())
        .sum()
}
