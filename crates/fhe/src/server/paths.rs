//! Plan `paths`: decision diagrams over encrypted bits, for trees of any depth.
//!
//! The row's bits become selectors ([`super::selectors`]). A subtree over one feature is a table: tables of one feature share a
//! polynomial and are turned by its bits, one CMUX a bit for all of them. Any other node compares its feature with its
//! threshold by a CMUX chain over the bits, from the threshold's least significant one: at a set bit
//! `s <- x_i ? s : left`, else `s <- x_i ? right : s`.
//!
//! Nodes of one height are evaluated by feature, so that a bit's GGSW ciphertext is used while it is in the cache.

mod build;

use rayon::prelude::*;

use self::build::Builder;
use super::{
    Context, Lwe, Scores, Stage,
    selectors::{Gate, Layout, Selectors, Unpacker},
};
use crate::{
    FheError, gadget::Worker, keys::extract_add, params::Params, quantised::QuantisedTree, ring::rotate_all,
    seeded::Reader,
};

/// Trees are evaluated in groups with at most so many tables, so that memory stays bounded.
const TABLES_AT_ONCE: usize = 4096;

pub(crate) struct PathsProgram {
    unpacker: Unpacker,
    /// Coefficients between the scores of one leaf.
    stride: usize,
    groups: Vec<Group>,
    /// Ciphertexts of all scores.
    outputs: usize,
    pub(crate) work: Work,
}

/// What an evaluation consists of.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Work {
    /// Key switches of the expansion.
    pub(crate) expansions: usize,
    /// GGSW rows made, counted by bit and level.
    pub(crate) conversions: usize,
    /// CMUX gates.
    pub(crate) gates: usize,
    /// By ciphertext of a score: CMUX gates on the longest way through each of its trees, together.
    pub(crate) chain: Vec<usize>,
}

/// Trees that are evaluated together.
struct Group {
    tables: Vec<Table>,
    /// By height, least first; within a height by feature.
    heights: Vec<Vec<Split>>,
    roots: Vec<Root>,
}

/// Tables of one feature in one polynomial.
struct Table {
    /// The first bit of the feature.
    first: usize,
    bits: usize,
    /// The body of a trivial ciphertext.
    body: Vec<u64>,
}

/// A node over other nodes.
struct Split {
    /// The first bit of the feature.
    first: usize,
    bits: usize,
    threshold: u32,
    left: Value,
    right: Value,
}

/// What a node selects.
#[derive(Clone)]
enum Value {
    /// A leaf: by place, on the torus.
    Leaf(Vec<u64>),
    /// The entry of a table whose first coefficient is `at`.
    Entry { table: usize, at: usize },
    /// Another node: height (from 0) and index.
    Node { height: usize, index: usize },
}

struct Root {
    value: Value,
    output: usize,
    width: usize,
}

impl PathsProgram {
    /// For codes with so many bins each. `deltas` are the distances between scores on the torus, one for each ciphertext of a
    /// score.
    pub(crate) fn new(
        params: &Params,
        bins: &[usize],
        trees: &[QuantisedTree],
        outputs: usize,
        deltas: &[u64],
    ) -> Self {
        let layout = Layout::new(bins);
        let n = params.shape.n;
        let stride = 1 << layout.widest;
        let mut groups = vec![];
        let mut work = Work {
            chain: vec![0; outputs * deltas.len()],
            ..Work::default()
        };
        let mut builder = Builder::new(&layout, n, stride, deltas);
        for tree in trees {
            // Leaves with more values than a polynomial has places are evaluated in parts.
            let most = n / stride;
            let places = tree.width * deltas.len();
            for from in (0..places).step_by(most) {
                let width = most.min(places - from);
                builder.tree(tree, from, width, &mut work);
            }
            if builder.entries >= TABLES_AT_ONCE {
                let full = std::mem::replace(&mut builder, Builder::new(&layout, n, stride, deltas));
                groups.push(full.finish(&mut work));
            }
        }
        groups.push(builder.finish(&mut work));
        let mut used = vec![false; layout.total()];
        for group in &groups {
            let tables = group.tables.iter().map(|table| (table.first, table.bits));
            let splits = group.heights.iter().flatten();
            let looked = splits.map(|split| {
                let low = split.threshold.trailing_zeros() as usize;
                (split.first + low, split.bits - low.min(split.bits))
            });
            for (first, bits) in tables.chain(looked) {
                used[first..first + bits].fill(true);
            }
        }
        let unpacker = Unpacker::new(n, used);
        work.conversions = unpacker.conversions(params);
        work.expansions = unpacker.expansions(params);
        Self {
            unpacker,
            stride,
            groups,
            outputs: outputs * deltas.len(),
            work,
        }
    }

    pub(super) fn evaluate(&self, query: Reader<'_>, context: &mut Context<'_>) -> Result<Scores, FheError> {
        let selectors = self.unpacker.selectors(query, context)?;
        let evaluation = Evaluation {
            program: self,
            context,
        };
        let mut scores = vec![Lwe::zero(context.params.shape.lwe_dimension()); self.outputs];
        for group in &self.groups {
            evaluation.select(group, &selectors, &mut scores)?;
        }
        self.unpacker.keep(selectors);
        context.clock.lap(Stage::Product);
        Scores::with_key(scores, context)
    }
}

