//! Networks with one hidden layer in integers.
//!
//! `relu(z) = z / 2 + |z| / 2`. The first half, over all units, is linear in the row, and exact. The second goes through a table
//! of a unit's own: its pre-activation in positions `-Q..Q` picks an entry of `|z| - Q / 2`, which has the one property that
//! a table in a polynomial must have, that half a turn changes the sign: `|z - Q| - Q / 2 = -(|z| - Q / 2)`. So all of the
//! `2 Q` positions serve, and a pre-activation beyond them would be reflected, not thrown across the range.
//!
//! A row is the bits of its features' codes. A unit turns by a number of positions for each set bit: weights need not be
//! integers in any other sense, and each bit has a rounding of its own.

use serde::Serialize;

use super::STEPS_OF_NETWORKS;
use crate::{FheError, bundle::ScoreCoding, model::Network, wire};

/// Most that rounding turns to positions may add to a pre-activation, as a share of its own deviation, for outputs to share
/// a polynomial.
const MOST_ROUNDING: f64 = 0.12;

/// A network in integers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct QuantisedNetwork {
    /// Coefficients of a table.
    pub(crate) n: usize,
    /// Outputs that share a table: a position is so many coefficients.
    pub(crate) pack: usize,
    pub(crate) units: Vec<Unit>,
    /// By output, then bit: added when the bit is set.
    pub(crate) linear: Vec<Vec<i64>>,
    /// By output.
    pub(crate) constant: Vec<i64>,
}

/// A hidden unit that is sometimes active and sometimes not; all others are linear, or nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Unit {
    /// Position when no bit is set.
    pub(crate) start: i64,
    /// By bit: positions that it turns by when it is set.
    pub(crate) turns: Vec<i64>,
    /// By group of `pack` outputs: `n` coefficients. Output `p` of a group at position `q >= 0` is coefficient `q pack + p`.
    pub(crate) tables: Vec<Vec<i64>>,
}

/// Bits of a feature's code.
pub(crate) fn bits_of_feature() -> usize {
    wire::bits(2 * STEPS_OF_NETWORKS as usize + 1)
}

impl QuantisedNetwork {
    /// The scores of a row of codes, from `-STEPS_OF_NETWORKS` to `STEPS_OF_NETWORKS`.
    pub(crate) fn scores(&self, row: &[i32], outputs: usize) -> Vec<i64> {
        let width = bits_of_feature();
        let bits: Vec<bool> = row
            .iter()
            .map(|code| (code + STEPS_OF_NETWORKS) as usize)
            .flat_map(|code| (0..width).map(move |bit| code >> bit & 1 == 1))
            .collect();
        let set = |values: &[i64]| {
            let set = values.iter().zip(&bits).filter(|(_, bit)| **bit);
            set.map(|(value, _)| value).sum::<i64>()
        };
        let mut scores: Vec<i64> = self
            .constant
            .iter()
            .zip(&self.linear)
            .map(|(constant, linear)| constant + set(linear))
            .collect();
        debug_assert_eq!(scores.len(), outputs);
        let half = (self.n / self.pack) as i64;
        for unit in &self.units {
            let position = (unit.start + set(&unit.turns)).rem_euclid(2 * half);
            let (sign, at) = if position < half {
                (1, position)
            } else {
                (-1, position - half)
            };
            for (scores, table) in scores.chunks_mut(self.pack).zip(&unit.tables) {
                let entries = &table[at as usize * self.pack..];
                for (score, entry) in scores.iter_mut().zip(entries) {
                    *score += sign * entry;
                }
            }
        }
        scores
    }
}

/// A unit's turns before the tables are known.
struct Turns {
    /// Index in the network.
    unit: usize,
    /// Positions to a pre-activation of 1.
    scale: f64,
    start: i64,
    turns: Vec<i64>,
    /// Half of the sum of what rounding adds or takes, at most.
    rounding: f64,
    /// Standard deviation of the rounding over that of the pre-activation.
    share: f64,
}

