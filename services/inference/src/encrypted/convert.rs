//! Trained models as the compiler of encrypted prediction reads them.

#[cfg(test)]
mod tests;

use asterism_fhe::{
    FheError,
    model::{Body, Ensemble, Linear, Link, Missing, Model, Network, Node, Tree},
};
use asterism_learn::model::{self, LayerView, NodeView, ScalingView, View};

use crate::error::InferenceError;

/// Deviations of a feature that networks tell apart, either way.
const CORE: f64 = 3.0;

/// A layer by output: its weights, then its bias.
type Layer = Vec<(Vec<f64>, f64)>;

/// The model with the same answers: what training does to rows beforehand is folded into weights and biases, and two
/// classes become one score, the log-odds of the second, but for forests.
///
/// # Errors
/// [`InferenceError::NotServed`] for a network whose hidden layers are not exactly one, and for a model that exceeds what
/// encrypted prediction serves.
pub fn to_fhe(model: &model::Model) -> Result<Model, InferenceError> {
    let (link, body) = match model.view() {
        View::Linear {
            weights,
            intercepts,
            scaling,
        } => {
            let layer = weights.iter().cloned().zip(intercepts.iter().copied());
            let (link, layer) = scores(layer.collect());
            (link, Body::Linear(linear(model, unscaled(layer, scaling))))
        }
        View::Boosted { edges, base, trees } => {
            let link = if base.len() == 1 {
                Link::Logistic
            } else {
                Link::Softmax
            };
            let trees = trees.iter().enumerate().map(|(index, nodes)| Tree {
                output: index % base.len(),
                nodes: nodes.iter().map(|view| node(view, 1.0)).collect(),
            });
            (
                link,
                Body::Ensemble(ensemble(model, edges, base.to_vec(), trees.collect())),
            )
        }
        View::Forest { edges, trees } => {
            let share = 1.0 / trees.len() as f64;
            let trees = trees.iter().map(|nodes| Tree {
                output: 0,
                nodes: nodes.iter().map(|view| node(view, share)).collect(),
            });
            let base = vec![0.0; model.classes().len()];
            (
                Link::Average,
                Body::Ensemble(ensemble(model, edges, base, trees.collect())),
            )
        }
        View::Network { scaling, layers } => {
            let (link, network) = network(model, scaling, &layers)?;
            (link, Body::Network(network))
        }
    };
    let converted = Model {
        features: model.feature_names().to_vec(),
        classes: model.classes().to_vec(),
        link,
        body,
    };
    match converted.check() {
        Ok(()) => Ok(converted),
        Err(FheError::BadModel(problem)) => Err(InferenceError::NotServed(problem)),
        Err(other) => Err(InferenceError::NotServed(other.to_string())),
    }
}

/// Scores as the link reads them, from one score per class.
fn scores(layer: Layer) -> (Link, Layer) {
    match <[_; 2]>::try_from(layer) {
        Ok([(first, first_bias), (second, second_bias)]) => {
            let difference = second.iter().zip(&first).map(|(second, first)| second - first);
            (
                Link::Logistic,
                vec![(difference.collect(), second_bias - first_bias)],
            )
        }
        Err(layer) => (Link::Softmax, layer),
    }
}

/// The layer on values as they come, for one on standardised values.
fn unscaled(layer: Layer, scaling: ScalingView<'_>) -> Layer {
    layer
        .into_iter()
        .map(|(mut weights, mut bias)| {
            for ((weight, mean), deviation) in weights.iter_mut().zip(scaling.mean).zip(scaling.deviation) {
                *weight /= deviation;
                bias -= *weight * mean;
            }
            (weights, bias)
        })
        .collect()
}

fn linear(model: &model::Model, layer: Layer) -> Linear {
    let (weights, bias) = layer.into_iter().unzip();
    Linear {
        weights,
        bias,
        ranges: model.ranges().to_vec(),
        missing: model.medians().to_vec(),
    }
}

fn ensemble(model: &model::Model, edges: &[Vec<f64>], base: Vec<f64>, trees: Vec<Tree>) -> Ensemble {
    Ensemble {
        edges: edges.to_vec(),
        codes: (0..edges.len()).collect(),
        single_precision: false,
        missing: model
            .medians()
            .iter()
            .map(|median| Missing::As(*median))
            .collect(),
        base,
        trees,
    }
}

fn node(view: &NodeView<'_>, share: f64) -> Node {
    match *view {
        NodeView::Split {
            feature,
            edge,
            left,
            right,
        } => Node::Split {
            feature,
            edge,
            left,
            right,
        },
        NodeView::Leaf(values) => Node::Leaf(values.iter().map(|value| value * share).collect()),
    }
}

fn network(
    model: &model::Model,
    scaling: ScalingView<'_>,
    layers: &[LayerView<'_>],
) -> Result<(Link, Network), InferenceError> {
    let [hidden, output] = layers else {
        return Err(InferenceError::NotServed(format!(
            "it has {} hidden layers, and networks with exactly one are served; train with hidden=16, for example",
            layers.len().saturating_sub(1)
        )));
    };
    let (hidden, hidden_bias) = unscaled(rows(hidden), scaling).into_iter().unzip();
    let (link, output) = scores(rows(output));
    let (output, output_bias) = output.into_iter().unzip();
    let network = Network {
        hidden,
        hidden_bias,
        output,
        output_bias,
        ranges: core_ranges(model.ranges(), scaling),
        missing: model.medians().to_vec(),
    };
    Ok((link, network))
}

/// Ranges without their far ends, which few rows reach: what all of a range has to share, networks have little of.
fn core_ranges(ranges: &[(f64, f64)], scaling: ScalingView<'_>) -> Vec<(f64, f64)> {
    let scales = scaling.mean.iter().zip(scaling.deviation);
    ranges
        .iter()
        .zip(scales)
        .map(|((low, high), (mean, deviation))| {
            let within = |value: f64| value.clamp(mean - CORE * deviation, mean + CORE * deviation);
            (within(*low), within(*high))
        })
        .collect()
}

fn rows(layer: &LayerView<'_>) -> Layer {
    let rows = layer
        .weights
        .chunks_exact(layer.inputs.max(1))
        .map(<[f64]>::to_vec);
    rows.zip(layer.biases.iter().copied()).collect()
}
