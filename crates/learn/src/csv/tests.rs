use std::fmt::Write as _;

use proptest::prelude::*;

use super::{
    scan::{BLOCK, Marks, marks},
    *,
};

/// Keeps what it is given.
#[derive(Debug, Default, PartialEq)]
struct Kept {
    names: Vec<String>,
    rows: Vec<Vec<String>>,
    numbers: Vec<u64>,
}

impl RowSink for Kept {
    fn header(&mut self, names: &[String]) -> Result<(), CsvError> {
        assert!(self.names.is_empty(), "the header comes once");
        self.names = names.to_vec();
        Ok(())
    }

    fn row(&mut self, row: &Row<'_>) -> Result<(), CsvError> {
        assert_eq!(row.len(), self.names.len());
        let cells: Vec<String> = row
            .cells()
            .map(|cell| str::from_utf8(cell).unwrap().to_owned())
            .collect();
        for (index, cell) in cells.iter().enumerate() {
            assert_eq!(row.cell(index), Some(cell.as_bytes()));
        }
        assert_eq!(row.cell(row.len()), None);
        self.rows.push(cells);
        self.numbers.push(row.number());
        Ok(())
    }
}

fn read_in(pieces: &[&[u8]], limits: CsvLimits) -> Result<Kept, CsvError> {
    let mut reader = CsvReader::new(limits);
    let mut kept = Kept::default();
    for piece in pieces {
        reader.feed(piece, &mut kept)?;
    }
    reader.finish(&mut kept)?;
    assert_eq!(reader.rows(), kept.rows.len() as u64);
    Ok(kept)
}

/// Reads the text at once and byte by byte, which must be the same.
fn read(text: impl AsRef<[u8]>) -> Result<Kept, CsvError> {
    let text = text.as_ref();
    let at_once = read_in(&[text], CsvLimits::default());
    let bytes: Vec<&[u8]> = text.chunks(1).collect();
    assert_eq!(at_once, read_in(&bytes, CsvLimits::default()));
    at_once
}

fn rows(text: &str) -> Vec<Vec<String>> {
    read(text).unwrap().rows
}

#[test]
fn header_and_rows() {
    let kept = read("a,b\n1,2\n3,4\n").unwrap();
    assert_eq!(kept.names, ["a", "b"]);
    assert_eq!(kept.rows, [["1", "2"], ["3", "4"]]);
    assert_eq!(kept.numbers, [1, 2]);
}

#[test]
fn line_ends_and_blank_lines() {
    let expected = rows("a,b\n1,2\n3,4\n");
    for text in [
        "a,b\r\n1,2\r\n3,4\r\n",
        "a,b\n1,2\n3,4",
        "a,b\r\n1,2\n3,4\r",
        "\n\na,b\n\n1,2\r\n\r\n3,4\n\n",
    ] {
        assert_eq!(rows(text), expected, "{text:?}");
    }
    assert_eq!(rows("a,b\n,\n"), [["", ""]]);
    assert_eq!(rows("a,b\n1,\"2\"\r\n"), [["1", "2"]]);
}

#[test]
fn quotes() {
    assert_eq!(rows("a,b\n\"x,y\",\"p\nq\"\n"), [["x,y", "p\nq"]]);
    assert_eq!(rows("a,b\n\"say \"\"hi\"\"\",\"\"\n"), [["say \"hi\"", ""]]);
    assert_eq!(rows("a,b\n\"\"\"\",\"\"\"\"\"\"\n"), [["\"", "\"\""]]);
    assert_eq!(rows("\"a,1\",\"b\"\nx,\"y\""), [["x", "y"]]);
    // Lenient as spreadsheets are: a quote within a cell, text behind a closing quote.
    assert_eq!(rows("a,b\n5\" pipe,2\nx,y\n"), [["5\" pipe", "2"], ["x", "y"]]);
    assert_eq!(
        rows("a,b\n\"x\"y\"z,2\n\"p\"\"q\"r,3\n"),
        [["xy\"z", "2"], ["p\"qr", "3"]]
    );
    assert_eq!(rows("a,b\n\"x\r\ny\",z\r\n"), [["x\r\ny", "z"]]);
}

