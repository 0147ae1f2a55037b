//! Parameter sets: everything numeric that both sides must agree on, chosen by id out of this file and never by a peer.
//!
//! All sets share one security level: GLWE over `Z_{2^64}[X]/(X^N + 1)` with dimension `k`, `k N = 2048`, uniform binary
//! secrets and `TUniform(17)` noise, which lies on tfhe's own curve for 132 bits
//! (`core_crypto::commons::noise_formulas::secure_noise`; a test asserts it for each set). Evaluation keys and ciphertexts
//! encrypt under the same secret, as all of TFHE does.

use crate::{FheError, gadget::Gadget, ring::Shape};

/// log2 of the bound of the noise of every fresh ciphertext, in units of 2^-64 of the torus.
pub(crate) const NOISE_BOUND_LOG2: u32 = 17;

/// A parameter set. The number is on the wire and never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum ParamsId {
    /// Plaintext weights times one packed row.
    Linear = 1,
    /// Monomial queries with up to 16 bins a feature.
    Pairs16 = 2,
    /// Monomial queries with up to 22 bins a feature.
    Pairs22 = 3,
    /// Monomial queries with up to 32 bins a feature.
    Pairs32 = 4,
    /// Monomial queries with up to 45 bins a feature.
    Pairs45 = 5,
    /// Packed bits, expanded by the server, and decision diagrams over them.
    Paths = 6,
    /// Packed bits, expanded by the server, and tables that they turn.
    Neurons = 7,
}

/// What kind of evaluation a parameter set is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlanKind {
    /// Inner products with plaintext weights.
    Linear,
    /// One external product for each feature, whatever the number of trees.
    Pairs,
    /// CMUX decision diagrams.
    Paths,
    /// Tables of hidden units, turned by the bits of a row.
    Neurons,
}

/// A parameter set in numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Params {
    /// Its name on the wire.
    pub id: ParamsId,
    /// What it is for.
    pub kind: PlanKind,
    pub(crate) shape: Shape,
    /// Decomposition of GGSW ciphertexts.
    pub(crate) ggsw: Gadget,
    /// Decomposition of evaluation keys; none for plans without.
    pub(crate) switch: Gadget,
    /// log2 of the bits that one packed ciphertext carries.
    pub(crate) fold: u32,
    /// Bytes kept of each coefficient of a GGSW row or packed ciphertext: what is dropped lies below the noise.
    pub(crate) width: u8,
    /// The same for ciphertexts of a query that are only ever multiplied by plaintext tables, or that hold packed bits.
    pub(crate) query_width: u8,
}

const NONE: Gadget = Gadget {
    base_log: 0,
    levels: 0,
};

const fn pairs(id: ParamsId, k: usize, n: usize) -> Params {
    Params {
        id,
        kind: PlanKind::Pairs,
        shape: Shape { k, n },
        ggsw: Gadget {
            base_log: 23,
            levels: 1,
        },
        switch: NONE,
        fold: 0,
        width: 6,
        query_width: 5,
    }
}

/// Every set there is.
pub const ALL: [Params; 7] = [
    Params {
        id: ParamsId::Linear,
        kind: PlanKind::Linear,
        shape: Shape { k: 1, n: 2048 },
        ggsw: NONE,
        switch: NONE,
        fold: 0,
        width: 6,
        query_width: 6,
    },
    pairs(ParamsId::Pairs16, 8, 256),
    pairs(ParamsId::Pairs22, 4, 512),
    pairs(ParamsId::Pairs32, 2, 1024),
    pairs(ParamsId::Pairs45, 1, 2048),
    Params {
        id: ParamsId::Paths,
        kind: PlanKind::Paths,
        shape: Shape { k: 2, n: 1024 },
        ggsw: Gadget {
            base_log: 6,
            levels: 4,
        },
        switch: Gadget {
            base_log: 6,
            levels: 7,
        },
        fold: 5,
        width: 6,
        query_width: 5,
    },
    // Thousands of gates add up in one score: finer key switches than `paths` need, and more bits to a ciphertext, as
    // networks have few.
    Params {
        id: ParamsId::Neurons,
        kind: PlanKind::Neurons,
        shape: Shape { k: 2, n: 1024 },
        ggsw: Gadget {
            base_log: 6,
            levels: 4,
        },
        switch: Gadget {
            base_log: 4,
            levels: 11,
        },
        fold: 6,
        width: 6,
        query_width: 5,
    },
];

