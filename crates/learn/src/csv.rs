//! Streaming CSV (RFC 4180) in bounded memory.
//!
//! UTF-8, with or without a byte order mark; rows end with LF or CRLF; a header is mandatory; blank lines are skipped.
//! Cells in double quotes may hold commas, line breaks and doubled quotes. Errors name row and column, never content.

use std::collections::HashMap;

use memchr::{memchr, memchr_iter};

/// What is refused before it is held in memory.
#[derive(Debug, Clone, Copy)]
pub struct CsvLimits {
    /// Most columns.
    pub max_columns: usize,
    /// Most bytes of a cell.
    pub max_cell_bytes: usize,
    /// Most bytes of a row, the header included.
    pub max_row_bytes: usize,
}

impl Default for CsvLimits {
    fn default() -> Self {
        Self { max_columns: 16_384, max_cell_bytes: 1 << 20, max_row_bytes: 16 << 20 }
    }
}

/// Takes the rows of a CSV as they are read.
pub trait RowSink {
    /// The column names, once, before any row.
    ///
    /// # Errors
    /// Whatever ends the reading.
    fn header(&mut self, names: &[String]) -> Result<(), CsvError>;

    /// The next row; it has as many cells as the header.
    ///
    /// # Errors
    /// Whatever ends the reading.
    fn row(&mut self, row: &Row<'_>) -> Result<(), CsvError>;
}

/// What is wrong with a CSV. Rows count from 1 (the header is row 0), columns from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// No bytes at all.
    #[error("the file has no data; send a CSV with a header and at least one row")]
    Empty,
    /// A header and nothing else.
    #[error("the file has a header but no row")]
    HeaderOnly,
    /// A row with another number of cells than the header.
    #[error("row {row} has {found} cells, the header has {expected}; quote cells that hold commas")]
    RaggedRow {
        /// Data row.
        row: u64,
        /// Cells of the header.
        expected: usize,
        /// Cells of the row.
        found: usize,
    },
    /// Two columns of one name.
    #[error("columns {first} and {second} have the same name; rename one")]
    DuplicateColumn {
        /// The earlier.
        first: usize,
        /// The later.
        second: usize,
    },
    /// A column without a name.
    #[error("column {column} has no name")]
    EmptyColumnName {
        /// Which.
        column: usize,
    },
    /// Too many columns.
    #[error("the header has {found} columns, the limit is {limit}")]
    TooManyColumns {
        /// Most.
        limit: usize,
        /// Found.
        found: usize,
    },
    /// A cell that is too long.
    #[error("row {row}, column {column}: the cell is over the limit of {limit} bytes; is a quote missing?")]
    CellTooLarge {
        /// Data row.
        row: u64,
        /// Column.
        column: usize,
        /// Most bytes.
        limit: usize,
    },
    /// A row that is too long.
    #[error("row {row} is over the limit of {limit} bytes; is a line break missing?")]
    RowTooLarge {
        /// Data row.
        row: u64,
        /// Most bytes.
        limit: usize,
    },
    /// Bytes that are no UTF-8.
    #[error("row {row} is not UTF-8; convert the file to UTF-8")]
    InvalidUtf8 {
        /// Data row.
        row: u64,
    },
    /// Another encoding, seen from its byte order mark.
    #[error("the file is encoded in {name}; convert it to UTF-8")]
    UnsupportedEncoding {
        /// Which.
        name: &'static str,
    },
    /// A NUL byte: no text file has one.
    #[error("row {row} holds a NUL byte; is the file text in UTF-8?")]
    NulByte {
        /// Data row.
        row: u64,
    },
    /// The file ends within quotes.
    #[error("row {row} opens a quote that is never closed")]
    UnterminatedQuote {
        /// Data row.
        row: u64,
    },
    /// The sink cannot hold more.
    #[error("the table does not fit in {limit} bytes of memory; use fewer rows or columns")]
    OutOfRoom {
        /// Most bytes.
        limit: usize,
    },
}

/// One row of cells, unquoted.
#[derive(Debug)]
pub struct Row<'a> {
    line: &'a [u8],
    unquoted: &'a [u8],
    cells: &'a [Cell],
    number: u64,
}

/// Where a cell lies: in the line itself, or unquoted beside it.
#[derive(Debug, Clone, Copy)]
struct Cell {
    start: u32,
    end: u32,
    unquoted: bool,
}

