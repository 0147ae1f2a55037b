//! Compiles the contracts with protox, so that no `protoc` has to be installed.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

const CONTRACTS: &[&str] = &[
    "asterism/audit/v1/audit.proto",
    "asterism/firewall/v1/firewall.proto",
    "asterism/identity/v1/identity.proto",
    "asterism/kms/v1/backup.proto",
    "asterism/kms/v1/kms.proto",
    "asterism/kms/v1/system.proto",
    "asterism/ingest/v1/ingest.proto",
    "asterism/inference/v1/inference.proto",
    "asterism/inference/v1/encrypted.proto",
    "asterism/policy/v1/policy.proto",
    "inference/open_inference.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=asterism");
    println!("cargo:rerun-if-changed=inference");
    let descriptors = protox::compile(CONTRACTS, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Served by gRPC reflection; `compile_fds` does not write it.
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".asterism.ingest.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
