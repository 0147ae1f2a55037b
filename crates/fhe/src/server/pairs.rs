//! Plan `pairs`: ensembles of depth 2 as tables over pairs of features.
//!
//! A tree with root `f` and children `g`, `h` is a function of `(f, g)` plus one of `(f, h)`. All trees together are one
//! table for each pair of features, and a score is
//!
//! ```text
//! F = sum_i GGSW(X^{x_i}) [*] ( sum_j G_ij GLWE(X^{B x_j}) ),   G_ij = sum_{a,b} g_ij(a, b) X^{-(a + B b)}
//! ```
//!
//! read off the constant coefficient. Tables are applied before the external product: the other order would multiply its
//! noise by the table's norm. Every pair is told to one of its features so that few features need a product (a greedy vertex
//! cover), and the products of an output add up in the Fourier domain.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::{Context, Lwe, Scores, Stage};
use crate::{
    FheError,
    gadget::{Matrix, Worker},
    keys::extract_add,
    params::Params,
    quantised::{QuantisedNode, QuantisedTree},
    ring::{Fourier, Ring, fourier_zeros, multiply_add},
    seeded::Reader,
};

pub(crate) struct PairsProgram {
    ring: Ring,
    features: usize,
    /// By output.
    outputs: Vec<Vec<Product>>,
    /// Whether a feature's GGSW ciphertext, and its GLWE ciphertext, is used.
    used: Vec<(bool, bool)>,
}

/// One external product of an output.
struct Product {
    feature: usize,
    /// Tables over this feature and another.
    tables: Vec<(usize, Fourier)>,
    /// A table over this feature alone, when no pair took it: on the torus.
    alone: Option<Fourier>,
}

/// Tables of integers, of one output.
#[derive(Default)]
pub(crate) struct Tables {
    /// `g(a, b)` at `a + bins b`, by features `(i, j)`: `a` is the bin of `i`.
    pub(crate) pairs: BTreeMap<(usize, usize), Vec<i64>>,
    /// By feature.
    pub(crate) single: BTreeMap<usize, Vec<i64>>,
    constant: i64,
}

impl Tables {
    /// External products.
    pub(crate) fn products(&self) -> usize {
        let mut firsts: Vec<usize> = self
            .pairs
            .keys()
            .map(|(i, _)| *i)
            .chain(self.single.keys().copied())
            .collect();
        firsts.sort_unstable();
        firsts.dedup();
        firsts.len()
    }

    /// Squared norm of the tables that multiply ciphertexts.
    pub(crate) fn norm(&self) -> f64 {
        self.pairs
            .values()
            .flatten()
            .map(|value| (*value as f64).powi(2))
            .sum()
    }
}

/// The tables of each output, for trees of depth 2 at most.
pub(crate) fn tables(trees: &[QuantisedTree], outputs: usize, bins: usize) -> Vec<Tables> {
    let mut all: Vec<Tables> = (0..outputs).map(|_| Tables::default()).collect();
    for tree in trees {
        for place in 0..tree.width {
            all[tree.output + place].add(tree, place, bins);
        }
    }
    for tables in &mut all {
        tables.settle(bins);
    }
    all
}

