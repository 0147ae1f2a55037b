//! What bad input gets: a precise answer, again and again, and nothing is stored.

use asterism_chassis::error::{Classify as _, ErrorClass};
use asterism_ingest::IngestError;

use crate::support::{World, csv, reason};

/// Puts and commits; the refusal may come with either.
fn refused(world: &World, bytes: &[u8]) -> IngestError {
    let id = world.begin("");
    let mut first = None;
    let mut offset = 0;
    for piece in bytes.chunks(1 << 20) {
        match world.put(id, offset, piece) {
            Ok(due) => offset = due,
            Err(error) => {
                first = Some(error);
                break;
            }
        }
    }
    let first = first.unwrap_or_else(|| world.commit(id, bytes.len()).unwrap_err());
    // The same answer to whatever comes next.
    let again = world.commit(id, bytes.len()).unwrap_err();
    assert_eq!(
        (again.reason(), again.to_string()),
        (first.reason(), first.to_string())
    );
    let more = world.put(id, 0, b"x").unwrap_err();
    assert_eq!(more.reason(), first.reason());
    world.wait_for_files(0);
    assert!(world.no_dataset());
    first
}

type Place = Vec<(String, String)>;

fn place(error: &IngestError) -> Place {
    error.metadata()
}

fn at(row: u64, column: Option<u64>) -> Place {
    let fact = |name: &str, value: u64| (name.to_owned(), value.to_string());
    [
        Some(fact("row", row)),
        column.map(|column| fact("column", column)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn every_kind_of_bad_csv_is_refused_with_its_place() {
    let world = World::new();
    let mixed = [b"a,b\n1,2\n".as_slice(), b"caf\xe9,3\n"].concat();
    let utf16: Vec<u8> = [0xFF, 0xFE]
        .into_iter()
        .chain("a,b\n1,2\n".encode_utf16().flat_map(u16::to_le_bytes))
        .collect();
    let wide: String = (0..20_000).map(|column| format!("c{column},")).collect();
    let cases: Vec<(&[u8], &str, Place)> = vec![
        (b"", "CSV_EMPTY", vec![]),
        (b"a,b\n", "CSV_HEADER_ONLY", vec![]),
        (b"a,b", "CSV_HEADER_ONLY", vec![]),
        (b"a,b\n1,2\n1,2,3\n", "CSV_RAGGED_ROW", at(2, None)),
        (b"a,b\n1\n", "CSV_RAGGED_ROW", at(1, None)),
        (b"a,b,a\n1,2,3\n", "CSV_DUPLICATE_COLUMN", at(0, Some(3))),
        (b"a,,c\n1,2,3\n", "CSV_EMPTY_COLUMN_NAME", at(0, Some(2))),
        (&mixed, "CSV_INVALID_UTF8", at(2, Some(1))),
        (&utf16, "CSV_UNSUPPORTED_ENCODING", vec![]),
        (b"a,b\n1,\0\n", "CSV_NUL_BYTE", at(1, None)),
        (b"a,b\n1,\"2\n3,4\n", "CSV_UNTERMINATED_QUOTE", at(1, None)),
        (wide.as_bytes(), "CSV_TOO_MANY_COLUMNS", vec![]),
    ];
    for (bytes, expected, place_of) in cases {
        let error = refused(&world, bytes);
        assert_eq!(error.class(), ErrorClass::Invalid, "{error}");
        assert_eq!((error.reason(), place(&error)), (expected, place_of), "{error}");
        assert_eq!(error.violations()[0].field, "data");
    }
}

#[test]
fn a_cell_of_100_mb_is_refused_after_the_first_mebibytes() {
    let world = World::new();
    let id = world.begin("");
    let mut offset = world.put(id, 0, b"a,b\n1,2\n3,").unwrap();
    let piece = vec![b'x'; 1 << 20];
    let error = loop {
        match world.put(id, offset, &piece) {
            Ok(due) => offset = due,
            Err(error) => break error,
        }
        assert!(offset < 100 << 20, "the whole cell was taken");
    };
    assert_eq!(
        (error.reason(), place(&error)),
        ("CSV_CELL_TOO_LARGE", at(2, Some(2)))
    );
    // Two pieces tell, and a few more may have been on their way.
    assert!(offset < 16 << 20, "{offset} bytes were taken");
    world.wait_for_files(0);
}

#[test]
fn ten_thousand_columns_are_fine() {
    let world = World::new();
    let names: Vec<String> = (0..10_000).map(|column| format!("c{column}")).collect();
    let row = vec!["1.5"; 10_000].join(",");
    let made = world
        .upload(format!("{}\n{row}\n{row}\n", names.join(",")))
        .unwrap();
    assert_eq!(made.columns.len(), 10_000);
    assert!(world.verify(made.id).verified());
    let batches = world.rows(made.id, 0, None).unwrap();
    assert_eq!(batches[0].columns, names);
    assert!(
        batches
            .iter()
            .flat_map(|batch| &batch.rows)
            .all(|row| row.len() == 10_000)
    );
}

#[test]
fn a_schema_that_no_manifest_could_hold_is_refused() {
    let world = World::new();
    // Six bytes in JSON for each of these.
    let name = "\u{1}".repeat(300_000);
    let header: Vec<String> = (0..8).map(|column| format!("{column}{name}")).collect();
    let error = refused(
        &world,
        format!("{}\n1,2,3,4,5,6,7,8\n", header.join(",")).as_bytes(),
    );
    assert_eq!(error.reason(), "SCHEMA_TOO_LARGE");
}

#[test]
fn a_refused_upload_frees_its_request_id_and_its_place() {
    let world = World::new();
    for _ in 0..20 {
        let id = world.begin("r1");
        world.put(id, 0, b"a,b\n1,2,3\n").unwrap();
        assert_eq!(reason(world.commit(id, 10)), "CSV_RAGGED_ROW");
    }
    let id = world.begin("r1");
    world.put(id, 0, &csv(3)).unwrap();
    assert_eq!(world.commit(id, csv(3).len()).unwrap().record.rows, 3);
}

#[test]
fn a_cell_never_shows_in_an_error() {
    let world = World::new();
    let error = refused(&world, b"a,b\nsecret,secret,secret\n");
    assert!(!error.to_string().contains("secret"));
    assert!(!format!("{error:?}").contains("secret"));
}
