//! Secret keys, and encryption and decryption under them: the client's half of the arithmetic.

use tfhe::core_crypto::{
    commons::math::random::RandomGenerator,
    fft_impl::fft64::c64,
    prelude::{DefaultRandomGenerator, TUniform},
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    FheError,
    params::{NOISE_BOUND_LOG2, Params, ParamsId},
    ring::{Fourier, Ring, Scratch, Shape, fourier_zeros, multiply_add},
    seeded::{Masks, SEED_BYTES, SeedBytes, fresh_seed, generator, write_narrow},
};

/// A binary GLWE secret key. It follows from a seed of 128 bits, which is all there is to keep.
///
/// Plans without evaluation keys take a fresh one for each query, which costs microseconds and makes every query
/// independent of every other.
pub struct SecretKey {
    id: ParamsId,
    seed: Zeroizing<SeedBytes>,
    polynomials: Zeroizing<Vec<u64>>,
    fourier: Fourier,
    ring: Ring,
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        for point in self.fourier.iter_mut() {
            point.re.zeroize();
            point.im.zeroize();
        }
    }
}

impl SecretKey {
    /// A fresh key.
    ///
    /// # Errors
    /// [`FheError::NoRandomness`]
    pub fn generate(id: ParamsId) -> Result<Self, FheError> {
        Ok(Self::from_seed(id, fresh_seed()?))
    }

    /// The key that follows from a seed: one that [`SecretKey::seed`] gave.
    pub fn from_seed(id: ParamsId, seed: [u8; SEED_BYTES]) -> Self {
        let shape = id.params().shape;
        let mut polynomials = Zeroizing::new(vec![0u64; shape.lwe_dimension()]);
        generator(seed).fill_slice_with_random_uniform_binary(&mut polynomials);
        let ring = Ring::new(shape.n);
        let mut scratch = ring.scratch();
        let mut fourier = fourier_zeros(shape.k * shape.half());
        for (polynomial, out) in polynomials
            .chunks_exact(shape.n)
            .zip(fourier.chunks_exact_mut(shape.half()))
        {
            ring.forward_integer(polynomial, out, &mut scratch);
        }
        Self {
            id,
            seed: Zeroizing::new(seed),
            polynomials,
            fourier,
            ring,
        }
    }

    /// What it follows from. Whoever has this has the key.
    pub fn seed(&self) -> &[u8; SEED_BYTES] {
        &self.seed
    }

    /// The parameter set that it is for.
    pub fn params_id(&self) -> ParamsId {
        self.id
    }

    pub(crate) fn params(&self) -> &'static Params {
        self.id.params()
    }

    pub(crate) fn shape(&self) -> Shape {
        self.params().shape
    }

    /// The polynomials, one after the other: also the key of extracted LWE ciphertexts.
    pub(crate) fn coefficients(&self) -> &[u64] {
        &self.polynomials
    }

    pub(crate) fn polynomial(&self, index: usize) -> &[u64] {
        let n = self.shape().n;
        &self.polynomials[index * n..(index + 1) * n]
    }

    /// `out += input * s_index`, exactly modulo 2^64.
    ///
    /// Coefficients are split in halves of 32 bits: a product of such a half and a binary polynomial is below 2^43, which
    /// the transform's floats hold with ten bits to spare.
    pub(crate) fn multiply_add(&self, input: &[u64], index: usize, out: &mut [u64], scratch: &mut Scratch) {
        let Shape { n, .. } = self.shape();
        let half = n / 2;
        let secret = &self.fourier[index * half..(index + 1) * half];
        let (mut part, mut sum) = (Zeroizing::new(vec![0u64; n]), Zeroizing::new(vec![0u64; n]));
        let (mut transformed, mut product) = (fourier_zeros(half), fourier_zeros(half));
        for shift in [0u32, 32] {
            for (part, value) in part.iter_mut().zip(input) {
                let low = *value as u32 as i32;
                // The high half takes the carry of a negative low one.
                let high = (value.wrapping_sub(low as u64) >> 32) as u32 as i32;
                *part = if shift == 0 { low } else { high } as u64;
            }
            self.ring.forward_torus(&part, &mut transformed, scratch);
            product.fill(c64::default());
            multiply_add(&mut product, &transformed, secret);
            sum.fill(0);
            self.ring.add_backward(&product, &mut sum, scratch);
            for (out, value) in out.iter_mut().zip(sum.iter()) {
                *out = out.wrapping_add(value << shift);
            }
        }
    }

    /// `b - sum a_i s_i`: what a ciphertext holds, with its noise.
    #[cfg(test)]
    pub(crate) fn phase(&self, ciphertext: &[u64]) -> Vec<u64> {
        let Shape { k, n } = self.shape();
        let mut scratch = self.ring.scratch();
        let mut inner = vec![0; n];
        for index in 0..k {
            self.multiply_add(
                &ciphertext[index * n..(index + 1) * n],
                index,
                &mut inner,
                &mut scratch,
            );
        }
        let body = ciphertext[k * n..].iter();
        body.zip(inner)
            .map(|(body, inner)| body.wrapping_sub(inner))
            .collect()
    }
}

