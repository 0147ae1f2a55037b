//! Plan `paths`: decision diagrams over encrypted bits, for trees of any depth.
//!
//! 1. *Expand*: a packed ciphertext of `2^t` bits becomes `2^t` ciphertexts of one bit, by `t` rounds of `c + auto(c)` and
//!    `X^-(2^i) (c - auto(c))` (Chen, Chillotti, Ren, "Onion Ring ORAM", CCS 2019).
//! 2. *Convert*: the levels of a bit become a GGSW ciphertext. Its body rows are there; mask row `i` holds `-s_i m`, which is
//!    `b` at place `i` plus key switches of the masks under `s_i s_j`. The result stays in the Fourier domain, where products need
//!    it.
//! 3. *Select*: a subtree over one feature is a table: tables of one feature share a polynomial and are turned by its bits, one
//!    CMUX a bit for all of them. Any other node compares its feature with its threshold by a CMUX chain over the bits, from
//!    the threshold's least significant one: at a set bit `s <- x_i ? s : left`, else `s <- x_i ? right : s`.
//!
//! Nodes of one height are evaluated by feature, so that a bit's GGSW ciphertext is used while it is in the cache.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use tfhe::core_crypto::fft_impl::fft64::c64;

use super::{Context, EvaluationKey, Lwe, Scores, Stage};
use crate::{
    FheError,
    client::round_exponent,
    gadget::{Matrix, Worker},
    keys::extract_add,
    params::Params,
    quantised::{QuantisedNode, QuantisedTree},
    ring::{Ring, add_assign, automorphism, fourier_zeros, rotate_all},
    seeded::Reader,
    wire,
};

/// Trees are evaluated in groups with at most so many tables, so that memory stays bounded.
const TABLES_AT_ONCE: usize = 4096;

pub(crate) struct PathsProgram {
    ring: Ring,
    /// Bits of a query.
    bits: usize,
    /// Which of them some tree looks at.
    used: Vec<bool>,
    /// Coefficients between the scores of one leaf.
    stride: usize,
    /// Distance between scores on the torus.
    delta: u64,
    groups: Vec<Group>,
    outputs: usize,
    pub(crate) work: Work,
    /// Selectors of evaluations that are over: some 300 KB a bit, whose pages the next evaluation need not fault in again.
    spare: Mutex<Vec<Selectors>>,
}

/// A GGSW ciphertext for each used bit.
type Selectors = Vec<Option<Matrix>>;
/// Evaluations whose selectors are kept.
const SPARE: usize = 2;

/// What an evaluation consists of.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Work {
    /// Key switches of the expansion.
    pub(crate) expansions: usize,
    /// GGSW rows made, counted by bit and level.
    pub(crate) conversions: usize,
    /// CMUX gates.
    pub(crate) gates: usize,
    /// By output: CMUX gates on the longest way through each of its trees, together.
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
    /// A leaf: by place.
    Leaf(Vec<i64>),
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

/// Where the bits of each feature are in a query.
struct Layout {
    first: Vec<usize>,
    bits: Vec<usize>,
    widest: usize,
}

impl Layout {
    fn new(bins: &[usize]) -> Self {
        let bits: Vec<usize> = bins.iter().map(|bins| wire::bits(*bins)).collect();
        let first = bits
            .iter()
            .scan(0, |next, bits| Some(std::mem::replace(next, *next + bits)))
            .collect();
        let widest = bits.iter().copied().max().unwrap_or(1);
        Self { first, bits, widest }
    }
}

