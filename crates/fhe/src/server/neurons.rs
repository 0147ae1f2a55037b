//! Plan `neurons`: networks with one hidden layer, without a bootstrap.
//!
//! A bootstrap turns a table by the bits of a secret key, some 800 of them. Here the bits of the row itself turn it
//! ([`super::selectors`]), as many as its features have: for each set bit by the weight of that bit, so that the
//! unit's pre-activation is summed and its activation looked up in one go ([`crate::quantised::network`]). The halves of
//! units that are linear in the row take one product a bit, for all outputs together.

use rayon::prelude::*;

use super::{
    Context, Lwe, Scores, Stage,
    selectors::{Gate, Selectors, Unpacker},
};
use crate::{
    FheError,
    gadget::Worker,
    keys::extract_add,
    params::Params,
    quantised::QuantisedNetwork,
    ring::{fourier_zeros, rotate, rotate_all},
    seeded::Reader,
};

pub(crate) struct NeuronsProgram {
    unpacker: Unpacker,
    tables: Vec<Table>,
    /// By bit: what a set bit adds to each output, as coefficients; `None` when nothing.
    linear: Vec<Option<Vec<u64>>>,
    /// By output, on the torus.
    constant: Vec<u64>,
    pub(crate) work: Work,
}

/// What an evaluation consists of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Work {
    /// Key switches of the expansion.
    pub(crate) expansions: usize,
    /// GGSW rows made, counted by bit and level.
    pub(crate) conversions: usize,
    /// CMUX gates.
    pub(crate) gates: usize,
    /// Products of the linear part: of one polynomial, where a gate has all.
    pub(crate) linear: usize,
}

/// A unit's table for some of the outputs.
struct Table {
    /// The body of a trivial ciphertext, turned to the start.
    body: Vec<u64>,
    /// By bit: the exponent of the monomial, modulo 2N.
    turns: Vec<usize>,
    /// Its coefficients from 0 are added to the outputs from here.
    output: usize,
    width: usize,
}

impl NeuronsProgram {
    /// `delta` is the distance between scores on the torus.
    pub(crate) fn new(params: &Params, network: &QuantisedNetwork, delta: u64) -> Self {
        let (n, pack, outputs) = (network.n, network.pack, network.constant.len());
        debug_assert_eq!(n, params.shape.n);
        let on_torus = |value: i64| delta.wrapping_mul(value as u64);
        // Turning by a position takes the coefficients of the next down to the front.
        let exponent = |positions: i64| (-positions * pack as i64).rem_euclid(2 * n as i64) as usize;
        let mut tables = vec![];
        for unit in &network.units {
            let turns: Vec<usize> = unit.turns.iter().map(|turn| exponent(*turn)).collect();
            for (group, table) in unit.tables.iter().enumerate() {
                let on_torus: Vec<u64> = table.iter().map(|value| on_torus(*value)).collect();
                let mut body = vec![0; n];
                rotate(&on_torus, exponent(unit.start), &mut body);
                let output = group * pack;
                tables.push(Table {
                    body,
                    turns: turns.clone(),
                    output,
                    width: pack.min(outputs - output),
                });
            }
        }
        let linear: Vec<Option<Vec<u64>>> = (0..network.linear[0].len())
            .map(|bit| {
                let adds: Vec<i64> = network.linear.iter().map(|of_output| of_output[bit]).collect();
                adds.iter().any(|add| *add != 0).then(|| {
                    let mut polynomial = vec![0; n];
                    for (coefficient, add) in polynomial.iter_mut().zip(&adds) {
                        *coefficient = on_torus(*add);
                    }
                    polynomial
                })
            })
            .collect();
        let used = (0..linear.len())
            .map(|bit| linear[bit].is_some() || tables.iter().any(|table| table.turns[bit] != 0))
            .collect();
        let unpacker = Unpacker::new(n, used);
        let turns = tables.iter().flat_map(|table| &table.turns);
        Self {
            work: Work {
                expansions: unpacker.expansions(params),
                conversions: unpacker.conversions(params),
                gates: turns.filter(|turn| **turn != 0).count(),
                linear: linear.iter().flatten().count(),
            },
            unpacker,
            linear,
            constant: network.constant.iter().map(|value| on_torus(*value)).collect(),
            tables,
        }
    }

    pub(super) fn evaluate(&self, query: Reader<'_>, context: &mut Context<'_>) -> Result<Scores, FheError> {
        let shape = context.params.shape;
        let selectors = self.unpacker.selectors(query, context)?;
        // A bit's selector serves all tables of a thread while it is in the cache.
        let share = self.tables.len().div_ceil(rayon::current_num_threads()).max(1);
        let (turned, linear) = rayon::join(
            || {
                let parts = self.tables.par_chunks(share);
                let turned = parts.map(|tables| self.turn(tables, &selectors, context));
                turned.collect::<Result<Vec<_>, _>>()
            },
            || self.linear(&selectors, context),
        );
        let (turned, linear) = (turned?, linear?);
        let mut scores = vec![Lwe::zero(shape.lwe_dimension()); self.constant.len()];
        for ((at, score), constant) in scores.iter_mut().enumerate().zip(&self.constant) {
            score.body = *constant;
            extract_add(&linear, shape, at, &mut score.mask, &mut score.body);
        }
        for (table, value) in self.tables.iter().zip(turned.into_iter().flatten()) {
            let scores = scores[table.output..].iter_mut().take(table.width);
            for (place, score) in scores.enumerate() {
                extract_add(&value, shape, place, &mut score.mask, &mut score.body);
            }
        }
        self.unpacker.keep(selectors);
        context.clock.lap(Stage::Product);
        Scores::with_key(scores, context)
    }

    /// Tables, turned by all bits.
    fn turn(
        &self,
        tables: &[Table],
        selectors: &Selectors,
        context: &Context<'_>,
    ) -> Result<Vec<Vec<u64>>, FheError> {
        let shape = context.params.shape;
        let n = shape.n;
        let mut worker = Worker::new(&self.unpacker.ring, n);
        let mut gate = Gate::new(shape.len());
        let mut turned = vec![0u64; shape.len()];
        let mut values: Vec<Vec<u64>> = tables.iter().map(|table| shape.trivial(&table.body)).collect();
        for (bit, selector) in selectors.iter().enumerate() {
            let Some(selector) = selector else { continue };
            for (table, value) in tables.iter().zip(&mut values) {
                if table.turns[bit] == 0 {
                    continue;
                }
                context.check()?;
                rotate_all(value, n, table.turns[bit], &mut turned);
                gate.select(value, &turned, selector, &mut worker);
            }
        }
        Ok(values)
    }

    /// The linear parts of all outputs, as coefficients.
    fn linear(&self, selectors: &Selectors, context: &Context<'_>) -> Result<Vec<u64>, FheError> {
        let shape = context.params.shape;
        let mut worker = Worker::new(&self.unpacker.ring, shape.n);
        let mut sum = fourier_zeros((shape.k + 1) * shape.half());
        for (polynomial, selector) in self.linear.iter().zip(selectors) {
            let (Some(polynomial), Some(selector)) = (polynomial, selector) else {
                continue;
            };
            context.check()?;
            selector.multiply_add_one(shape.k, polynomial, &mut sum, &mut worker);
        }
        let mut out = vec![0u64; shape.len()];
        worker.ring.add_backward_all(&sum, &mut out, &mut worker.scratch);
        Ok(out)
    }
}