impl<'a> Row<'a> {
    /// Cell `index`, from 0.
    pub fn cell(&self, index: usize) -> Option<&'a [u8]> {
        let cell = self.cells.get(index)?;
        let bytes = if cell.unquoted { self.unquoted } else { self.line };
        bytes.get(cell.start as usize..cell.end as usize)
    }

    /// All cells, in order.
    pub fn cells(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        (0..self.len()).filter_map(|index| self.cell(index))
    }

    /// Number of cells.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether there are none; never so.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Data row, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// Reads a CSV that comes in pieces of any size.
#[derive(Debug)]
pub struct CsvReader {
    limits: CsvLimits,
    /// The row that is not complete yet.
    carry: Vec<u8>,
    /// Bytes of `carry` that were searched for the row's end, and whether they end within quotes.
    searched: usize,
    in_quotes: bool,
    columns: Option<usize>,
    rows: u64,
    cells: Vec<Cell>,
    unquoted: Vec<u8>,
    any_bytes: bool,
}

impl CsvReader {
    /// Nothing read yet.
    pub fn new(limits: CsvLimits) -> Self {
        Self {
            limits,
            carry: Vec::new(),
            searched: 0,
            in_quotes: false,
            columns: None,
            rows: 0,
            cells: Vec::new(),
            unquoted: Vec::new(),
            any_bytes: false,
        }
    }

    /// Data rows read so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads the next bytes; complete rows go to `sink`.
    ///
    /// # Errors
    /// The first thing that is wrong; reading cannot go on after it.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut dyn RowSink) -> Result<(), CsvError> {
        self.any_bytes |= !bytes.is_empty();
        let mut rest = bytes;
        if !self.carry.is_empty() {
            // Complete the row that an earlier piece began.
            let Some(end) = self.row_end(rest) else {
                return self.keep(rest);
            };
            let mut line = std::mem::take(&mut self.carry);
            line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            self.in_quotes = false;
            self.line(&line, sink)?;
            line.clear();
            self.carry = line;
        }
        loop {
            self.in_quotes = false;
            let Some(end) = self.row_end(rest) else {
                return self.keep(rest);
            };
            self.line(&rest[..end], sink)?;
            rest = &rest[end + 1..];
        }
    }

    /// Reads what is left when no more bytes come.
    ///
    /// # Errors
    /// [`CsvError::UnterminatedQuote`], [`CsvError::Empty`], [`CsvError::HeaderOnly`], and what a last row without a line
    /// break may have wrong.
    pub fn finish(&mut self, sink: &mut dyn RowSink) -> Result<(), CsvError> {
        if self.in_quotes {
            return Err(CsvError::UnterminatedQuote { row: self.next_row() });
        }
        let line = std::mem::take(&mut self.carry);
        if !line.is_empty() {
            self.line(&line, sink)?;
        }
        match (self.columns, self.rows) {
            (None, _) => Err(CsvError::Empty),
            (Some(_), 0) => Err(CsvError::HeaderOnly),
            _ => Ok(()),
        }
    }

    /// Where the row that goes on in `bytes` ends; leaves `in_quotes` as it stands at the end of `bytes` when nowhere.
    fn row_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut from = 0;
        loop {
            let end = memchr(b'\n', &bytes[from..]).map(|at| from + at);
            let piece = &bytes[from..end.unwrap_or(bytes.len())];
            // An odd number of quotes opens or closes: doubled ones inside cells cancel out.
            if memchr_iter(b'"', piece).count() % 2 == 1 {
                self.in_quotes = !self.in_quotes;
            }
            match end {
                Some(end) if !self.in_quotes => return Some(end),
                Some(end) => from = end + 1,
                None => return None,
            }
        }
    }

    /// Keeps the beginning of a row, unless it is longer than any row or cell may be.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), CsvError> {
        self.carry.extend_from_slice(bytes);
        let row = self.next_row();
        if self.carry.len() > self.limits.max_cell_bytes && self.carry.len() > 2 * self.searched {
            // Looked at again only after it has doubled: the work stays linear.
            self.searched = self.carry.len();
            let carry = std::mem::take(&mut self.carry);
            let split = self.split(&carry);
            self.carry = carry;
            split?;
        }
        if self.carry.len() > self.limits.max_row_bytes {
            return Err(CsvError::RowTooLarge { row, limit: self.limits.max_row_bytes });
        }
        if self.carry.is_empty() {
            self.searched = 0;
        }
        Ok(())
    }

    fn next_row(&self) -> u64 {
        if self.columns.is_some() { self.rows + 1 } else { 0 }
    }

    /// Handles one complete line.
    fn line(&mut self, line: &[u8], sink: &mut dyn RowSink) -> Result<(), CsvError> {
        self.searched = 0;
        let mut line = line.strip_suffix(b"\r").unwrap_or(line);
        let row = self.next_row();
        if self.columns.is_none() {
            check_encoding(line)?;
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            return Ok(());
        }
        if line.len() > self.limits.max_row_bytes {
            return Err(CsvError::RowTooLarge { row, limit: self.limits.max_row_bytes });
        }
        if str::from_utf8(line).is_err() {
            return Err(CsvError::InvalidUtf8 { row });
        }
        if memchr(0, line).is_some() {
            return Err(CsvError::NulByte { row });
        }
        self.split(line)?;
        let parsed = Row { line, unquoted: &self.unquoted, cells: &self.cells, number: row };
        match self.columns {
            None => {
                let names = header(&parsed, &self.limits)?;
                self.columns = Some(names.len());
                sink.header(&names)
            }
            Some(expected) if parsed.len() != expected => {
                Err(CsvError::RaggedRow { row, expected, found: parsed.len() })
            }
            Some(_) => {
                self.rows += 1;
                sink.row(&parsed)
            }
        }
    }

    /// Finds the cells of a line.
    fn split(&mut self, line: &[u8]) -> Result<(), CsvError> {
        self.cells.clear();
        self.unquoted.clear();
        let limit = self.limits.max_cell_bytes;
        let row = self.next_row();
        let max_cells = self.columns.unwrap_or(usize::MAX).saturating_add(1).min(u32::MAX as usize);
        let mut at = 0;
        loop {
            let (cell, next) = if line.get(at) == Some(&b'"') {
                self.quoted(line, at)
            } else {
                let end = memchr(b',', &line[at..]).map_or(line.len(), |comma| at + comma);
                (Cell { start: at as u32, end: end as u32, unquoted: false }, end)
            };
            if (cell.end - cell.start) as usize > limit {
                return Err(CsvError::CellTooLarge { row, column: self.cells.len() + 1, limit });
            }
            self.cells.push(cell);
            if next >= line.len() || self.cells.len() > max_cells {
                return Ok(());
            }
            at = next + 1;
        }
    }

    /// Reads a quoted cell that begins at `at`; gives it and where its comma is.
    fn quoted(&mut self, line: &[u8], at: usize) -> (Cell, usize) {
        let start = self.unquoted.len();
        let mut from = at + 1;
        loop {
            let Some(quote) = memchr(b'"', &line[from..]).map(|q| from + q) else {
                self.unquoted.extend_from_slice(&line[from..]);
                from = line.len();
                break;
            };
            self.unquoted.extend_from_slice(&line[from..quote]);
            if line.get(quote + 1) == Some(&b'"') {
                self.unquoted.push(b'"');
                from = quote + 2;
            } else {
                from = quote + 1;
                break;
            }
        }
        // Lenient, as spreadsheets are: what follows a closing quote belongs to the cell.
        let end = memchr(b',', &line[from..]).map_or(line.len(), |comma| from + comma);
        self.unquoted.extend_from_slice(&line[from..end]);
        let cell = Cell { start: start as u32, end: self.unquoted.len() as u32, unquoted: true };
        (cell, end)
    }
}

