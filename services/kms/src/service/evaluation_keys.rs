//! Records of evaluation keys.

use asterism_proto::kms as pb;
use tonic::{Request, Response, Status};

use super::Adapter;
use crate::{keys::evaluation, wire};

pub(super) async fn record_evaluation_key(
    adapter: &Adapter,
    request: Request<pb::RecordEvaluationKeyRequest>,
) -> Result<Response<pb::EvaluationKeyRecord>, Status> {
    adapter
        .on_open("kms.RecordEvaluationKey", request, |on, message, trail| {
            let record = wire::evaluation_key(message, on.caller.owner().as_str())?;
            trail
                .resource(evaluation::name(&record.sha256))
                .input_digest(record.sha256);
            on.open.evaluation_keys.record(&record)?;
            Ok(wire::evaluation_key_record(record))
        })
        .await
}

pub(super) async fn get_evaluation_key_record(
    adapter: &Adapter,
    request: Request<pb::GetEvaluationKeyRecordRequest>,
) -> Result<Response<pb::EvaluationKeyRecord>, Status> {
    adapter
        .on_open("kms.GetEvaluationKeyRecord", request, |on, message, trail| {
            trail.silent();
            let sha256 = wire::evaluation_key_name(&message.name)?;
            trail.resource(evaluation::name(&sha256));
            let record = on.open.evaluation_keys.get(on.caller.owner().as_str(), &sha256)?;
            Ok(wire::evaluation_key_record(record))
        })
        .await
}

pub(super) async fn delete_evaluation_key_record(
    adapter: &Adapter,
    request: Request<pb::DeleteEvaluationKeyRecordRequest>,
) -> Result<Response<pb::DeleteEvaluationKeyRecordResponse>, Status> {
    adapter
        .on_open("kms.DeleteEvaluationKeyRecord", request, |on, message, trail| {
            let sha256 = wire::evaluation_key_name(&message.name)?;
            trail.resource(evaluation::name(&sha256));
            on.open
                .evaluation_keys
                .delete(on.caller.owner().as_str(), &sha256)?;
            Ok(pb::DeleteEvaluationKeyRecordResponse {})
        })
        .await
}
