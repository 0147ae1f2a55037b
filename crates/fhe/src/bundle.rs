//! The client bundle: what a client needs to ask a model, and nothing of its trees or weights.
//!
//! It holds names, bin edges or ranges, the parameter set, and how scores are coded. Edges that were learnt on the training
//! set tell about the data's quantiles; edges that are the model's own thresholds (an imported model) tell which values it
//! splits on, though neither where nor to what end. [`Bundle::edges_are_thresholds`] says which.

use serde::{Deserialize, Serialize};

use crate::{
    FheError,
    model::{Link, MAX_BIN_BITS, MAX_FEATURES, MAX_OUTPUTS, Missing, bin},
    params::{ParamsId, PlanKind},
};

/// The stored format that this code reads and writes.
const FORMAT: u32 = 1;
/// Largest bundle.
const MAX_BYTES: usize = 64 << 20;

/// SHA-256 of the compiled model: ties queries and replies to it.
pub type ModelDigest = [u8; 32];

/// What a client needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    format: u32,
    params: u16,
    #[serde(with = "hex_digest")]
    pub(crate) model: ModelDigest,
    pub(crate) features: Vec<Feature>,
    pub(crate) classes: Vec<String>,
    pub(crate) link: Link,
    pub(crate) scores: Vec<ScoreCoding>,
    edges_are_thresholds: bool,
}

/// A feature and how its values become integers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    /// Its column.
    pub name: String,
    /// How its values become integers: one way, or two that differ in where missing values go.
    pub codings: Vec<FeatureCoding>,
}

/// How a feature's values become integers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FeatureCoding {
    /// The count of edges that are not above the value.
    Bins {
        /// Ascending.
        edges: Vec<f64>,
        /// Round to single precision first.
        single_precision: bool,
        /// Where a missing value goes.
        missing: Missing,
    },
    /// `round((value - middle) / step)`, at most `limit` either way.
    Steps {
        /// Coded as zero.
        middle: f64,
        /// Above zero.
        step: f64,
        /// Largest code.
        limit: i32,
        /// Stands in for a missing value.
        missing: f64,
    },
}

/// How a score lies on the torus: `score = offset + unit * integer`.
///
/// Where noise leaves fewer integers to tell apart than a model's scores have, a score is in two ciphertexts. The second has
/// the integer at `integer * 2^64 / digit`, around the torus as often as it takes, and tells its remainder exactly; the first
/// has it at `integer * 2^64 / levels`, and tells which of the integers with this remainder it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreCoding {
    /// Score of the integer 0.
    pub offset: f64,
    /// Score between neighbouring integers: what is announced is half of it.
    pub unit: f64,
    /// Integers that are told apart.
    pub levels: u32,
    /// Integers that one ciphertext tells apart; as many as `levels` when a score is in one.
    pub digit: u32,
}

impl ScoreCoding {
    /// Torus units between neighbouring integers in the ciphertext that tells them apart.
    pub(crate) fn delta(self) -> u64 {
        u64::MAX / u64::from(self.digit)
    }

    /// The same in each of the score's ciphertexts.
    pub(crate) fn deltas(self) -> Vec<u64> {
        if self.digit == self.levels {
            vec![self.delta()]
        } else {
            vec![u64::MAX / u64::from(self.levels), self.delta()]
        }
    }

    /// The largest integer. In two ciphertexts, noise of the first must not carry it around the torus.
    pub(crate) fn limit(self) -> i64 {
        let margin = if self.digit == self.levels {
            0
        } else {
            self.levels / self.digit + 1
        };
        (i64::from(self.levels) - 1) / 2 - i64::from(margin)
    }

    /// The integer that the phases of the score's ciphertexts are nearest to.
    pub(crate) fn decode(self, phases: &[u64]) -> i64 {
        let nearest = |phase: u64, delta: u64| {
            let (phase, delta) = (i128::from(phase as i64), i128::from(delta));
            (phase + delta / 2).div_euclid(delta) as i64
        };
        match *phases {
            [coarse, fine] => {
                let digit = i64::from(self.digit);
                let near = nearest(coarse, u64::MAX / u64::from(self.levels));
                let ahead = (nearest(fine, self.delta()) - near).rem_euclid(digit);
                near + if 2 * ahead < digit { ahead } else { ahead - digit }
            }
            _ => phases.first().map_or(0, |phase| nearest(*phase, self.delta())),
        }
    }