fn check_encoding(line: &[u8]) -> Result<(), CsvError> {
    match line {
        [0xFF, 0xFE, ..] => Err(CsvError::UnsupportedEncoding { name: "UTF-16 LE" }),
        [0xFE, 0xFF, ..] => Err(CsvError::UnsupportedEncoding { name: "UTF-16 BE" }),
        _ => Ok(()),
    }
}

fn header(row: &Row<'_>, limits: &CsvLimits) -> Result<Vec<String>, CsvError> {
    if row.len() > limits.max_columns {
        return Err(CsvError::TooManyColumns { limit: limits.max_columns, found: row.len() });
    }
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(row.len());
    let mut names = Vec::with_capacity(row.len());
    for (index, cell) in row.cells().enumerate() {
        let name = String::from_utf8_lossy(cell).trim().to_owned();
        if name.is_empty() {
            return Err(CsvError::EmptyColumnName { column: index + 1 });
        }
        if let Some(first) = seen.insert(name.clone(), index + 1) {
            return Err(CsvError::DuplicateColumn { first, second: index + 1 });
        }
        names.push(name);
    }
    Ok(names)
}

/// Whether a cell stands for no value: empty, or `NA`, `N/A`, `NaN`, `null`, `none`, `?` in any case.
pub fn is_missing(cell: &[u8]) -> bool {
    match cell.len() {
        0 => true,
        1 => cell == b"?",
        2..=4 if !cell[0].is_ascii_digit() => [b"na".as_slice(), b"n/a", b"nan", b"null", b"none"]
            .iter()
            .any(|word| cell.eq_ignore_ascii_case(word)),
        _ => false,
    }
}
