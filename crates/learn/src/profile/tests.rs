use super::*;
use crate::csv::{CsvLimits, CsvReader};

fn profile(text: &str) -> Profile {
    let mut profiler = Profiler::new();
    let mut reader = CsvReader::new(CsvLimits::default());
    reader.feed(text.as_bytes(), &mut profiler).unwrap();
    reader.finish(&mut profiler).unwrap();
    profiler.finish()
}

/// Of a table of one column named `x`.
fn column(cells: &[&str]) -> ColumnProfile {
    let rows: String = cells.iter().map(|cell| format!("{cell},\n")).collect();
    let profile = profile(&format!("x,y\n{rows}"));
    assert_eq!(profile.rows, cells.len() as u64);
    assert_eq!(profile.columns[1].kind, ColumnKind::Empty);
    assert_eq!(profile.columns[1].missing, profile.rows);
    profile.columns[0].clone()
}

#[test]
fn kinds() {
    for (cells, kind) in [
        (vec!["1", "-2", "+3", "007", " 4 "], ColumnKind::Integer),
        (vec!["1", "NA", "", "2"], ColumnKind::Integer),
        (vec!["1", "2.5"], ColumnKind::Float),
        (vec!["1", "1e3"], ColumnKind::Float),
        (vec!["1.25", "0.1234567890123456789"], ColumnKind::Float),
        (vec!["12345678901234567890"], ColumnKind::Float),
        (vec!["true", "FALSE", "True", "NA"], ColumnKind::Boolean),
        (vec!["true", "1"], ColumnKind::Text),
        (vec!["1", "true"], ColumnKind::Text),
        (vec!["true", "yes"], ColumnKind::Text),
        (vec!["1", "x", "2"], ColumnKind::Text),
        (vec!["1", "inf"], ColumnKind::Text),
        (vec!["NA", "", "null"], ColumnKind::Empty),
    ] {
        assert_eq!(column(&cells).kind, kind, "{cells:?}");
    }
}

#[test]
fn figures_of_numbers() {
    let figures = column(&["3", "-1.5", "nan", "2", "3", "1e1"]);
    assert_eq!(
        (figures.missing, figures.distinct, figures.distinct_exact),
        (1, 4, true)
    );
    assert_eq!(
        (figures.min, figures.max, figures.mean),
        (Some(-1.5), Some(10.0), Some(3.3))
    );
}

#[test]
fn figures_of_text() {
    let figures = column(&["b", "a", "?", "b", "a longer cell than sixteen bytes"]);
    assert_eq!(
        (figures.missing, figures.distinct, figures.distinct_exact),
        (1, 3, true)
    );
    assert_eq!((figures.min, figures.max, figures.mean), (None, None, None));
    // Numbers before the text are not figures of the column.
    assert_eq!(column(&["1", "x"]).max, None);
}

#[test]
fn a_mean_that_overflows_is_left_out() {
    let figures = column(&["1e308", "1e308", "1e308"]);
    assert_eq!((figures.max, figures.mean), (Some(1e308), None));
}

#[test]
fn padding_and_quotes_do_not_make_values_distinct() {
    assert_eq!(column(&["12.5", " 12.5", "\"12.5\"", "12.5 "]).distinct, 1);
}

#[test]
fn distinct_counts() {
    for count in [1_u64, 200, 256] {
        let cells: Vec<String> = (0..count * 3).map(|value| (value % count).to_string()).collect();
        let figures = column(&cells.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((figures.distinct, figures.distinct_exact), (count, true));
    }
    // Beyond, within 4 standard errors of 2.3 %, for each way that cells are hashed.
    for width in [6, 12, 24] {
        for count in [257_u64, 1000, 5000, 20_000, 100_000] {
            let mut distinct = Distinct::new();
            for value in 0..count {
                let cell = format!("{value:0width$}");
                distinct.add(hash(cell.as_bytes()));
                distinct.add(hash(cell.as_bytes()));
            }
            let (estimate, exact) = distinct.count();
            assert!(!exact);
            let error = (estimate as f64 / count as f64 - 1.0).abs();
            assert!(error < 0.092, "{estimate} for {count}, {width} wide");
        }
    }
}

#[test]
fn a_profile_survives_json() {
    let before = profile("a,b,c\n0.1,x,true\n1e-300,y,false\n3.3333333333333335,NA,true\n");
    let json = serde_json::to_string(&before).unwrap();
    assert_eq!(serde_json::from_str::<Profile>(&json).unwrap(), before);
    assert!(json.contains(r#""kind":"float""#));
}
