//! Features cut into bins: what trees see of them.
//!
//! Edges stay in the model; every split is an edge, and `value >= edge` goes right. So prediction sees exactly what training
//! saw, and the compiler of encrypted prediction finds bins and depth as they are.

use crate::train::Samples;

/// Most bins of a feature.
pub(crate) const MOST_BINS: usize = 256;

/// Ascending bin edges, by feature.
pub(crate) fn learn(samples: &Samples, bins: usize) -> Vec<Vec<f64>> {
    (0..samples.width)
        .map(|feature| bin_edges(samples.rows().map(|row| row[feature]), bins))
        .collect()
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

/// Number of edges at or below `value`; there are at most 255.
fn bin(value: f64, edges: &[f64]) -> u8 {
    edges.partition_point(|edge| *edge <= value) as u8
}

/// The bins of a row.
pub(crate) fn of_row(row: &[f64], edges: &[Vec<f64>]) -> Vec<u8> {
    row.iter()
        .zip(edges)
        .map(|(value, edges)| bin(*value, edges))
        .collect()
}

/// The first and the last edge, by feature; the median where there is none.
pub(crate) fn ranges(edges: &[Vec<f64>], medians: &[f64]) -> Vec<(f64, f64)> {
    let range = |(edges, median): (&Vec<f64>, &f64)| match (edges.first(), edges.last()) {
        (Some(first), Some(last)) => (*first, *last),
        _ => (*median, *median),
    };
    edges.iter().zip(medians).map(range).collect()
}

pub(crate) fn are_consistent(edges: &[Vec<f64>], features: usize) -> bool {
    edges.len() == features
        && edges.iter().all(|edges| {
            edges.len() < MOST_BINS
                && edges.iter().all(|edge| edge.is_finite())
                && edges.is_sorted_by(|a, b| a < b)
        })
}

/// Bins of all samples, feature by feature.
pub(crate) struct Binned {
    rows: usize,
    bins: Vec<u8>,
}

impl Binned {
    pub(crate) fn new(samples: &Samples, edges: &[Vec<f64>]) -> Self {
        let mut bins = Vec::with_capacity(samples.values.len());
        for (feature, edges) in edges.iter().enumerate() {
            bins.extend(samples.rows().map(|row| bin(row[feature], edges)));
        }
        Self {
            rows: samples.len(),
            bins,
        }
    }

    /// The bins of a feature, by row.
    pub(crate) fn of(&self, feature: u32) -> &[u8] {
        let start = feature as usize * self.rows;
        &self.bins[start..start + self.rows]
    }
}
