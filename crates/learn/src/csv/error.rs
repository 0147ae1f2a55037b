//! What is wrong with a CSV.

/// What is wrong with a CSV. Rows count from 1 (the header is row 0), columns from 1; cells are never quoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// No row at all, not even a header.
    #[error("the file is empty; send a CSV with a header and at least one row")]
    Empty,
    /// A header and nothing else.
    #[error("the file has a header but no data rows; add at least one row")]
    HeaderOnly,
    /// A row with another number of cells than the header.
    #[error(
        "row {row} has {found} cells, the header has {expected}; add what is missing or quote cells with commas"
    )]
    RaggedRow {
        /// Data row.
        row: u64,
        /// Cells of the header.
        expected: usize,
        /// Cells of the row.
        found: usize,
    },
    /// Two columns of one name.
    #[error("columns {first} and {second} are both named `{name}`; rename one")]
    DuplicateColumn {
        /// The name.
        name: String,
        /// The earlier column, from 1.
        first: usize,
        /// The later column, from 1.
        second: usize,
    },
    /// A column without a name.
    #[error("column {index} has no name; give it one in the header")]
    EmptyColumnName {
        /// Which, from 1.
        index: usize,
    },
    /// Too many columns.
    #[error("the header has {found} columns, the limit is {limit}; split the table or drop columns")]
    TooManyColumns {
        /// Most.
        limit: usize,
        /// Found.
        found: usize,
    },
    /// A cell that is too long.
    #[error(
        "row {row}, column {column}: the cell is over the limit of {limit} bytes; is a closing quote missing?"
    )]
    CellTooLarge {
        /// Data row, 0 for the header.
        row: u64,
        /// Column, from 1.
        column: usize,
        /// Most bytes.
        limit: usize,
    },
    /// A row that is too long.
    #[error("row {row} is over the limit of {limit} bytes; is a line break missing?")]
    RowTooLarge {
        /// Data row, 0 for the header.
        row: u64,
        /// Most bytes.
        limit: usize,
    },
    /// Bytes that are no UTF-8.
    #[error("row {row}, column {column} is not UTF-8; convert the file to UTF-8")]
    InvalidUtf8 {
        /// Data row, 0 for the header.
        row: u64,
        /// Column, from 1.
        column: usize,
    },
    /// Another encoding or a container, seen from its first bytes.
    #[error("the file is {name}, not plain text in UTF-8; convert or unpack it")]
    UnsupportedEncoding {
        /// Which.
        name: &'static str,
    },
    /// A NUL byte: no text file has one.
    #[error("row {row} holds a NUL byte; is the file plain text in UTF-8?")]
    NulByte {
        /// Data row, 0 for the header.
        row: u64,
    },
    /// Lines that end with CR alone.
    #[error("the header holds a line break; end lines with LF or CRLF, and keep column names on one line")]
    LineBreakInHeader,
    /// The file ends within quotes.
    #[error("row {row} opens a quote that is never closed; close it, or double quotes inside quoted cells")]
    UnterminatedQuote {
        /// Data row, 0 for the header.
        row: u64,
    },
    /// The sink cannot hold more.
    #[error("the table does not fit in {limit} bytes of memory; use fewer rows or columns")]
    OutOfRoom {
        /// Most bytes.
        limit: usize,
    },
}
