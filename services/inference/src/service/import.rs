//! An import as one stream of the client: the header, then the file in parts.

use asterism_chassis::{
    call::{Caller, Trail},
    error::Failure,
};
use asterism_proto::inference::{self as pb, import_model_request::Part};
use tonic::Streaming;

use crate::{error::InferenceError, flow::Flow, wire};

/// Largest file.
const MAX_FILE_BYTES: usize = 64 << 20;
/// Most bytes of it in one message.
const MAX_CHUNK_BYTES: usize = 1 << 20;

pub(super) async fn import(
    flow: &Flow,
    caller: &Caller,
    mut parts: Streaming<pb::ImportModelRequest>,
    trail: &mut Trail,
) -> Result<pb::Model, Failure> {
    let Some(Part::Header(header)) = next(&mut parts).await?.and_then(|message| message.part) else {
        return Err(Failure::invalid("header", "must be the first part of the stream"));
    };
    let header = wire::import_header(header)?;
    let _place = flow.import_place()?;
    let mut file = Vec::new();
    while let Some(message) = next(&mut parts).await? {
        let Some(Part::Chunk(chunk)) = message.part else {
            return Err(Failure::invalid("part", "must be a chunk after the header"));
        };
        if chunk.is_empty() || chunk.len() > MAX_CHUNK_BYTES {
            return Err(Failure::invalid("chunk", "must have 1 byte to 1 MiB"));
        }
        if file.len() + chunk.len() > MAX_FILE_BYTES {
            return Err(Failure::invalid("chunk", "the file has more than 64 MiB"));
        }
        if caller.expired() {
            return Err(InferenceError::DeadlineExceeded.into());
        }
        file.extend_from_slice(&chunk);
    }
    trail.input(&file);
    let request = wire::import_key(&header, caller.owner().as_str(), &file);
    let verified = flow.import(caller, header.display_name, file, request).await?;
    trail
        .resource(format!("models/{}", verified.manifest.model))
        .output_digest(verified.manifest_sha256);
    Ok(wire::model(&verified))
}

async fn next(
    parts: &mut Streaming<pb::ImportModelRequest>,
) -> Result<Option<pb::ImportModelRequest>, InferenceError> {
    parts.message().await.map_err(|_| InferenceError::Cancelled)
}
