//! A row as sinks see it.

use super::Short;

/// One row of cells, unquoted, each valid UTF-8.
#[derive(Debug)]
pub struct Row<'a> {
    /// The row, and whatever follows it in memory.
    pub(super) line: &'a [u8],
    pub(super) unquoted: &'a [u8],
    pub(super) cells: &'a [Cell],
    pub(super) number: u64,
}

/// Where a cell lies: in the line itself or, when it had to be unquoted, beside it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub(super) start: u32,
    pub(super) end: u32,
}

/// Marks in `Cell::start` that the cell lies beside the line.
pub(super) const BESIDE: u32 = 1 << 31;

impl<'a> Row<'a> {
    /// Cell `index`, from 0.
    pub fn cell(&self, index: usize) -> Option<&'a [u8]> {
        self.cells.get(index).map(|cell| self.text(*cell))
    }

    /// All cells, in order.
    pub fn cells(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.cells.iter().map(|cell| self.text(*cell))
    }

    /// Cell `index` as two words, where it is short and was not unquoted.
    #[inline]
    pub(crate) fn short(&self, index: usize) -> Option<Short> {
        let cell = self.cells.get(index)?;
        // An offset beside the line is far outside of it.
        Short::within(self.line, cell.start as usize, cell.end as usize)
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

    #[inline]
    fn text(&self, cell: Cell) -> &'a [u8] {
        if cell.start & BESIDE == 0 {
            &self.line[cell.start as usize..cell.end as usize]
        } else {
            &self.unquoted[(cell.start & !BESIDE) as usize..cell.end as usize]
        }
    }
}
