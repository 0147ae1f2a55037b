//! Between messages and the policy.

use std::net::IpAddr;

use asterism_chassis::identity::Role;
use asterism_crypto::Digest;
use asterism_policy::{AadRule, Conditions, Decision, Effect, Grant, IpNet, Pattern, Weight};
use asterism_proto::policy as pb;

use super::{Approval, ApprovalState, Held, PolicyError, grants};

const MAX_VERBS: usize = 32;
const MAX_ROLES: usize = 16;
const MAX_ID_BYTES: usize = 64;

/// A grant without id.
pub(super) fn grant(message: pb::Grant) -> Result<Grant, PolicyError> {
    let effect = match message.effect() {
        pb::Effect::Allow => Effect::Allow,
        pb::Effect::Deny => Effect::Deny,
        pb::Effect::Unspecified => return Err(PolicyError::Field("grant.effect", "must be ALLOW or DENY")),
    };
    if message.verbs.len() > MAX_VERBS {
        return Err(PolicyError::Field("grant.verbs", "may be at most 32"));
    }
    Ok(Grant {
        id: String::new(),
        effect,
        subject: message.subject.parse()?,
        resource: message.resource.parse()?,
        verbs: message
            .verbs
            .iter()
            .map(|verb| verb.parse())
            .collect::<Result<_, _>>()?,
        conditions: conditions(message.conditions.unwrap_or_default())?,
        comment: message.comment,
    })
}

fn conditions(message: pb::Conditions) -> Result<Conditions, PolicyError> {
    use pb::conditions::Aad;
    if message.networks.len() > asterism_policy::MAX_NETWORKS {
        return Err(PolicyError::Field("conditions.networks", "may be at most 16"));
    }
    let networks = message.networks.iter().map(|text| network(text));
    let aad = match message.aad {
        None => None,
        Some(Aad::AadExact(bytes)) => Some(AadRule::Exact(bytes)),
        Some(Aad::AadPrefix(bytes)) => Some(AadRule::Prefix(bytes)),
        Some(Aad::AadSha256(bytes)) => {
            let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| {
                PolicyError::Field("conditions.aad_sha256", "must be the 32 bytes of a SHA-256")
            })?;
            Some(AadRule::Sha256(Digest::from_bytes(bytes)))
        }
    };
    Ok(Conditions {
        not_before_ms: milliseconds("conditions.not_before", message.not_before)?,
        not_after_ms: milliseconds("conditions.not_after", message.not_after)?,
        networks: networks.collect::<Result<_, _>>()?,
        aad,
    })
}

/// A network, or an address for a network of one.
fn network(text: &str) -> Result<IpNet, PolicyError> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = text.parse::<IpNet>().ok().or_else(address);
    network.map(|network| network.trunc()).ok_or(PolicyError::Field(
        "conditions.networks",
        "must be like 10.0.0.0/8",
    ))
}

pub(super) fn address(text: Option<&str>) -> Result<Option<IpAddr>, PolicyError> {
    text.map(|text| text.parse().map(|address: IpAddr| address.to_canonical()))
        .transpose()
        .map_err(|_| PolicyError::Field("network", "must be an address like 10.0.0.1"))
}

pub(super) fn roles(names: &[String]) -> Result<Vec<Role>, PolicyError> {
    let wrong = PolicyError::Field(
        "roles",
        "must be at most 16 of admin, key-admin, data-owner, analyst, auditor, viewer and service",
    );
    if names.len() > MAX_ROLES {
        return Err(wrong);
    }
    let roles: Option<Vec<Role>> = names.iter().map(|name| name.parse().ok()).collect();
    roles.ok_or(wrong)
}

/// One thing, by its full name.
pub(super) fn resource(name: &str) -> Result<&str, PolicyError> {
    match name.parse()? {
        Pattern::One(_) => Ok(name),
        Pattern::All(_) => Err(PolicyError::Field("resource", "must be one thing, like keys/x")),
    }
}

/// The id in `grants/{id}` or `approvals/{id}`.
pub(super) fn id<'a>(name: &'a str, collection: &str) -> Result<&'a str, PolicyError> {
    name.strip_prefix(collection)
        .and_then(|rest| rest.strip_prefix('/'))
        .filter(|id| is_id(id))
        .ok_or(PolicyError::Field(
            "name",
            "must be grants/{id} or approvals/{id}",
        ))
}

