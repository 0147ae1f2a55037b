//! `asterism bench`: figures of this machine. Each starts what it needs on free ports in a temporary directory.

mod kms;
mod many_keys;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use asterism_chassis::identity::Role;
use asterism_client::UploadSource;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncRead, ReadBuf};

use crate::{
    args::BenchCommand,
    commands::up::ADMIN,
    connect::Services,
    constellation::{Constellation, Options},
    error::CliError,
    output::Output,
};

/// No bench may go on for longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a `bench` command.
pub async fn run(command: BenchCommand, output: Output) -> Result<(), CliError> {
    let patience = match command {
        // Keys are made, each durable, before anything is measured.
        BenchCommand::Kms { keys: Some(keys), .. } | BenchCommand::MakeKeys { keys, .. } => {
            PATIENCE + Duration::from_millis(keys)
        }
        _ => PATIENCE,
    };
    let measured = async {
        match command {
            BenchCommand::Upload { mib } => upload(mib, output).await,
            BenchCommand::Kms { keys: Some(keys), .. } => many_keys::run(keys, output).await,
            BenchCommand::Kms {
                keys: None,
                callers,
                seconds,
            } => kms::run(callers, seconds, output).await,
            BenchCommand::MakeKeys { keys, data_dir } => many_keys::make(&data_dir, keys, output).await,
            BenchCommand::Start => start(output).await,
        }
    };
    tokio::time::timeout(patience, measured)
        .await
        .unwrap_or_else(|_| {
            Err(CliError::Other(
                "the bench did not end in time; ask for less".into(),
            ))
        })
}

async fn upload(mib: u64, output: Output) -> Result<(), CliError> {
    let (constellation, services, _dir) = fresh().await?;
    let size = mib << 20;
    let bar = output.progress(size, "upload", true);
    let mut csv = SyntheticCsv::new(size);
    let source = UploadSource {
        display_name: "bench",
        request_id: "bench-upload",
        with_sha256: false,
        reader: &mut csv,
    };
    let begun = Instant::now();
    let dataset = services
        .ingest
        .upload(source, |progress| bar.set_position(progress.sent))
        .await?;
    let seconds = begun.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let rss_mib = peak_rss_mib()?;
    constellation.shutdown().await;
    let mb_per_s = dataset.bytes as f64 / 1e6 / seconds;
    let facts = [
        (
            "uploaded",
            format!("{} rows, {}", dataset.rows, crate::output::bytes(dataset.bytes)),
        ),
        (
            "throughput",
            format!("{mb_per_s:.0} MB/s, client and server in one process"),
        ),
        ("peak memory", format!("{rss_mib:.0} MiB resident")),
    ];
    let value = json!({
        "mb_per_s": round(mb_per_s), "rss_mib": round(rss_mib), "bytes": dataset.bytes, "rows": dataset.rows,
        "seconds": round(seconds),
    });
    output.facts(&facts, &value);
    Ok(())
}

async fn start(output: Output) -> Result<(), CliError> {
    let mut times = Vec::new();
    for _ in 0..5 {
        let dir = temporary()?;
        let begun = Instant::now();
        let constellation = Constellation::start(dir.path(), &Options::default()).await?;
        times.push(begun.elapsed());
        constellation.shutdown().await;
    }
    let ms = median_us(&mut times) / 1000.0;
    output.facts(
        &[("start", format!("{ms:.0} ms for all four, median of 5"))],
        &json!({ "ms": round(ms) }),
    );
    Ok(())
}

async fn fresh() -> Result<(Constellation, Services, TempDir), CliError> {
    let dir = temporary()?;
    let constellation = Constellation::start(dir.path(), &Options::default()).await?;
    let services = constellation.connect(ADMIN, &[Role::Admin], None)?;
    Ok((constellation, services, dir))
}

fn temporary() -> Result<TempDir, CliError> {
    tempfile::tempdir().map_err(|error| CliError::file(&std::env::temp_dir(), error))
}

fn median_us(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Most memory that this process ever held.
fn peak_rss_mib() -> Result<f64, CliError> {
    from_status("VmHWM:")
}

/// Microseconds that this process has taken of the processors so far.
fn cpu_us() -> Result<f64, CliError> {
    let path = std::path::Path::new("/proc/self/stat");
    let stat = std::fs::read_to_string(path).map_err(|error| CliError::file(path, error))?;
    // After the name, which may hold anything: user and system time are the 12th and 13th, in hundredths of a second.
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    let ticks: Option<f64> = (fields.split_whitespace().skip(11).take(2))
        .map(|field| field.parse::<f64>().ok())
        .sum();
    let ticks =
        ticks.ok_or_else(|| CliError::Other("the kernel does not tell the time of this process".into()))?;
    Ok(ticks * 1e4)
}

/// MiB in a line of the kernel's account of this process.
fn from_status(name: &str) -> Result<f64, CliError> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|error| CliError::file("/proc/self/status".as_ref(), error))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok())
        .map(|kib| kib / 1024.0)
        .ok_or_else(|| CliError::Other(format!("the kernel does not tell {name}")))
}

/// A numeric table of about the wished size: a block of random rows, made beforehand so that making it is not measured,
/// given again and again.
struct SyntheticCsv {
    header: Vec<u8>,
    rows: Vec<u8>,
    left: usize,
    /// Bytes of the block that were given since its last start.
    taken: usize,
}

impl SyntheticCsv {
    const COLUMNS: usize = 10;
    /// Bytes of a cell with what ends it.
    const CELL: usize = 8;
    const ROWS: usize = 100_000;

    fn new(size: u64) -> Self {
        let names: Vec<String> = (0..Self::COLUMNS).map(|column| format!("c{column}")).collect();
        let row = Self::CELL * Self::COLUMNS;
        let mut rows = Vec::with_capacity(Self::ROWS * row);
        let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
        for _ in 0..Self::ROWS {
            for column in 1..=Self::COLUMNS {
                // xorshift64 (Marsaglia 2003): quick, and far from repeating.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let end = if column == Self::COLUMNS { '\n' } else { ',' };
                rows.extend_from_slice(
                    format!("{}.{:05}{end}", state % 10, (state >> 8) % 100_000).as_bytes(),
                );
            }
        }
        Self {
            header: format!("{}\n", names.join(",")).into_bytes(),
            left: usize::try_from(size).unwrap_or(usize::MAX).div_ceil(row) * row,
            rows,
            taken: 0,
        }
    }
}

impl AsyncRead for SyntheticCsv {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.header.is_empty() {
            let header = std::mem::take(&mut self.header);
            buffer.put_slice(&header);
            return Poll::Ready(Ok(()));
        }
        if self.taken == self.rows.len() {
            self.taken = 0;
        }
        let count = buffer
            .remaining()
            .min(self.rows.len() - self.taken)
            .min(self.left);
        buffer.put_slice(&self.rows[self.taken..self.taken + count]);
        self.taken += count;
        self.left -= count;
        Poll::Ready(Ok(()))
    }
}