impl Tables {
    fn add(&mut self, tree: &QuantisedTree, place: usize, bins: usize) {
        let QuantisedNode::Split {
            feature: f,
            threshold,
            left,
            right,
        } = &tree.nodes[0]
        else {
            if let QuantisedNode::Leaf(values) = &tree.nodes[0] {
                self.constant += values[place];
            }
            return;
        };
        let t = *threshold as usize;
        for (child, side) in [(*left, 0..t.min(bins)), (*right, t.min(bins)..bins)] {
            match &tree.nodes[child] {
                QuantisedNode::Leaf(values) => {
                    let table = self.single.entry(*f).or_insert_with(|| vec![0; bins]);
                    side.for_each(|a| table[a] += values[place]);
                }
                QuantisedNode::Split {
                    feature: g,
                    threshold,
                    left,
                    right,
                } => {
                    let value = |b: usize| {
                        let child = if b >= *threshold as usize { right } else { left };
                        match &tree.nodes[*child] {
                            QuantisedNode::Leaf(values) => values[place],
                            // The compiler gives this plan no deeper trees.
                            QuantisedNode::Split { .. } => 0,
                        }
                    };
                    if f == g {
                        let table = self.single.entry(*f).or_insert_with(|| vec![0; bins]);
                        side.for_each(|a| table[a] += value(a));
                    } else {
                        // The order of a pair is settled later.
                        let (i, j) = (*f.min(g), *f.max(g));
                        let table = self.pairs.entry((i, j)).or_insert_with(|| vec![0; bins * bins]);
                        for own in side {
                            for other in 0..bins {
                                let (a, b) = if f < g { (own, other) } else { (other, own) };
                                table[a + bins * b] += value(other);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Gives each pair to one of its features, and tables of one feature to a pair where there is one.
    fn settle(&mut self, bins: usize) {
        let mut left: Vec<(usize, usize)> = self.pairs.keys().copied().collect();
        // A feature with a table of its own and no pair needs a product anyway.
        while !left.is_empty() {
            let mut degree: BTreeMap<usize, usize> = BTreeMap::new();
            for (i, j) in &left {
                *degree.entry(*i).or_default() += 1;
                *degree.entry(*j).or_default() += 1;
            }
            let Some((first, _)) = degree.into_iter().max_by_key(|(_, count)| *count) else {
                break;
            };
            left.retain(|(i, j)| {
                if *i != first && *j != first {
                    return true;
                }
                if *j == first
                    && let Some(table) = self.pairs.remove(&(*i, *j))
                {
                    let turned = (0..bins * bins)
                        .map(|at| table[at / bins + bins * (at % bins)])
                        .collect();
                    self.pairs.insert((*j, *i), turned);
                }
                false
            });
        }
        let mut single = std::mem::take(&mut self.single);
        if self.constant != 0 {
            // Constants have no ciphertext of their own: any feature's table carries them.
            let feature = single
                .keys()
                .next()
                .copied()
                .or(self.pairs.keys().next().map(|(i, _)| *i))
                .unwrap_or(0);
            let table = single.entry(feature).or_insert_with(|| vec![0; bins]);
            table.iter_mut().for_each(|value| *value += self.constant);
        }
        for (feature, values) in single {
            let pair = self
                .pairs
                .iter_mut()
                .find(|((i, j), _)| *i == feature || *j == feature);
            let Some(((i, _), table)) = pair else {
                self.single.insert(feature, values);
                continue;
            };
            for (at, value) in table.iter_mut().enumerate() {
                *value += values[if *i == feature { at % bins } else { at / bins }];
            }
        }
    }
}

impl PairsProgram {
    pub(crate) fn new(params: &Params, features: usize, tables: &[Tables], delta: u64) -> Self {
        let (n, bins) = (params.shape.n, params.pair_bins());
        let ring = Ring::new(n);
        let mut scratch = ring.scratch();
        // g(a, b) at X^-(a + B b).
        let polynomial = |values: &[i64]| {
            let mut polynomial = vec![0u64; n];
            for (at, value) in values.iter().enumerate() {
                if at == 0 {
                    polynomial[0] = *value as u64;
                } else {
                    polynomial[n - at] = value.wrapping_neg() as u64;
                }
            }
            polynomial
        };
        let mut used = vec![(false, false); features];
        let outputs = tables.iter().map(|tables| {
            let mut products: BTreeMap<usize, Product> = BTreeMap::new();
            let product = |products: &mut BTreeMap<usize, Product>, feature| {
                products.entry(feature).or_insert_with(|| Product {
                    feature,
                    tables: vec![],
                    alone: None,
                });
            };
            for ((i, j), values) in &tables.pairs {
                debug_assert_eq!(values.len(), bins * bins);
                let mut points = fourier_zeros(n / 2);
                ring.forward_integer(&polynomial(values), &mut points, &mut scratch);
                product(&mut products, *i);
                if let Some(product) = products.get_mut(i) {
                    product.tables.push((*j, points));
                }
                used[*i].0 = true;
                used[*j].1 = true;
            }
            for (feature, values) in &tables.single {
                let on_torus: Vec<u64> = polynomial(values)
                    .iter()
                    .map(|value| value.wrapping_mul(delta))
                    .collect();
                let mut points = fourier_zeros(n / 2);
                ring.forward_torus(&on_torus, &mut points, &mut scratch);
                product(&mut products, *feature);
                if let Some(product) = products.get_mut(feature) {
                    product.alone = Some(points);
                }
                used[*feature].0 = true;
            }
            products.into_values().collect()
        });
        let outputs = outputs.collect();
        Self {
            ring,
            features,
            outputs,
            used,
        }
    }

    pub(super) fn evaluate(
        &self,
        mut query: Reader<'_>,
        context: &mut Context<'_>,
    ) -> Result<Scores, FheError> {
        let params = context.params;
        let shape = params.shape;
        let columns = shape.k + 1;
        let mut scratch = self.ring.scratch();
        let mut ciphertext = vec![0u64; shape.len()];
        let mut selectors = Vec::with_capacity(self.features);
        let mut monomials = Vec::with_capacity(self.features);
        for (first, second) in &self.used {
            context.check()?;
            let mut selector = first.then(|| Matrix::zeros(params.ggsw, columns, columns, shape.half()));
            for row in 0..columns {
                query.next(params.width, &mut ciphertext);
                if let Some(selector) = &mut selector {
                    self.ring
                        .forward_torus_all(&ciphertext, selector.row_mut(row, 1), &mut scratch);
                }
            }
            selectors.push(selector);
            query.next(params.query_width, &mut ciphertext);
            monomials.push(second.then(|| {
                let mut points = fourier_zeros(columns * shape.half());
                self.ring
                    .forward_torus_all(&ciphertext, &mut points, &mut scratch);
                points
            }));
        }
        let mut public_key = vec![0u64; shape.len()];
        query.next(params.width, &mut public_key);
        context.clock.lap(Stage::Ingest);

        let scores = self.outputs.iter().map(|products| {
            let sum = products
                .par_iter()
                .try_fold(
                    || {
                        (
                            fourier_zeros(columns * shape.half()),
                            Worker::new(&self.ring, shape.n),
                        )
                    },
                    |(mut sum, mut worker), product| {
                        context.check()?;
                        let input = product.input(&monomials, columns, shape.half(), &mut worker);
                        if let Some(selector) = &selectors[product.feature] {
                            selector.multiply_add(&input, &mut sum, &mut worker);
                        }
                        Ok((sum, worker))
                    },
                )
                .map(|sum| sum.map(|(sum, _)| sum))
                .try_reduce(
                    || fourier_zeros(columns * shape.half()),
                    |mut left, right| {
                        left.iter_mut()
                            .zip(right.iter())
                            .for_each(|(left, right)| *left += right);
                        Ok(left)
                    },
                )?;
            let mut ciphertext = vec![0u64; shape.len()];
            self.ring
                .add_backward_all(&sum, &mut ciphertext, &mut self.ring.scratch());
            let mut score = Lwe::zero(shape.lwe_dimension());
            extract_add(&ciphertext, shape, 0, &mut score.mask, &mut score.body);
            Ok(score)
        });
        let scores = scores.collect::<Result<_, FheError>>()?;
        context.clock.lap(Stage::Product);
        Ok(Scores { scores, public_key })
    }
}

impl Product {
    /// What the feature's monomial is going to turn: the tables, applied.
    fn input(
        &self,
        monomials: &[Option<Fourier>],
        columns: usize,
        half: usize,
        worker: &mut Worker,
    ) -> Vec<u64> {
        let mut sum = fourier_zeros(columns * half);
        for (other, table) in &self.tables {
            if let Some(monomial) = &monomials[*other] {
                multiply_add(&mut sum, table, monomial);
            }
        }
        if let Some(alone) = &self.alone {
            // A trivial ciphertext: the body is the plaintext.
            let body = &mut sum[(columns - 1) * half..];
            body.iter_mut()
                .zip(alone.iter())
                .for_each(|(sum, alone)| *sum += alone);
        }
        let mut out = vec![0u64; columns * half * 2];
        let ring = worker.ring.clone();
        ring.add_backward_all(&sum, &mut out, &mut worker.scratch);
        out
    }
}
