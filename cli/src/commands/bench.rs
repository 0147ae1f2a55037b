//! `asterism bench`: figures of this machine. Each starts what it needs on free ports in a temporary directory.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use asterism_chassis::identity::Role;
use asterism_client::{ClientError, Kms, UploadSource, proto::kms::KeyType};
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
    let measured = async {
        match command {
            BenchCommand::Upload { mib } => upload(mib, output).await,
            BenchCommand::Kms { calls } => kms(calls.max(1), output).await,
            BenchCommand::Start => start(output).await,
        }
    };
    tokio::time::timeout(PATIENCE, measured)
        .await
        .unwrap_or_else(|_| {
            Err(CliError::Other(
                "the bench did not end within 60 s; ask for less".into(),
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

async fn kms(calls: usize, output: Output) -> Result<(), CliError> {
    let (constellation, services, _dir) = fresh().await?;
    let kms = &services.kms;
    kms.create_key("bench", KeyType::Aes256Gcm, [], "bench-key")
        .await?;
    let plaintext = [7; 1024];
    let health = empty_calls(&constellation)?;
    let (mut empty, mut encrypt) = (Vec::with_capacity(calls), Vec::with_capacity(calls));
    let warm_up = calls / 10 + 10;
    // One after the other, so that both see the same machine.
    for call in 0..calls + warm_up {
        let begun = Instant::now();
        health.clone().call().await?;
        let middle = Instant::now();
        kms.encrypt("bench", &plaintext, b"bench").await?;
        if call >= warm_up {
            empty.push(middle - begun);
            encrypt.push(middle.elapsed());
        }
    }
    kms.create_key("bench-mac", KeyType::HmacSha256, [], "bench-mac-key")
        .await?;
    let encrypts_per_s = batches(kms, calls, async |kms, items| {
        let pairs: Vec<(&[u8], &[u8])> = items.iter().map(|item| (*item, b"bench".as_slice())).collect();
        kms.encrypt_batch("bench", &pairs).await.map(drop)
    })
    .await?;
    let macs_per_s = batches(kms, calls, async |kms, items| {
        kms.generate_macs("bench-mac", items).await.map(drop)
    })
    .await?;
    constellation.shutdown().await;
    let (empty_us, encrypt_us) = (median_us(&mut empty), median_us(&mut encrypt));
    let ratio = encrypt_us / empty_us;
    let facts = [
        ("empty call", format!("{empty_us:.0} us at p50")),
        ("encrypt 1 KiB", format!("{encrypt_us:.0} us at p50, audit on")),
        ("ratio", format!("{ratio:.2}")),
        (
            "encrypt, batches",
            format!("{encrypts_per_s:.0} items/s: 100 of 64 bytes a call, client and server in one process"),
        ),
        ("MACs, batches", format!("{macs_per_s:.0} items/s")),
    ];
    let value = json!({
        "empty_us_p50": round(empty_us), "encrypt_1k_us_p50": round(encrypt_us), "ratio": round(ratio),
        "calls": calls, "batch_encrypts_per_s": round(encrypts_per_s), "batch_macs_per_s": round(macs_per_s),
    });
    output.facts(&facts, &value);
    Ok(())
}

/// Items a second in batches of 100 small ones, eight calls at a time, about as many items as `calls` has tens.
async fn batches(
    kms: &Kms,
    calls: usize,
    call: impl AsyncFn(&Kms, &[&[u8]]) -> Result<(), ClientError>,
) -> Result<f64, CliError> {
    const ITEMS: usize = 100;
    const AT_ONCE: usize = 8;
    let item = [7; 64];
    let items = [item.as_slice(); ITEMS];
    call(kms, &items).await?;
    let rounds = (calls / 10).div_ceil(AT_ONCE).max(1);
    let begun = Instant::now();
    let workers = (0..AT_ONCE).map(|_| async {
        for _ in 0..rounds {
            call(kms, &items).await?;
        }
        Ok::<_, ClientError>(())
    });
    futures::future::try_join_all(workers).await?;
    Ok((rounds * AT_ONCE * ITEMS) as f64 / begun.elapsed().as_secs_f64())
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

/// An empty unary call to kms: its health check, which no policy, store or audit stands before.
#[derive(Clone)]
struct Health(tonic_health::pb::health_client::HealthClient<tonic::transport::Channel>);

impl Health {
    async fn call(mut self) -> Result<(), CliError> {
        let request = tonic_health::pb::HealthCheckRequest {
            service: String::new(),
        };
        self.0
            .check(request)
            .await
            .map(drop)
            .map_err(|status| CliError::Other(status.message().to_owned()))
    }
}

fn empty_calls(constellation: &Constellation) -> Result<Health, CliError> {
    let endpoint = constellation.endpoints().kms.clone();
    let channel = tonic::transport::Endpoint::from_shared(endpoint)
        .map_err(|error| CliError::Other(error.to_string()))?
        .tcp_nodelay(true)
        .connect_lazy();
    Ok(Health(tonic_health::pb::health_client::HealthClient::new(
        channel,
    )))
}

fn median_us(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Most memory that this process ever held, from the kernel's accounts.
fn peak_rss_mib() -> Result<f64, CliError> {
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|error| CliError::file("/proc/self/status".as_ref(), error))?;
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmHWM:")?
                .trim()
                .strip_suffix("kB")?
                .trim()
                .parse::<f64>()
                .ok()
        })
        .map(|kib| kib / 1024.0)
        .ok_or_else(|| CliError::Other("the kernel does not tell VmHWM".into()))
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
