//! A table in memory, column by column.

use std::collections::HashMap;

use crate::{
    csv::{CsvError, Row, RowSink, is_missing},
    profile::number,
};

/// A column: numbers with NaN for missing values, or text by code with `None` for missing ones.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Every value is a number.
    Numeric(Vec<f64>),
    /// Some value is not.
    Text {
        /// Index into `dictionary`, by row.
        codes: Vec<Option<u32>>,
        /// The distinct values, in order of appearance.
        dictionary: Vec<String>,
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

    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        let index = self.names.iter().position(|column| column == name)?;
        self.columns.get(index)
    }
}

/// Keeps the rows of a CSV, up to a cap on memory.
#[derive(Debug)]
pub struct TableBuilder {
    limit: usize,
    used: usize,
    rows: usize,
    names: Vec<String>,
    columns: Vec<Cells>,
}

/// The cells of a column, one after the other.
#[derive(Debug, Default)]
struct Cells {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl TableBuilder {
    /// A table of at most about `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, used: 0, rows: 0, names: Vec::new(), columns: Vec::new() }
    }

    /// The table; columns become numeric where every value is a number.
    pub fn finish(self) -> Table {
        let columns = self.columns.into_iter().map(Cells::finish).collect();
        Table { rows: self.rows, names: self.names, columns }
    }
}

impl RowSink for TableBuilder {
    fn header(&mut self, names: &[String]) -> Result<(), CsvError> {
        self.names = names.to_vec();
        self.columns = names.iter().map(|_| Cells::default()).collect();
        Ok(())
    }

    fn row(&mut self, row: &Row<'_>) -> Result<(), CsvError> {
        self.rows += 1;
        for (index, column) in self.columns.iter_mut().enumerate() {
            let cell = row.cell(index).unwrap_or_default().trim_ascii();
            self.used += cell.len() + size_of::<usize>();
            column.bytes.extend_from_slice(cell);
            column.ends.push(column.bytes.len());
        }
        if self.used > self.limit {
            return Err(CsvError::OutOfRoom { limit: self.limit });
        }
        Ok(())
    }
}

impl Cells {
    fn finish(self) -> Column {
        let numbers: Option<Vec<f64>> = self
            .iter()
            .map(|cell| if is_missing(cell) { Some(f64::NAN) } else { number(cell) })
            .collect();
        if let Some(numbers) = numbers {
            return Column::Numeric(numbers);
        }
        let mut dictionary = Vec::new();
        let mut known: HashMap<&[u8], u32> = HashMap::new();
        let codes = self
            .iter()
            .map(|cell| {
                if is_missing(cell) {
                    return None;
                }
                Some(*known.entry(cell).or_insert_with(|| {
                    dictionary.push(String::from_utf8_lossy(cell).into_owned());
                    dictionary.len() as u32 - 1
                }))
            })
            .collect();
        Column::Text { codes, dictionary }
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).filter_map(|(start, end)| self.bytes.get(start..*end))
    }
}
