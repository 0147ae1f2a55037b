//! A CSV reads the same whole and in pieces, and never panics.
#![no_main]

use asterism_learn::csv::{CsvError, CsvLimits, CsvReader, Row, RowSink};
use libfuzzer_sys::fuzz_target;

#[derive(Default, PartialEq, Debug)]
struct Seen {
    header: Vec<String>,
    rows: Vec<Vec<Vec<u8>>>,
}

impl RowSink for Seen {
    fn header(&mut self, names: &[String]) -> Result<(), CsvError> {
        self.header = names.to_vec();
        Ok(())
    }

    fn row(&mut self, row: &Row<'_>) -> Result<(), CsvError> {
        assert_eq!(row.len(), self.header.len());
        self.rows.push(row.cells().map(<[u8]>::to_vec).collect());
        Ok(())
    }
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Seen, Result<(), CsvError>) {
    let limits = CsvLimits {
        max_row_bytes: 1 << 10,
        max_header_bytes: 1 << 10,
        ..CsvLimits::default()
    };
    let (mut reader, mut seen) = (CsvReader::new(limits), Seen::default());
    for piece in pieces {
        if let Err(error) = reader.feed(piece, &mut seen) {
            return (seen, Err(error));
        }
    }
    let end = reader.finish(&mut seen).map(drop);
    (seen, end)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    let whole = read(std::iter::once(bytes));
    let pieces = read(bytes.chunks(usize::from(size) % 37 + 1));
    assert_eq!(whole.0, pieces.0);
    assert_eq!(whole.1, pieces.1);
});