#[test]
fn byte_order_marks() {
    assert_eq!(read("\u{FEFF}a,b\n1,2\n").unwrap().names, ["a", "b"]);
    assert_eq!(read("\u{FEFF}\"a\",b\n1,2\n").unwrap().names, ["a", "b"]);
    let refused = |bytes: &[u8], expected: &str| match read(bytes) {
        Err(CsvError::UnsupportedEncoding { name }) => assert_eq!(name, expected),
        other => panic!("{expected}: {other:?}"),
    };
    let utf16 = |bytes: fn(u16) -> [u8; 2]| "a,b\n1,2\n".encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let (little, big) = (utf16(u16::to_le_bytes), utf16(u16::to_be_bytes));
    refused(&[&[0xFF, 0xFE], little.as_slice()].concat(), "UTF-16 LE");
    refused(&[&[0xFE, 0xFF], big.as_slice()].concat(), "UTF-16 BE");
    refused(&little, "UTF-16 LE");
    refused(&big, "UTF-16 BE");
    refused(&[0xFF, 0xFE, 0, 0, b'a', 0, 0, 0], "UTF-32 LE");
    refused(&[0x1F, 0x8B, 8, 0, 0], "gzip");
    refused(b"PK\x03\x04rest", "a ZIP archive or a spreadsheet");
}

#[test]
fn nothing_to_read() {
    assert_eq!(read(""), Err(CsvError::Empty));
    assert_eq!(read("\n\r\n\n"), Err(CsvError::Empty));
    assert_eq!(read("\u{FEFF}"), Err(CsvError::Empty));
    assert_eq!(read("a,b"), Err(CsvError::HeaderOnly));
    assert_eq!(read("a,b\r\n\n"), Err(CsvError::HeaderOnly));
}

#[test]
fn ragged_rows() {
    assert_eq!(
        read("a,b\n1,2\n3\n"),
        Err(CsvError::RaggedRow {
            row: 2,
            expected: 2,
            found: 1
        })
    );
    assert_eq!(
        read("a,b\n1,2\n\n3,4,5,6"),
        Err(CsvError::RaggedRow {
            row: 2,
            expected: 2,
            found: 4
        })
    );
    // A connection that was cut in the middle of a row is noticed when cells are missing.
    assert_eq!(
        read("a,b,c\n1,2,3\n4,5"),
        Err(CsvError::RaggedRow {
            row: 2,
            expected: 3,
            found: 2
        })
    );
}

#[test]
fn bad_headers() {
    let duplicate = CsvError::DuplicateColumn {
        name: "b".into(),
        first: 2,
        second: 4,
    };
    assert_eq!(read("a,b,c,b\n1,2,3,4\n"), Err(duplicate));
    // Names are trimmed before they are compared.
    let duplicate = CsvError::DuplicateColumn {
        name: "a".into(),
        first: 1,
        second: 2,
    };
    assert_eq!(read("a, a\n1,2\n"), Err(duplicate));
    assert_eq!(read("a,,c\n1,2,3\n"), Err(CsvError::EmptyColumnName { index: 2 }));
    assert_eq!(read("a,b\r1,2\r3,4\r"), Err(CsvError::LineBreakInHeader));
    assert_eq!(read("\"a\nb\",c\n1,2\n"), Err(CsvError::LineBreakInHeader));
}

#[test]
fn broken_bytes() {
    assert_eq!(
        read(b"a,b\n1,2\n3,\xE9t\xE9\n"),
        Err(CsvError::InvalidUtf8 { row: 2, column: 2 })
    );
    assert_eq!(
        read(b"a,n\xE4me\n1,2\n"),
        Err(CsvError::InvalidUtf8 { row: 0, column: 2 })
    );
    assert_eq!(
        read(b"a,b\n\"x\"\"\xFF\",2\n"),
        Err(CsvError::InvalidUtf8 { row: 1, column: 1 })
    );
    assert_eq!(read(b"a,b\n1,2\n3,x\0y\n"), Err(CsvError::NulByte { row: 2 }));
    assert_eq!(rows("a,b\nné,日本\n"), [["né", "日本"]]);
}

#[test]
fn open_quotes() {
    assert_eq!(
        read("a,b\n1,2\n3,\"x\n4,5\n"),
        Err(CsvError::UnterminatedQuote { row: 2 })
    );
    assert_eq!(read("a,\"b\n1,2"), Err(CsvError::UnterminatedQuote { row: 0 }));
}

