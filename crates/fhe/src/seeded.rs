//! Seeded ciphertexts: masks come from a public seed, so that only bodies travel.
//!
//! A list has one fresh 128-bit seed from the operating system: the key of AES-128 in counter mode (NIST SP 800-38A, a
//! 128-bit big-endian counter from zero), whose key stream is the masks in the order of the ciphertexts, as little-endian
//! words of 64 bits. A seed is never used twice, and seeded ciphertexts are never shifted or scaled: either would leak.

use aes::Aes128;
use ctr::{
    Ctr128BE,
    cipher::{KeyIvInit as _, StreamCipher as _},
};
use tfhe::core_crypto::{
    commons::math::random::{RandomGenerator, Seed},
    prelude::DefaultRandomGenerator,
};

use crate::FheError;

/// Bytes of a seed.
pub(crate) const SEED_BYTES: usize = 16;

pub(crate) type SeedBytes = [u8; SEED_BYTES];

/// A seed from the operating system.
///
/// # Errors
/// [`FheError::NoRandomness`]
pub(crate) fn fresh_seed() -> Result<SeedBytes, FheError> {
    let mut seed = SeedBytes::default();
    getrandom::fill(&mut seed).map_err(|_| FheError::NoRandomness)?;
    Ok(seed)
}

/// A source of secret randomness: keys and noise.
pub(crate) fn generator(seed: SeedBytes) -> RandomGenerator<DefaultRandomGenerator> {
    RandomGenerator::new(Seed(u128::from_le_bytes(seed)))
}

/// The masks of a list, one ciphertext after the other.
pub(crate) struct Masks {
    stream: Ctr128BE<Aes128>,
    bytes: Vec<u8>,
}

impl Masks {
    pub(crate) fn new(seed: SeedBytes) -> Self {
        Self {
            stream: Ctr128BE::new(&seed.into(), &[0; 16].into()),
            bytes: vec![],
        }
    }

    /// The masks of the next ciphertext: `k` polynomials.
    pub(crate) fn next(&mut self, masks: &mut [u64]) {
        self.bytes.clear();
        self.bytes.resize(size_of_val(masks), 0);
        self.stream.apply_keystream(&mut self.bytes);
        let words = self.bytes.as_chunks::<8>().0;
        for (mask, word) in masks.iter_mut().zip(words) {
            *mask = u64::from_le_bytes(*word);
        }
    }
}

/// Appends the `width` most significant bytes of each value, rounded, little-endian.
pub(crate) fn write_narrow(values: &[u64], width: u8, out: &mut Vec<u8>) {
    let width = usize::from(width);
    let dropped = 64 - 8 * width as u32;
    let rounding = if dropped == 0 { 0 } else { 1u64 << (dropped - 1) };
    for value in values {
        let kept = value.wrapping_add(rounding) >> dropped;
        out.extend_from_slice(&kept.to_le_bytes()[..width]);
    }
}

/// The reverse of [`write_narrow`]; what was dropped is zero. `bytes` holds `width` bytes for each value.
pub(crate) fn read_narrow(bytes: &[u8], width: u8, values: &mut [u64]) {
    let width = usize::from(width);
    let dropped = 64 - 8 * width as u32;
    debug_assert_eq!(bytes.len(), values.len() * width);
    // A window of 8 bytes at each value: the shift pushes out what belongs to the next. Only the last values have no
    // whole window.
    let windowed = (bytes.len() + width).saturating_sub(8) / width;
    let (head, tail) = values.split_at_mut(windowed.min(values.len()));
    for (index, value) in head.iter_mut().enumerate() {
        let at = index * width;
        let window = bytes[at..].first_chunk().copied().unwrap_or_default();
        *value = u64::from_le_bytes(window) << dropped;
    }
    for (value, bytes) in tail.iter_mut().zip(bytes[windowed * width..].chunks_exact(width)) {
        let mut whole = [0u8; 8];
        whole[..width].copy_from_slice(bytes);
        *value = u64::from_le_bytes(whole) << dropped;
    }
}

/// Reads a list that was written by the client half, one ciphertext after the other.
pub(crate) struct Reader<'a> {
    masks: Masks,
    bodies: &'a [u8],
    k: usize,
    n: usize,
}

impl<'a> Reader<'a> {
    /// `bodies` must be as long as what is going to be read: the callers have checked that.
    pub(crate) fn new(seed: SeedBytes, bodies: &'a [u8], k: usize, n: usize) -> Self {
        Self {
            masks: Masks::new(seed),
            bodies,
            k,
            n,
        }
    }

    /// The next ciphertext, masks and body.
    pub(crate) fn next(&mut self, width: u8, out: &mut [u64]) {
        let (masks, body) = out.split_at_mut(self.k * self.n);
        self.masks.next(masks);
        let (bytes, rest) = self.bodies.split_at(self.n * usize::from(width));
        read_narrow(bytes, width, body);
        self.bodies = rest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn masks_follow_from_the_seed() {
        let draw = |seed| {
            let mut masks = [0; 64];
            Masks::new(seed).next(&mut masks);
            masks
        };
        assert_eq!(draw([7; 16]), draw([7; 16]));
        assert_ne!(draw([7; 16]), draw([8; 16]));
    }

    proptest! {
        #[test]
        fn narrow_values_round(values in prop::collection::vec(any::<u64>(), 0..20), width in 4u8..=8) {
            let mut bytes = vec![];
            write_narrow(&values, width, &mut bytes);
            let mut read = vec![0; values.len()];
            read_narrow(&bytes, width, &mut read);
            let dropped = 64 - 8 * u32::from(width);
            for (read, value) in read.iter().zip(&values) {
                let error = (read.wrapping_sub(*value) as i64).unsigned_abs();
                let bound = if dropped == 0 { 0 } else { 1 << (dropped - 1) };
                prop_assert!(error <= bound);
            }
        }
    }
}