/// What a unit does within the ranges.
enum Kind {
    Turning(Turns),
    /// Always active.
    Linear(usize),
}

/// A network whose inputs are bits.
struct OnBits<'a> {
    network: &'a Network,
    /// By bit: feature, and what it adds to the feature's value.
    bits: Vec<(usize, f64)>,
    /// By unit: pre-activation when no bit is set.
    base: Vec<f64>,
}

impl<'a> OnBits<'a> {
    fn new(network: &'a Network) -> Self {
        let steps = super::steps(&network.ranges, STEPS_OF_NETWORKS);
        let bits = steps
            .iter()
            .enumerate()
            .flat_map(|(feature, (_, step))| {
                (0..bits_of_feature()).map(move |bit| (feature, step * (1u64 << bit) as f64))
            })
            .collect();
        let least: Vec<f64> = steps
            .iter()
            .map(|(middle, step)| middle - step * f64::from(STEPS_OF_NETWORKS))
            .collect();
        let base = network
            .hidden
            .iter()
            .zip(&network.hidden_bias)
            .map(|(weights, bias)| bias + weights.iter().zip(&least).map(|(w, x)| w * x).sum::<f64>())
            .collect();
        Self { network, bits, base }
    }

    fn weight(&self, unit: usize, bit: usize) -> f64 {
        let (feature, worth) = self.bits[bit];
        self.network.hidden[unit][feature] * worth
    }

    /// A unit in at most `half` positions either way; `None` when it is never active.
    fn unit(&self, unit: usize, half: f64) -> Option<Kind> {
        let weights: Vec<f64> = (0..self.bits.len()).map(|bit| self.weight(unit, bit)).collect();
        let (least, most) = extremes(self.base[unit], weights.iter().copied());
        if most <= 0.0 {
            return None;
        }
        if least >= 0.0 {
            return Some(Kind::Linear(unit));
        }
        let mut scale = half / most.max(-least);
        loop {
            let turns: Vec<f64> = weights.iter().map(|w| (w * scale).round()).collect();
            let errors = || turns.iter().zip(&weights).map(|(turn, w)| turn - w * scale);
            // Half of the bits are set, as far as anybody knows: the middle of the rounding goes to the start.
            let start = (self.base[unit] * scale - errors().sum::<f64>() / 2.0).round();
            let (least, most) = extremes(start, turns.iter().copied());
            if least < -half || most >= half {
                scale *= 0.998;
                continue;
            }
            // Deviations as if every bit were as often set as not.
            let squares =
                |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
            let noise = squares(&mut errors()).sqrt() / 2.0;
            let signal = squares(&mut weights.iter().map(|w| w * scale)).sqrt() / 2.0;
            return Some(Kind::Turning(Turns {
                unit,
                scale,
                start: start as i64,
                rounding: errors().map(f64::abs).sum::<f64>() / 2.0 + 0.5,
                share: noise / signal,
                turns: turns.iter().map(|turn| *turn as i64).collect(),
            }));
        }
    }
}

/// Least and largest sum of a start and any of the terms.
fn extremes(start: f64, terms: impl Iterator<Item = f64>) -> (f64, f64) {
    terms.fold((start, start), |(least, most), term| {
        (least + term.min(0.0), most + term.max(0.0))
    })
}

/// A network whose turns are chosen, and whose scores are not coded yet.
pub(crate) struct Draft<'a> {
    on_bits: OnBits<'a>,
    n: usize,
    pack: usize,
    turning: Vec<Turns>,
    linear: Vec<usize>,
}

impl<'a> Draft<'a> {
    /// With as many outputs to a table as leave the pre-activations their precision.
    pub(crate) fn new(network: &'a Network, n: usize) -> Self {
        let most = network.output.len().next_power_of_two().min(n / 64);
        let mut pack = most;
        loop {
            let draft = Self::packed(network, n, pack);
            let shares: f64 = draft.turning.iter().map(|turns| turns.share).sum();
            if pack == 1 || shares <= MOST_ROUNDING * draft.turning.len() as f64 {
                return draft;
            }
            pack /= 2;
        }
    }