impl PathsProgram {
    /// For features with so many bins each. `delta` is the distance between scores on the torus.
    pub(crate) fn new(
        params: &Params,
        bins: &[usize],
        trees: &[QuantisedTree],
        outputs: usize,
        delta: u64,
    ) -> Self {
        let layout = Layout::new(bins);
        let n = params.shape.n;
        let stride = 1 << layout.widest;
        let bits: usize = layout.bits.iter().sum();
        let mut program = Self {
            ring: Ring::new(n),
            bits,
            used: vec![false; bits],
            stride,
            delta,
            groups: vec![],
            outputs,
            work: Work {
                chain: vec![0; outputs],
                ..Work::default()
            },
            spare: Mutex::default(),
        };
        let mut builder = Builder::new(&layout, n, stride, delta);
        for tree in trees {
            // Leaves with more values than a polynomial has places are evaluated in parts.
            let most = n / stride;
            for from in (0..tree.width).step_by(most) {
                let width = most.min(tree.width - from);
                builder.tree(tree, from, width, &mut program);
            }
            if builder.entries >= TABLES_AT_ONCE {
                let full = std::mem::replace(&mut builder, Builder::new(&layout, n, stride, delta));
                program.groups.push(full.finish(&mut program.work));
            }
        }
        program.groups.push(builder.finish(&mut program.work));
        for group in &program.groups {
            let tables = group.tables.iter().map(|table| (table.first, table.bits));
            let splits = group.heights.iter().flatten();
            let looked = splits.map(|split| {
                let low = split.threshold.trailing_zeros() as usize;
                (split.first + low, split.bits - low.min(split.bits))
            });
            for (first, bits) in tables.chain(looked) {
                program.used[first..first + bits].fill(true);
            }
        }
        let levels = params.ggsw.levels as usize;
        program.work.conversions = program.used.iter().filter(|used| **used).count() * levels;
        program.work.expansions = (0..wire::packs(params, bits))
            .map(|pack| program.needed(params, pack).iter().flatten().count() * levels)
            .sum();
        program
    }

    /// By round and branch: whether a used bit of the pack comes out of the branch.
    fn needed(&self, params: &Params, pack: usize) -> Vec<Vec<usize>> {
        let per = 1usize << params.fold;
        let used = &self.used[pack * per..self.bits.min((pack + 1) * per)];
        (0..params.fold)
            .map(|round| {
                let branches = 1usize << round;
                (0..branches)
                    .filter(|branch| used.iter().skip(*branch).step_by(branches).any(|used| *used))
                    .collect()
            })
            .collect()
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<Selectors>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory for selectors; what is in it is overwritten.
    fn take_selectors(&self, params: &Params) -> Selectors {
        let spare = self.spare().pop();
        spare.unwrap_or_else(|| {
            let (k, half) = (params.shape.k, params.shape.half());
            let matrix = |used: &bool| used.then(|| Matrix::zeros(params.ggsw, k + 1, k + 1, half));
            self.used.iter().map(matrix).collect()
        })
    }

    fn keep_selectors(&self, selectors: Selectors) {
        let mut spare = self.spare();
        if spare.len() < SPARE {
            spare.push(selectors);
        }
    }

    pub(super) fn evaluate(
        &self,
        mut query: Reader<'_>,
        context: &mut Context<'_>,
    ) -> Result<Scores, FheError> {
        let params = context.params;
        let key = context.key.ok_or(FheError::KeyMissing)?;
        let shape = params.shape;
        let levels = params.ggsw.levels as usize;
        let packed: Vec<Vec<u64>> = (0..wire::packs(params, self.bits) * levels)
            .map(|_| {
                let mut ciphertext = vec![0u64; shape.len()];
                query.next(params.width, &mut ciphertext);
                ciphertext
            })
            .collect();
        context.clock.lap(Stage::Ingest);

        let evaluation = Evaluation {
            program: self,
            params,
            key,
            cancelled: context.cancelled,
        };
        let mut selectors = self.take_selectors(params);
        evaluation.expand(&packed, &mut selectors)?;
        context.clock.lap(Stage::Expand);
        let mut scores = vec![Lwe::zero(shape.lwe_dimension()); self.outputs];
        for group in &self.groups {
            evaluation.select(group, &selectors, &mut scores)?;
        }
        self.keep_selectors(selectors);
        context.clock.lap(Stage::Product);
        Ok(Scores {
            scores,
            public_key: key.public_key.clone(),
        })
    }
}

/// Turns trees into tables and splits.
struct Builder<'a> {
    layout: &'a Layout,
    n: usize,
    stride: usize,
    delta: u64,
    /// By feature: the table that still has room, and its next free coefficient.
    open: Vec<Option<(usize, usize)>>,
    entries: usize,
    group: Group,
}

/// A subtree, evaluated: its value, and the CMUX gates on the longest way.
type Built = (Value, usize);

impl<'a> Builder<'a> {
    fn new(layout: &'a Layout, n: usize, stride: usize, delta: u64) -> Self {
        Self {
            layout,
            n,
            stride,
            delta,
            open: vec![None; layout.bits.len()],
            entries: 0,
            group: Group {
                tables: vec![],
                heights: vec![],
                roots: vec![],
            },
        }
    }

