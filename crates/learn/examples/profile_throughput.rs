//! How fast one thread reads and profiles CSV: `cargo run --release -p asterism-learn --example profile_throughput`.
//!
//! Repeats the rows of `examples/breast_cancer.csv`, then a table of random numbers, a table of integers and one with
//! quoted text, in pieces of 1 MiB, and prints MB/s (10^6 bytes) for each. `-- MB` sets the size of each table. Time is
//! that of the processor where Linux tells it, so that other work on the machine does not count.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that prints its result"
)]

use std::{fmt::Write as _, time::Instant};

use asterism_learn::{
    csv::{CsvError, CsvLimits, CsvReader, Row, RowSink},
    profile::Profiler,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const PIECE: usize = 1 << 20;
const COLUMNS: usize = 30;

fn main() {
    let bytes = std::env::args().nth(1).map_or(200, |size| size.parse().unwrap()) * 1_000_000;
    let cancer = include_str!("../../../examples/breast_cancer.csv");
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    measure("breast cancer", &repeated(cancer, bytes));
    let random = generated(bytes, &mut |text| {
        write!(text, "{:.2}", rng.random::<f64>() * 100.0).unwrap();
    });
    measure("two decimals", &random);
    let full = generated(bytes, &mut |text| {
        write!(text, "{}", rng.random::<f64>()).unwrap();
    });
    measure("17 digits", &full);
    let whole = generated(bytes, &mut |text| {
        write!(text, "{}", rng.random_range(0..100_000)).unwrap();
    });
    measure("integers", &whole);
    let quoted = generated(bytes, &mut |text| {
        write!(text, "\"n, {}\"", rng.random_range(0..100_000)).unwrap();
    });
    measure("quoted text", &quoted);
}

/// The header once, the rows as often as fits.
fn repeated(text: &str, bytes: usize) -> String {
    let (header, rows) = text.split_once('\n').unwrap();
    format!("{header}\n{}", rows.repeat(bytes / rows.len() + 1))
}

fn generated(bytes: usize, cell: &mut dyn FnMut(&mut String)) -> String {
    let mut text: String = (0..COLUMNS).map(|column| format!("column_{column},")).collect();
    text.pop();
    while text.len() < bytes {
        for column in 0..COLUMNS {
            text.push(if column == 0 { '\n' } else { ',' });
            cell(&mut text);
        }
    }
    text + "\n"
}

/// Only splits.
struct Nothing;

impl RowSink for Nothing {
    fn header(&mut self, _: &[String]) -> Result<(), CsvError> {
        Ok(())
    }

    fn row(&mut self, _: &Row<'_>) -> Result<(), CsvError> {
        Ok(())
    }
}

fn read(text: &str, sink: &mut dyn RowSink) -> f64 {
    let (start, start_cpu) = (Instant::now(), cpu_seconds());
    let mut reader = CsvReader::new(CsvLimits::default());
    for piece in text.as_bytes().chunks(PIECE) {
        reader.feed(piece, sink).unwrap();
    }
    reader.finish(sink).unwrap();
    let wall = start.elapsed().as_secs_f64();
    let seconds = start_cpu.zip(cpu_seconds()).map_or(wall, |(from, to)| to - from);
    text.len() as f64 / 1e6 / seconds
}

/// Processor time of this process so far.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    Some(text.split_whitespace().next()?.parse::<f64>().ok()? / 1e9)
}

fn measure(name: &str, text: &str) {
    let split = (0..3).map(|_| read(text, &mut Nothing)).fold(0.0, f64::max);
    let mut profiled = 0.0;
    let mut profile = None;
    for _ in 0..3 {
        let mut profiler = Profiler::new();
        profiled = f64::max(profiled, read(text, &mut profiler));
        profile = Some(profiler.finish());
    }
    let profile = profile.unwrap();
    println!(
        "{name:14} split {split:6.0} MB/s, split + profile {profiled:6.0} MB/s ({} rows)",
        profile.rows
    );
}