    fn packed(network: &'a Network, n: usize, pack: usize) -> Self {
        let on_bits = OnBits::new(network);
        let half = (n / pack) as f64;
        let (mut turning, mut linear) = (vec![], vec![]);
        for unit in 0..network.hidden.len() {
            match on_bits.unit(unit, half) {
                Some(Kind::Turning(turns)) => turning.push(turns),
                Some(Kind::Linear(unit)) => linear.push(unit),
                None => {}
            }
        }
        Self {
            on_bits,
            n,
            pack,
            turning,
            linear,
        }
    }

    /// CMUX gates that each score's noise comes from, and products of the linear part.
    pub(crate) fn gates(&self) -> (usize, usize) {
        let turns = self.turning.iter().flat_map(|unit| &unit.turns);
        (turns.filter(|turn| **turn != 0).count(), self.on_bits.bits.len())
    }

    /// In integers, and how the scores are coded on so many levels. No row can reach beyond them.
    ///
    /// # Errors
    /// [`FheError::BadModel`] for scores of too wide a range.
    pub(crate) fn quantise(&self, levels: u32) -> Result<(QuantisedNetwork, Vec<ScoreCoding>), FheError> {
        let outputs = self.on_bits.network.output.len();
        let coded: Vec<Output> = (0..outputs)
            .map(|output| self.output(output, levels))
            .collect::<Result<_, _>>()?;
        let units = self.turning.iter().enumerate().map(|(at, turns)| Unit {
            start: turns.start,
            turns: turns.turns.clone(),
            tables: coded
                .chunks(self.pack)
                .map(|group| self.table(group.iter().map(|output| output.slopes[at])))
                .collect(),
        });
        let network = QuantisedNetwork {
            n: self.n,
            pack: self.pack,
            units: units.collect(),
            linear: coded.iter().map(|output| output.linear.clone()).collect(),
            constant: coded.iter().map(|output| output.constant).collect(),
        };
        Ok((network, coded.into_iter().map(|output| output.coding).collect()))
    }

    /// Interleaved tables of `|z| - Q / 2`, times these slopes.
    fn table(&self, slopes: impl Iterator<Item = f64>) -> Vec<i64> {
        let half = self.n / self.pack;
        let mut table = vec![0; self.n];
        for (place, slope) in slopes.enumerate() {
            for position in 0..half {
                table[position * self.pack + place] = entry(slope, half, position);
            }
        }
        table
    }

    /// One output: the finest unit with which all its scores fit.
    fn output(&self, output: usize, levels: u32) -> Result<Output, FheError> {
        let network = self.on_bits.network;
        let out = &network.output[output];
        let half = (self.n / self.pack) as f64;
        // The linear part: half of the units that turn, and the whole of those that are always active.
        let mut offset = network.output_bias[output];
        let mut exact = vec![0.0; self.on_bits.bits.len()];
        let parts = self.turning.iter().map(|turns| (turns.unit, 0.5));
        for (unit, share) in parts.chain(self.linear.iter().map(|unit| (*unit, 1.0))) {
            offset += share * out[unit] * self.on_bits.base[unit];
            for (bit, sum) in exact.iter_mut().enumerate() {
                *sum += share * out[unit] * self.on_bits.weight(unit, bit);
            }
        }
        let slopes: Vec<f64> = self
            .turning
            .iter()
            .map(|turns| out[turns.unit] / (2.0 * turns.scale))
            .collect();
        offset += slopes.iter().map(|slope| slope * half / 2.0).sum::<f64>();
        let coding = |unit: f64, offset: f64| ScoreCoding {
            offset,
            unit,
            levels,
            digit: levels,
        };
        let limit = coding(1.0, 0.0).limit();
        let (least, most) = self.bounds(&exact, &slopes);
        let mut unit = (most - least) / 2.0 / limit as f64;
        if limit < 1 || !unit.is_finite() || !offset.is_finite() {
            return Err(FheError::BadModel("its scores have too wide a range".into()));
        }
        if unit <= 0.0 {
            unit = 1.0;
        }
        loop {
            let scaled: Vec<f64> = slopes.iter().map(|slope| slope / unit).collect();
            let linear: Vec<f64> = exact.iter().map(|worth| (worth / unit).round()).collect();
            let (least, most) = self.bounds(&linear, &scaled);
            let rounding = self.turning.len() as f64 / 2.0;
            let middle = ((least + most) / 2.0).round();
            if (most - middle).max(middle - least) + rounding > limit as f64 {
                unit *= 1.002;
                continue;
            }
            let errors = linear
                .iter()
                .zip(&exact)
                .map(|(rounded, exact)| rounded * unit - exact);
            return Ok(Output {
                coding: coding(unit, offset + middle * unit - errors.sum::<f64>() / 2.0),
                linear: linear.iter().map(|worth| *worth as i64).collect(),
                slopes: scaled,
                constant: -middle as i64,
            });
        }
    }

