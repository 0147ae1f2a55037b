//! Between messages and the domain of encrypted prediction.

use std::time::Duration;

use asterism_client::receipt::ENCRYPTED_REPLY_DOMAIN;
use asterism_crypto::Digest;
use asterism_fhe::{bundle::ScoreCoding, compile::Options, params::PlanKind};
use asterism_proto::inference as pb;

use crate::{
    encrypted::{Answered, EvaluationKeyId, KeyHeader, StoredKey, Target},
    error::InferenceError,
};

pub(crate) fn options(request: &pb::CompileModelRequest) -> Result<Options, InferenceError> {
    let unknown = || InferenceError::field("plan", "must be a plan that this version has");
    let plan = pb::Plan::try_from(request.plan).map_err(|_| unknown())?;
    Ok(Options {
        plan: match name(plan) {
            None => None,
            Some(name) => Some(PlanKind::from_name(name).ok_or_else(unknown)?),
        },
        used_edges_only: request.used_edges_only,
    })
}

fn name(plan: pb::Plan) -> Option<&'static str> {
    match plan {
        pb::Plan::Unspecified => None,
        pb::Plan::Linear => Some("linear"),
        pb::Plan::Pairs => Some("pairs"),
        pb::Plan::Paths => Some("paths"),
        pb::Plan::Neurons => Some("neurons"),
    }
}

fn plan(wanted: &str) -> i32 {
    [
        pb::Plan::Linear,
        pb::Plan::Pairs,
        pb::Plan::Paths,
        pb::Plan::Neurons,
    ]
    .into_iter()
    .find(|plan| name(*plan) == Some(wanted))
    .unwrap_or_default()
    .into()
}

pub(crate) fn compiled(target: &Target) -> pb::CompiledModel {
    let compiled = &target.compiled;
    let explanation = compiled.program().explanation();
    let candidates = explanation.candidates.iter().map(|candidate| pb::PlanCandidate {
        plan: plan(&candidate.plan),
        estimated_us: candidate.cost_us,
        reason: candidate.reason.clone(),
    });
    let codings = compiled.program().bundle().scores().iter();
    let errors = &explanation.quantisation_error;
    let scores = codings.enumerate().map(|(output, coding)| {
        let ScoreCoding {
            offset, unit, levels, ..
        } = *coding;
        pb::ScoreCoding {
            offset,
            unit,
            levels,
            quantisation_error: errors.get(output).copied().unwrap_or_default(),
        }
    });
    pb::CompiledModel {
        name: target.id.name(),
        compiled_sha256: compiled.digest().as_bytes().to_vec(),
        plan: plan(&explanation.plan),
        params: explanation.params.clone(),
        candidates: candidates.collect(),
        query_bytes: explanation.query_bytes as u64,
        reply_bytes: explanation.reply_bytes as u64,
        evaluation_key_bytes: explanation.key_bytes as u64,
        products: explanation.products as u64,
        product_us: micros(compiled.product()),
        measured_us: compiled.measured().map(micros),
        noise_log2: explanation.noise_log2,
        failure_log2: explanation.failure_log2,
        residual_leak: explanation.residual_leak,
        edges_are_thresholds: explanation.edges_are_thresholds,
        scores: scores.collect(),
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

pub(crate) fn bundle(target: &Target) -> pb::ClientBundle {
    pb::ClientBundle {
        name: target.id.name(),
        bundle: target.compiled.program().bundle().to_bytes(),
        compiled_sha256: target.compiled.digest().as_bytes().to_vec(),
    }
}

pub(crate) fn key_header(header: pb::EvaluationKeyHeader) -> Result<KeyHeader, InferenceError> {
    let sha256: [u8; 32] = header
        .sha256
        .as_slice()
        .try_into()
        .map_err(|_| InferenceError::field("header.sha256", "must be the 32 bytes of a SHA-256"))?;
    Ok(KeyHeader {
        params: header.params,
        sha256: Digest::from_bytes(sha256),
        total_bytes: header.total_bytes,
    })
}

pub(crate) fn key(key: StoredKey) -> pb::EvaluationKey {
    pb::EvaluationKey {
        name: key.id().name(),
        owner: key.owner,
        params: key.params,
        sha256: key.sha256.as_bytes().to_vec(),
        total_bytes: key.total_bytes,
    }
}

/// A page token is the digest of the last key of the page before.
pub(crate) fn page_token(token: &str) -> Result<Option<EvaluationKeyId>, InferenceError> {
    if token.is_empty() {
        return Ok(None);
    }
    let id = EvaluationKeyId::parse(token);
    id.map(Some)
        .ok_or_else(|| InferenceError::field("page_token", "must be one that ListEvaluationKeys gave"))
}

pub(crate) fn answer(answered: Answered, index: u64) -> pb::PredictEncryptedResponse {
    let receipt = answered.receipt;
    debug_assert_eq!(receipt.domain, ENCRYPTED_REPLY_DOMAIN);
    let stages = answered.stages.iter().map(|(stage, time)| pb::StageTime {
        stage: stage.name().to_owned(),
        seconds: time.as_secs_f64(),
    });
    pb::PredictEncryptedResponse {
        reply: answered.reply,
        receipt: Some(pb::Receipt {
            payload: receipt.payload,
            signature: receipt.signature,
            key: format!("keys/{}", receipt.key),
            key_version: receipt.key_version,
        }),
        stages: stages.collect(),
        index,
    }
}