/// One evaluation.
struct Evaluation<'a> {
    program: &'a PathsProgram,
    context: &'a Context<'a>,
}

impl Evaluation<'_> {
    fn worker(&self) -> Worker {
        Worker::new(&self.program.unpacker.ring, self.context.params.shape.n)
    }

    /// Adds the scores of a group of trees.
    fn select(&self, group: &Group, selectors: &Selectors, scores: &mut [Lwe]) -> Result<(), FheError> {
        let shape = self.context.params.shape;
        let start = || (self.worker(), Gate::new(shape.len()));
        let tables: Vec<Vec<Vec<u64>>> = by_feature(&group.tables, |table| table.first)
            .into_par_iter()
            .map_init(start, |(worker, gate), tables| {
                self.turn(tables, selectors, gate, worker)
            })
            .collect::<Result<_, _>>()?;
        let tables: Vec<Vec<u64>> = tables.into_iter().flatten().collect();
        let mut heights: Vec<Vec<Vec<u64>>> = vec![];
        for splits in &group.heights {
            let of_height: Vec<Vec<Vec<u64>>> = by_feature(splits, |split| split.first)
                .into_par_iter()
                .map_init(start, |(worker, gate), splits| {
                    let sides = splits.iter().map(|split| {
                        let left = self.value(&split.left, &tables, &heights);
                        (left, self.value(&split.right, &tables, &heights))
                    });
                    self.compare(splits, sides.collect(), selectors, gate, worker)
                })
                .collect::<Result<_, FheError>>()?;
            heights.push(of_height.into_iter().flatten().collect());
        }
        for root in &group.roots {
            let value = self.value(&root.value, &tables, &heights);
            for place in 0..root.width {
                let score = &mut scores[root.output + place];
                extract_add(
                    &value,
                    shape,
                    place * self.program.stride,
                    &mut score.mask,
                    &mut score.body,
                );
            }
        }
        Ok(())
    }

    /// Turns tables of one feature by all its bits.
    fn turn(
        &self,
        tables: &[Table],
        selectors: &Selectors,
        gate: &mut Gate,
        worker: &mut Worker,
    ) -> Result<Vec<Vec<u64>>, FheError> {
        let shape = self.context.params.shape;
        let n = shape.n;
        let mut values: Vec<Vec<u64>> = tables.iter().map(|table| shape.trivial(&table.body)).collect();
        let mut turned = vec![0u64; shape.len()];
        let Some(Table { first, bits, .. }) = tables.first() else {
            return Ok(values);
        };
        for bit in 0..*bits {
            let Some(selector) = &selectors[first + bit] else {
                continue;
            };
            for value in &mut values {
                self.context.check()?;
                rotate_all(value, n, 2 * n - (1 << bit), &mut turned);
                gate.select(value, &turned, selector, worker);
            }
        }
        Ok(values)
    }

    /// Splits on one feature, between these `(left, right)`: `feature >= threshold ? right : left`.
    fn compare(
        &self,
        splits: &[Split],
        sides: Vec<(Vec<u64>, Vec<u64>)>,
        selectors: &Selectors,
        gate: &mut Gate,
        worker: &mut Worker,
    ) -> Result<Vec<Vec<u64>>, FheError> {
        let mut values: Vec<Vec<u64>> = sides.iter().map(|(_, right)| right.clone()).collect();
        let Some(Split { first, bits, .. }) = splits.first() else {
            return Ok(values);
        };
        for bit in 0..*bits {
            let Some(selector) = &selectors[first + bit] else {
                continue;
            };
            for ((split, value), (left, right)) in splits.iter().zip(&mut values).zip(&sides) {
                if bit < split.threshold.trailing_zeros() as usize {
                    continue;
                }
                self.context.check()?;
                if split.threshold >> bit & 1 == 1 {
                    let above = std::mem::replace(value, left.clone());
                    gate.select(value, &above, selector, worker);
                } else {
                    gate.select(value, right, selector, worker);
                }
            }
        }
        Ok(values)
    }

    /// A value as a ciphertext, its scores at multiples of the stride.
    fn value(&self, value: &Value, tables: &[Vec<u64>], heights: &[Vec<Vec<u64>>]) -> Vec<u64> {
        let shape = self.context.params.shape;
        match value {
            Value::Node { height, index } => heights[*height][*index].clone(),
            Value::Entry { table, at } => {
                let mut out = vec![0u64; shape.len()];
                rotate_all(&tables[*table], shape.n, 2 * shape.n - at, &mut out);
                out
            }
            Value::Leaf(values) => {
                let mut out = vec![0u64; shape.len()];
                for (place, value) in values.iter().enumerate() {
                    out[shape.k * shape.n + place * self.program.stride] = *value;
                }
                out
            }
        }
    }
}

/// Runs of one feature: a bit's GGSW ciphertext serves all of a run while it is in the cache.
fn by_feature<T>(items: &[T], first: impl Fn(&T) -> usize) -> Vec<&[T]> {
    items.chunk_by(|a, b| first(a) == first(b)).collect()
}
