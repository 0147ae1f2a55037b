//! Tables for people, JSON for machines, progress on standard error.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

/// Where and how answers are shown.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// JSON lines on standard output, or tables.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether a machine reads.
    pub fn is_json(self) -> bool {
        self.json
    }

    /// Shows a list: a table, or a line of JSON a row.
    pub fn rows<const N: usize>(self, header: [&str; N], rows: &[([String; N], Value)]) {
        if self.json {
            for (_, value) in rows {
                self.value(value);
            }
            return;
        }
        let mut table = Table::new();
        table
            .load_style(UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(header);
        for (cells, _) in rows {
            table.add_row(cells);
        }
        print(&table.to_string());
    }

    /// Shows facts about one thing: a table of two columns, or a line of JSON.
    pub fn facts(self, facts: &[(&str, String)], value: &Value) {
        if self.json {
            self.value(value);
            return;
        }
        let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, fact) in facts {
            print(&format!("{name:width$}  {fact}"));
        }
    }

    /// One line of JSON.
    pub fn value<T: Serialize>(self, value: &T) {
        print(&serde_json::to_string(value).expect("values made by this program serialise"));
    }

    /// A line for people; nothing for machines.
    pub fn say(self, text: &str) {
        if !self.json {
            print(text);
        }
    }

    /// A progress bar on standard error; invisible where nobody looks.
    pub fn progress(self, total: u64, what: &'static str, bytes: bool) -> ProgressBar {
        if self.json || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let template = if bytes {
            "{msg:10} {bar:32} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}"
        } else {
            "{msg:10} {bar:32} {pos}/{len} {eta}"
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the templates above are well-formed"));
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// A count that grows to nobody knows where, on standard error; invisible where nobody looks.
    pub fn counter(self, what: &'static str) -> ProgressBar {
        if self.json || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(
            ProgressStyle::with_template("{spinner} {pos} {msg} {elapsed}")
                .expect("the template is well-formed"),
        );
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}

/// Writes a line to standard output; a reader that has gone away ends the program quietly.
pub fn print(line: &str) {
    if writeln!(std::io::stdout().lock(), "{line}").is_err() {
        std::process::exit(0);
    }
}

/// A problem, on standard error.
pub fn complain(problem: &str) {
    // Nobody is left to tell when standard error is gone too.
    let _ = writeln!(std::io::stderr().lock(), "asterism: {problem}");
}

/// A protobuf timestamp as RFC 3339.
pub fn time(timestamp: Option<&prost_types::Timestamp>) -> String {
    timestamp
        .and_then(|t| jiff::Timestamp::new(t.seconds, t.nanos).ok())
        .map_or_else(String::new, |t| t.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// A number of bytes as people say it.
pub fn bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