    /// Places `from..from + width` of the leaves of a tree.
    fn tree(&mut self, tree: &QuantisedTree, from: usize, width: usize, program: &mut PathsProgram) {
        // Children come after their parents: from the back, every child is built before its parent.
        let mut built: Vec<Option<Built>> = vec![None; tree.nodes.len()];
        let only = only_feature(tree);
        for at in (0..tree.nodes.len()).rev() {
            let value = match &tree.nodes[at] {
                QuantisedNode::Leaf(values) => (Value::Leaf(values[from..from + width].to_vec()), 0),
                QuantisedNode::Split {
                    feature,
                    threshold,
                    left,
                    right,
                } => match only[at] {
                    // Built when its parent asks, or as a root.
                    Only::Feature(_) if at != 0 => continue,
                    Only::Feature(feature) => self.entry(tree, at, feature, from, width),
                    _ => {
                        let mut child = |child: usize| match (built[child].take(), only[child]) {
                            (Some(built), _) => built,
                            (None, Only::Feature(feature)) => self.entry(tree, child, feature, from, width),
                            (None, _) => (Value::Leaf(vec![0; width]), 0),
                        };
                        let ((left, left_chain), (right, right_chain)) = (child(*left), child(*right));
                        let chain = left_chain.max(right_chain);
                        self.split(*feature, *threshold, left, right, chain)
                    }
                },
            };
            built[at] = Some(value);
        }
        if let Some((value, chain)) = built[0].take() {
            let output = tree.output + from;
            for chain_of in &mut program.work.chain[output..output + width] {
                *chain_of += chain;
            }
            self.group.roots.push(Root { value, output, width });
        }
    }

    /// A subtree over one feature, as an entry of a table.
    fn entry(&mut self, tree: &QuantisedTree, at: usize, feature: usize, from: usize, width: usize) -> Built {
        let bits = self.layout.bits[feature];
        // Scores of one leaf are `stride` apart in every table, so that they meet in the sum.
        let size = if width == 1 {
            1 << bits
        } else {
            width * self.stride
        };
        let (table, start) = match self.open[feature] {
            Some((table, free)) if free + size <= self.n => (table, free),
            _ => {
                self.group.tables.push(Table {
                    first: self.layout.first[feature],
                    bits,
                    body: vec![0; self.n],
                });
                (self.group.tables.len() - 1, 0)
            }
        };
        self.open[feature] = Some((table, start + size));
        self.entries += 1;
        let body = &mut self.group.tables[table].body;
        for bin in 0..1usize << bits {
            let values = leaf_below(tree, at, bin);
            for (place, value) in values[from..from + width].iter().enumerate() {
                body[start + place * self.stride + bin] = self.delta.wrapping_mul(*value as u64);
            }
        }
        (Value::Entry { table, at: start }, bits)
    }

    fn split(&mut self, feature: usize, threshold: u32, left: Value, right: Value, chain: usize) -> Built {
        let bits = self.layout.bits[feature];
        let below = |value: &Value| match value {
            Value::Node { height, .. } => height + 1,
            _ => 0,
        };
        let height = below(&left).max(below(&right));
        while self.group.heights.len() <= height {
            self.group.heights.push(vec![]);
        }
        let own = bits - (threshold.trailing_zeros() as usize).min(bits);
        let splits = &mut self.group.heights[height];
        splits.push(Split {
            first: self.layout.first[feature],
            bits,
            threshold,
            left,
            right,
        });
        let index = splits.len() - 1;
        (Value::Node { height, index }, chain + own)
    }

    fn finish(mut self, work: &mut Work) -> Group {
        // By feature, with the references following.
        let mut moved: Vec<Vec<usize>> = vec![];
        for splits in &mut self.group.heights {
            let mut order: Vec<usize> = (0..splits.len()).collect();
            order.sort_by_key(|index| splits[*index].first);
            let mut places = vec![0; order.len()];
            for (place, index) in order.iter().enumerate() {
                places[*index] = place;
            }
            splits.sort_by_key(|split| split.first);
            for split in splits.iter_mut() {
                split.left.follow(&moved);
                split.right.follow(&moved);
            }
            moved.push(places);
        }
        for root in &mut self.group.roots {
            root.value.follow(&moved);
        }
        self.sort_tables();
        let splits = self.group.heights.iter().flatten();
        work.gates += self.group.tables.iter().map(|table| table.bits).sum::<usize>();
        work.gates += splits
            .map(|split| split.bits - (split.threshold.trailing_zeros() as usize).min(split.bits))
            .sum::<usize>();
        self.group
    }
}

