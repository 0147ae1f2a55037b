//! Models as they were trained: what the compiler reads.

mod link;

pub use self::link::Link;
use crate::FheError;

/// Most features, trees, nodes of a tree, outputs, splits on a way, and hidden units that are served.
pub(crate) const MAX_FEATURES: usize = 2048;
pub(crate) const MAX_TREES: usize = 10_000;
pub(crate) const MAX_NODES: usize = 1 << 16;
pub(crate) const MAX_OUTPUTS: usize = 256;
pub(crate) const MAX_DEPTH: usize = 32;
pub(crate) const MAX_UNITS: usize = 1024;
/// Bits of a bin.
pub(crate) const MAX_BIN_BITS: u32 = 10;

/// A trained model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Names of its features, in order.
    pub features: Vec<String>,
    /// Names of its classes, in order; empty for regression.
    pub classes: Vec<String>,
    /// What its scores mean.
    pub link: Link,
    /// What was learnt.
    pub body: Body,
}

/// What was learnt.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Scores that are linear in the features.
    Linear(Linear),
    /// Scores that are sums over trees.
    Ensemble(Ensemble),
    /// Scores that are linear in the units of one hidden layer.
    Network(Network),
}

/// `score_o = bias_o + sum_f weights_of x_f`.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// By output, then feature.
    pub weights: Vec<Vec<f64>>,
    /// By output.
    pub bias: Vec<f64>,
    /// Least and largest value of each feature that is told apart; what lies beyond is clamped and reported.
    pub ranges: Vec<(f64, f64)>,
    /// Stands in for a missing value, by feature.
    pub missing: Vec<f64>,
}

/// `score_o = output_bias_o + sum_u output_ou relu(hidden_bias_u + sum_f hidden_uf x_f)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Weights of the hidden layer, by unit, then feature.
    pub hidden: Vec<Vec<f64>>,
    /// By unit.
    pub hidden_bias: Vec<f64>,
    /// Weights of the output layer, by output, then unit.
    pub output: Vec<Vec<f64>>,
    /// By output.
    pub output_bias: Vec<f64>,
    /// Least and largest value of each feature that is told apart; what lies beyond is clamped and reported.
    pub ranges: Vec<(f64, f64)>,
    /// Stands in for a missing value, by feature.
    pub missing: Vec<f64>,
}

/// Decision trees over codes of features: bins, and where missing values go.
#[derive(Debug, Clone, PartialEq)]
pub struct Ensemble {
    /// The feature of each code, ascending. Most features have one code; one whose missing values go left at some splits and
    /// right at others has two.
    pub codes: Vec<usize>,
    /// Ascending bin edges, by code. A value's bin is the count of edges that are not above it.
    pub edges: Vec<Vec<f64>>,
    /// Values are rounded to single precision before they are compared, as XGBoost does.
    pub single_precision: bool,
    /// The bin of a missing value, by code.
    pub missing: Vec<Missing>,
    /// Score before the first tree, by output.
    pub base: Vec<f64>,
    /// Their leaves add up.
    pub trees: Vec<Tree>,
}

/// Where a missing value goes.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Where this value would go.
    As(f64),
    /// Left at every split of the feature.
    Left,
    /// Right at every split of the feature.
    Right,
    /// Nowhere: a row without this feature is refused.
    Refused,
}

/// A decision tree; node 0 is the root.
#[derive(Debug, Clone, PartialEq)]
pub struct Tree {
    /// The output that the first value of a leaf adds to.
    pub output: usize,
    /// Children come after their parents.
    pub nodes: Vec<Node>,
}

/// A node of a tree.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// Goes right when the value is at or above the edge.
    Split {
        /// Index of the code.
        feature: usize,
        /// Index of the edge among the code's.
        edge: usize,
        /// Index of the node below the edge.
        left: usize,
        /// Index of the node at or above it.
        right: usize,
    },
    /// Values for consecutive outputs, as many in every leaf of a tree.
    Leaf(Vec<f64>),
}

impl Model {
    /// Scores of a row, in floating point: what the encrypted scores approach.
    ///
    /// # Errors
    /// [`FheError::WrongWidth`]; a missing value that is refused.
    pub fn scores(&self, row: &[f64]) -> Result<Vec<f64>, FheError> {
        if row.len() != self.features.len() {
            return Err(FheError::WrongWidth {
                expected: self.features.len(),
                found: row.len(),
            });
        }
        match &self.body {
            Body::Linear(linear) => Ok(linear.scores(row)),
            Body::Ensemble(ensemble) => ensemble.scores(row),
            Body::Network(network) => Ok(network.scores(row)),
        }
    }

    /// Scores that the model gives for a row.
    pub fn outputs(&self) -> usize {
        match &self.body {
            Body::Linear(linear) => linear.weights.len(),
            Body::Ensemble(ensemble) => ensemble.base.len(),
            Body::Network(network) => network.output.len(),
        }
    }