    /// Least and largest sum of set bits and `slope (|z| - Q / 2)` of the units: as a linear function of the bits above, and
    /// one below. `|z|` lies below its chord and above the line with the chord's slope through zero (Zhang et al., "Efficient
    /// Neural Network Robustness Certification", NeurIPS 2018).
    fn bounds(&self, linear: &[f64], slopes: &[f64]) -> (f64, f64) {
        let half = (self.n / self.pack) as f64;
        let (mut below, mut above) = (linear.to_vec(), linear.to_vec());
        let (mut least, mut most) = (0.0, 0.0);
        for (turns, slope) in self.turning.iter().zip(slopes) {
            let start = turns.start as f64;
            let (low, high) = extremes(start, turns.turns.iter().map(|turn| *turn as f64));
            let chord = (high.abs() - low.abs()) / (high - low).max(1.0);
            let over = high.abs() - chord * high;
            let (upper, lower) = if *slope >= 0.0 { (over, 0.0) } else { (0.0, over) };
            most += slope * (chord * start + upper - half / 2.0);
            least += slope * (chord * start + lower - half / 2.0);
            for ((above, below), turn) in above.iter_mut().zip(&mut below).zip(&turns.turns) {
                *above += slope * chord * *turn as f64;
                *below += slope * chord * *turn as f64;
            }
        }
        let (least, _) = extremes(least, below.into_iter());
        let (_, most) = extremes(most, above.into_iter());
        (least, most)
    }

    /// By output: largest difference to the trained network's score, for rows within its ranges.
    pub(crate) fn error(&self, scores: &[ScoreCoding]) -> Vec<f64> {
        let network = self.on_bits.network;
        let steps = super::steps(&network.ranges, STEPS_OF_NETWORKS);
        let blur = |unit: usize| {
            let weights = network.hidden[unit].iter().zip(&steps);
            weights.map(|(w, (_, step))| (w * step).abs() / 2.0).sum::<f64>()
        };
        let of_output = |(out, coding): (&Vec<f64>, &ScoreCoding)| {
            let codes: f64 = out.iter().enumerate().map(|(unit, v)| v.abs() * blur(unit)).sum();
            let turns: f64 = self
                .turning
                .iter()
                .map(|turns| out[turns.unit].abs() * turns.rounding / (2.0 * turns.scale))
                .sum();
            let rounded = self.turning.len() + self.on_bits.bits.len();
            codes + turns + rounded as f64 * coding.unit / 2.0
        };
        network.output.iter().zip(scores).map(of_output).collect()
    }
}

/// `slope (q - Q / 2)` at a position from 0: the rest of the table follows by its sign.
fn entry(slope: f64, half: usize, position: usize) -> i64 {
    (slope * (position as f64 - half as f64 / 2.0)).round() as i64
}

/// A score that is coded.
struct Output {
    coding: ScoreCoding,
    linear: Vec<i64>,
    /// By turning unit, in units of the score to a position.
    slopes: Vec<f64>,
    constant: i64,
}