impl Builder<'_> {
    /// Tables by feature, with the references following.
    fn sort_tables(&mut self) {
        let tables = &mut self.group.tables;
        let mut order: Vec<usize> = (0..tables.len()).collect();
        order.sort_by_key(|index| tables[*index].first);
        let mut places = vec![0; order.len()];
        for (place, index) in order.iter().enumerate() {
            places[*index] = place;
        }
        tables.sort_by_key(|table| table.first);
        let splits = self.group.heights.iter_mut().flatten();
        let values = splits.flat_map(|split| [&mut split.left, &mut split.right]);
        for value in values.chain(self.group.roots.iter_mut().map(|root| &mut root.value)) {
            if let Value::Entry { table, .. } = value {
                *table = places[*table];
            }
        }
    }
}

impl Value {
    fn follow(&mut self, moved: &[Vec<usize>]) {
        if let Self::Node { height, index } = self {
            *index = moved[*height][*index];
        }
    }
}

/// The features that the splits of a subtree look at.
#[derive(Clone, Copy, PartialEq)]
enum Only {
    None,
    Feature(usize),
    Several,
}

fn only_feature(tree: &QuantisedTree) -> Vec<Only> {
    let mut only = vec![Only::None; tree.nodes.len()];
    for at in (0..tree.nodes.len()).rev() {
        if let QuantisedNode::Split {
            feature, left, right, ..
        } = &tree.nodes[at]
        {
            let same =
                |child: usize| matches!(only[child], Only::None) || only[child] == Only::Feature(*feature);
            only[at] = if same(*left) && same(*right) {
                Only::Feature(*feature)
            } else {
                Only::Several
            };
        }
    }
    only
}

/// The leaf of a subtree over one feature.
fn leaf_below(tree: &QuantisedTree, at: usize, bin: usize) -> &[i64] {
    let mut at = at;
    loop {
        match &tree.nodes[at] {
            QuantisedNode::Leaf(values) => return values,
            QuantisedNode::Split {
                threshold,
                left,
                right,
                ..
            } => {
                at = if bin >= *threshold as usize { *right } else { *left };
            }
        }
    }
}

/// One evaluation.
struct Evaluation<'a> {
    program: &'a PathsProgram,
    params: &'static Params,
    key: &'a EvaluationKey,
    cancelled: &'a (dyn Fn() -> bool + Sync),
}

