//! What a table holds, column by column, in one pass and bounded memory.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::csv::{CsvError, Row, RowSink, is_missing};

/// Distinct values that a column keeps count of exactly.
const EXACT_DISTINCT: usize = 256;
/// log2 of the registers of an estimate; the standard error is 1.04 / sqrt(2^11) = 2.3 %.
const HLL_BITS: u32 = 11;

/// What a column holds.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ColumnKind {
    /// Whole numbers.
    Integer,
    /// Numbers.
    Float,
    /// `true` and `false`.
    Boolean,
    /// Anything else.
    Text,
    /// No value at all.
    Empty,
}

impl ColumnKind {
    /// The name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Boolean => "boolean",
            Self::Text => "text",
            Self::Empty => "empty",
        }
    }
}

/// Profile of a table.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Profile {
    /// Data rows.
    pub rows: u64,
    /// In file order.
    pub columns: Vec<ColumnProfile>,
}

/// Profile of a column.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ColumnProfile {
    /// From the header.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
    /// Cells without a value (see [`is_missing`]).
    pub missing: u64,
    /// Distinct values, compared as written.
    pub distinct: u64,
    /// False when `distinct` is an estimate (HyperLogLog, standard error 2.3 %).
    pub distinct_exact: bool,
    /// Smallest value of a numeric column.
    pub min: Option<f64>,
    /// Largest value of a numeric column.
    pub max: Option<f64>,
    /// Mean of a numeric column.
    pub mean: Option<f64>,
}

/// Builds a [`Profile`] from rows.
#[derive(Debug, Default)]
pub struct Profiler {
    rows: u64,
    columns: Vec<Column>,
}

impl Profiler {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Data rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The profile of everything seen.
    pub fn finish(self) -> Profile {
        Profile { rows: self.rows, columns: self.columns.into_iter().map(Column::finish).collect() }
    }
}

impl RowSink for Profiler {
    fn header(&mut self, names: &[String]) -> Result<(), CsvError> {
        self.columns = names.iter().map(|name| Column::new(name.clone())).collect();
        Ok(())
    }

    fn row(&mut self, row: &Row<'_>) -> Result<(), CsvError> {
        self.rows += 1;
        for (index, column) in self.columns.iter_mut().enumerate() {
            column.add(row.cell(index).unwrap_or_default());
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Column {
    name: String,
    missing: u64,
    values: u64,
    /// Values that are numbers, whole numbers, booleans.
    numbers: u64,
    integers: u64,
    booleans: u64,
    min: f64,
    max: f64,
    sum: f64,
    distinct: Distinct,
}

impl Column {
    fn new(name: String) -> Self {
        Self {
            name,
            missing: 0,
            values: 0,
            numbers: 0,
            integers: 0,
            booleans: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            sum: 0.0,
            distinct: Distinct::Exact(HashSet::default()),
        }
    }

    fn add(&mut self, cell: &[u8]) {
        let cell = cell.trim_ascii();
        if is_missing(cell) {
            self.missing += 1;
            return;
        }
        self.values += 1;
        self.distinct.add(hash(cell));
        // Once text was seen, nothing makes the column numeric again.
        if self.numbers + 1 == self.values
            && let Some(number) = number(cell)
        {
            self.numbers += 1;
            self.min = self.min.min(number);
            self.max = self.max.max(number);
            self.sum += number;
            self.integers += u64::from(is_integer(cell));
        } else if self.booleans + 1 == self.values
            && (cell.eq_ignore_ascii_case(b"true") || cell.eq_ignore_ascii_case(b"false"))
        {
            self.booleans += 1;
        }
    }

    fn finish(self) -> ColumnProfile {
        let kind = if self.values == 0 {
            ColumnKind::Empty
        } else if self.integers == self.values {
            ColumnKind::Integer
        } else if self.numbers == self.values {
            ColumnKind::Float
        } else if self.booleans == self.values {
            ColumnKind::Boolean
        } else {
            ColumnKind::Text
        };
        let numeric = matches!(kind, ColumnKind::Integer | ColumnKind::Float);
        let (distinct, distinct_exact) = self.distinct.count();
        ColumnProfile {
            name: self.name,
            kind,
            missing: self.missing,
            distinct,
            distinct_exact,
            min: numeric.then_some(self.min),
            max: numeric.then_some(self.max),
            mean: numeric.then(|| self.sum / self.values as f64),
        }
    }
}

/// A finite number, as a column may hold.
pub(crate) fn number(cell: &[u8]) -> Option<f64> {
    fast_float2::parse::<f64, _>(cell).ok().filter(|number| number.is_finite())
}

fn is_integer(cell: &[u8]) -> bool {
    let digits = cell.strip_prefix(b"-").or_else(|| cell.strip_prefix(b"+")).unwrap_or(cell);
    !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit)
}

/// Counts distinct values by their hashes: exactly while they are few, then by HyperLogLog (Flajolet et al. 2007).
#[derive(Debug)]
enum Distinct {
    Exact(HashSet<u64>),
    Estimate(Box<[u8]>),
}

impl Distinct {
    fn add(&mut self, hash: u64) {
        match self {
            Self::Exact(seen) => {
                seen.insert(hash);
                if seen.len() > EXACT_DISTINCT {
                    let mut registers = vec![0; 1 << HLL_BITS].into_boxed_slice();
                    for hash in seen.drain() {
                        observe(&mut registers, hash);
                    }
                    *self = Self::Estimate(registers);
                }
            }
            Self::Estimate(registers) => observe(registers, hash),
        }
    }

    fn count(&self) -> (u64, bool) {
        match self {
            Self::Exact(seen) => (seen.len() as u64, true),
            Self::Estimate(registers) => (estimate(registers), false),
        }
    }
}

fn observe(registers: &mut [u8], hash: u64) {
    let register = (hash >> (64 - HLL_BITS)) as usize;
    let rank = ((hash << HLL_BITS) | (1 << (HLL_BITS - 1))).leading_zeros() as u8 + 1;
    if let Some(register) = registers.get_mut(register) {
        *register = rank.max(*register);
    }
}

fn estimate(registers: &[u8]) -> u64 {
    let m = registers.len() as f64;
    let sum: f64 = registers.iter().map(|rank| 0.5_f64.powi(i32::from(*rank))).sum();
    let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
    let zeros = registers.iter().filter(|rank| **rank == 0).count();
    // Small-range correction: linear counting.
    let corrected = if raw <= 2.5 * m && zeros > 0 { m * (m / zeros as f64).ln() } else { raw };
    corrected.round() as u64
}

/// A quick hash with well-mixed high bits: multiply and fold words, then the finaliser of MurmurHash3.
fn hash(bytes: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
    let (words, rest) = bytes.as_chunks::<8>();
    let mut state = bytes.len() as u64;
    for word in words {
        state = (state ^ u64::from_le_bytes(*word)).wrapping_mul(MULTIPLIER).rotate_left(29);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    state = (state ^ u64::from_le_bytes(last)).wrapping_mul(MULTIPLIER);
    state = (state ^ (state >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    state = (state ^ (state >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    state ^ (state >> 33)
}