    fn check(self) -> bool {
        let (levels, digit) = (u64::from(self.levels), u64::from(self.digit));
        self.offset.is_finite()
            && self.unit.is_finite()
            && self.unit > 0.0
            && digit >= 3
            && (levels == digit || (digit < levels && levels < digit * digit))
    }

    /// The score of an integer.
    pub fn score(self, integer: i64) -> f64 {
        self.offset + self.unit * integer as f64
    }
}

/// A row in integers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantisedRow {
    /// In the order of the features and their codings.
    pub values: Vec<i32>,
    /// Features whose value lay outside of the known range and was clamped.
    pub clamped: Vec<usize>,
}

impl FeatureCoding {
    /// Distinct codes.
    pub(crate) fn bins(&self) -> usize {
        match self {
            Self::Bins { edges, .. } => edges.len() + 1,
            Self::Steps { limit, .. } => 2 * *limit as usize + 1,
        }
    }

    /// The least code.
    pub(crate) fn least(&self) -> i32 {
        match self {
            Self::Bins { .. } => 0,
            Self::Steps { limit, .. } => -limit,
        }
    }

    fn code(&self, index: usize, value: f64) -> Result<(i32, bool), FheError> {
        match self {
            Self::Bins {
                edges,
                single_precision,
                missing,
            } => {
                let bin = bin(edges, *single_precision, *missing, index, value)?;
                Ok((bin as i32, false))
            }
            Self::Steps {
                middle,
                step,
                limit,
                missing,
            } => {
                let value = if value.is_nan() { *missing } else { value };
                let code = ((value - middle) / step).round();
                let limit = f64::from(*limit);
                Ok((code.clamp(-limit, limit) as i32, code.abs() > limit))
            }
        }
    }

    fn check(&self) -> bool {
        match self {
            Self::Bins { edges, missing, .. } => {
                edges.len() < 1 << MAX_BIN_BITS
                    && edges.iter().all(|edge| edge.is_finite())
                    && edges.is_sorted_by(|a, b| a < b)
                    && !matches!(missing, Missing::As(value) if !value.is_finite())
            }
            Self::Steps {
                middle,
                step,
                limit,
                missing,
            } => {
                middle.is_finite()
                    && missing.is_finite()
                    && step.is_finite()
                    && *step > 0.0
                    && (1..1 << 20).contains(limit)
            }
        }
    }
}

impl Bundle {
    pub(crate) fn new(
        params: ParamsId,
        features: Vec<Feature>,
        classes: Vec<String>,
        link: Link,
        scores: Vec<ScoreCoding>,
        edges_are_thresholds: bool,
    ) -> Self {
        Self {
            format: FORMAT,
            params: params as u16,
            model: ModelDigest::default(),
            features,
            classes,
            link,
            scores,
            edges_are_thresholds,
        }
    }

    /// The parameter set of the model's plan.
    pub fn params_id(&self) -> ParamsId {
        ParamsId::from_number(self.params).expect("a bundle is checked when it is read")
    }

    /// Ties queries and replies to the compiled model.
    pub fn model_digest(&self) -> &ModelDigest {
        &self.model
    }

    /// Ciphertexts of a reply.
    pub(crate) fn ciphertexts(&self) -> usize {
        self.scores.iter().map(|score| score.deltas().len()).sum()
    }

    /// Its features, in order.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// All codings, feature by feature: a query holds a code for each.
    pub(crate) fn codings(&self) -> impl Iterator<Item = &FeatureCoding> {
        self.features.iter().flat_map(|feature| &feature.codings)
    }

    /// Its classes, in order; empty for regression.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// How its scores are coded, by output.
    pub fn scores(&self) -> &[ScoreCoding] {
        &self.scores
    }

    /// Whether the bin edges are the model's own thresholds.
    pub fn edges_are_thresholds(&self) -> bool {
        self.edges_are_thresholds
    }