impl Evaluation<'_> {
    fn check(&self) -> Result<(), FheError> {
        if (self.cancelled)() {
            Err(FheError::Cancelled)
        } else {
            Ok(())
        }
    }

    fn worker(&self) -> Worker {
        Worker::new(&self.program.ring, self.params.shape.n)
    }

    /// A GGSW ciphertext for each used bit, out of the packed ciphertexts by pack and level.
    fn expand(&self, packed: &[Vec<u64>], selectors: &mut Selectors) -> Result<(), FheError> {
        let levels = self.params.ggsw.levels as usize;
        let per = 1usize << self.params.fold;
        let unpacked: Vec<Vec<Option<Vec<u64>>>> = packed
            .par_iter()
            .enumerate()
            .map_init(
                || self.worker(),
                |worker, (index, ciphertext)| self.unpack(index / levels, ciphertext, worker),
            )
            .collect::<Result<_, _>>()?;
        let columns = (self.params.shape.k + 1) * self.params.shape.half();
        selectors.par_iter_mut().enumerate().try_for_each_init(
            || (self.worker(), fourier_zeros(self.params.shape.k * columns)),
            |(worker, rows), (bit, selector)| {
                let Some(selector) = selector else { return Ok(()) };
                self.check()?;
                let pack = bit / per;
                let of_level = (0..levels).map(|level| unpacked[pack * levels + level][bit % per].as_deref());
                self.convert(of_level, selector, rows, worker);
                Ok(())
            },
        )
    }

    /// The bits of one packed ciphertext, those that are used.
    fn unpack(
        &self,
        pack: usize,
        ciphertext: &[u64],
        worker: &mut Worker,
    ) -> Result<Vec<Option<Vec<u64>>>, FheError> {
        let shape = self.params.shape;
        let (k, n) = (shape.k, shape.n);
        let mut branches: Vec<Option<Vec<u64>>> = vec![Some(ciphertext.to_vec())];
        let mut turned = vec![0u64; shape.len()];
        let mut sum = fourier_zeros((k + 1) * shape.half());
        for (round, needed) in self.program.needed(self.params, pack).into_iter().enumerate() {
            let round = round as u32;
            let half = branches.len();
            let mut next = vec![None; 2 * half];
            for branch in needed {
                self.check()?;
                let Some(even) = branches[branch].take() else {
                    continue;
                };
                let exponent = round_exponent(n, round);
                for (input, out) in even.chunks_exact(n).zip(turned.chunks_exact_mut(n)) {
                    automorphism(input, exponent, out);
                }
                sum.fill(Default::default());
                self.key.rounds[round as usize].multiply_add(&turned[..k * n], &mut sum, worker);
                // (0, b) plus the switched masks.
                turned[..k * n].fill(0);
                worker
                    .ring
                    .add_backward_all(&sum, &mut turned, &mut worker.scratch);
                let difference: Vec<u64> = even
                    .iter()
                    .zip(&turned)
                    .map(|(a, b)| a.wrapping_sub(*b))
                    .collect();
                let mut odd = vec![0u64; shape.len()];
                rotate_all(&difference, n, 2 * n - (1 << round), &mut odd);
                let mut even = even;
                add_assign(&mut even, &turned);
                next[branch] = Some(even);
                next[half + branch] = Some(odd);
            }
            branches = next;
        }
        Ok(branches)
    }

    /// The GGSW ciphertext of a bit, out of its ciphertexts by level. `rows` is memory for the mask rows of a level.
    fn convert<'b>(
        &self,
        levels: impl Iterator<Item = Option<&'b [u64]>>,
        selector: &mut Matrix,
        rows: &mut [c64],
        worker: &mut Worker,
    ) {
        let shape = self.params.shape;
        let (k, n, half) = (shape.k, shape.n, shape.half());
        let columns = (k + 1) * half;
        for (level, ciphertext) in (1..).zip(levels) {
            let Some(ciphertext) = ciphertext else { continue };
            let body_row = selector.row_mut(k, level);
            worker
                .ring
                .forward_torus_all(ciphertext, body_row, &mut worker.scratch);
            rows.fill(c64::default());
            self.key.products.multiply_add(&ciphertext[..k * n], rows, worker);
            for (index, row) in rows.chunks_exact_mut(columns).enumerate() {
                let body = &selector.row_mut(k, level)[k * half..];
                row[index * half..(index + 1) * half]
                    .iter_mut()
                    .zip(body.iter())
                    .for_each(|(row, body)| *row += body);
                selector.row_mut(index, level).copy_from_slice(row);
            }
        }
    }

    /// Adds the scores of a group of trees.
    fn select(&self, group: &Group, selectors: &Selectors, scores: &mut [Lwe]) -> Result<(), FheError> {
        let shape = self.params.shape;
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
        let shape = self.params.shape;
        let n = shape.n;
        let mut values: Vec<Vec<u64>> = tables
            .iter()
            .map(|table| {
                let mut value = vec![0u64; shape.len()];
                value[shape.k * n..].copy_from_slice(&table.body);
                value
            })
            .collect();
        let mut turned = vec![0u64; shape.len()];
        let Some(Table { first, bits, .. }) = tables.first() else {
            return Ok(values);
        };
        for bit in 0..*bits {
            let Some(selector) = &selectors[first + bit] else {
                continue;
            };
            for value in &mut values {
                self.check()?;
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
                self.check()?;
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
        let shape = self.params.shape;
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
                    out[shape.k * shape.n + place * self.program.stride] =
                        self.program.delta.wrapping_mul(*value as u64);
                }
                out
            }
        }
    }
}

/// Memory of CMUX gates.
struct Gate {
    difference: Vec<u64>,
}

impl Gate {
    fn new(len: usize) -> Self {
        Self {
            difference: vec![0; len],
        }
    }

    /// `value <- bit ? other : value`.
    fn select(&mut self, value: &mut [u64], other: &[u64], bit: &Matrix, worker: &mut Worker) {
        for ((difference, value), other) in self.difference.iter_mut().zip(value.iter()).zip(other) {
            *difference = other.wrapping_sub(*value);
        }
        bit.multiply_add_back(&self.difference, value, worker);
    }
}

