//! Selectors: GGSW ciphertexts of the bits of a row, which the server makes of a packed query.
//!
//! 1. *Expand*: a packed ciphertext of `2^t` bits becomes `2^t` ciphertexts of one bit, by `t` rounds of `c + auto(c)` and
//!    `X^-(2^i) (c - auto(c))` (Chen, Chillotti, Ren, "Onion Ring ORAM", CCS 2019).
//! 2. *Convert*: the levels of a bit become a GGSW ciphertext. Its body rows are there; mask row `i` holds `-s_i m`, which is
//!    `b` at place `i` plus key switches of the masks under `s_i s_j`. The result stays in the Fourier domain, where products need
//!    it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;
use tfhe::core_crypto::fft_impl::fft64::c64;

use super::{Context, EvaluationKey, Stage};
use crate::{
    FheError,
    client::round_exponent,
    gadget::{Matrix, Worker},
    params::Params,
    ring::{Ring, add_assign, automorphism, fourier_zeros, rotate_all},
    seeded::Reader,
    wire,
};

/// Where the bits of each feature are in a query.
pub(crate) struct Layout {
    pub(crate) first: Vec<usize>,
    pub(crate) bits: Vec<usize>,
    pub(crate) widest: usize,
}

impl Layout {
    pub(crate) fn new(bins: &[usize]) -> Self {
        let bits: Vec<usize> = bins.iter().map(|bins| wire::bits(*bins)).collect();
        let first = bits
            .iter()
            .scan(0, |next, bits| Some(std::mem::replace(next, *next + bits)))
            .collect();
        let widest = bits.iter().copied().max().unwrap_or(1);
        Self { first, bits, widest }
    }

    /// Bits of a query.
    pub(crate) fn total(&self) -> usize {
        self.bits.iter().sum()
    }
}

/// A GGSW ciphertext for each used bit.
pub(super) type Selectors = Vec<Option<Matrix>>;
/// Evaluations whose selectors are kept.
const SPARE: usize = 2;

/// Makes selectors of queries.
pub(super) struct Unpacker {
    pub(super) ring: Ring,
    /// Bits of a query.
    bits: usize,
    /// Which of them the model looks at.
    used: Vec<bool>,
    /// Selectors of evaluations that are over: some 300 KB a bit, whose pages the next evaluation need not fault in again.
    spare: Mutex<Vec<Selectors>>,
}

impl Unpacker {
    pub(super) fn new(n: usize, used: Vec<bool>) -> Self {
        Self {
            ring: Ring::new(n),
            bits: used.len(),
            used,
            spare: Mutex::default(),
        }
    }

    /// Key switches of the expansion.
    pub(super) fn expansions(&self, params: &Params) -> usize {
        let levels = params.ggsw.levels as usize;
        (0..wire::packs(params, self.bits))
            .map(|pack| self.needed(params, pack).iter().flatten().count() * levels)
            .sum()
    }

    /// GGSW rows made, counted by bit and level.
    pub(super) fn conversions(&self, params: &Params) -> usize {
        self.used.iter().filter(|used| **used).count() * params.ggsw.levels as usize
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

    fn spare(&self) -> MutexGuard<'_, Vec<Selectors>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory for selectors; what is in it is overwritten.
    fn take(&self, params: &Params) -> Selectors {
        let spare = self.spare().pop();
        spare.unwrap_or_else(|| {
            let (k, half) = (params.shape.k, params.shape.half());
            let matrix = |used: &bool| used.then(|| Matrix::zeros(params.ggsw, k + 1, k + 1, half));
            self.used.iter().map(matrix).collect()
        })
    }

    pub(super) fn keep(&self, selectors: Selectors) {
        let mut spare = self.spare();
        if spare.len() < SPARE {
            spare.push(selectors);
        }
    }

    /// The selectors of a query.
    pub(super) fn selectors(
        &self,
        mut query: Reader<'_>,
        context: &mut Context<'_>,
    ) -> Result<Selectors, FheError> {
        let params = context.params;
        let packed: Vec<Vec<u64>> = (0..wire::packs(params, self.bits) * params.ggsw.levels as usize)
            .map(|_| {
                let mut ciphertext = vec![0u64; params.shape.len()];
                query.next(params.query_width, &mut ciphertext);
                ciphertext
            })
            .collect();
        context.clock.lap(Stage::Ingest);
        let expansion = Expansion {
            unpacker: self,
            context,
            params,
            key: context.key.ok_or(FheError::KeyMissing)?,
        };
        let mut selectors = self.take(params);
        expansion.expand(&packed, &mut selectors)?;
        context.clock.lap(Stage::Expand);
        Ok(selectors)
    }
}

/// One query on its way.
struct Expansion<'a> {
    unpacker: &'a Unpacker,
    context: &'a Context<'a>,
    params: &'static Params,
    key: &'a EvaluationKey,
}

impl Expansion<'_> {
    fn worker(&self) -> Worker {
        Worker::new(&self.unpacker.ring, self.params.shape.n)
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
                self.context.check()?;
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
        for (round, needed) in self.unpacker.needed(self.params, pack).into_iter().enumerate() {
            let round = round as u32;
            let half = branches.len();
            let mut next = vec![None; 2 * half];
            for branch in needed {
                self.context.check()?;
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
}

/// Memory of CMUX gates.
pub(super) struct Gate {
    difference: Vec<u64>,
}

impl Gate {
    pub(super) fn new(len: usize) -> Self {
        Self {
            difference: vec![0; len],
        }
    }

    /// `value <- bit ? other : value`.
    pub(super) fn select(&mut self, value: &mut [u64], other: &[u64], bit: &Matrix, worker: &mut Worker) {
        for ((difference, value), other) in self.difference.iter_mut().zip(value.iter()).zip(other) {
            *difference = other.wrapping_sub(*value);
        }
        bit.multiply_add_back(&self.difference, value, worker);
    }
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
        server::Clock,
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
    fn selectors_hold_the_bits_with_the_noise_that_is_predicted() {
        for id in [ParamsId::Paths, ParamsId::Neurons] {
            check(id.params());
        }
    }

    fn check(params: &'static Params) {
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
            encryptor.push(&plaintext, params.query_width);
        }
        let bytes = encryptor.finish();
        let seed = *bytes.first_chunk::<SEED_BYTES>().unwrap();
        let reader = Reader::new(seed, &bytes[SEED_BYTES..], k, n);
        let unpacker = Unpacker::new(n, vec![true; bits]);
        let mut context = Context {
            params,
            key: Some(&evaluation_key),
            cancelled: &|| false,
            clock: Clock::start(),
        };
        let mut selectors = unpacker.selectors(reader, &mut context).unwrap();
        let mut worker = Worker::new(&unpacker.ring, n);
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
                (0.6..1.3).contains(&(measured / predicted)),
                "{} {name}: {measured:e}, {predicted:e}",
                params.id.name()
            );
        }
    }
}
