//! Logistic regression on standardised features, by the L-BFGS of smartcore.
//!
//! Only its optimiser is used: `LogisticRegression::fit` has no limit on iterations, cannot be cancelled, and panics when
//! its line search meets rounding noise near the optimum.

use std::{cell::RefCell, ops::ControlFlow};

use serde::{Deserialize, Serialize};
use smartcore::optimization::{
    first_order::{FirstOrderOptimizer as _, lbfgs::LBFGS},
    line_search::{LineSearchMethod, LineSearchResult},
};

use crate::{
    LearnError,
    model::{LogisticParameters, Scaling, View, softmax},
    train::{Progress, Samples},
};

/// Weights by class. With two classes the first class' are zero, so that softmax is the logistic function.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Logistic {
    scaling: Scaling,
    weights: Vec<Vec<f64>>,
    intercepts: Vec<f64>,
}

impl Logistic {
    pub(crate) fn train(
        samples: &Samples,
        parameters: &LogisticParameters,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Self, LearnError> {
        let scaling = Scaling::learn(&samples.values, samples.width);
        let scaled: Vec<f64> = samples.rows().flat_map(|row| scaling.apply(row)).collect();
        let objective = Objective {
            width: samples.width,
            values: &scaled,
            labels: &samples.labels,
            outputs: if samples.classes == 2 { 1 } else { samples.classes },
            l2: parameters.l2,
        };
        let total = parameters.max_iterations;
        let search = Armijo {
            state: RefCell::new(State {
                progress,
                step: 0,
                total,
                cancelled: false,
            }),
        };
        let solver = LBFGS {
            max_iter: total,
            g_atol: 1e-6,
            f_reltol: 1e-10,
            ..LBFGS::default()
        };
        let start = vec![0.0; objective.outputs * objective.stride()];
        let found = solver.optimize(
            &|point: &Vec<f64>| objective.loss(point),
            &|gradient: &mut Vec<f64>, point: &Vec<f64>| objective.gradient(point, gradient),
            &start,
            &search,
        );
        let state = search.state.into_inner();
        let last = Progress {
            step: total,
            total,
            loss: objective.loss(&found.x),
        };
        if state.cancelled || (state.step < total && (state.progress)(last).is_break()) {
            return Err(LearnError::Cancelled);
        }
        let mut weights = vec![vec![0.0; samples.width]; samples.classes - objective.outputs];
        let mut intercepts = vec![0.0; weights.len()];
        for output in found.x.chunks_exact(objective.stride()) {
            weights.push(output[..samples.width].to_vec());
            intercepts.push(output[samples.width]);
        }
        Ok(Self {
            scaling,
            weights,
            intercepts,
        })
    }

    pub(crate) fn scores(&self, row: &[f64]) -> Vec<f64> {
        let row = self.scaling.apply(row);
        let of_class = |(weights, intercept): (&Vec<f64>, &f64)| dot(weights, &row) + intercept;
        self.weights.iter().zip(&self.intercepts).map(of_class).collect()
    }

    pub(crate) fn ranges(&self) -> Vec<(f64, f64)> {
        self.scaling.ranges()
    }

    pub(crate) fn view(&self) -> View<'_> {
        View::Linear {
            weights: &self.weights,
            intercepts: &self.intercepts,
            scaling: self.scaling.view(),
        }
    }

    pub(crate) fn is_consistent(&self, features: usize, classes: usize) -> bool {
        self.scaling.is_consistent(features)
            && self.weights.len() == classes
            && self.intercepts.len() == classes
            && self.weights.iter().all(|row| row.len() == features)
            && self
                .weights
                .iter()
                .flatten()
                .chain(&self.intercepts)
                .all(|weight| weight.is_finite())
    }
}

fn dot(weights: &[f64], values: &[f64]) -> f64 {
    weights
        .iter()
        .zip(values)
        .map(|(weight, value)| weight * value)
        .sum()
}