/// Runs of one feature: a bit's GGSW ciphertext serves all of a run while it is in the cache.
fn by_feature<T>(items: &[T], first: impl Fn(&T) -> usize) -> Vec<&[T]> {
    items.chunk_by(|a, b| first(a) == first(b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client,
        keys::{Encryptor, SecretKey},
        noise,
        params::ParamsId,
        ring::rotate,
        seeded::SEED_BYTES,
    };

    /// Standard deviation of differences, in units of the torus.
    fn deviation(differences: impl Iterator<Item = u64>) -> f64 {
        let (sum, count) = differences.fold((0.0, 0.0), |(sum, count), difference| {
            let error = difference as i64 as f64 * (-64.0f64).exp2();
            (sum + error * error, count + 1.0)
        });
        (sum / count).sqrt()
    }

    #[test]
    fn expanded_rows_hold_the_bits_with_the_noise_that_is_predicted() {
        let params = ParamsId::Paths.params();
        let (k, n, half) = (params.shape.k, params.shape.n, params.shape.half());
        let key = SecretKey::generate(params.id).unwrap();
        let evaluation_key =
            EvaluationKey::from_bytes(&client::evaluation_key(&key).unwrap().unwrap()).unwrap();
        let bits = 1usize << params.fold;
        let truth: Vec<u64> = (0..bits as u64)
            .map(|bit| (0b1011_0010 >> (bit % 8)) & 1)
            .collect();
        let mut encryptor = Encryptor::new(&key, vec![]).unwrap();
        for level in 1..=params.ggsw.levels {
            let mut plaintext = vec![0; n];
            for (coefficient, bit) in plaintext.iter_mut().zip(&truth) {
                *coefficient = bit << (params.ggsw.weight_log2(level) - params.fold);
            }
            encryptor.push(&plaintext, params.width);
        }
        let bytes = encryptor.finish();
        let seed = *bytes.first_chunk::<SEED_BYTES>().unwrap();
        let mut reader = Reader::new(seed, &bytes[SEED_BYTES..], k, n);
        let packed: Vec<Vec<u64>> = (0..params.ggsw.levels)
            .map(|_| {
                let mut ciphertext = vec![0; params.shape.len()];
                reader.next(params.width, &mut ciphertext);
                ciphertext
            })
            .collect();
        let program = PathsProgram {
            ring: Ring::new(n),
            bits,
            used: vec![true; bits],
            stride: 2,
            delta: 1,
            groups: vec![],
            outputs: 1,
            work: Work::default(),
            spare: Mutex::default(),
        };
        let evaluation = Evaluation {
            program: &program,
            params,
            key: &evaluation_key,
            cancelled: &|| false,
        };
        let mut selectors = program.take_selectors(params);
        evaluation.expand(&packed, &mut selectors).unwrap();
        let mut worker = evaluation.worker();
        let (mut body_errors, mut mask_errors) = (vec![], vec![]);
        for (selector, bit) in selectors.iter_mut().zip(&truth) {
            let selector = selector.as_mut().unwrap();
            for level in 1..=params.ggsw.levels {
                let weight = bit << params.ggsw.weight_log2(level);
                for row in 0..=k {
                    let mut ciphertext = vec![0; params.shape.len()];
                    let points = selector.row_mut(row, level).to_vec();
                    assert_eq!(points.len(), (k + 1) * half);
                    worker
                        .ring
                        .add_backward_all(&points, &mut ciphertext, &mut worker.scratch);
                    let phase = key.phase(&ciphertext);
                    let mut expected = vec![0u64; n];
                    if row == k {
                        expected[0] = weight;
                    } else {
                        rotate(key.polynomial(row), 0, &mut expected);
                        expected
                            .iter_mut()
                            .for_each(|s| *s = s.wrapping_mul(weight).wrapping_neg());
                    }
                    let errors = phase
                        .iter()
                        .zip(&expected)
                        .map(|(phase, expected)| phase.wrapping_sub(*expected));
                    if row == k {
                        body_errors.extend(errors);
                    } else {
                        mask_errors.extend(errors);
                    }
                }
            }
        }
        let (body, mask) = noise::expanded_rows(params);
        for (name, errors, variance) in [("body", body_errors, body), ("mask", mask_errors, mask)] {
            let (measured, predicted) = (deviation(errors.into_iter()), variance.sqrt());
            assert!(
                (0.5..1.15).contains(&(measured / predicted)),
                "{name}: {measured:e}, {predicted:e}"
            );
        }
    }
}
