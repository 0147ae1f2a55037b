//! Finds the cells of a row.

use memchr::memchr;

use super::{
    Row,
    row::{BESIDE, Cell},
    scan::{BLOCK, Marks, marks},
};

/// Where in the row the splitting stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// At the first byte of a cell.
    #[default]
    Start,
    /// In a cell without quotes.
    Plain,
    /// Between quotes.
    Quoted,
    /// Behind a quote between quotes: the closing one, or the first of two.
    Quote,
    /// Behind the closing quote.
    Closed,
}

/// Splits one row; may stop at any byte and go on when there are more. Offsets count from the row's first byte.
#[derive(Debug, Default)]
pub(super) struct Split {
    pub(super) mode: Mode,
    /// Next byte to look at.
    at: usize,
    /// First byte of the cell.
    start: usize,
    /// Where the part of a quoted cell begins that is not in `unquoted` yet.
    part: usize,
    /// Where the cell begins in `unquoted`, once it must be copied.
    copied: Option<usize>,
    cells: Vec<Cell>,
    unquoted: Vec<u8>,
    /// Cells beyond those that a row may have: they are counted only.
    beyond: usize,
}

impl Split {
    pub(super) fn reset(&mut self) {
        self.mode = Mode::Start;
        self.at = 0;
        self.cells.clear();
        self.unquoted.clear();
        self.start = 0;
        self.copied = None;
        self.beyond = 0;
    }

    /// Goes on to the end of the row, or of `bytes`; gives the row's length with its line break.
    pub(super) fn advance(&mut self, bytes: &[u8], most: usize) -> Option<usize> {
        while self.at < bytes.len() {
            match self.mode {
                Mode::Start if bytes[self.at] == b'"' => {
                    self.mode = Mode::Quoted;
                    self.at += 1;
                    self.part = self.at;
                }
                Mode::Start | Mode::Plain => {
                    if let Some(length) = self.plain(bytes, most) {
                        return Some(length);
                    }
                }
                Mode::Quoted => {
                    self.at = memchr(b'"', &bytes[self.at..]).map_or(bytes.len(), |quote| {
                        self.mode = Mode::Quote;
                        self.at + quote + 1
                    });
                }
                Mode::Quote if bytes[self.at] == b'"' => {
                    // The first of the two stands for both.
                    self.copy(bytes, self.at);
                    self.at += 1;
                    self.part = self.at;
                    self.mode = Mode::Quoted;
                }
                Mode::Quote => self.mode = Mode::Closed,
                Mode::Closed => {
                    let rest = &bytes[self.at..];
                    self.at += rest
                        .iter()
                        .position(|byte| matches!(byte, b',' | b'\n'))
                        .unwrap_or(rest.len());
                    let Some(delimiter) = bytes.get(self.at) else {
                        continue;
                    };
                    self.close(bytes, most);
                    self.next(self.at + 1);
                    if *delimiter == b'\n' {
                        return Some(self.at);
                    }
                }
            }
        }
        None
    }

    /// Reads cells without quotes, up to a cell with them, the end of the row, or the end of `bytes`.
    fn plain(&mut self, bytes: &[u8], most: usize) -> Option<usize> {
        loop {
            let (marks, next) = match bytes[self.at..].first_chunk::<BLOCK>() {
                Some(block) => (marks(block), self.at + BLOCK),
                None => (last_marks(&bytes[self.at..]), bytes.len()),
            };
            // A quote right behind the block is seen to as well.
            let quotes = marks.has_quote || bytes.get(next) == Some(&b'"');
            let mut delimiters = marks.delimiters;
            while delimiters != 0 {
                let end = self.at + delimiters.trailing_zeros() as usize;
                delimiters &= delimiters - 1;
                let is_last = bytes[end] == b'\n';
                let returned = is_last && end > self.start && bytes[end - 1] == b'\r';
                self.push(
                    Cell {
                        start: self.start as u32,
                        end: (end - usize::from(returned)) as u32,
                    },
                    most,
                );
                self.start = end + 1;
                if is_last {
                    self.next(end + 1);
                    return Some(end + 1);
                }
                if quotes && bytes.get(end + 1) == Some(&b'"') {
                    self.next(end + 1);
                    return None;
                }
            }
            self.at = next;
            if next == bytes.len() {
                self.mode = if next > self.start {
                    Mode::Plain
                } else {
                    Mode::Start
                };
                return None;
            }
        }
    }

