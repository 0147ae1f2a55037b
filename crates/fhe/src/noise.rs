//! How much noise each plan ends with: the formulas by which the compiler spaces scores on the torus.
//!
//! All variances are in units of the torus (1 = 2^64), for noise that is independent and centred. Sources: Chillotti,
//! Gama, Georgieva, Izabachène, "TFHE: Fast Fully Homomorphic Encryption over the Torus" (J. Cryptology 2020), theorem 3.14 for
//! the external product and section 4 for key switches; Bourse, Chen et al. for the expansion by automorphisms (each round
//! doubles the mean variance of a ciphertext and adds that of a key switch). Tests measure each plan against them.

use crate::{
    gadget::Gadget,
    params::{NOISE_BOUND_LOG2, Params},
};

/// Standard deviations that a score's noise may reach before it is decoded wrongly: `P(|x| > 6.5 sigma) < 2^-33`.
pub(crate) const CERTAINTY: f64 = 6.5;
/// The least share of the distance between scores that flooding takes, on either side.
const LEAST_FLOOD: f64 = 1.0 / 16.0;

/// Variance of a value that is uniform over an interval of this width.
fn uniform(width: f64) -> f64 {
    width * width / 12.0
}

/// Of a fresh ciphertext whose body kept `width` bytes.
pub(crate) fn fresh(width: u8) -> f64 {
    let bound = f64::from(2 * NOISE_BOUND_LOG2 + 1).exp2() / 6.0 * (-128.0f64).exp2();
    let dropped = if width >= 8 {
        0.0
    } else {
        uniform((-8.0 * f64::from(width)).exp2())
    };
    bound + dropped
}

/// Mean square of a digit.
fn digit(gadget: Gadget) -> f64 {
    uniform(f64::from(gadget.base_log).exp2())
}

/// What is lost below the last level, times the secret: for masks of `kN` coefficients under a binary key.
fn rounding(gadget: Gadget, secret_norm: f64) -> f64 {
    let last = (-f64::from(gadget.base_log * gadget.levels)).exp2();
    uniform(last) * (1.0 + secret_norm)
}

/// What transforms in floats of 53 bits lose in a product of `terms` digits each with an element of the torus, times the
/// secret. The factor is measured: some rounds of butterflies, and the rounding of 64 bits to 53.
fn floats(terms: f64, gadget: Gadget, secret_norm: f64) -> f64 {
    const ROUNDINGS: f64 = 12.0;
    ROUNDINGS * (-2.0f64 * 53.0).exp2() * terms * digit(gadget) * uniform(1.0) * (1.0 + secret_norm)
}

/// Squared norm of the binary secret: half of its coefficients are one.
fn secret_norm(params: &Params) -> f64 {
    params.shape.lwe_dimension() as f64 / 2.0
}

/// What an external product with a GGSW ciphertext of a monomial adds, whose rows have these variances.
fn external_product(params: &Params, mask_row: f64, body_row: f64) -> f64 {
    let (k, n) = (params.shape.k as f64, params.shape.n as f64);
    let gadget = params.ggsw;
    let (terms, secret) = (n * f64::from(gadget.levels), secret_norm(params));
    terms * digit(gadget) * (k * mask_row + body_row)
        + rounding(gadget, secret)
        + floats((k + 1.0) * terms, gadget, secret)
}

/// Of a score of the `linear` plan, for weights of this squared norm.
pub(crate) fn linear(params: &Params, weights_norm: f64) -> f64 {
    weights_norm * fresh(params.width)
}

/// Of a score of the `pairs` plan: `products` external products, of tables of this squared norm together.
pub(crate) fn pairs(params: &Params, products: usize, tables_norm: f64) -> f64 {
    let row = fresh(params.width);
    products as f64 * external_product(params, row, row) + tables_norm * fresh(params.query_width)
}

/// Of one key switch from secrets of this squared norm to the binary one.
fn key_switch(params: &Params, from_norm: f64) -> f64 {
    let gadget = params.switch;
    let terms = params.shape.lwe_dimension() as f64 * f64::from(gadget.levels);
    terms * digit(gadget) * fresh(params.width)
        + rounding(gadget, from_norm)
        + floats(terms, gadget, secret_norm(params))
}

/// By how much the noise of an expanded row grows more, times the secret, than independent coefficients would: later rounds
/// make coefficients of an orbit equal, and the mean of a binary secret (one half) adds them up instead of averaging them out.
/// An orbit of `g` coefficients gains about `g / 3`; the factor over all rounds is measured: 5 to 8, from key to key.
const COHERENCE: f64 = 7.0;

/// Rows of the GGSW ciphertexts that the server makes of a packed query: body rows and mask rows.
pub(crate) fn expanded_rows(params: &Params) -> (f64, f64) {
    let switch = key_switch(params, secret_norm(params));
    let mut body = fresh(params.query_width);
    for _ in 0..params.fold {
        body = 2.0 * body + switch;
    }
    // Coefficients of s_i s_j lie between -N/4 and N/4, in a line: the mean square is a third of the largest.
    let n = params.shape.n as f64;
    let product_norm = params.shape.k as f64 * n * (n / 4.0).powi(2) / 3.0;
    // The row's own noise times a polynomial of the secret, and the key switch under products of secrets.
    let mask = body * n / 2.0 * COHERENCE + key_switch(params, product_norm);
    (body, mask)
}

/// Of one CMUX of the `paths` plan.
pub(crate) fn cmux(params: &Params) -> f64 {
    let (body, mask) = expanded_rows(params);
    external_product(params, mask, body)
}

/// Of a score of the `neurons` plan: so many CMUX gates, and products of the linear part, whose masks are zero.
pub(crate) fn neurons(params: &Params, gates: usize, linear: usize) -> f64 {
    let (body, mask) = expanded_rows(params);
    gates as f64 * external_product(params, mask, body) + linear as f64 * external_product(params, 0.0, body)
}

/// What re-randomising and narrowing a reply add.
pub(crate) fn reply(params: &Params) -> f64 {
    let secret = secret_norm(params);
    let (n, noise) = (params.shape.n as f64, fresh(params.width));
    n / 2.0 * noise + (secret + 1.0) * fresh(8) + uniform((-32.0f64).exp2()) * (1.0 + secret)
}

/// Scores that can be told apart with certainty in noise of this variance, at most `enough`: what they leave of the torus
/// goes to flooding.
pub(crate) fn levels(variance: f64, enough: u32) -> u32 {
    let levels = (0.5 - LEAST_FLOOD) / (CERTAINTY * variance.sqrt());
    levels.min(f64::from(enough)) as u32
}

/// What flooding takes on either side, in units of the torus: all that noise leaves of half of the distance between scores.
pub(crate) fn flood(variance: f64, levels: u32) -> f64 {
    0.5 / f64::from(levels) - CERTAINTY * variance.sqrt()
}

/// The statistical distance that flooding leaves between replies whose noise differs by `sigma`, at most: two uniform
/// distributions of width `2 w` that are shifted by `d` are `d / (2 w)` apart.
pub(crate) fn residual_leak(variance: f64, levels: u32) -> f64 {
    (variance.sqrt() / (2.0 * flood(variance, levels))).min(1.0)
}

/// log2 of the probability that noise carries a score over half of the distance to the next: both tails of a normal
/// distribution at [`CERTAINTY`], by their usual bound.
pub(crate) fn failure_log2() -> f64 {
    let x = CERTAINTY;
    (-x * x / 2.0) * std::f64::consts::LOG2_E - (x * (std::f64::consts::PI / 2.0).sqrt()).log2()
}