    /// Everything that compiling relies on.
    ///
    /// # Errors
    /// [`FheError::BadModel`]
    pub fn check(&self) -> Result<(), FheError> {
        let bad = |what: String| Err(FheError::BadModel(what));
        let (features, outputs) = (self.features.len(), self.outputs());
        if features == 0 || features > MAX_FEATURES {
            return bad(format!(
                "it has {features} features, and 1 to {MAX_FEATURES} are served"
            ));
        }
        if outputs == 0 || outputs > MAX_OUTPUTS {
            return bad(format!(
                "it has {outputs} outputs, and 1 to {MAX_OUTPUTS} are served"
            ));
        }
        let fits = match self.link {
            Link::Identity => outputs == 1 && self.classes.is_empty(),
            Link::Logistic => outputs == 1 && self.classes.len() == 2,
            Link::Softmax | Link::Average => outputs == self.classes.len() && outputs >= 2,
        };
        if !fits {
            return bad(format!(
                "{outputs} outputs do not fit {} classes under the link {:?}",
                self.classes.len(),
                self.link
            ));
        }
        match &self.body {
            Body::Linear(linear) => linear.check(features, outputs),
            Body::Ensemble(ensemble) => ensemble.check(features, outputs),
            Body::Network(network) => network.check(features, outputs),
        }
    }
}

/// A row with missing values replaced.
fn fill(row: &[f64], missing: &[f64]) -> Vec<f64> {
    row.iter()
        .zip(missing)
        .map(|(value, missing)| if value.is_nan() { *missing } else { *value })
        .collect()
}

fn affine(weights: &[f64], bias: f64, row: &[f64]) -> f64 {
    bias + weights.iter().zip(row).map(|(w, x)| w * x).sum::<f64>()
}

fn finite(values: &[f64]) -> bool {
    values.iter().all(|value| value.is_finite())
}

/// Whether a layer has so many inputs and outputs, all of it finite.
fn is_layer(weights: &[Vec<f64>], bias: &[f64], inputs: usize, outputs: usize) -> bool {
    weights.len() == outputs
        && bias.len() == outputs
        && finite(bias)
        && weights
            .iter()
            .all(|weights| weights.len() == inputs && finite(weights))
}

fn are_inputs(ranges: &[(f64, f64)], missing: &[f64], features: usize) -> bool {
    ranges.len() == features
        && ranges
            .iter()
            .all(|(low, high)| low.is_finite() && high.is_finite() && low <= high)
        && missing.len() == features
        && finite(missing)
}

fn misfit() -> FheError {
    FheError::BadModel("its weights and ranges do not fit its features".into())
}

impl Linear {
    fn scores(&self, row: &[f64]) -> Vec<f64> {
        let filled = fill(row, &self.missing);
        let outputs = self.weights.iter().zip(&self.bias);
        outputs
            .map(|(weights, bias)| affine(weights, *bias, &filled))
            .collect()
    }

    fn check(&self, features: usize, outputs: usize) -> Result<(), FheError> {
        let fits = is_layer(&self.weights, &self.bias, features, outputs)
            && are_inputs(&self.ranges, &self.missing, features);
        if fits { Ok(()) } else { Err(misfit()) }
    }
}

impl Network {
    fn scores(&self, row: &[f64]) -> Vec<f64> {
        let filled = fill(row, &self.missing);
        let units: Vec<f64> = self
            .hidden
            .iter()
            .zip(&self.hidden_bias)
            .map(|(weights, bias)| affine(weights, *bias, &filled).max(0.0))
            .collect();
        let outputs = self.output.iter().zip(&self.output_bias);
        outputs
            .map(|(weights, bias)| affine(weights, *bias, &units))
            .collect()
    }

    fn check(&self, features: usize, outputs: usize) -> Result<(), FheError> {
        let units = self.hidden.len();
        if units == 0 || units > MAX_UNITS {
            return Err(FheError::BadModel(format!(
                "it has {units} hidden units, and 1 to {MAX_UNITS} are served"
            )));
        }
        let fits = is_layer(&self.hidden, &self.hidden_bias, features, units)
            && is_layer(&self.output, &self.output_bias, units, outputs)
            && are_inputs(&self.ranges, &self.missing, features);
        if fits { Ok(()) } else { Err(misfit()) }
    }
}

/// The bin of value `index` of a row: the count of edges that are not above it.
///
/// # Errors
/// [`FheError::Missing`] for a missing value that is refused.
pub(crate) fn bin(
    edges: &[f64],
    single_precision: bool,
    missing: Missing,
    index: usize,
    value: f64,
) -> Result<usize, FheError> {
    let value = match missing {
        _ if !value.is_nan() => value,
        Missing::As(stand_in) => stand_in,
        Missing::Left => return Ok(0),
        Missing::Right => return Ok(edges.len()),
        Missing::Refused => return Err(FheError::Missing { index }),
    };
    let value = if single_precision {
        f64::from(value as f32)
    } else {
        value
    };
    Ok(edges.partition_point(|edge| *edge <= value))
}

impl Ensemble {
    fn scores(&self, row: &[f64]) -> Result<Vec<f64>, FheError> {
        let mut bins = Vec::with_capacity(self.codes.len());
        for (code, feature) in self.codes.iter().enumerate() {
            bins.push(bin(
                &self.edges[code],
                self.single_precision,
                self.missing[code],
                *feature,
                row[*feature],
            )?);
        }
        let mut scores = self.base.clone();
        for tree in &self.trees {
            for (score, value) in scores[tree.output..].iter_mut().zip(tree.leaf(&bins)) {
                *score += value;
            }
        }
        Ok(scores)
    }

