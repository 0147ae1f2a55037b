//! Counts distinct values by their hashes: exactly while they are few, then by HyperLogLog.

/// Values that are counted exactly.
const EXACT: usize = 256;
/// log2 of the registers of an estimate; the standard error is 1.04 / sqrt(2^11) = 2.3 %.
const BITS: u32 = 11;
/// Highest value of a register.
const MOST_RANK: usize = (64 - BITS) as usize + 1;

/// Distinct hashes seen so far.
#[derive(Debug)]
pub(super) enum Distinct {
    /// An open hash table; 0 is a free slot, and the capacity is a power of two.
    Exact { slots: Vec<u64>, used: usize },
    /// Registers of a HyperLogLog (Flajolet, Fusy, Gandouet, Meunier, 2007).
    Estimate(Box<[u8; 1 << BITS]>),
}

impl Distinct {
    pub(super) fn new() -> Self {
        Self::Exact {
            slots: vec![0; 16],
            used: 0,
        }
    }

    #[inline]
    pub(super) fn add(&mut self, hash: u64) {
        match self {
            Self::Estimate(registers) => observe(registers, hash),
            Self::Exact { slots, used } => {
                if insert(slots, hash.max(1)) {
                    *used += 1;
                    if *used * 2 > slots.len() {
                        self.grow();
                    }
                }
            }
        }
    }

    fn grow(&mut self) {
        let Self::Exact { slots, used } = self else { return };
        let hashes = slots.iter().copied().filter(|hash| *hash != 0);
        if *used > EXACT {
            let mut registers = Box::new([0; 1 << BITS]);
            hashes.for_each(|hash| observe(&mut registers, hash));
            *self = Self::Estimate(registers);
        } else {
            let mut larger = vec![0; slots.len() * 2];
            for hash in hashes {
                insert(&mut larger, hash);
            }
            *slots = larger;
        }
    }

    /// How many, and whether that is exact.
    pub(super) fn count(&self) -> (u64, bool) {
        match self {
            Self::Exact { used, .. } => (*used as u64, true),
            Self::Estimate(registers) => (estimate(registers), false),
        }
    }
}

/// Whether the hash is new.
#[inline]
fn insert(slots: &mut [u64], hash: u64) -> bool {
    let mask = slots.len() - 1;
    let mut at = hash as usize & mask;
    loop {
        if slots[at] == hash {
            return false;
        }
        if slots[at] == 0 {
            slots[at] = hash;
            return true;
        }
        at = (at + 1) & mask;
    }
}

#[inline]
fn observe(registers: &mut [u8; 1 << BITS], hash: u64) {
    let register = &mut registers[(hash >> (64 - BITS)) as usize];
    let rank = ((hash << BITS) | (1 << (BITS - 1))).leading_zeros() as u8 + 1;
    if rank > *register {
        *register = rank;
    }
}

/// The estimator of Ertl ("New cardinality estimation algorithms for HyperLogLog sketches", 2017, algorithm 6): without
/// the bias and the thresholds of the original.
fn estimate(registers: &[u8; 1 << BITS]) -> u64 {
    let m = registers.len() as f64;
    let mut counts = [0_u32; MOST_RANK + 1];
    for rank in registers {
        counts[usize::from(*rank)] += 1;
    }
    let mut z = m * tau(1.0 - f64::from(counts[MOST_RANK]) / m);
    for count in counts[1..MOST_RANK].iter().rev() {
        z = 0.5 * (z + f64::from(*count));
    }
    z += m * sigma(f64::from(counts[0]) / m);
    let alpha = 0.5 / std::f64::consts::LN_2;
    (alpha * m * m / z).round() as u64
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}
