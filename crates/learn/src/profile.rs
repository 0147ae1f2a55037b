//! What a table holds, column by column, in one pass and bounded memory.

mod distinct;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use self::distinct::Distinct;
use crate::csv::{CsvError, Row, RowSink, hash, is_missing, number};

/// What a column holds.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ColumnKind {
    /// Whole numbers of at most 18 digits.
    Integer,
    /// Finite numbers, some not whole, or with an exponent.
    Float,
    /// `true` and `false`, in any case.
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
    /// Mean of a numeric column, unless its sum overflows.
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
        Profile {
            rows: self.rows,
            columns: self.columns.into_iter().map(Column::finish).collect(),
        }
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
            // Once text was seen, nothing makes a column numeric again.
            if column.others == 0
                && let Some(short) = row.short(index)
                && let Some((number, whole)) = short.number()
            {
                column.distinct.add(short.hash());
                column.number(number, whole);
            } else {
                column.other(row.cell(index).unwrap_or_default().trim_ascii());
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Column {
    name: String,
    missing: u64,
    /// Numbers seen before anything else, and how many of them are whole.
    numbers: u64,
    integers: u64,
    /// Other values, and how many of them are booleans.
    others: u64,
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
            numbers: 0,
            integers: 0,
            others: 0,
            booleans: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            sum: 0.0,
            distinct: Distinct::new(),
        }
    }

    #[inline]
    fn number(&mut self, number: f64, whole: bool) {
        self.numbers += 1;
        self.integers += u64::from(whole);
        self.min = if number < self.min { number } else { self.min };
        self.max = if number > self.max { number } else { self.max };
        self.sum += number;
    }

    /// A cell that is no short number.
    #[inline(never)]
    fn other(&mut self, cell: &[u8]) {
        if is_missing(cell) {
            self.missing += 1;
            return;
        }
        self.distinct.add(hash(cell));
        if self.others == 0
            && let Some(number) = number(cell)
        {
            self.number(number, is_integer(cell));
            return;
        }
        if self.booleans == self.others
            && (cell.eq_ignore_ascii_case(b"true") || cell.eq_ignore_ascii_case(b"false"))
        {
            self.booleans += 1;
        }
        self.others += 1;
    }

    fn finish(self) -> ColumnProfile {
        let kind = match (self.numbers, self.others) {
            (0, 0) => ColumnKind::Empty,
            (numbers, 0) if numbers == self.integers => ColumnKind::Integer,
            (_, 0) => ColumnKind::Float,
            (0, others) if others == self.booleans => ColumnKind::Boolean,
            _ => ColumnKind::Text,
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
            mean: numeric
                .then(|| self.sum / self.numbers as f64)
                .filter(|mean| mean.is_finite()),
        }
    }
}

/// Whole and small enough that integer types hold it.
fn is_integer(cell: &[u8]) -> bool {
    let digits = cell
        .strip_prefix(b"-")
        .or_else(|| cell.strip_prefix(b"+"))
        .unwrap_or(cell);
    !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit)
}