    /// Stands at the first byte of a cell.
    fn next(&mut self, start: usize) {
        self.at = start;
        self.start = start;
        self.mode = Mode::Start;
    }

    /// Copies the part of a quoted cell that ends at `end`.
    fn copy(&mut self, bytes: &[u8], end: usize) {
        self.copied.get_or_insert(self.unquoted.len());
        self.unquoted.extend_from_slice(&bytes[self.part..end]);
    }

    /// Ends a quoted cell whose delimiter is at `at`.
    fn close(&mut self, bytes: &[u8], most: usize) {
        let mut end = self.at;
        if bytes[self.at] == b'\n' && bytes[end - 1] == b'\r' {
            end -= 1;
        }
        // The closing quote is the last byte before `end`, or what follows it belongs to the cell.
        let inner = &bytes[self.part..end];
        let quote = self.part + memchr(b'"', inner).unwrap_or(inner.len());
        if self.copied.is_none() && quote + 1 == end {
            self.push(
                Cell {
                    start: self.part as u32,
                    end: quote as u32,
                },
                most,
            );
        } else {
            self.copy(bytes, quote);
            self.unquoted.extend_from_slice(&bytes[quote + 1..end]);
            let start = self.copied.take().unwrap_or_default() as u32;
            let cell = Cell {
                start: start | BESIDE,
                end: self.unquoted.len() as u32,
            };
            self.push(cell, most);
        }
        self.copied = None;
    }

    #[inline]
    fn push(&mut self, cell: Cell, most: usize) {
        if self.cells.len() < most {
            self.cells.push(cell);
        } else {
            self.beyond += 1;
        }
    }

    /// Cells of the row so far.
    pub(super) fn found(&self) -> usize {
        self.cells.len() + self.beyond
    }

    /// Column, from 1, of the first cell that is longer than `limit`, if any of the row's first `length` bytes is in one.
    pub(super) fn too_long(&self, length: usize, limit: usize) -> Option<usize> {
        if length <= limit {
            return None;
        }
        let long = |cell: &Cell| (cell.end - (cell.start & !BESIDE)) as usize > limit;
        if let Some(index) = self.cells.iter().position(long) {
            return Some(index + 1);
        }
        // Of what was read of the next cell, a closing quote and a carriage return may not belong to it.
        let open = match self.mode {
            Mode::Start | Mode::Plain => self.at - self.start,
            _ => self.at - self.part + self.copied.map_or(0, |from| self.unquoted.len() - from),
        };
        (open > limit.saturating_add(2)).then(|| self.found() + 1)
    }

    /// The row that begins `bytes`.
    pub(super) fn row<'a>(&'a self, bytes: &'a [u8], number: u64) -> Row<'a> {
        Row {
            line: bytes,
            unquoted: &self.unquoted,
            cells: &self.cells,
            number,
        }
    }

    /// Column, from 1, of the first cell that is not UTF-8.
    pub(super) fn invalid_column(&self, line: &[u8]) -> usize {
        self.row(line, 0)
            .cells()
            .position(|cell| str::from_utf8(cell).is_err())
            .map_or(self.found(), |index| index + 1)
    }
}

/// As [`marks`], for less than a block.
#[cold]
fn last_marks(bytes: &[u8]) -> Marks {
    let mut block = [0; BLOCK];
    block[..bytes.len()].copy_from_slice(bytes);
    marks(&block)
}