impl ParamsId {
    /// The set in numbers.
    pub fn params(self) -> &'static Params {
        ALL.iter()
            .find(|params| params.id == self)
            .expect("every id has a set, as a test asserts")
    }

    /// # Errors
    /// [`FheError::UnknownParams`]
    pub fn from_number(number: u16) -> Result<Self, FheError> {
        ALL.iter()
            .map(|params| params.id)
            .find(|id| *id as u16 == number)
            .ok_or(FheError::UnknownParams(number))
    }

    /// The set of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        ALL.iter().map(|params| params.id).find(|id| id.name() == name)
    }

    /// Its name, which is unique.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear-n2048",
            Self::Pairs16 => "pairs-n256-k8",
            Self::Pairs22 => "pairs-n512-k4",
            Self::Pairs32 => "pairs-n1024-k2",
            Self::Pairs45 => "pairs-n2048",
            Self::Paths => "paths-n1024-k2",
            Self::Neurons => "neurons-n1024-k2",
        }
    }
}

impl PlanKind {
    /// Every plan there is.
    pub const ALL: [Self; 4] = [Self::Linear, Self::Pairs, Self::Paths, Self::Neurons];

    /// The plan of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its name, which is unique.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Pairs => "pairs",
            Self::Paths => "paths",
            Self::Neurons => "neurons",
        }
    }
}

impl Params {
    /// Most bins that a feature may have in the `pairs` plan: positions `a + B b` for two features below B must fit below N.
    pub(crate) fn pair_bins(&self) -> usize {
        self.shape.n.isqrt()
    }
}

#[cfg(test)]
mod tests {
    use tfhe::core_crypto::{
        commons::noise_formulas::secure_noise::minimal_glwe_variance_for_132_bits_security_tuniform,
        prelude::{GlweDimension, PolynomialSize},
    };

    use super::*;

    /// Variance of `TUniform(b)` (its definition in tfhe): (2^(2b+1) + 1) / 6, here in units of the torus.
    fn variance() -> f64 {
        (f64::from(2 * NOISE_BOUND_LOG2 + 1).exp2() + 1.0) / 6.0 * (-128.0f64).exp2()
    }

    #[test]
    fn every_set_lies_on_or_above_the_curve_for_132_bits() {
        for params in ALL {
            let least = minimal_glwe_variance_for_132_bits_security_tuniform(
                GlweDimension(params.shape.k),
                PolynomialSize(params.shape.n),
                64f64.exp2(),
            );
            // The curve's formula is fitted through tfhe's own sets: it meets TUniform(17) but for rounding.
            let least = least.0 * (1.0 - 1e-6);
            assert!(
                variance() >= least,
                "{}: {} < {least}",
                params.id.name(),
                variance()
            );
            // One bit less of noise would not do: the test can fail.
            assert!(variance() / 4.0 < least, "{}", params.id.name());
        }
    }

    #[test]
    fn ids_and_numbers_agree() {
        for params in ALL {
            assert_eq!(ParamsId::from_number(params.id as u16).unwrap(), params.id);
            assert_eq!(params.id.params().id, params.id);
            assert_eq!(ParamsId::from_name(params.id.name()), Some(params.id));
            assert_eq!(PlanKind::from_name(params.kind.name()), Some(params.kind));
        }
        assert!(ParamsId::from_number(0).is_err());
        assert!(ParamsId::from_number(999).is_err());
    }
}
