//! A multilayer perceptron: ReLU hidden layers, softmax output, Adam (Kingma and Ba, ICLR 2015).

use std::ops::ControlFlow;

use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{
    LearnError,
    model::{LayerView, NetworkParameters, Scaling, View, softmax},
    train::{Progress, Samples},
};

/// Layers of weights on standardised features.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Network {
    scaling: Scaling,
    layers: Vec<Layer>,
}

/// `outputs = weights * inputs + biases`; weights row by row, one row per output.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
struct Layer {
    inputs: usize,
    weights: Vec<f64>,
    biases: Vec<f64>,
}

impl Network {
    pub(crate) fn train(
        samples: &Samples,
        parameters: &NetworkParameters,
        seed: u64,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self, LearnError> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let scaling = Scaling::learn(&samples.values, samples.width);
        let scaled: Vec<Vec<f64>> = samples.rows().map(|row| scaling.apply(row)).collect();
        let mut sizes = vec![samples.width];
        sizes.extend_from_slice(&parameters.hidden);
        sizes.push(samples.classes);
        let layers = sizes
            .windows(2)
            .map(|pair| Layer::random(pair[0], pair[1], &mut rng))
            .collect();
        let mut network = Self { scaling, layers };
        let mut adam = Adam::new(&network.layers, parameters.learning_rate);
        let mut gradient: Vec<Layer> = network.layers.iter().map(Layer::zeros).collect();
        let mut order: Vec<usize> = (0..samples.len()).collect();
        for epoch in 0..parameters.epochs {
            order.shuffle(&mut rng);
            let mut loss = 0.0;
            for batch in order.chunks(parameters.batch_size) {
                gradient.iter_mut().for_each(Layer::clear);
                for row in batch {
                    loss +=
                        network.backpropagate(&scaled[*row], samples.labels[*row] as usize, &mut gradient);
                }
                adam.step(&mut network.layers, &gradient, batch.len() as f64, parameters.l2);
            }
            let loss = loss / samples.len().max(1) as f64;
            if !loss.is_finite() {
                return Err(LearnError::Diverged {
                    advice: "lower learning_rate",
                });
            }
            if progress(Progress {
                step: epoch + 1,
                total: parameters.epochs,
                loss,
            })
            .is_break()
            {
                return Err(LearnError::Cancelled);
            }
        }
        Ok(network)
    }

    pub(crate) fn scores(&self, row: &[f64]) -> Vec<f64> {
        let mut values = self.scaling.apply(row);
        for (index, layer) in self.layers.iter().enumerate() {
            values = layer.forward(&values);
            if index + 1 < self.layers.len() {
                relu(&mut values);
            }
        }
        values
    }

    pub(crate) fn ranges(&self) -> Vec<(f64, f64)> {
        self.scaling.ranges()
    }

    pub(crate) fn view(&self) -> View<'_> {
        View::Network {
            scaling: self.scaling.view(),
            layers: self.layers.iter().map(Layer::view).collect(),
        }
    }

    pub(crate) fn is_consistent(&self, features: usize, classes: usize) -> bool {
        let mut width = features;
        for layer in &self.layers {
            let outputs = layer.biases.len();
            let fits = layer.inputs == width
                && Some(layer.weights.len()) == outputs.checked_mul(layer.inputs)
                && outputs > 0
                && layer
                    .weights
                    .iter()
                    .chain(&layer.biases)
                    .all(|weight| weight.is_finite());
            if !fits {
                return false;
            }
            width = outputs;
        }
        self.scaling.is_consistent(features) && !self.layers.is_empty() && width == classes
    }

    /// Adds the gradient of one row's cross-entropy; gives the loss.
    fn backpropagate(&self, row: &[f64], label: usize, gradient: &mut [Layer]) -> f64 {
        let mut activations = vec![row.to_vec()];
        for (index, layer) in self.layers.iter().enumerate() {
            let mut values = layer.forward(&activations[index]);
            if index + 1 < self.layers.len() {
                relu(&mut values);
            }
            activations.push(values);
        }
        let mut delta = activations.pop().unwrap_or_default();
        softmax(&mut delta);
        let loss = -delta[label].max(1e-15).ln();
        delta[label] -= 1.0;
        for (index, (layer, gradient)) in self.layers.iter().zip(gradient).enumerate().rev() {
            let inputs = &activations[index];
            for (output, error) in delta.iter().enumerate() {
                gradient.biases[output] += error;
                let weights = &mut gradient.weights[output * layer.inputs..(output + 1) * layer.inputs];
                weights
                    .iter_mut()
                    .zip(inputs)
                    .for_each(|(weight, input)| *weight += error * input);
            }
            let mut before = vec![0.0; layer.inputs];
            for (error, weights) in delta.iter().zip(layer.weights.chunks_exact(layer.inputs.max(1))) {
                before
                    .iter_mut()
                    .zip(weights)
                    .for_each(|(sum, weight)| *sum += error * weight);
            }
            for (slope, input) in before.iter_mut().zip(inputs) {
                if *input <= 0.0 && index > 0 {
                    *slope = 0.0;
                }
            }
            delta = before;
        }
        loss
    }
}

