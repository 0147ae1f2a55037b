//! Records of evaluation keys.

use asterism_proto::kms as pb;
use tonic::{Request, Response, Status};

use super::Adapter;
use crate::{keys::evaluation, wire};

pub(super) async fn record_evaluation_key(
    adapter: &Adapter,
    request: Request<pb::RecordEvaluationKeyRequest>,
) -> Result<Response<pb::EvaluationKeyRecord>, Status> {
    let keys = adapter.evaluation_keys.clone();
    adapter
        .gate
        .blocking(
            "kms.RecordEvaluationKey",
            request,
            move |caller, message, trail| {
                let record = wire::evaluation_key(message, caller.owner().as_str())?;
                trail
                    .resource(evaluation::name(&record.sha256))
                    .input_digest(record.sha256);
                keys.record(&record)?;
                Ok(wire::evaluation_key_record(record))
            },
        )
        .await
}

pub(super) async fn get_evaluation_key_record(
    adapter: &Adapter,
    request: Request<pb::GetEvaluationKeyRecordRequest>,
) -> Result<Response<pb::EvaluationKeyRecord>, Status> {
    let keys = adapter.evaluation_keys.clone();
    adapter
        .gate
        .blocking(
            "kms.GetEvaluationKeyRecord",
            request,
            move |caller, message, trail| {
                trail.silent();
                let sha256 = wire::evaluation_key_name(&message.name)?;
                trail.resource(evaluation::name(&sha256));
                let record = keys.get(caller.owner().as_str(), &sha256)?;
                Ok(wire::evaluation_key_record(record))
            },
        )
        .await
}

pub(super) async fn delete_evaluation_key_record(
    adapter: &Adapter,
    request: Request<pb::DeleteEvaluationKeyRecordRequest>,
) -> Result<Response<pb::DeleteEvaluationKeyRecordResponse>, Status> {
    let keys = adapter.evaluation_keys.clone();
    adapter
        .gate
        .blocking(
            "kms.DeleteEvaluationKeyRecord",
            request,
            move |caller, message, trail| {
                let sha256 = wire::evaluation_key_name(&message.name)?;
                trail.resource(evaluation::name(&sha256));
                keys.delete(caller.owner().as_str(), &sha256)?;
                Ok(pb::DeleteEvaluationKeyRecordResponse {})
            },
        )
        .await
}