#[test]
fn many_columns() {
    let table = |columns: usize| {
        let mut text = String::new();
        for column in 0..columns {
            write!(text, "{}c{column}", if column == 0 { "" } else { "," }).unwrap();
        }
        text + "\n" + &vec!["1"; columns].join(",") + "\n"
    };
    assert_eq!(
        read_in(&[table(10_000).as_bytes()], CsvLimits::default())
            .unwrap()
            .rows[0]
            .len(),
        10_000
    );
    let refused = Err(CsvError::TooManyColumns {
        limit: 16_384,
        found: 20_000,
    });
    assert_eq!(
        read_in(&[table(20_000).as_bytes()], CsvLimits::default()),
        refused
    );
}

#[test]
fn long_cells_and_rows_end_the_reading_early() {
    let piece = vec![b'x'; 1 << 16];
    // A cell of 100 MB, in quotes and without, in the data and in the header.
    for start in ["a,b\n1,2\n3,", "a,b\n1,2\n3,\"", "a,", "a,\""] {
        let mut reader = CsvReader::new(CsvLimits::default());
        let mut kept = Kept::default();
        reader.feed(start.as_bytes(), &mut kept).unwrap();
        let fed = (0..1600).find_map(|fed| reader.feed(&piece, &mut kept).err().map(|error| (fed, error)));
        let row = if start.len() > 4 { 2 } else { 0 };
        let expected = CsvError::CellTooLarge {
            row,
            column: 2,
            limit: 1 << 20,
        };
        assert_eq!(fed, Some((16, expected)), "{start}");
        assert!(reader.carry.capacity() < 4 << 20);
    }
    // The same in one piece.
    let whole = [b"a\n".as_slice(), &vec![b'x'; 20 << 20], b"\n"].concat();
    let expected = Err(CsvError::CellTooLarge {
        row: 1,
        column: 1,
        limit: 1 << 20,
    });
    assert_eq!(read_in(&[&whole], CsvLimits::default()), expected);
    // A row of endless short cells.
    let limits = CsvLimits {
        max_row_bytes: 1000,
        ..CsvLimits::default()
    };
    let expected = Err(CsvError::RowTooLarge { row: 1, limit: 1000 });
    let endless = [b"a,b\n".as_slice(), &b"1,".repeat(1000)].concat();
    assert_eq!(read_in(&[&endless], limits), expected);
    assert_eq!(read_in(&endless.chunks(7).collect::<Vec<_>>(), limits), expected);
    let limits = CsvLimits {
        max_header_bytes: 10,
        ..CsvLimits::default()
    };
    assert_eq!(
        read_in(&[b"a,b,c,d,e,f,g\n"], limits),
        Err(CsvError::RowTooLarge { row: 0, limit: 10 })
    );
    assert_eq!(
        read_in(&[b"a,b,c,d,ef\r\n1,2,3,4,5\n"], limits)
            .unwrap()
            .names
            .len(),
        5
    );
}

#[test]
fn a_sink_ends_the_reading() {
    struct Full;
    impl RowSink for Full {
        fn header(&mut self, _: &[String]) -> Result<(), CsvError> {
            Ok(())
        }
        fn row(&mut self, row: &Row<'_>) -> Result<(), CsvError> {
            if row.number() == 2 {
                Err(CsvError::OutOfRoom { limit: 7 })
            } else {
                Ok(())
            }
        }
    }
    let mut reader = CsvReader::new(CsvLimits::default());
    assert_eq!(
        reader.feed(b"a\n1\n2\n3\n", &mut Full),
        Err(CsvError::OutOfRoom { limit: 7 })
    );
}

#[test]
fn messages_hold_no_cells() {
    let secret = "s3cret";
    for text in ["a,b\n1,s3cret,3\n", "a,b\n1,\"s3cret\n", "a,b\ns3cret\0,1\n"] {
        let message = read(text).unwrap_err().to_string();
        assert!(
            !message.contains(secret) && message.contains("row 1"),
            "{message}"
        );
    }
}

