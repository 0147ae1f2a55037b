//! Evaluation keys in the form that products need.

use crate::{
    FheError,
    gadget::Matrix,
    params::{Params, ParamsId},
    ring::Ring,
    seeded::Reader,
    wire,
};

/// An evaluation key, checked and transformed.
pub struct EvaluationKey {
    id: ParamsId,
    /// By round of the expansion: key switches from `s(X^e)` to `s`.
    pub(crate) rounds: Vec<Matrix>,
    /// From the mask polynomials to all mask rows of a GGSW ciphertext at once.
    pub(crate) products: Matrix,
    pub(crate) public_key: Vec<u64>,
}

impl EvaluationKey {
    /// Reads what [`crate::client::evaluation_key`] made. Its length is checked first; every key of the right length is
    /// well-formed.
    ///
    /// # Errors
    /// [`FheError::NotA`], [`FheError::UnknownParams`], [`FheError::WrongLength`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FheError> {
        let (id, seed, bodies) = wire::read_key(bytes)?;
        let params = id.params();
        let shape = params.shape;
        let (k, half) = (shape.k, shape.half());
        let mut source = Source {
            params,
            reader: Reader::new(seed, bodies, k, shape.n),
            ring: Ring::new(shape.n),
            ciphertext: vec![0; shape.len()],
        };
        let mut rounds = Vec::with_capacity(params.fold as usize);
        for _ in 0..params.fold {
            let mut matrix = Matrix::zeros(params.switch, k, k + 1, half);
            for input in 0..k {
                for level in 1..=params.switch.levels {
                    source.next(&mut [matrix.row_mut(input, level)]);
                }
            }
            rounds.push(matrix);
        }
        // Row i of a GGSW ciphertext takes s_i s_j from input j, and row j the same from input i.
        let columns = (k + 1) * half;
        let mut products = Matrix::zeros(params.switch, k, k * (k + 1), half);
        for left in 0..k {
            for right in left..k {
                for level in 1..=params.switch.levels {
                    let mut row = vec![Default::default(); columns];
                    source.next(&mut [&mut row]);
                    products.row_mut(right, level)[left * columns..(left + 1) * columns]
                        .copy_from_slice(&row);
                    products.row_mut(left, level)[right * columns..(right + 1) * columns]
                        .copy_from_slice(&row);
                }
            }
        }
        source.reader.next(params.width, &mut source.ciphertext);
        Ok(Self {
            id,
            rounds,
            products,
            public_key: source.ciphertext,
        })
    }

    /// The parameter set that it is for.
    pub fn params_id(&self) -> ParamsId {
        self.id
    }

    /// Bytes in memory.
    pub fn memory_bytes(&self) -> usize {
        let matrices = self.rounds.iter().map(Matrix::bytes).sum::<usize>() + self.products.bytes();
        matrices + size_of_val::<[u64]>(&self.public_key)
    }
}

/// Ciphertexts off the wire, into the Fourier domain.
struct Source<'a> {
    params: &'static Params,
    reader: Reader<'a>,
    ring: Ring,
    ciphertext: Vec<u64>,
}

impl Source<'_> {
    fn next(&mut self, out: &mut [&mut [tfhe::core_crypto::fft_impl::fft64::c64]]) {
        self.reader.next(self.params.width, &mut self.ciphertext);
        for out in out {
            self.ring
                .forward_torus_all(&self.ciphertext, out, &mut self.ring.scratch());
        }
    }
}
