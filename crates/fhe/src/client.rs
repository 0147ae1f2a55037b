//! The client's half: rows in, queries out; replies in, predictions out.

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{
    FheError,
    bundle::{Bundle, FeatureCoding, Prediction, QuantisedRow},
    keys::{Encryptor, SecretKey, lwe_phase},
    params::{Params, PlanKind},
    ring::{automorphism, rotate},
    seeded::read_narrow,
    wire::{self, QueryDigest, REPLY_WIDTH},
};

/// An encrypted row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// For the server.
    pub bytes: Vec<u8>,
    /// Ties the reply to it.
    pub digest: QueryDigest,
    /// Features whose value lay outside of the known range and was clamped.
    pub clamped: Vec<usize>,
}

/// Encrypts a row for the model of a bundle. NaN is a missing value.
///
/// For plans without evaluation keys, take a fresh key for each query: nothing is gained by keeping one.
///
/// # Errors
/// As [`Bundle::quantise`]; [`FheError::OtherParams`] for a key of another set; [`FheError::NoRandomness`].
pub fn encrypt(bundle: &Bundle, key: &SecretKey, row: &[f64]) -> Result<Query, FheError> {
    expect_key(bundle, key)?;
    let QuantisedRow { values, clamped } = bundle.quantise(row)?;
    let values = Zeroizing::new(values);
    let params = key.params();
    let bins: Vec<usize> = bundle.codings().map(FeatureCoding::bins).collect();
    let length = wire::query_len(params, bins.iter().copied());
    let start = wire::query_start(params.id, &bundle.model, length);
    let mut encryptor = Encryptor::new(key, start)?;
    match params.kind {
        PlanKind::Linear => {
            let delta = bundle.scores[0].delta();
            linear_query(&mut encryptor, params, &values, delta);
        }
        PlanKind::Pairs => {
            let delta = bundle.scores[0].delta();
            pairs_query(&mut encryptor, key, &values, delta);
        }
        PlanKind::Paths | PlanKind::Neurons => {
            let codes = values.iter().zip(bundle.codings());
            let codes: Zeroizing<Vec<u64>> = Zeroizing::new(
                codes
                    .map(|(value, coding)| (value - coding.least()) as u64)
                    .collect(),
            );
            packed_query(&mut encryptor, params, &codes, &bins);
        }
    }
    let bytes = encryptor.finish();
    debug_assert_eq!(bytes.len(), length);
    Ok(Query {
        digest: Sha256::digest(&bytes).into(),
        bytes,
        clamped,
    })
}

fn expect_key(bundle: &Bundle, key: &SecretKey) -> Result<(), FheError> {
    let (expected, found) = (bundle.params_id(), key.params_id());
    if expected == found {
        Ok(())
    } else {
        Err(FheError::OtherParams {
            expected: expected.name(),
            found: found.name(),
        })
    }
}

/// The row as coefficients of one polynomial.
fn linear_query(encryptor: &mut Encryptor<'_>, params: &Params, values: &[i32], delta: u64) {
    let mut plaintext = Zeroizing::new(vec![0u64; params.shape.n]);
    for (coefficient, value) in plaintext.iter_mut().zip(values) {
        *coefficient = delta.wrapping_mul(i64::from(*value) as u64);
    }
    encryptor.push(&plaintext, params.width);
    encryptor.push_zero(params.width);
}

/// For each feature `GGSW(X^x)` and `GLWE(X^(B x))`.
fn pairs_query(encryptor: &mut Encryptor<'_>, key: &SecretKey, values: &[i32], delta: u64) {
    let params = key.params();
    let n = params.shape.n;
    let weight = 1u64 << params.ggsw.weight_log2(1);
    let mut plaintext = Zeroizing::new(vec![0u64; n]);
    for value in values {
        let bin = *value as usize;
        for index in 0..params.shape.k {
            rotate(key.polynomial(index), bin, &mut plaintext);
            for coefficient in plaintext.iter_mut() {
                *coefficient = coefficient.wrapping_neg().wrapping_mul(weight);
            }
            encryptor.push(&plaintext, params.width);
        }
        plaintext.fill(0);
        plaintext[bin] = weight;
        encryptor.push(&plaintext, params.width);
        plaintext[bin] = 0;
        plaintext[bin * params.pair_bins()] = delta;
        encryptor.push(&plaintext, params.query_width);
    }
    encryptor.push_zero(params.width);
}

