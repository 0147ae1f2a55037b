//! Streaming CSV (RFC 4180) in bounded memory.
//!
//! UTF-8, with or without a byte order mark; rows end with LF or CRLF; a header is mandatory; blank lines are skipped.
//! Cells in double quotes may hold commas, line breaks and doubled quotes. As spreadsheets do, a quote inside a cell that
//! does not begin with one stands for itself, and text after a closing quote belongs to the cell.

mod cell;
mod error;
mod row;
mod scan;
mod split;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use memchr::memchr;

pub(crate) use self::cell::{Short, hash};
pub use self::{
    cell::{is_missing, number},
    error::CsvError,
    row::Row,
};
use self::{
    row::BESIDE,
    split::{Mode, Split},
};

/// What is refused before it is held in memory.
#[derive(Debug, Clone, Copy)]
pub struct CsvLimits {
    /// Most columns.
    pub max_columns: usize,
    /// Most bytes of a cell, its quotes included.
    pub max_cell_bytes: usize,
    /// Most bytes of the header.
    pub max_header_bytes: usize,
    /// Most bytes of a data row; at most 2 GiB.
    pub max_row_bytes: usize,
}

impl Default for CsvLimits {
    fn default() -> Self {
        Self {
            max_columns: 16_384,
            max_cell_bytes: 1 << 20,
            max_header_bytes: 4 << 20,
            max_row_bytes: 16 << 20,
        }
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

/// Offsets in a row must stay below [`BESIDE`].
const MOST_ROW_BYTES: usize = BESIDE as usize - 16;

/// Reads a CSV that comes in pieces of any size.
#[derive(Debug)]
pub struct CsvReader {
    limits: CsvLimits,
    columns: Option<usize>,
    rows: u64,
    /// The first bytes, until there are enough to tell the encoding.
    first: Vec<u8>,
    encoding_checked: bool,
    /// The beginning of a row whose end has not come yet.
    carry: Vec<u8>,
    split: Split,
    /// Whether there may be other bytes than those of ASCII text in the piece that is being read, or in the carry.
    unusual: bool,
    /// What ended the reading.
    failure: Option<CsvError>,
}

/// Bytes added at once to a row that an earlier piece began.
const CARRIED: usize = 1 << 16;
/// Longest signature of an encoding.
const SIGNATURE: usize = 4;

impl CsvReader {
    /// Nothing read yet.
    pub fn new(limits: CsvLimits) -> Self {
        let limits = CsvLimits {
            max_header_bytes: limits.max_header_bytes.min(MOST_ROW_BYTES),
            max_row_bytes: limits.max_row_bytes.min(MOST_ROW_BYTES),
            ..limits
        };
        Self {
            limits,
            columns: None,
            rows: 0,
            first: Vec::new(),
            encoding_checked: false,
            carry: Vec::new(),
            split: Split::default(),
            unusual: false,
            failure: None,
        }
    }

    /// Data rows read so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads the next bytes; complete rows go to `sink`.
    ///
    /// # Errors
    /// The first thing that is wrong, and the same again for whatever comes after it.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut dyn RowSink) -> Result<(), CsvError> {
        self.unless_failed(|reader| reader.feed_more(bytes, sink))
    }

    fn unless_failed(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<(), CsvError>,
    ) -> Result<(), CsvError> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        let result = read(self);
        self.failure = result.clone().err();
        result
    }

    fn feed_more(&mut self, bytes: &[u8], sink: &mut dyn RowSink) -> Result<(), CsvError> {
        if self.encoding_checked {
            return self.take(bytes, sink);
        }
        let (head, rest) = bytes.split_at(bytes.len().min(SIGNATURE - self.first.len()));
        self.first.extend_from_slice(head);
        if self.first.len() == SIGNATURE {
            self.begin(sink)?;
        }
        self.take(rest, sink)
    }

    /// Reads what is left when no more bytes come.
    ///
    /// # Errors
    /// [`CsvError::UnterminatedQuote`], [`CsvError::Empty`], [`CsvError::HeaderOnly`], and what a last row without a line
    /// break may have wrong.
    pub fn finish(&mut self, sink: &mut dyn RowSink) -> Result<(), CsvError> {
        self.unless_failed(|reader| reader.finish_row(sink))
    }

    fn finish_row(&mut self, sink: &mut dyn RowSink) -> Result<(), CsvError> {
        self.begin(sink)?;
        if self.split.mode == Mode::Quoted {
            return Err(CsvError::UnterminatedQuote { row: self.next_row() });
        }
        if !self.carry.is_empty() {
            self.take(b"\n", sink)?;
        }
        match (self.columns, self.rows) {
            (None, _) => Err(CsvError::Empty),
            (Some(_), 0) => Err(CsvError::HeaderOnly),
            _ => Ok(()),
        }
    }

    /// Looks at the first bytes, then reads them.
    fn begin(&mut self, sink: &mut dyn RowSink) -> Result<(), CsvError> {
        self.encoding_checked = true;
        let first = std::mem::take(&mut self.first);
        self.take(after_signature(&first)?, sink)
    }

    /// Data row that is being read, 0 for the header.
    fn next_row(&self) -> u64 {
        if self.columns.is_some() { self.rows + 1 } else { 0 }
    }

    /// Most bytes of the row that is being read, without its line break.
    fn row_limit(&self) -> usize {
        if self.columns.is_some() {
            self.limits.max_row_bytes
        } else {
            self.limits.max_header_bytes
        }
    }

    fn take(&mut self, bytes: &[u8], sink: &mut dyn RowSink) -> Result<(), CsvError> {
        // Looked for in the whole piece at once, which is quicker than row by row.
        let unusual = !bytes.is_ascii() || memchr(0, bytes).is_some();
        self.unusual |= unusual;
        self.take_rows(bytes, sink)?;
        self.unusual &= !self.carry.is_empty();
        Ok(())
    }

