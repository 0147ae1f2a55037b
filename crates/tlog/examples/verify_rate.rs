//! How fast an exported log is verified: `cargo run --release --example verify_rate -p asterism-tlog -- DIRECTORY ENTRIES BYTES`.
//!
//! Writes a log of so many entries of so many bytes into the directory, verifies it, and prints the figures as JSON.
#![allow(clippy::print_stdout)]

use std::{error::Error, fs, path::Path, time::Instant};

use asterism_crypto::SecretKey;
use asterism_tlog::{
    Checkpoint, Directory, Exporter, Frontier, InclusionProof, NoteSigner, SignedCheckpoint, TileId,
    TileNodes, Tiles,
    export::CHECKPOINT,
    leaf_hash,
    tile::decode_hashes,
    verify::{Options, verify},
};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [directory, entries, bytes] = args.as_slice() else {
        return Err("give a directory, a number of entries and their bytes".into());
    };
    let (directory, size, bytes) = (
        Path::new(directory),
        entries.parse::<u64>()?,
        bytes.parse::<usize>()?,
    );
    let signer = NoteSigner::new("bench.example".parse()?, &SecretKey::from_bytes([1; 32]));

    let started = Instant::now();
    let frontier = export(directory, size, bytes)?;
    let exporting = started.elapsed();
    let checkpoint = Checkpoint::new(signer.verifier().name(), size, frontier.root());
    let signed = SignedCheckpoint::new(&checkpoint, vec![signer.sign(&checkpoint.to_string())])?;
    fs::write(directory.join(CHECKPOINT), signed.to_string())?;

    let options = Options {
        keys: vec![signer.verifier().clone()],
        ..Options::default()
    };
    let started = Instant::now();
    let report = verify(&Directory::new(directory), &options, &|_, _| Ok(()))?;
    let verifying = started.elapsed();
    if !report.ok {
        return Err(format!("{:?}", report.problems).into());
    }

    let nodes = TileNodes::new(Files(directory), size);
    let proofs = 1000;
    let started = Instant::now();
    for at in 0..proofs {
        let index = size / proofs * at;
        InclusionProof::make(&nodes, index, size)?
            .verify(&leaf_hash(&entry(index, bytes)), &frontier.root())?;
    }
    let proving = started.elapsed();
    let rate = |elapsed: std::time::Duration| size as f64 / elapsed.as_secs_f64();
    println!(
        "{{\"entries\":{size},\"export_events_per_s\":{:.0},\"verifier_events_per_s\":{:.0},\"proof_from_files_us\":{:.1}}}",
        rate(exporting),
        rate(verifying),
        proving.as_secs_f64() * 1e6 / proofs as f64,
    );
    Ok(())
}

/// Writes the tiles and bundles.
fn export(directory: &Path, size: u64, bytes: usize) -> Result<Frontier, Box<dyn Error>> {
    let mut exporter = Exporter::new(|path: &str, bytes: &[u8]| {
        let path = directory.join(path);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, bytes)
    });
    for index in 0..size {
        exporter.push(&entry(index, bytes))?;
    }
    Ok(exporter.finish()?)
}

fn entry(index: u64, bytes: usize) -> Vec<u8> {
    let mut entry = vec![b'x'; bytes.max(8)];
    entry[..8].copy_from_slice(&index.to_be_bytes());
    entry
}

/// The tiles in a directory.
struct Files<'a>(&'a Path);

impl Tiles for Files<'_> {
    type Error = std::io::Error;

    fn tile(&self, id: TileId) -> Result<Vec<asterism_crypto::Digest>, std::io::Error> {
        let bytes = fs::read(self.0.join(id.to_string()))?;
        decode_hashes(&bytes, id.width()).map_err(std::io::Error::other)
    }
}