/// A page token is the last id of the page before.
pub(super) fn page_token(token: &str) -> Result<Option<&str>, PolicyError> {
    match token {
        "" => Ok(None),
        token if is_id(token) => Ok(Some(token)),
        _ => Err(PolicyError::Field("page_token", "must be one that the list gave")),
    }
}

fn is_id(id: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

pub(super) fn milliseconds(
    field: &'static str,
    time: Option<prost_types::Timestamp>,
) -> Result<Option<u64>, PolicyError> {
    let Some(time) = time else { return Ok(None) };
    let nanos = u64::try_from(time.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000);
    let ms = u64::try_from(time.seconds)
        .ok()
        .and_then(|seconds| seconds.checked_mul(1000)?.checked_add(nanos? / 1_000_000));
    ms.map(Some)
        .ok_or(PolicyError::Field(field, "must be a time after 1970"))
}

fn timestamp(ms: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: (ms / 1000) as i64,
        nanos: (ms % 1000 * 1_000_000) as i32,
    }
}

pub(super) fn held(held: &Held) -> pb::Grant {
    use pb::conditions::Aad;
    let (grant, conditions) = (&held.grant, &held.grant.conditions);
    pb::Grant {
        name: grants::name(&grant.id),
        effect: match grant.effect {
            Effect::Allow => pb::Effect::Allow,
            Effect::Deny => pb::Effect::Deny,
        }
        .into(),
        subject: grant.subject.to_string(),
        resource: grant.resource.to_string(),
        verbs: grant.verbs.iter().map(ToString::to_string).collect(),
        conditions: (*conditions != Conditions::default()).then(|| pb::Conditions {
            not_before: conditions.not_before_ms.map(timestamp),
            not_after: conditions.not_after_ms.map(timestamp),
            networks: conditions.networks.iter().map(ToString::to_string).collect(),
            aad: conditions.aad.clone().map(|aad| match aad {
                AadRule::Exact(bytes) => Aad::AadExact(bytes),
                AadRule::Prefix(bytes) => Aad::AadPrefix(bytes),
                AadRule::Sha256(digest) => Aad::AadSha256(digest.as_bytes().to_vec()),
            }),
        }),
        comment: grant.comment.clone(),
        creator: held.creator.clone(),
        create_time: Some(timestamp(held.created_at_ms)),
        revision: held.revision,
        etag: held.etag.clone(),
    }
}

pub(super) fn decision(decision: Decision) -> pb::ExplainAccessResponse {
    let steps = decision.because.into_iter().map(|step| pb::Step {
        source: step.source,
        weight: match step.weight {
            Weight::Allows => pb::step::Weight::Allows,
            Weight::Denies => pb::step::Weight::Denies,
            Weight::Silent => pb::step::Weight::Silent,
        }
        .into(),
        text: step.text,
    });
    pb::ExplainAccessResponse {
        allowed: decision.allowed,
        steps: steps.collect(),
    }
}

pub(super) fn approval(approval: &Approval, now_ms: u64) -> pb::Approval {
    pb::Approval {
        name: approval.name(),
        state: match approval.state(now_ms) {
            ApprovalState::Pending => pb::approval::State::Pending,
            ApprovalState::Approved => pb::approval::State::Approved,
            ApprovalState::Rejected => pb::approval::State::Rejected,
            ApprovalState::Used => pb::approval::State::Used,
            ApprovalState::Expired => pb::approval::State::Expired,
        }
        .into(),
        operation: approval.operation.clone(),
        key: approval.key.clone(),
        version: approval.version,
        parameters_sha256: approval.parameters.as_bytes().to_vec(),
        requester: approval.requester.clone(),
        required: approval.required.into(),
        approvers: approval.approvers.clone(),
        rejected_by: approval.rejected_by.clone().unwrap_or_default(),
        create_time: Some(timestamp(approval.created_at_ms)),
        expire_time: Some(timestamp(approval.expires_at_ms)),
    }
}
