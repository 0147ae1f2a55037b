//! Plan `linear`: the row is one polynomial, and each score one coefficient of its product with a plaintext.

use super::{Context, Lwe, Scores, Stage};
use crate::{
    FheError,
    keys::extract_add,
    params::Params,
    ring::{Fourier, Ring, fourier_zeros, multiply_add},
    seeded::Reader,
};

pub(crate) struct LinearProgram {
    ring: Ring,
    /// By output: the weights as a polynomial whose product with the row has the score as its constant coefficient.
    weights: Vec<Fourier>,
}

impl LinearProgram {
    pub(crate) fn new(params: &Params, weights: &[Vec<i64>]) -> Self {
        let n = params.shape.n;
        let ring = Ring::new(n);
        let mut scratch = ring.scratch();
        let weights = weights.iter().map(|weights| {
            // w_0 - sum w_j X^(N - j): X^j meets X^-j.
            let mut polynomial = vec![0u64; n];
            for (j, weight) in weights.iter().enumerate() {
                if j == 0 {
                    polynomial[0] = *weight as u64;
                } else {
                    polynomial[n - j] = weight.wrapping_neg() as u64;
                }
            }
            let mut points = fourier_zeros(n / 2);
            ring.forward_integer(&polynomial, &mut points, &mut scratch);
            points
        });
        let weights = weights.collect();
        Self { ring, weights }
    }

    pub(super) fn evaluate(
        &self,
        mut query: Reader<'_>,
        context: &mut Context<'_>,
    ) -> Result<Scores, FheError> {
        let params = context.params;
        let shape = params.shape;
        let mut scratch = self.ring.scratch();
        let mut ciphertext = vec![0u64; shape.len()];
        query.next(params.width, &mut ciphertext);
        let mut row = fourier_zeros(2 * shape.half());
        self.ring.forward_torus_all(&ciphertext, &mut row, &mut scratch);
        let mut public_key = vec![0u64; shape.len()];
        query.next(params.width, &mut public_key);
        context.clock.lap(Stage::Ingest);
        let mut scores = Vec::with_capacity(self.weights.len());
        for weights in &self.weights {
            context.check()?;
            let mut product = fourier_zeros(row.len());
            multiply_add(&mut product, weights, &row);
            ciphertext.fill(0);
            self.ring
                .add_backward_all(&product, &mut ciphertext, &mut scratch);
            let mut score = Lwe::zero(shape.lwe_dimension());
            extract_add(&ciphertext, shape, 0, &mut score.mask, &mut score.body);
            scores.push(score);
        }
        context.clock.lap(Stage::Product);
        Ok(Scores { scores, public_key })
    }
}