/// Makes one list of seeded ciphertexts.
pub(crate) struct Encryptor<'a> {
    key: &'a SecretKey,
    masks: Masks,
    noise: RandomGenerator<DefaultRandomGenerator>,
    scratch: Scratch,
    mask: Vec<u64>,
    body: Zeroizing<Vec<u64>>,
    out: Vec<u8>,
}

impl<'a> Encryptor<'a> {
    /// Continues `out`, which gets the list's seed and then the bodies.
    ///
    /// # Errors
    /// [`FheError::NoRandomness`]
    pub(crate) fn new(key: &'a SecretKey, mut out: Vec<u8>) -> Result<Self, FheError> {
        let seed = fresh_seed()?;
        out.extend_from_slice(&seed);
        let Shape { k, n } = key.shape();
        Ok(Self {
            key,
            masks: Masks::new(seed),
            noise: generator(fresh_seed()?),
            scratch: key.ring.scratch(),
            mask: vec![0; k * n],
            body: Zeroizing::new(vec![0; n]),
            out,
        })
    }

    /// Encrypts a polynomial.
    pub(crate) fn push(&mut self, plaintext: &[u64], width: u8) {
        self.masks.next(&mut self.mask);
        self.body.copy_from_slice(plaintext);
        self.noise
            .unsigned_integer_slice_wrapping_add_random_from_distribution_assign(
                &mut self.body,
                TUniform::<u64>::new(NOISE_BOUND_LOG2),
            );
        let n = self.body.len();
        for (index, mask) in self.mask.chunks_exact(n).enumerate() {
            self.key
                .multiply_add(mask, index, &mut self.body, &mut self.scratch);
        }
        write_narrow(&self.body, width, &mut self.out);
    }

    /// An encryption of zero: the public key by which the server re-randomises its reply.
    pub(crate) fn push_zero(&mut self, width: u8) {
        let zero = vec![0; self.body.len()];
        self.push(&zero, width);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }

    /// `s_left s_right`, as integers.
    pub(crate) fn secret_product(&mut self, left: usize, right: usize) -> Zeroizing<Vec<u64>> {
        let mut out = Zeroizing::new(vec![0; self.body.len()]);
        self.key
            .multiply_add(self.key.polynomial(left), right, &mut out, &mut self.scratch);
        out
    }
}

/// What an LWE ciphertext under the coefficients of `key` holds, with its noise.
pub(crate) fn lwe_phase(key: &SecretKey, mask: &[u64], body: u64) -> u64 {
    let inner = mask.iter().zip(key.coefficients()).fold(0u64, |sum, (a, s)| {
        // Binary: a mask selects, without a branch on the secret.
        sum.wrapping_add(a & s.wrapping_neg())
    });
    body.wrapping_sub(inner)
}