    fn check(&self, features: usize, outputs: usize) -> Result<(), FheError> {
        let bad = |what: &str| Err(FheError::BadModel(what.into()));
        let codes = self.codes.len();
        let coded = codes <= 2 * MAX_FEATURES
            && self.codes.is_sorted()
            && (0..features).all(|feature| self.codes.binary_search(&feature).is_ok())
            && self.codes.last().is_some_and(|last| *last < features);
        if !coded || self.edges.len() != codes || self.missing.len() != codes || self.base.len() != outputs {
            return bad("its codes and edges do not fit its features");
        }
        let edges_fit = self
            .edges
            .iter()
            .all(|edges| edges.iter().all(|edge| edge.is_finite()) && edges.is_sorted_by(|a, b| a < b));
        if !edges_fit || !self.base.iter().all(|base| base.is_finite()) {
            return bad("its edges or base scores are not finite, or edges do not ascend");
        }
        if self.edges.iter().any(|edges| edges.len() >= 1 << MAX_BIN_BITS) {
            return bad("a feature has more than 1023 edges");
        }
        if self.trees.is_empty() || self.trees.len() > MAX_TREES {
            return bad("it has no trees, or more than 10000");
        }
        for tree in &self.trees {
            tree.check(&self.edges, outputs)?;
        }
        Ok(())
    }
}

impl Tree {
    fn leaf(&self, bins: &[usize]) -> &[f64] {
        let mut at = 0;
        loop {
            match &self.nodes[at] {
                Node::Leaf(values) => return values,
                Node::Split {
                    feature,
                    edge,
                    left,
                    right,
                } => {
                    at = if bins[*feature] > *edge { *right } else { *left };
                }
            }
        }
    }

    /// Values in each leaf.
    pub(crate) fn width(&self) -> usize {
        self.nodes
            .iter()
            .find_map(|node| match node {
                Node::Leaf(values) => Some(values.len()),
                Node::Split { .. } => None,
            })
            .unwrap_or(0)
    }

    /// Splits on the longest way from the root to a leaf.
    pub(crate) fn depth(&self) -> usize {
        // Children come after their parents.
        let mut depths = vec![0; self.nodes.len()];
        let mut deepest = 0;
        for (at, node) in self.nodes.iter().enumerate() {
            match node {
                Node::Split { left, right, .. } => {
                    depths[*left] = depths[at] + 1;
                    depths[*right] = depths[at] + 1;
                }
                Node::Leaf(_) => deepest = deepest.max(depths[at]),
            }
        }
        deepest
    }

    /// Mean and mean square of a place of the leaves, for walks that go either way at every split.
    pub(crate) fn moments(&self, place: usize) -> (f64, f64) {
        let mut shares = vec![0.0; self.nodes.len()];
        shares[0] = 1.0;
        let (mut mean, mut square) = (0.0, 0.0);
        // Children come after their parents.
        for (at, node) in self.nodes.iter().enumerate() {
            match node {
                Node::Split { left, right, .. } => {
                    shares[*left] = shares[at] / 2.0;
                    shares[*right] = shares[at] / 2.0;
                }
                Node::Leaf(values) => {
                    mean += shares[at] * values[place];
                    square += shares[at] * values[place] * values[place];
                }
            }
        }
        (mean, square)
    }

    fn check(&self, edges: &[Vec<f64>], outputs: usize) -> Result<(), FheError> {
        let bad = |what: &str| Err(FheError::BadModel(what.into()));
        if self.nodes.is_empty() || self.nodes.len() > MAX_NODES {
            return bad("a tree has no nodes, or too many");
        }
        let width = self.width();
        if width == 0 || self.output + width > outputs {
            return bad("the leaves of a tree do not fit the outputs");
        }
        let mut parents = vec![0u32; self.nodes.len()];
        for (at, node) in self.nodes.iter().enumerate() {
            match node {
                Node::Leaf(values) => {
                    if values.len() != width || !values.iter().all(|value| value.is_finite()) {
                        return bad("a leaf is not finite, or leaves of a tree differ in length");
                    }
                }
                Node::Split {
                    feature,
                    edge,
                    left,
                    right,
                } => {
                    let known = edges.get(*feature).is_some_and(|edges| *edge < edges.len());
                    let below = [*left, *right]
                        .iter()
                        .all(|child| *child > at && *child < self.nodes.len());
                    if !known || !below || left == right {
                        return bad("a split names an unknown feature, edge or child");
                    }
                    parents[*left] += 1;
                    parents[*right] += 1;
                }
            }
        }
        // Shared children would make the work exponential in the size of the model.
        if parents[0] != 0 || parents[1..].iter().any(|count| *count != 1) {
            return bad("a tree has a node with no parent, or with several");
        }
        if self.depth() > MAX_DEPTH {
            return bad("a tree is deeper than 32");
        }
        Ok(())
    }
}
