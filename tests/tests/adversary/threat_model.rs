//! The table of docs/threat-model.md names tests that exist, and all that exist.

use std::collections::BTreeSet;

const TABLE: &str = include_str!("../../../docs/threat-model.md");
const MODULES: [(&str, &str); 8] = [
    ("canaries", include_str!("canaries.rs")),
    ("fuzz", include_str!("fuzz.rs")),
    ("insiders", include_str!("insiders.rs")),
    ("load", include_str!("load.rs")),
    ("network", include_str!("network.rs")),
    ("operators", include_str!("operators.rs")),
    ("storage", include_str!("storage.rs")),
    ("suites", include_str!("suites.rs")),
];

/// `module::name` of every test of this target but those here.
fn tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (module, source) in MODULES {
        let mut is_test = false;
        for line in source.lines() {
            let name = line.trim_start_matches("async ").strip_prefix("fn ");
            if let (true, Some(name)) = (is_test, name) {
                found.insert(format!("{module}::{}", name.split('(').next().unwrap()));
            }
            is_test = line.starts_with("#[tokio::test") || line.starts_with("#[test]");
        }
    }
    found
}

/// What stands between backquotes and names a test.
fn named(text: &str) -> BTreeSet<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|name| name.contains("::"))
        .map(ToOwned::to_owned)
        .collect()
}

#[test]
fn every_row_names_tests_that_exist_and_every_test_is_named() {
    let tests = tests();
    assert!(tests.len() >= 12, "{tests:?}");
    let rows: Vec<&str> = TABLE
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| adversary"))
        .collect();
    assert_eq!(rows.len(), 10, "one row for each adversary");
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        assert_eq!(cells.len(), 5, "{row}");
        assert!(!named(cells[4]).is_empty(), "no test: {row}");
    }
    assert_eq!(named(TABLE), tests);
}