    fn take_rows(&mut self, mut bytes: &[u8], sink: &mut dyn RowSink) -> Result<(), CsvError> {
        // Complete the row that an earlier piece began, line by line: a quoted cell may span several.
        while !self.carry.is_empty() && !bytes.is_empty() {
            // In bounded pieces, so that a cell without end is noticed early.
            let reach = &bytes[..bytes.len().min(CARRIED)];
            let piece = memchr(b'\n', reach).map_or(reach.len(), |at| at + 1);
            self.keep(&bytes[..piece])?;
            bytes = &bytes[piece..];
            let carry = std::mem::take(&mut self.carry);
            let end = self.split(&carry)?;
            if let Some(end) = end {
                self.emit(&carry, end, sink)?;
            }
            self.carry = carry;
            if end.is_some() {
                self.carry.clear();
            }
        }
        // Rows that lie in this piece are read in place.
        while !bytes.is_empty() {
            let Some(end) = self.split(bytes)? else {
                return self.keep(bytes);
            };
            self.emit(bytes, end, sink)?;
            bytes = &bytes[end..];
        }
        Ok(())
    }

    /// Keeps the beginning of a row, unless it is longer than a row may be.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), CsvError> {
        let limit = self.row_limit();
        if self.carry.len().saturating_add(bytes.len()) > limit.saturating_add(2) {
            return Err(CsvError::RowTooLarge {
                row: self.next_row(),
                limit,
            });
        }
        self.carry.extend_from_slice(bytes);
        Ok(())
    }

    /// Goes on splitting the row at the start of `bytes`; gives the length of the row with its line break once it is
    /// there.
    fn split(&mut self, bytes: &[u8]) -> Result<Option<usize>, CsvError> {
        let most = self.columns.unwrap_or(self.limits.max_columns);
        let row_limit = self.row_limit();
        // No further than a row may reach, so that offsets fit and a lost line break costs a bounded search.
        let reach = bytes.len().min(row_limit + 2);
        let end = self.split.advance(&bytes[..reach], most);
        let row = self.next_row();
        let cell_limit = self.limits.max_cell_bytes;
        if let Some(column) = self.split.too_long(end.unwrap_or(reach), cell_limit) {
            return Err(CsvError::CellTooLarge {
                row,
                column,
                limit: cell_limit,
            });
        }
        if end.is_none() && reach < bytes.len() {
            return Err(CsvError::RowTooLarge {
                row,
                limit: row_limit,
            });
        }
        Ok(end)
    }

    /// Hands on a complete row, `bytes` up to `end` with its line break; blank lines are dropped.
    fn emit(&mut self, bytes: &[u8], end: usize, sink: &mut dyn RowSink) -> Result<(), CsvError> {
        let line = &bytes[..end];
        let number = self.next_row();
        if matches!(line, b"\n" | b"\r\n") {
            self.split.reset();
            return Ok(());
        }
        if self.unusual {
            if str::from_utf8(line).is_err() {
                return Err(CsvError::InvalidUtf8 {
                    row: number,
                    column: self.split.invalid_column(line),
                });
            }
            if memchr(0, line).is_some() {
                return Err(CsvError::NulByte { row: number });
            }
        }
        let split = &self.split;
        let row = split.row(bytes, number);
        match self.columns {
            None => {
                let names = column_names(&row, split.found(), &self.limits)?;
                self.columns = Some(names.len());
                sink.header(&names)?;
            }
            Some(expected) if split.found() != expected => {
                return Err(CsvError::RaggedRow {
                    row: number,
                    expected,
                    found: split.found(),
                });
            }
            Some(_) => {
                self.rows += 1;
                sink.row(&row)?;
            }
        }
        self.split.reset();
        Ok(())
    }
}

/// What follows the byte order mark of UTF-8, if there is one.
fn after_signature(first: &[u8]) -> Result<&[u8], CsvError> {
    let name = match first {
        [0xEF, 0xBB, 0xBF, rest @ ..] => return Ok(rest),
        [0xFF, 0xFE, 0, 0] => "UTF-32 LE",
        [0, 0, 0xFE, 0xFF] => "UTF-32 BE",
        [0xFF, 0xFE, ..] => "UTF-16 LE",
        [0xFE, 0xFF, ..] => "UTF-16 BE",
        [_, 0, _, 0] => "UTF-16 LE",
        [0, _, 0, _] => "UTF-16 BE",
        [0x1F, 0x8B, ..] => "gzip",
        [b'P', b'K', 3, 4] => "a ZIP archive or a spreadsheet",
        _ => return Ok(first),
    };
    Err(CsvError::UnsupportedEncoding { name })
}

fn column_names(row: &Row<'_>, found: usize, limits: &CsvLimits) -> Result<Vec<String>, CsvError> {
    if found > limits.max_columns {
        return Err(CsvError::TooManyColumns {
            limit: limits.max_columns,
            found,
        });
    }
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(row.len());
    let mut names = Vec::with_capacity(row.len());
    for (cell, index) in row.cells().zip(1..) {
        let name = String::from_utf8_lossy(cell).trim().to_owned();
        if name.is_empty() {
            return Err(CsvError::EmptyColumnName { index });
        }
        if name.contains(['\r', '\n']) {
            return Err(CsvError::LineBreakInHeader);
        }
        if let Some(first) = seen.insert(name.clone(), index) {
            return Err(CsvError::DuplicateColumn {
                name,
                first,
                second: index,
            });
        }
        names.push(name);
    }
    Ok(names)
}