#[test]
fn numbers_are_rounded_correctly() {
    for (text, expected) in [
        ("0", Some(0.0)),
        ("-12.50", Some(-12.5)),
        ("+3", Some(3.0)),
        ("0.1", Some(0.1)),
        ("123456789012.345", Some(123_456_789_012.345)),
        ("999999999999999", Some(999_999_999_999_999.0)),
        ("9007199254740993", Some(9_007_199_254_740_992.0)),
        ("1e-3", Some(1e-3)),
        (".5", Some(0.5)),
        ("5.", Some(5.0)),
        ("inf", None),
        ("1e999", None),
        ("-", None),
        (".", None),
        ("1.2.3", None),
        ("1,5", None),
        ("12a", None),
        ("", None),
    ] {
        assert_eq!(number(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn missing_values() {
    for text in [
        "", "NA", "na", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None", "?",
    ] {
        assert!(is_missing(text.as_bytes()), "{text}");
    }
    for text in ["0", "-", "no", "nana", "nil", "n", "x", "nothing", "??", "1/2"] {
        assert!(!is_missing(text.as_bytes()), "{text}");
    }
}

fn quoted(cell: &str, always: bool) -> String {
    if always || cell.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

fn cell() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z0-9.]{0,12}", 2 => "[\",\r\na é]{0,6}", 1 => "[x\"]{20,40}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// What is written with quotes where needed (or everywhere) is read back, however it is cut into pieces.
    #[test]
    fn round_trip_at_any_cut(
        table in (1_usize..5).prop_flat_map(|width| proptest::collection::vec(proptest::collection::vec(cell(), width), 1..12)),
        always in any::<bool>(),
        crlf in any::<bool>(),
        last in any::<bool>(),
        cuts in proptest::collection::vec(1_usize..40, 1..20),
    ) {
        let width = table[0].len();
        let names: Vec<String> = (0..width).map(|column| format!("c{column}")).collect();
        let end = if crlf { "\r\n" } else { "\n" };
        let mut text = names.join(",");
        let mut expected = Vec::new();
        for row in &table {
            text += end;
            // A lone empty cell would be a blank line.
            let always = always || width == 1;
            text += &row.iter().map(|cell| quoted(cell, always)).collect::<Vec<_>>().join(",");
            expected.push(row.clone());
        }
        if last {
            text += end;
        }
        let kept = read_in(&[text.as_bytes()], CsvLimits::default()).unwrap();
        prop_assert_eq!(&kept.rows, &expected);
        let mut rest = text.as_bytes();
        let mut pieces = Vec::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        prop_assert_eq!(read_in(&pieces, CsvLimits::default()).unwrap(), kept);
    }

    /// Any bytes give the same rows or the same error at once and in pieces.
    #[test]
    fn arbitrary_bytes_at_any_cut(
        bytes in proptest::collection::vec(prop_oneof![
            6 => proptest::sample::select(b"ab1,\"\n\r".to_vec()),
            1 => any::<u8>(),
        ], 0..200),
        size in 1_usize..20,
    ) {
        let at_once = read_in(&[&bytes], CsvLimits::default());
        prop_assert_eq!(read_in(&bytes.chunks(size).collect::<Vec<_>>(), CsvLimits::default()), at_once);
    }

    #[test]
    fn numbers_match_the_standard_library(text in "-?[0-9]{1,18}(\\.[0-9]{1,10})?(e-?[0-9]{1,2})?") {
        let expected: f64 = text.parse().unwrap();
        prop_assert_eq!(number(text.as_bytes()).map(f64::to_bits), Some(expected.to_bits()));
    }

    #[test]
    fn marks_are_found(bytes in proptest::collection::vec(prop_oneof![
        3 => any::<u8>(), 1 => proptest::sample::select(b",\n\x2d\x0b\xac\x8a".to_vec())], BLOCK)
    ) {
        let block: &[u8; BLOCK] = bytes.first_chunk().unwrap();
        let delimiters = block.iter().rev().fold(0, |mask, byte| mask << 1 | u64::from(b",\n".contains(byte)));
        prop_assert_eq!(marks(block), Marks { delimiters, has_quote: block.contains(&b'"') });
    }

    /// Short cells read in place are what they are alone.
    #[test]
    fn short_cells_in_place(cell in "[-+.0-9a]{1,17}", behind in "[-.0-9,]{0,20}") {
        let text = format!("{cell}{behind}");
        let (alone, within) = (Short::of(cell.as_bytes()), Short::within(text.as_bytes(), 0, cell.len()));
        prop_assert_eq!(alone.is_some(), cell.len() <= 16);
        prop_assert_eq!(alone.map(Short::hash), within.map(Short::hash));
        let bits = |short: Option<Short>| short.and_then(Short::number).map(|(number, whole)| (number.to_bits(), whole));
        prop_assert_eq!(bits(alone), bits(within));
        // The quick path is a part of the full parser.
        if let Some((number, whole)) = alone.and_then(Short::number) {
            prop_assert_eq!(cell.parse::<f64>().map(f64::to_bits), Ok(number.to_bits()));
            prop_assert_eq!(whole, !cell.contains('.'));
        }
    }
}
