//! Polynomials over `Z_{2^64}[X]/(X^N + 1)`, and their Fourier domain.
//!
//! The transforms are tfhe's (`fft64`): N/2 complex points a polynomial. Products in the Fourier domain are accumulated
//! by one kernel, compiled for every instruction set there is and chosen at run time (`pulp`).

use aligned_vec::{ABox, avec};
use dyn_stack::PodStack;
use tfhe::core_crypto::{
    fft_impl::fft64::{
        c64,
        math::{
            fft::{Fft, FftView},
            polynomial::{FourierPolynomialMutView, FourierPolynomialView},
        },
    },
    prelude::{ComputationBuffers, Polynomial, PolynomialSize},
};

/// Points in the Fourier domain, aligned for vector instructions.
pub(crate) type Fourier = ABox<[c64]>;

pub(crate) fn fourier_zeros(points: usize) -> Fourier {
    avec![c64::default(); points].into_boxed_slice()
}

/// The shape of a GLWE ciphertext: `k` mask polynomials and a body, of `n` coefficients each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) k: usize,
    pub(crate) n: usize,
}

impl Shape {
    /// Coefficients of a ciphertext.
    pub(crate) fn len(self) -> usize {
        (self.k + 1) * self.n
    }

    /// A plaintext as a ciphertext without a mask.
    pub(crate) fn trivial(self, body: &[u64]) -> Vec<u64> {
        let mut ciphertext = vec![0; self.len()];
        ciphertext[self.k * self.n..].copy_from_slice(body);
        ciphertext
    }

    /// Points of a polynomial in the Fourier domain.
    pub(crate) fn half(self) -> usize {
        self.n / 2
    }

    /// Dimension of an extracted LWE ciphertext.
    pub(crate) fn lwe_dimension(self) -> usize {
        self.k * self.n
    }
}

/// `out = X^exponent * input`, exponent modulo 2N.
pub(crate) fn rotate(input: &[u64], exponent: usize, out: &mut [u64]) {
    let n = input.len();
    let exponent = exponent % (2 * n);
    let (shift, flip) = (exponent % n, exponent >= n);
    let (low, high) = out.split_at_mut(shift);
    let (head, tail) = input.split_at(n - shift);
    // What leaves at the top comes back at the bottom with the other sign.
    copy(tail, low, !flip);
    copy(head, high, flip);
}

fn copy(from: &[u64], to: &mut [u64], negate: bool) {
    if negate {
        for (to, from) in to.iter_mut().zip(from) {
            *to = from.wrapping_neg();
        }
    } else {
        to.copy_from_slice(from);
    }
}

/// [`rotate`] of every polynomial of a ciphertext.
pub(crate) fn rotate_all(input: &[u64], n: usize, exponent: usize, out: &mut [u64]) {
    for (input, out) in input.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
        rotate(input, exponent, out);
    }
}

/// `out(X) = input(X^exponent)`, for odd exponents; N is a power of two.
pub(crate) fn automorphism(input: &[u64], exponent: usize, out: &mut [u64]) {
    let n = input.len();
    let around = 2 * n - 1;
    let mut at = 0;
    for value in input {
        // All ones when it comes back with the other sign.
        let sign = ((at >= n) as u64).wrapping_neg();
        out[at & (n - 1)] = (value ^ sign).wrapping_sub(sign);
        at = (at + exponent) & around;
    }
}

pub(crate) fn add_assign(to: &mut [u64], from: &[u64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = to.wrapping_add(*from);
    }
}

/// Memory that transforms work in; one for each thread.
pub(crate) struct Scratch {
    buffers: ComputationBuffers,
}

impl Scratch {
    fn stack(&mut self) -> &mut PodStack {
        self.buffers.stack()
    }
}

/// The transforms for one polynomial size.
#[derive(Clone)]
pub(crate) struct Ring {
    n: usize,
    fft: Fft,
}

impl Ring {
    pub(crate) fn new(n: usize) -> Self {
        Self {
            n,
            fft: Fft::new(PolynomialSize(n)),
        }
    }

