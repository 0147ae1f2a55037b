//! Gadget decomposition, and the one product that everything here is made of.
//!
//! A gadget of base `2^b` and `l` levels writes an element of the torus as `sum_i d_i 2^(64 - b i)` with digits in
//! `[-2^(b-1), 2^(b-1))`, up to an error of half of `2^(64 - b l)`. A [`Matrix`] holds, for each input polynomial and level, a
//! GLWE ciphertext in the Fourier domain; the product of decomposed polynomials with it is an external product when the
//! matrix is a GGSW ciphertext, and a key switch when it is an evaluation key.

use tfhe::core_crypto::fft_impl::fft64::c64;

use crate::ring::{Fourier, Ring, Scratch, fourier_zeros, multiply_add};

/// Base (as log2) and levels of a decomposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gadget {
    pub(crate) base_log: u32,
    pub(crate) levels: u32,
}

impl Gadget {
    /// The weight of the digits of a level (1 is the most significant): `2^(64 - b level)`.
    pub(crate) fn weight_log2(self, level: u32) -> u32 {
        64 - self.base_log * level
    }

    /// Added before digits are cut out: so many at each level make the digits signed without carries, and half of the last
    /// level's weight rounds.
    fn offset(self, subtracted: u64) -> u64 {
        let all = (1..=self.levels).fold(0u64, |sum, level| {
            sum.wrapping_add(subtracted << self.weight_log2(level))
        });
        let rounding = match self.weight_log2(self.levels) {
            0 => 0,
            weight => 1u64 << (weight - 1),
        };
        all.wrapping_add(rounding)
    }

    /// The digits of one level of every coefficient, as signed integers: from `-2^(b-1)` to `2^(b-1) - 1` at even places, and
    /// from `-2^(b-1) + 1` to `2^(b-1)` at odd ones.
    ///
    /// Either way alone has a mean of half a digit, and the errors of rows that came from products with a binary secret
    /// change slowly from one coefficient to the next: the means would add them up over all coefficients, and over all products
    /// with the same row. With alternating signs they cancel.
    pub(crate) fn digits(self, level: u32, input: &[u64], out: &mut [u64]) {
        let shift = self.weight_log2(level);
        let mask = (1u64 << self.base_log) - 1;
        let halves = [1u64 << (self.base_log - 1), (1 << (self.base_log - 1)) - 1];
        let offsets = halves.map(|half| self.offset(half));
        // Compiled for the widest vectors of the machine.
        pulp::Arch::new().dispatch(|| {
            for (out, input) in out
                .as_chunks_mut::<2>()
                .0
                .iter_mut()
                .zip(input.as_chunks::<2>().0)
            {
                for place in 0..2 {
                    out[place] = ((input[place].wrapping_add(offsets[place]) >> shift) & mask)
                        .wrapping_sub(halves[place]);
                }
            }
        });
    }
}

/// GLWE ciphertexts in the Fourier domain, by input polynomial, level and polynomial.
pub(crate) struct Matrix {
    gadget: Gadget,
    /// Points of a row: its polynomials one after the other.
    row: usize,
    data: Fourier,
}

impl Matrix {
    /// `inputs x levels` rows of `columns` polynomials of `half` points, all zero.
    pub(crate) fn zeros(gadget: Gadget, inputs: usize, columns: usize, half: usize) -> Self {
        let row = columns * half;
        Self {
            gadget,
            row,
            data: fourier_zeros(inputs * gadget.levels as usize * row),
        }
    }

    /// The row for an input polynomial and a level (from 1).
    pub(crate) fn row_mut(&mut self, input: usize, level: u32) -> &mut [c64] {
        let at = (input * self.gadget.levels as usize + level as usize - 1) * self.row;
        &mut self.data[at..at + self.row]
    }

    fn row(&self, input: usize, level: u32) -> &[c64] {
        let at = (input * self.gadget.levels as usize + level as usize - 1) * self.row;
        &self.data[at..at + self.row]
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val::<[c64]>(&self.data)
    }

    /// `sum += decomposition of the inputs * self`; `inputs` holds as many polynomials as the matrix has inputs.
    pub(crate) fn multiply_add(&self, inputs: &[u64], sum: &mut [c64], worker: &mut Worker) {
        let n = worker.digits.len();
        for (index, input) in inputs.chunks_exact(n).enumerate() {
            self.multiply_add_one(index, input, sum, worker);
        }
    }

    /// As [`Matrix::multiply_add`] when all inputs but one are zero.
    pub(crate) fn multiply_add_one(&self, index: usize, input: &[u64], sum: &mut [c64], worker: &mut Worker) {
        for level in 1..=self.gadget.levels {
            self.gadget.digits(level, input, &mut worker.digits);
            worker
                .ring
                .forward_integer(&worker.digits, &mut worker.transformed, &mut worker.scratch);
            multiply_add(sum, &worker.transformed, self.row(index, level));
        }
    }
}

impl Matrix {
    /// As [`Matrix::multiply_add`], with the sum brought back and added to a ciphertext.
    pub(crate) fn multiply_add_back(&self, inputs: &[u64], out: &mut [u64], worker: &mut Worker) {
        let mut sum = std::mem::replace(&mut worker.sum, fourier_zeros(0));
        if sum.len() == self.row {
            sum.fill(c64::default());
        } else {
            sum = fourier_zeros(self.row);
        }
        self.multiply_add(inputs, &mut sum, worker);
        worker.ring.add_backward_all(&sum, out, &mut worker.scratch);
        worker.sum = sum;
    }
}

/// What a thread needs for products.
pub(crate) struct Worker {
    pub(crate) ring: Ring,
    pub(crate) scratch: Scratch,
    digits: Vec<u64>,
    transformed: Fourier,
    sum: Fourier,
}

impl Worker {
    pub(crate) fn new(ring: &Ring, n: usize) -> Self {
        Self {
            ring: ring.clone(),
            scratch: ring.scratch(),
            digits: vec![0; n],
            transformed: fourier_zeros(n / 2),
            sum: fourier_zeros(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn digits_are_small_and_recompose(
            value in any::<u64>(),
            (base_log, levels) in prop_oneof![Just((23, 1)), Just((6, 4)), Just((7, 6)), Just((8, 8)), Just((2, 3))],
        ) {
            let gadget = Gadget { base_log, levels };
            let mut sums = [0u64; 2];
            for level in 1..=levels {
                let mut digits = [0u64; 2];
                gadget.digits(level, &[value, value], &mut digits);
                for (place, digit) in (0..).zip(digits) {
                    let half = 1i64 << (base_log - 1);
                    prop_assert!((-half + place..half + place).contains(&(digit as i64)));
                    sums[place as usize] = sums[place as usize].wrapping_add(digit << gadget.weight_log2(level));
                }
            }
            for sum in sums {
                let error = (sum.wrapping_sub(value) as i64).unsigned_abs();
                let bound = match gadget.weight_log2(levels) { 0 => 0, weight => 1u64 << (weight - 1) };
                prop_assert!(error <= bound);
            }
        }
    }
}
