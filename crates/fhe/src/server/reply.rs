//! From scores under encryption to a reply that says as little else as possible.
//!
//! Of each score only the extracted LWE ciphertext leaves: the other coefficients hold shifted table entries. It is
//! re-randomised by a fresh encryption of zero under the client's public key, so that its mask tells nothing of the
//! computation, and flooded by a uniform value that takes all that noise leaves of the distance between scores, so that its
//! noise tells little ([`crate::noise::residual_leak`] says how little). Full circuit privacy is not claimed.

use tfhe::core_crypto::prelude::TUniform;

use super::{Lwe, Scores};
use crate::{
    FheError,
    keys::extract_add,
    params::{NOISE_BOUND_LOG2, Params},
    ring::{Ring, fourier_zeros, multiply_add},
    seeded::{fresh_seed, generator, write_narrow},
    wire::REPLY_WIDTH,
};

/// Continues `out` with the scores, flooded by so much of the torus either way.
pub(super) fn finish(
    params: &Params,
    flood: u64,
    scores: Scores,
    mut out: Vec<u8>,
) -> Result<Vec<u8>, FheError> {
    let shape = params.shape;
    let mut random = generator(fresh_seed()?);
    // r pk + e: all coefficients of it are fresh encryptions of zero, one for each score.
    let ring = Ring::new(shape.n);
    let mut scratch = ring.scratch();
    let mut selector = vec![0u64; shape.n];
    random.fill_slice_with_random_uniform_binary(&mut selector);
    let mut zero = vec![0u64; shape.len()];
    random.unsigned_integer_slice_wrapping_add_random_from_distribution_assign(
        &mut zero,
        TUniform::<u64>::new(NOISE_BOUND_LOG2),
    );
    let mut selector_points = fourier_zeros(shape.half());
    ring.forward_integer(&selector, &mut selector_points, &mut scratch);
    let mut key_points = fourier_zeros((shape.k + 1) * shape.half());
    ring.forward_torus_all(&scores.public_key, &mut key_points, &mut scratch);
    let mut product = fourier_zeros(key_points.len());
    multiply_add(&mut product, &selector_points, &key_points);
    ring.add_backward_all(&product, &mut zero, &mut scratch);

    for (at, Lwe { mut mask, mut body }) in scores.scores.into_iter().enumerate() {
        extract_add(&zero, shape, at, &mut mask, &mut body);
        let draw = u128::from(random.random_uniform::<u64>()) * (2 * u128::from(flood) + 1);
        body = body.wrapping_add((draw >> 64) as u64).wrapping_sub(flood);
        write_narrow(&mask, REPLY_WIDTH, &mut out);
        write_narrow(&[body], REPLY_WIDTH, &mut out);
    }
    Ok(out)
}
