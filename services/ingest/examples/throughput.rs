//! Uploads a synthetic CSV over loopback, client, ingest and kms in this one process, and says how quick that was.
//!
//! `cargo run --release -p asterism-ingest --example throughput -- [MiB]`
#![allow(clippy::print_stdout)]

use std::{
    fmt::Write as _,
    io::Cursor,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use asterism_chassis::{
    config::Common,
    identity::{Authority, PrincipalId, Role},
};
use asterism_client::{Connection, Credentials, Ingest, UploadSource};
use tokio::{io::AsyncReadExt as _, net::TcpListener};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mib: usize = std::env::args().nth(1).map_or(Ok(1024), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let authority = Arc::new(Authority::load_or_create(&dir.path().join("credentials"))?);
    let listener = || TcpListener::bind("127.0.0.1:0");
    let kms = asterism_kms::Config {
        common: Common::embedded("kms", dir.path()),
        ..Default::default()
    };
    let kms = asterism_kms::start(kms, listener().await?).await?;
    let mut common = Common::embedded("ingest", dir.path());
    common.kms_addr = Some(kms.url());
    let begun = Instant::now();
    let config = asterism_ingest::Config {
        common,
        ..Default::default()
    };
    let ingest = asterism_ingest::start(config, listener().await?).await?;
    println!("started in {:?}", begun.elapsed());

    let id: PrincipalId = "user/bench".parse().map_err(|_| "a principal")?;
    let token = move || {
        Ok(authority.mint(
            &id,
            &[Role::DataOwner],
            Duration::from_secs(600),
            SystemTime::now(),
        ))
    };
    let client = Ingest::new(Connection::lazy(&ingest.url(), Credentials::source(token))?);

    // One block of rows again and again: making rows must not be what is measured.
    let block = rows()?;
    let header = "a,b,c,d,e,f,g,h,i,j\n";
    let mut reader: Box<dyn tokio::io::AsyncRead + Send + Unpin> =
        Box::new(Cursor::new(header.as_bytes().to_vec()));
    for _ in 0..(mib << 20) / block.len() {
        reader = Box::new(reader.chain(Cursor::new(block.clone())));
    }
    let begun = Instant::now();
    let source = UploadSource {
        display_name: "throughput",
        request_id: "throughput",
        with_sha256: false,
        reader: &mut reader,
    };
    let mut last = begun;
    let dataset = client.upload(source, |_| last = Instant::now()).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let commit = last.elapsed().as_secs_f64();
    println!(
        "{:.0} MB/s, {} rows, commit {commit:.2} s",
        dataset.bytes as f64 / 1e6 / seconds,
        dataset.rows
    );
    let begun = Instant::now();
    let report = client.verify(&dataset.name).await?;
    println!("verified: {} in {:?}", report.verified, begun.elapsed());
    let status = std::fs::read_to_string("/proc/self/status")?;
    println!(
        "{}",
        status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap_or_default()
    );
    ingest.shutdown().await;
    kms.shutdown().await;
    Ok(())
}

fn rows() -> Result<bytes::Bytes, Failure> {
    let mut text = String::new();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    while text.len() < 8 << 20 {
        for column in 0..10 {
            // xorshift64 (Marsaglia 2003)
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let end = if column == 9 { '\n' } else { ',' };
            write!(text, "{}.{:05}{end}", state % 10, state / 10 % 100_000)?;
        }
    }
    Ok(text.into())
}