/// All bits of all features, `2^fold` to a ciphertext, once for each gadget level.
fn packed_query(encryptor: &mut Encryptor<'_>, params: &Params, codes: &[u64], bins: &[usize]) {
    let all: Zeroizing<Vec<u64>> = Zeroizing::new(
        codes
            .iter()
            .zip(bins)
            .flat_map(|(code, bins)| (0..wire::bits(*bins)).map(move |bit| (code >> bit) & 1))
            .collect(),
    );
    let mut plaintext = Zeroizing::new(vec![0u64; params.shape.n]);
    for pack in all.chunks(1 << params.fold) {
        for level in 1..=params.ggsw.levels {
            plaintext.fill(0);
            // Each round of the expansion doubles.
            let weight_log2 = params.ggsw.weight_log2(level) - params.fold;
            for (coefficient, bit) in plaintext.iter_mut().zip(pack) {
                *coefficient = bit << weight_log2;
            }
            encryptor.push(&plaintext, params.query_width);
        }
    }
}

/// The exponent of the automorphism of a round of the expansion.
pub(crate) fn round_exponent(n: usize, round: u32) -> usize {
    (n >> round) + 1
}

/// Makes the evaluation key that the server needs for the key's parameter set; none for plans without. It is not secret,
/// and belongs to `key`: queries under another key make noise.
///
/// # Errors
/// [`FheError::NoRandomness`]
pub fn evaluation_key(key: &SecretKey) -> Result<Option<Vec<u8>>, FheError> {
    let params = key.params();
    if wire::evaluation_key_len(params.id) == 0 {
        return Ok(None);
    }
    let (k, n) = (params.shape.k, params.shape.n);
    let mut encryptor = Encryptor::new(key, wire::key_start(params.id))?;
    let mut turned = Zeroizing::new(vec![0u64; n]);
    for round in 0..params.fold {
        for index in 0..k {
            automorphism(key.polynomial(index), round_exponent(n, round), &mut turned);
            for coefficient in turned.iter_mut() {
                *coefficient = coefficient.wrapping_neg();
            }
            push_levels(&mut encryptor, params, &turned);
        }
    }
    for left in 0..k {
        for right in left..k {
            let product = encryptor.secret_product(left, right);
            push_levels(&mut encryptor, params, &product);
        }
    }
    encryptor.push_zero(params.width);
    Ok(Some(encryptor.finish()))
}

/// A polynomial of small integers, times each weight of the key-switching gadget.
fn push_levels(encryptor: &mut Encryptor<'_>, params: &Params, polynomial: &[u64]) {
    let mut plaintext = Zeroizing::new(vec![0u64; polynomial.len()]);
    for level in 1..=params.switch.levels {
        for (coefficient, value) in plaintext.iter_mut().zip(polynomial) {
            *coefficient = value << params.switch.weight_log2(level);
        }
        encryptor.push(&plaintext, params.width);
    }
}

/// Decrypts the reply to a query: scores as integers, rounded to the announced precision.
///
/// # Errors
/// [`FheError`] for a reply of another model or to another query, or one of the wrong length.
pub fn decrypt_integers(
    bundle: &Bundle,
    key: &SecretKey,
    query: &QueryDigest,
    reply: &[u8],
) -> Result<Vec<i64>, FheError> {
    let phases = phases(bundle, key, query, reply)?;
    // What lies between scores is noise, and noise tells about the key: it does not leave this function.
    let each = phases.len() / bundle.scores.len();
    Ok(phases
        .chunks(each)
        .zip(&bundle.scores)
        .map(|(phases, coding)| coding.decode(phases))
        .collect())
}

/// Decrypts the reply to a query.
///
/// # Errors
/// As [`decrypt_integers`].
pub fn decrypt(
    bundle: &Bundle,
    key: &SecretKey,
    query: &QueryDigest,
    reply: &[u8],
) -> Result<Prediction, FheError> {
    Ok(bundle.prediction(&decrypt_integers(bundle, key, query, reply)?))
}

/// What the ciphertexts of a reply hold, with their noise.
pub(crate) fn phases(
    bundle: &Bundle,
    key: &SecretKey,
    query: &QueryDigest,
    reply: &[u8],
) -> Result<Zeroizing<Vec<u64>>, FheError> {
    expect_key(bundle, key)?;
    let ciphertexts = bundle.ciphertexts();
    let bodies = wire::read_reply(reply, key.params_id(), &bundle.model, query, ciphertexts)?;
    let dimension = key.shape().lwe_dimension();
    let mut values = vec![0u64; dimension + 1];
    let phases = bodies
        .chunks_exact((dimension + 1) * usize::from(REPLY_WIDTH))
        .map(|bytes| {
            read_narrow(bytes, REPLY_WIDTH, &mut values);
            lwe_phase(key, &values[..dimension], values[dimension])
        });
    Ok(Zeroizing::new(phases.collect()))
}
