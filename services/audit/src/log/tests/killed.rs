//! The process that appends is killed, again and again, in the middle of whatever it does.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use super::{at, event, sled};
use crate::log::Log;

const ROUNDS: u64 = 12;
/// Says to the process that was started where to append.
const DIR: &str = "ASTERISM_AUDIT_KILLED_DIR";

fn log(dir: &Path) -> Log {
    Log::open(sled(dir), &dir.join("head.json")).unwrap()
}

/// Appends until it is killed; tells the size after each append.
fn append_for_ever(dir: &Path) {
    let log = log(dir);
    let mut next = log.size();
    loop {
        let count = next % 37 + 1;
        let events: Vec<_> = (next..next + count).map(event).collect();
        log.append(&events, at(1)).unwrap();
        log.note_head().unwrap();
        next += count;
        writeln!(std::io::stderr(), "acknowledged {next}").unwrap();
    }
}

/// Every event that was acknowledged is there, proved, and known again.
#[test]
fn what_was_acknowledged_survives_a_kill() {
    if let Some(dir) = std::env::var_os(DIR) {
        append_for_ever(dir.as_ref());
    }
    let dir = tempfile::tempdir().unwrap();
    let mut size = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "log::tests::killed::what_was_acknowledged_survives_a_kill",
                "--nocapture",
            ])
            .env(DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let told = |line: std::io::Result<String>| -> Option<u64> {
            line.ok()?.strip_prefix("acknowledged ")?.parse().ok()
        };
        let first = lines.by_ref().find_map(told).expect("it appends");
        std::thread::sleep(Duration::from_millis(20 + round * 13));
        child.kill().unwrap();
        let acknowledged = lines.filter_map(told).last().unwrap_or(first);
        child.wait().unwrap();
        let log = log(dir.path());
        assert!(log.size() >= acknowledged && acknowledged > size);
        size = log.size();
        let report = log.verify().unwrap();
        assert_eq!(
            (report.bad, report.head.size, report.sequence_problems),
            (None, size, vec![])
        );
        for index in [0, size / 3, acknowledged - 1] {
            assert_eq!(log.inclusion(index, size).unwrap().entry.event, event(index));
            assert_eq!(log.append(&[event(index)], at(1)).unwrap(), [index]);
        }
    }
}