/// Coefficient `at` of a GLWE ciphertext as an LWE ciphertext, mask and body: added to what is there.
#[cfg(feature = "server")]
pub(crate) fn extract_add(ciphertext: &[u64], shape: Shape, at: usize, mask: &mut [u64], body: &mut u64) {
    let Shape { k, n } = shape;
    for index in 0..k {
        let from = &ciphertext[index * n..(index + 1) * n];
        let to = &mut mask[index * n..(index + 1) * n];
        for (j, to) in to.iter_mut().enumerate() {
            let term = if j <= at {
                from[at - j]
            } else {
                from[n + at - j].wrapping_neg()
            };
            *to = to.wrapping_add(term);
        }
    }
    *body = body.wrapping_add(ciphertext[k * n + at]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{params::ALL, ring::add_assign, seeded::Reader};

    #[test]
    fn a_key_is_binary_and_follows_from_its_seed() {
        for params in ALL {
            let key = SecretKey::generate(params.id).unwrap();
            assert!(key.coefficients().iter().all(|bit| *bit <= 1));
            let ones: u64 = key.coefficients().iter().sum();
            assert!((900..1150).contains(&ones), "{ones} ones of 2048");
            let again = SecretKey::from_seed(params.id, *key.seed());
            assert_eq!(again.coefficients(), key.coefficients());
        }
    }

    #[test]
    fn products_with_the_secret_are_exact() {
        let key = SecretKey::generate(ParamsId::Paths).unwrap();
        let n = key.shape().n;
        let mut input = vec![0u64; n];
        generator([3; 16]).fill_slice_with_random_uniform(&mut input);
        let mut out = vec![5u64; n];
        key.multiply_add(&input, 1, &mut out, &mut key.ring.scratch());
        let mut expected = vec![5u64; n];
        for (i, s) in key.polynomial(1).iter().enumerate().filter(|(_, s)| **s == 1) {
            let mut turned = vec![0; n];
            crate::ring::rotate(&input, i, &mut turned);
            assert_eq!(*s, 1);
            add_assign(&mut expected, &turned);
        }
        assert_eq!(out, expected);
    }

    #[test]
    fn what_is_encrypted_comes_back_with_little_noise() {
        for params in ALL {
            let key = SecretKey::generate(params.id).unwrap();
            let Shape { n, .. } = key.shape();
            let plaintext: Vec<u64> = (0..n as u64).map(|i| i << 40).collect();
            let mut encryptor = Encryptor::new(&key, vec![]).unwrap();
            encryptor.push(&plaintext, 8);
            encryptor.push(&plaintext, 6);
            let bytes = encryptor.finish();
            assert_eq!(bytes.len(), SEED_BYTES + n * (8 + 6));
            let mut seed = SeedBytes::default();
            seed.copy_from_slice(&bytes[..SEED_BYTES]);
            let mut reader = Reader::new(seed, &bytes[SEED_BYTES..], params.shape.k, n);
            let mut ciphertext = vec![0; params.shape.len()];
            for (width, bound) in [
                (8, 1u64 << NOISE_BOUND_LOG2),
                (6, (1 << NOISE_BOUND_LOG2) + (1 << 15)),
            ] {
                reader.next(width, &mut ciphertext);
                let phase = key.phase(&ciphertext);
                let errors: Vec<u64> = phase
                    .iter()
                    .zip(&plaintext)
                    .map(|(phase, plain)| (phase.wrapping_sub(*plain) as i64).unsigned_abs())
                    .collect();
                assert!(errors.iter().all(|error| *error <= bound));
                // There is noise, and of the size that the curve asks for.
                let mean = errors.iter().sum::<u64>() as f64 / n as f64;
                assert!(
                    mean > 0.4 * (1u64 << NOISE_BOUND_LOG2) as f64,
                    "mean error {mean}"
                );
            }
        }
    }

    #[test]
    fn an_extracted_coefficient_decrypts_to_itself() {
        let key = SecretKey::generate(ParamsId::Pairs22).unwrap();
        let shape = key.shape();
        let plaintext: Vec<u64> = (0..shape.n as u64).map(|i| i << 50).collect();
        let mut encryptor = Encryptor::new(&key, vec![]).unwrap();
        encryptor.push(&plaintext, 8);
        let bytes = encryptor.finish();
        let mut seed = SeedBytes::default();
        seed.copy_from_slice(&bytes[..SEED_BYTES]);
        let mut ciphertext = vec![0; shape.len()];
        Reader::new(seed, &bytes[SEED_BYTES..], shape.k, shape.n).next(8, &mut ciphertext);
        for at in [0, 1, 77, shape.n - 1] {
            let (mut mask, mut body) = (vec![0; shape.lwe_dimension()], 0);
            extract_add(&ciphertext, shape, at, &mut mask, &mut body);
            let error = lwe_phase(&key, &mask, body).wrapping_sub(plaintext[at]) as i64;
            assert!(error.unsigned_abs() <= 1 << NOISE_BOUND_LOG2);
        }
    }
}
