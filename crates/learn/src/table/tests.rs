use super::*;
use crate::csv::{CsvLimits, CsvReader};

/// The table of a CSV.
pub(crate) fn table(text: &str) -> Table {
    let mut builder = TableBuilder::new(1 << 20);
    let mut reader = CsvReader::new(CsvLimits::default());
    reader.feed(text.as_bytes(), &mut builder).unwrap();
    reader.finish(&mut builder).unwrap();
    builder.finish().unwrap()
}

#[test]
fn numbers_and_text() {
    let table = table("x,t,e,m\n1.5, red ,,1\nNA,blue,null,two\n-2,red,?,1.0\n");
    assert_eq!(table.rows(), 3);
    assert_eq!(table.names(), ["x", "t", "e", "m"]);
    assert_eq!(table.columns().len(), 4);
    let Some(Column::Numeric(x)) = table.column("x") else {
        panic!("{table:?}")
    };
    assert!(x[0] == 1.5 && x[1].is_nan() && x[2] == -2.0);
    let text = |codes: &[u32], words: &[&str]| Column::Text {
        codes: codes.to_vec(),
        dictionary: words.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(table.column("t"), Some(&text(&[0, 1, 0], &["red", "blue"])));
    let Some(Column::Numeric(e)) = table.column("e") else {
        panic!("{table:?}")
    };
    assert!(e.iter().all(|value| value.is_nan()));
    // One word makes the column text, and the numbers keep their spelling.
    assert_eq!(table.column("m"), Some(&text(&[0, 1, 2], &["1", "two", "1.0"])));
    assert_eq!(table.column("none"), None);
}

#[test]
fn missing_text_has_its_own_code() {
    let table = table("t\na\nNA\nb\n");
    let Some(Column::Text { codes, dictionary }) = table.column("t") else {
        panic!("{table:?}")
    };
    assert_eq!(codes, &[0, MISSING_CODE, 1]);
    assert_eq!(dictionary, &["a", "b"]);
}

#[test]
fn memory_is_capped() {
    // 13 bytes a number: the 77th passes 1000.
    let mut builder = TableBuilder::new(1000);
    let mut reader = CsvReader::new(CsvLimits::default());
    reader.feed(b"a\n", &mut builder).unwrap();
    let kept = (0..200).find(|_| reader.feed(b"1.234\n", &mut builder).is_err());
    assert_eq!(kept, Some(76));
    assert_eq!(
        reader.feed(b"1\n", &mut builder),
        Err(CsvError::OutOfRoom { limit: 1000 })
    );
    assert_eq!(builder.finish(), Err(TableError::TooLarge { limit_bytes: 1000 }));
    // A column that turns out to be text costs more, for the rows before too.
    let mut builder = TableBuilder::new(1000);
    let mut reader = CsvReader::new(CsvLimits::default());
    reader
        .feed(b"a\n1\n1\n1\n1\n1\n1\n1\n1\n1\n1\n1\n1\n1\n1\n", &mut builder)
        .unwrap();
    assert_eq!(
        reader.feed(b"x\n", &mut builder),
        Err(CsvError::OutOfRoom { limit: 1000 })
    );
    assert_eq!(builder.finish(), Err(TableError::TooLarge { limit_bytes: 1000 }));
}
