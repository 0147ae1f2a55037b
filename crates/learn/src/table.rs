//! A table in memory, column by column.

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;

use crate::csv::{CsvError, Row, RowSink, is_missing, number};

/// Stands for a missing value among the codes of a text column.
pub const MISSING_CODE: u32 = u32::MAX;

/// What a text cell may cost beyond its bytes: a dictionary entry with its allocation, and its index while it is built.
const TEXT_OVERHEAD: usize = 64;

/// A column: numbers, or text by code.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Every value is a number; NaN where it is missing.
    Numeric(Vec<f64>),
    /// Some value is not a number.
    Text {
        /// Index into `dictionary` by row, or [`MISSING_CODE`].
        codes: Vec<u32>,
        /// The distinct values, in order of appearance.
        dictionary: Vec<String>,
    },
}

/// A table cannot be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The rows do not fit in the memory that they may use.
    #[error("the table does not fit in {limit_bytes} bytes of memory; use fewer rows or columns")]
    TooLarge {
        /// Most bytes.
        limit_bytes: usize,
    },
}

/// A table.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    rows: usize,
    names: Vec<String>,
    columns: Vec<Column>,
}

impl Table {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Names of the columns, in file order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The columns, in file order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        let index = self.names.iter().position(|column| column == name)?;
        self.columns.get(index)
    }
}

/// Keeps the rows of a CSV, up to a cap on memory.
///
/// Past the cap, reading ends with [`CsvError::OutOfRoom`], the memory is given back, and [`TableBuilder::finish`]
/// answers [`TableError::TooLarge`].
#[derive(Debug)]
pub struct TableBuilder {
    limit: usize,
    used: usize,
    rows: usize,
    names: Vec<String>,
    columns: Vec<Cells>,
}

/// The cells of a column, one after the other: whether it is numeric is known only at the end.
#[derive(Debug, Default)]
struct Cells {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    is_text: bool,
}

impl TableBuilder {
    /// A table of at most about `limit_bytes` of memory, while it is built and after.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit: limit_bytes,
            used: 0,
            rows: 0,
            names: Vec::new(),
            columns: Vec::new(),
        }
    }

    /// The table; columns are numeric where every value is a number.
    ///
    /// # Errors
    /// [`TableError::TooLarge`] when the cap was passed.
    pub fn finish(self) -> Result<Table, TableError> {
        if self.used > self.limit {
            return Err(TableError::TooLarge {
                limit_bytes: self.limit,
            });
        }
        let columns = self.columns.into_iter().map(Cells::finish).collect();
        Ok(Table {
            rows: self.rows,
            names: self.names,
            columns,
        })
    }
}

impl RowSink for TableBuilder {
    fn header(&mut self, names: &[String]) -> Result<(), CsvError> {
        self.names = names.to_vec();
        self.columns = names.iter().map(|_| Cells::default()).collect();
        Ok(())
    }

    fn row(&mut self, row: &Row<'_>) -> Result<(), CsvError> {
        if self.used > self.limit {
            return Err(CsvError::OutOfRoom { limit: self.limit });
        }
        self.rows += 1;
        for (column, cell) in self.columns.iter_mut().zip(row.cells()) {
            self.used = self.used.saturating_add(column.push(cell.trim_ascii()));
        }
        if self.used > self.limit {
            self.columns = Vec::new();
            return Err(CsvError::OutOfRoom { limit: self.limit });
        }
        Ok(())
    }
}

impl Cells {
    /// Keeps a cell; gives what it costs.
    fn push(&mut self, cell: &[u8]) -> usize {
        self.bytes.extend_from_slice(cell);
        self.ends.push(self.bytes.len());
        let own = cell.len() + size_of::<usize>();
        if self.is_text {
            return own + TEXT_OVERHEAD;
        }
        if is_missing(cell) || number(cell).is_some() {
            return own;
        }
        // Text from here on, and so are the cells before.
        self.is_text = true;
        own + self.ends.len() * TEXT_OVERHEAD
    }

    fn finish(self) -> Column {
        if !self.is_text {
            return Column::Numeric(self.iter().map(|cell| number(cell).unwrap_or(f64::NAN)).collect());
        }
        let mut dictionary = Vec::new();
        let mut known: HashMap<&[u8], u32> = HashMap::new();
        let codes = self
            .iter()
            .map(|cell| {
                if is_missing(cell) {
                    return MISSING_CODE;
                }
                *known.entry(cell).or_insert_with(|| {
                    dictionary.push(String::from_utf8_lossy(cell).into_owned());
                    dictionary.len() as u32 - 1
                })
            })
            .collect();
        Column::Text { codes, dictionary }
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, end)| &self.bytes[start..*end])
    }
}
