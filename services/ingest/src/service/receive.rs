//! An upload as one stream of the client: `begin`, then `chunk`s, then `commit`.

use std::sync::Arc;

use asterism_chassis::{
    call::{Caller, Trail},
    error::{ErrorClass, Failure},
};
use asterism_policy::Verb;
use asterism_proto::ingest::{self as pb, upload_request::Part};
use tonic::Streaming;

use super::{Domain, off_thread};
use crate::{
    uploads::{Begun, UploadId},
    wire,
};

/// `begin`, `chunk`s, `commit`: the same domain calls as the unary methods, from one stream.
pub(super) async fn upload(
    domain: &Arc<Domain>,
    caller: &Caller,
    parts: &mut Streaming<pb::UploadRequest>,
    trail: &mut Trail,
) -> Result<pb::Dataset, Failure> {
    let begin = match next(parts).await? {
        Some(Part::Begin(begin)) => begin,
        _ => return Err(Failure::invalid("begin", "must be the first part of the stream")),
    };
    let resumable = !begin.request_id.is_empty();
    let (this, who, mut event) = (domain.clone(), caller.clone(), trail.clone());
    let (begun, event) = off_thread(move || Ok((this.begin(&who, &begin, &mut event)?, event))).await?;
    *trail = event;
    let id = match begun {
        Begun::Upload { id, .. } => id,
        Begun::Dataset(id) => {
            let (this, who) = (domain.clone(), caller.clone());
            return off_thread(move || {
                let granted = this.granted(&who, Verb::Get, id)?;
                Ok(wire::described(this.datasets.describe(&granted)?))
            })
            .await;
        }
    };
    let received = receive_parts(domain, caller, id, parts, trail).await;
    if received.is_err() && !resumable {
        // Nobody else knows of this upload: it would only wait for its expiry.
        let (this, owner) = (domain.clone(), caller.owner().to_string());
        let _ = off_thread(move || Ok(this.uploads.abort(id, &owner)?)).await;
    }
    received
}

async fn receive_parts(
    domain: &Arc<Domain>,
    caller: &Caller,
    id: UploadId,
    parts: &mut Streaming<pb::UploadRequest>,
    trail: &mut Trail,
) -> Result<pb::Dataset, Failure> {
    // The stream starts at the first byte, also when an earlier one brought some already: those are skipped.
    let mut offset = 0;
    loop {
        let (this, who) = (domain.clone(), caller.clone());
        match next(parts).await? {
            Some(Part::Chunk(data)) => {
                let end = offset + data.len() as u64;
                off_thread(move || Ok(this.put(&who, id, offset, data, None)?)).await?;
                offset = end;
            }
            Some(Part::Commit(commit)) => {
                if !commit.upload_id.is_empty() && UploadId::parse(&commit.upload_id)? != id {
                    return Err(Failure::invalid(
                        "commit.upload_id",
                        "must be left out, or be that of this upload",
                    ));
                }
                let mut event = trail.clone();
                let (made, event) =
                    off_thread(move || Ok((this.commit(&who, id, &commit, &mut event)?, event))).await?;
                *trail = event;
                return Ok(made);
            }
            Some(Part::Begin(_)) => return Err(Failure::invalid("begin", "must come once, and first")),
            None => {
                return Err(Failure::invalid(
                    "commit",
                    "is missing: the stream ended before it",
                ));
            }
        }
    }
}

async fn next(parts: &mut Streaming<pb::UploadRequest>) -> Result<Option<Part>, Failure> {
    match parts.message().await {
        Ok(Some(message)) => message
            .part
            .map(Some)
            .ok_or_else(|| Failure::invalid("part", "must be begin, chunk or commit")),
        Ok(None) => Ok(None),
        Err(_) => Err(Failure::new(
            ErrorClass::Cancelled,
            "CANCELLED",
            "the stream broke off",
        )),
    }
}
