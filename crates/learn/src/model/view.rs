//! What a model learnt, for those who compile it into something else.

use crate::model::{Body, Model};

/// The parts of a model's body. Each sees rows whose missing values are replaced by [`Model::medians`].
#[derive(Debug, Clone, PartialEq)]
pub enum View<'a> {
    /// One score per class, linear in the standardised features; softmax makes probabilities of them.
    Linear {
        /// By class, then feature.
        weights: &'a [Vec<f64>],
        /// By class.
        intercepts: &'a [f64],
        /// Comes before the weights.
        scaling: ScalingView<'a>,
    },
    /// Sums over trees: one score, the log-odds of the second of two classes, or one per class for softmax.
    Boosted {
        /// Ascending bin edges, by feature.
        edges: &'a [Vec<f64>],
        /// Score before the first tree, by output.
        base: &'a [f64],
        /// Tree `i` adds to output `i % base.len()`.
        trees: Vec<Vec<NodeView<'a>>>,
    },
    /// Means over trees: each leaf holds a probability for each class.
    Forest {
        /// Ascending bin edges, by feature.
        edges: &'a [Vec<f64>],
        /// At least one.
        trees: Vec<Vec<NodeView<'a>>>,
    },
    /// Layers of weights, ReLU between them; the last gives one score per class for softmax.
    Network {
        /// Comes before the first layer.
        scaling: ScalingView<'a>,
        /// From the features to the scores; at least one.
        layers: Vec<LayerView<'a>>,
    },
}

/// A standardised value is `(value - mean) / deviation`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScalingView<'a> {
    /// By feature.
    pub mean: &'a [f64],
    /// By feature; positive.
    pub deviation: &'a [f64],
}

/// A node of a tree; node 0 is the root, children come after their parents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NodeView<'a> {
    /// Goes right when the value is at or above the edge.
    Split {
        /// Index of the feature.
        feature: usize,
        /// Index of the edge among the feature's.
        edge: usize,
        /// Index of the node below the edge.
        left: usize,
        /// Index of the node at or above it.
        right: usize,
    },
    /// What the tree gives: a number, or one for each class.
    Leaf(&'a [f64]),
}

/// `outputs = weights * inputs + biases`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerView<'a> {
    /// Number of inputs.
    pub inputs: usize,
    /// Row by row, one row of `inputs` weights per output.
    pub weights: &'a [f64],
    /// By output.
    pub biases: &'a [f64],
}

impl Model {
    /// What it learnt.
    pub fn view(&self) -> View<'_> {
        match &self.body {
            Body::Logistic(body) => body.view(),
            Body::Trees(body) => body.view(),
            Body::Network(body) => body.view(),
            Body::DecisionTree(body) | Body::Forest(body) => body.view(),
        }
    }

    /// Stands in for a missing value, by feature: the median of the training rows.
    pub fn medians(&self) -> &[f64] {
        &self.medians
    }

    /// Least and largest value of each feature among the training rows. Models that were stored before these were kept
    /// (format 1) tell the mean and four deviations around it, or, for trees, the first and the last edge.
    pub fn ranges(&self) -> &[(f64, f64)] {
        &self.ranges
    }
}