    fn view(&self) -> FftView<'_> {
        self.fft.as_view()
    }

    pub(crate) fn scratch(&self) -> Scratch {
        let view = self.view();
        let bytes = view
            .forward_scratch()
            .or(view.backward_scratch())
            .unaligned_bytes_required();
        let mut buffers = ComputationBuffers::new();
        buffers.resize(bytes);
        Scratch { buffers }
    }

    /// Coefficients as elements of the torus.
    pub(crate) fn forward_torus(&self, input: &[u64], out: &mut [c64], scratch: &mut Scratch) {
        self.view().forward_as_torus(
            FourierPolynomialMutView { data: out },
            Polynomial::from_container(input),
            scratch.stack(),
        );
    }

    /// [`Ring::forward_torus`] of every polynomial of a ciphertext.
    pub(crate) fn forward_torus_all(&self, input: &[u64], out: &mut [c64], scratch: &mut Scratch) {
        let polynomials = input.chunks_exact(self.n);
        for (input, out) in polynomials.zip(out.chunks_exact_mut(self.n / 2)) {
            self.forward_torus(input, out, scratch);
        }
    }

    /// Coefficients as signed integers.
    pub(crate) fn forward_integer(&self, input: &[u64], out: &mut [c64], scratch: &mut Scratch) {
        self.view().forward_as_integer(
            FourierPolynomialMutView { data: out },
            Polynomial::from_container(input),
            scratch.stack(),
        );
    }

    /// Back to the torus, added to what is there.
    pub(crate) fn add_backward(&self, input: &[c64], out: &mut [u64], scratch: &mut Scratch) {
        self.view().add_backward_as_torus(
            Polynomial::from_container(out),
            FourierPolynomialView { data: input },
            scratch.stack(),
        );
    }

    /// [`Ring::add_backward`] of every polynomial of a ciphertext.
    pub(crate) fn add_backward_all(&self, input: &[c64], out: &mut [u64], scratch: &mut Scratch) {
        let polynomials = input.chunks_exact(self.n / 2);
        for (input, out) in polynomials.zip(out.chunks_exact_mut(self.n)) {
            self.add_backward(input, out, scratch);
        }
    }
}

/// For each polynomial `i` of `sums`: `sums[i] += left * rights[i]`, point by point.
pub(crate) fn multiply_add(sums: &mut [c64], left: &[c64], rights: &[c64]) {
    struct Kernel<'a> {
        sums: &'a mut [c64],
        left: &'a [c64],
        rights: &'a [c64],
    }
    impl pulp::WithSimd for Kernel<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, simd: S) {
            let half = self.left.len();
            let left = S::as_simd_c64s(self.left).0;
            let sums = self.sums.chunks_exact_mut(half);
            for (sum, right) in sums.zip(self.rights.chunks_exact(half)) {
                let sum = S::as_mut_simd_c64s(sum).0;
                let right = S::as_simd_c64s(right).0;
                for ((sum, left), right) in sum.iter_mut().zip(left).zip(right) {
                    *sum = simd.mul_add_c64s(*left, *right, *sum);
                }
            }
        }
    }
    debug_assert!(left.len().is_multiple_of(8) && sums.len() == rights.len());
    pulp::Arch::new().dispatch(Kernel { sums, left, rights });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn polynomial(n: usize) -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(any::<u64>(), n)
    }

    /// The product by the definition.
    pub(crate) fn product(a: &[u64], b: &[u64]) -> Vec<u64> {
        let n = a.len();
        let mut out = vec![0u64; n];
        for (i, a) in a.iter().enumerate() {
            for (j, b) in b.iter().enumerate() {
                let term = a.wrapping_mul(*b);
                if i + j < n {
                    out[i + j] = out[i + j].wrapping_add(term);
                } else {
                    out[i + j - n] = out[i + j - n].wrapping_sub(term);
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn rotation_is_multiplication_by_a_monomial(p in polynomial(16), e in 0usize..64) {
            let mut monomial = vec![0u64; 16];
            let e16 = e % 32;
            monomial[e16 % 16] = if e16 < 16 { 1 } else { u64::MAX };
            let mut out = vec![0; 16];
            rotate(&p, e, &mut out);
            prop_assert_eq!(out, product(&p, &monomial));
        }

        #[test]
        fn automorphisms_respect_products(p in polynomial(16), q in polynomial(16), k in 0usize..16) {
            let exponent = 2 * k + 1;
            let apply = |p: &[u64]| { let mut out = vec![0; 16]; automorphism(p, exponent, &mut out); out };
            prop_assert_eq!(apply(&product(&p, &q)), product(&apply(&p), &apply(&q)));
        }

        #[test]
        fn products_in_the_fourier_domain_are_products(p in polynomial(256), q in prop::collection::vec(-8i64..8, 256)) {
            let ring = Ring::new(256);
            let mut scratch = ring.scratch();
            let (mut fp, mut fq, mut sum) = (fourier_zeros(128), fourier_zeros(128), fourier_zeros(128));
            let q: Vec<u64> = q.into_iter().map(|v| v as u64).collect();
            ring.forward_torus(&p, &mut fp, &mut scratch);
            ring.forward_integer(&q, &mut fq, &mut scratch);
            multiply_add(&mut sum, &fp, &fq);
            let mut out = vec![0u64; 256];
            ring.add_backward(&sum, &mut out, &mut scratch);
            for (found, expected) in out.iter().zip(product(&p, &q)) {
                // Floats have 53 bits; what is lost is far below the noise of any ciphertext.
                prop_assert!((found.wrapping_sub(expected) as i64).unsigned_abs() < 1 << 22);
            }
        }
    }
}