/// `(sum of cross-entropies + l2 / 2 * |weights|^2) / rows`; intercepts are free. A point holds, per output, the weights
/// and then the intercept.
struct Objective<'a> {
    width: usize,
    values: &'a [f64],
    labels: &'a [u32],
    /// One for two classes, else one per class.
    outputs: usize,
    l2: f64,
}

impl Objective<'_> {
    fn stride(&self) -> usize {
        self.width + 1
    }

    /// Probabilities of all classes for a row.
    fn probabilities(&self, point: &[f64], row: &[f64], into: &mut Vec<f64>) {
        into.clear();
        if self.outputs == 1 {
            into.push(0.0);
        }
        into.extend(
            point
                .chunks_exact(self.stride())
                .map(|o| dot(&o[..self.width], row) + o[self.width]),
        );
        softmax(into);
    }

    fn weights<'p>(&self, point: &'p [f64]) -> impl Iterator<Item = (usize, &'p f64)> + use<'p> {
        let stride = self.stride();
        point
            .iter()
            .enumerate()
            .filter(move |(index, _)| index % stride + 1 != stride)
    }

    fn loss(&self, point: &[f64]) -> f64 {
        let mut probabilities = Vec::new();
        let mut sum = 0.0;
        for (row, label) in self.values.chunks_exact(self.width).zip(self.labels) {
            self.probabilities(point, row, &mut probabilities);
            // The least positive number keeps the loss of a certain error finite.
            sum -= probabilities[*label as usize].max(f64::MIN_POSITIVE).ln();
        }
        let squares: f64 = self.weights(point).map(|(_, weight)| weight * weight).sum();
        (sum + 0.5 * self.l2 * squares) / self.labels.len() as f64
    }

    fn gradient(&self, point: &[f64], gradient: &mut [f64]) {
        gradient.fill(0.0);
        let count = self.labels.len() as f64;
        let mut probabilities = Vec::new();
        for (row, label) in self.values.chunks_exact(self.width).zip(self.labels) {
            self.probabilities(point, row, &mut probabilities);
            probabilities[*label as usize] -= 1.0;
            let errors = &probabilities[probabilities.len() - self.outputs..];
            for (output, error) in gradient.chunks_exact_mut(self.stride()).zip(errors) {
                let error = error / count;
                output
                    .iter_mut()
                    .zip(row)
                    .for_each(|(slope, value)| *slope += error * value);
                output[self.width] += error;
            }
        }
        for (index, weight) in self.weights(point) {
            gradient[index] += self.l2 * weight / count;
        }
    }
}

/// Backtracking to sufficient decrease (Armijo). It is called once per step, so it reports progress too; a step of zero
/// length ends the optimiser.
struct Armijo<'a> {
    state: RefCell<State<'a>>,
}

struct State<'a> {
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    step: usize,
    total: usize,
    cancelled: bool,
}

impl LineSearchMethod<f64> for Armijo<'_> {
    fn search(
        &self,
        f: &dyn Fn(f64) -> f64,
        _: &dyn Fn(f64) -> f64,
        alpha: f64,
        f0: f64,
        df0: f64,
    ) -> LineSearchResult<f64> {
        const HALVINGS: usize = 60;
        const DECREASE: f64 = 1e-4;
        let stay = LineSearchResult { alpha: 0.0, f_x: f0 };
        // No descent: rounding is all that is left.
        let descends = f0.is_finite() && df0 < 0.0;
        if self.state.borrow().cancelled || !descends {
            return stay;
        }
        let mut alpha = alpha;
        for _ in 0..HALVINGS {
            let f_x = f(alpha);
            if f_x <= f0 + DECREASE * alpha * df0 {
                return if self.state.borrow_mut().report(f_x) {
                    LineSearchResult { alpha, f_x }
                } else {
                    stay
                };
            }
            alpha /= 2.0;
        }
        stay
    }
}

impl State<'_> {
    /// Whether to go on.
    fn report(&mut self, loss: f64) -> bool {
        self.step += 1;
        self.cancelled = (self.progress)(Progress {
            step: self.step,
            total: self.total,
            loss,
        })
        .is_break();
        !self.cancelled
    }
}
