//! The contracts between the services: generated messages, clients and servers.
//!
//! Only `service.rs`/`wire.rs` adapters, the chassis and the SDK use these types; domain code never does.
#![allow(
    missing_docs,
    clippy::all,
    clippy::semicolon_if_nothing_returned,
    rust_2018_idioms
)]

/// Every contract as an encoded `google.protobuf.FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `asterism.audit.v1`
pub mod audit {
    tonic::include_proto!("asterism.audit.v1");
}

/// `asterism.firewall.v1`
pub mod firewall {
    tonic::include_proto!("asterism.firewall.v1");
}

/// `asterism.identity.v1`
pub mod identity {
    tonic::include_proto!("asterism.identity.v1");
}

/// `asterism.kms.v1`
pub mod kms {
    tonic::include_proto!("asterism.kms.v1");
}

/// `asterism.ingest.v1`
pub mod ingest {
    tonic::include_proto!("asterism.ingest.v1");
}

/// `asterism.inference.v1`
pub mod inference {
    tonic::include_proto!("asterism.inference.v1");
}

/// `inference`: the Open Inference Protocol, version 2
pub mod open_inference {
    tonic::include_proto!("inference");
}

/// `asterism.policy.v1`
pub mod policy {
    tonic::include_proto!("asterism.policy.v1");
}