    /// A row in integers. NaN is a missing value.
    ///
    /// # Errors
    /// [`FheError::WrongWidth`]; [`FheError::NotFinite`] for infinities; [`FheError::Missing`] where the model refuses missing values.
    pub fn quantise(&self, row: &[f64]) -> Result<QuantisedRow, FheError> {
        if row.len() != self.features.len() {
            return Err(FheError::WrongWidth {
                expected: self.features.len(),
                found: row.len(),
            });
        }
        let mut quantised = QuantisedRow {
            values: Vec::with_capacity(row.len()),
            clamped: vec![],
        };
        for (index, (value, feature)) in row.iter().zip(&self.features).enumerate() {
            if value.is_infinite() {
                return Err(FheError::NotFinite { index });
            }
            let mut beyond = false;
            for coding in &feature.codings {
                let (code, clamped) = coding.code(index, *value)?;
                quantised.values.push(code);
                beyond |= clamped;
            }
            if beyond {
                quantised.clamped.push(index);
            }
        }
        Ok(quantised)
    }

    /// What integers mean.
    pub fn prediction(&self, integers: &[i64]) -> Prediction {
        let scores: Vec<f64> = self
            .scores
            .iter()
            .zip(integers)
            .map(|(coding, integer)| coding.score(*integer))
            .collect();
        let probabilities = self.link.probabilities(&scores);
        // The first of equals, as everywhere.
        let class = (0..probabilities.len()).reduce(|best, index| {
            if probabilities[index] > probabilities[best] {
                index
            } else {
                best
            }
        });
        Prediction {
            scores,
            probabilities,
            class,
        }
    }

    /// As JSON: it is exact for floats, and any language reads it.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a bundle has string keys only and serialises")
    }

    /// Reads a bundle, and checks all that encryption relies on.
    ///
    /// # Errors
    /// [`FheError::NotA`], [`FheError::UnknownParams`], [`FheError::BadModel`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FheError> {
        if bytes.len() > MAX_BYTES {
            return Err(FheError::NotA("a client bundle"));
        }
        let bundle: Self = serde_json::from_slice(bytes).map_err(|_| FheError::NotA("a client bundle"))?;
        let params = ParamsId::from_number(bundle.params)?.params();
        let coded = |coding: &FeatureCoding| {
            let fits = match (params.kind, coding) {
                (PlanKind::Linear, FeatureCoding::Steps { .. }) => true,
                (PlanKind::Pairs, FeatureCoding::Bins { .. }) => coding.bins() <= params.pair_bins(),
                (PlanKind::Paths, FeatureCoding::Bins { .. }) => true,
                (PlanKind::Neurons, FeatureCoding::Steps { .. }) => coding.bins() < 1 << MAX_BIN_BITS,
                _ => false,
            };
            fits && coding.check()
        };
        let classes = match bundle.link {
            Link::Identity => bundle.classes.is_empty() && bundle.scores.len() == 1,
            Link::Logistic => bundle.classes.len() == 2 && bundle.scores.len() == 1,
            Link::Softmax | Link::Average => bundle.classes.len() == bundle.scores.len(),
        };
        let good = bundle.format == FORMAT
            && (1..=MAX_FEATURES).contains(&bundle.features.len())
            && (1..=MAX_OUTPUTS).contains(&bundle.scores.len())
            && bundle
                .features
                .iter()
                .all(|feature| (1..=2).contains(&feature.codings.len()) && feature.codings.iter().all(coded))
            && bundle.scores.iter().all(|score| {
                // Replies and queries are made for all scores at once.
                let first = bundle.scores[0];
                score.check() && (score.levels, score.digit) == (first.levels, first.digit)
            })
            && classes;
        if good {
            Ok(bundle)
        } else {
            Err(FheError::BadModel(
                "the parts of the client bundle do not fit each other".into(),
            ))
        }
    }
}

/// A prediction, as it is told to people.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// By output, rounded to the announced precision.
    pub scores: Vec<f64>,
    /// By class; empty for regression.
    pub probabilities: Vec<f64>,
    /// The most probable class.
    pub class: Option<usize>,
}

mod hex_digest {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(digest: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(digest))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut digest = [0; 32];
        hex::decode_to_slice(&text, &mut digest).map_err(D::Error::custom)?;
        Ok(digest)
    }
}