impl Layer {
    /// He initialisation (He et al., ICCV 2015), uniform.
    fn random(inputs: usize, outputs: usize, rng: &mut ChaCha8Rng) -> Self {
        let bound = (6.0 / inputs.max(1) as f64).sqrt();
        let weights = (0..inputs * outputs)
            .map(|_| (rng.random::<f64>() * 2.0 - 1.0) * bound)
            .collect();
        Self {
            inputs,
            weights,
            biases: vec![0.0; outputs],
        }
    }

    fn view(&self) -> LayerView<'_> {
        LayerView {
            inputs: self.inputs,
            weights: &self.weights,
            biases: &self.biases,
        }
    }

    fn zeros(&self) -> Self {
        Self {
            inputs: self.inputs,
            weights: vec![0.0; self.weights.len()],
            biases: vec![0.0; self.biases.len()],
        }
    }

    fn clear(&mut self) {
        self.weights.fill(0.0);
        self.biases.fill(0.0);
    }

    fn forward(&self, inputs: &[f64]) -> Vec<f64> {
        let rows = self.weights.chunks_exact(self.inputs.max(1));
        let dot = |weights: &[f64]| {
            weights
                .iter()
                .zip(inputs)
                .map(|(weight, input)| weight * input)
                .sum::<f64>()
        };
        rows.zip(&self.biases)
            .map(|(weights, bias)| dot(weights) + bias)
            .collect()
    }
}

struct Adam {
    rate: f64,
    steps: i32,
    /// First and second moments, by layer.
    moments: Vec<(Layer, Layer)>,
}

impl Adam {
    fn new(layers: &[Layer], rate: f64) -> Self {
        Self {
            rate,
            steps: 0,
            moments: layers
                .iter()
                .map(|layer| (layer.zeros(), layer.zeros()))
                .collect(),
        }
    }

    fn step(&mut self, layers: &mut [Layer], gradient: &[Layer], rows: f64, l2: f64) {
        const B1: f64 = 0.9;
        const B2: f64 = 0.999;
        self.steps += 1;
        let rate = self.rate * (1.0 - B2.powi(self.steps)).sqrt() / (1.0 - B1.powi(self.steps));
        let adjust = |weight: &mut f64, m: &mut f64, v: &mut f64, slope: f64| {
            *m = B1 * *m + (1.0 - B1) * slope;
            *v = B2 * *v + (1.0 - B2) * slope * slope;
            *weight -= rate * *m / (v.sqrt() + 1e-8);
        };
        for ((layer, gradient), (m, v)) in layers.iter_mut().zip(gradient).zip(&mut self.moments) {
            let moments = m.weights.iter_mut().zip(&mut v.weights);
            for ((weight, slope), (m, v)) in layer.weights.iter_mut().zip(&gradient.weights).zip(moments) {
                let slope = slope / rows + l2 * *weight;
                adjust(weight, m, v, slope);
            }
            let moments = m.biases.iter_mut().zip(&mut v.biases);
            for ((bias, slope), (m, v)) in layer.biases.iter_mut().zip(&gradient.biases).zip(moments) {
                adjust(bias, m, v, slope / rows);
            }
        }
    }
}

fn relu(values: &mut [f64]) {
    for value in values {
        *value = value.max(0.0);
    }
}
