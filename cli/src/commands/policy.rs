//! `asterism policy`

use std::{io::Read as _, path::Path};

use asterism_client::proto::policy::{
    Approval, Conditions, Effect, ExplainAccessRequest, Grant, approval::State, conditions::Aad, step::Weight,
};
use serde_json::{Value, json};

use crate::{
    args::{ExplainArgs, GrantArgs, PolicyCommand},
    connect::Services,
    error::CliError,
    output::{Output, time},
};

/// Largest additional authenticated data that is sent.
const MAX_AAD_BYTES: u64 = 64 << 10;

/// Runs a `policy` command.
pub async fn run(command: PolicyCommand, services: &Services, output: Output) -> Result<(), CliError> {
    let policy = &services.policy;
    match command {
        PolicyCommand::Grant(args) => make(args, Effect::Allow, services, output).await?,
        PolicyCommand::Deny(args) => make(args, Effect::Deny, services, output).await?,
        PolicyCommand::List { resource, subject } => {
            let grants = policy.grants(&resource, &subject).await?;
            let rows: Vec<_> = grants.iter().map(row).collect();
            let header = ["grant", "effect", "subject", "verbs", "resource", "when"];
            output.rows(header, &rows);
        }
        PolicyCommand::Show { name } => show(&policy.grant(&name).await?, output),
        PolicyCommand::Revoke { name, etag } => {
            policy.delete_grant(&name, &etag).await?;
            output.facts(&[("revoked", name.clone())], &json!({ "revoked": name }));
        }
        PolicyCommand::Explain(args) => explain(args, services, output).await?,
        PolicyCommand::Approvals => {
            let approvals = policy.approvals().await?;
            let rows: Vec<_> = approvals.iter().map(approval_row).collect();
            let header = [
                "approval",
                "state",
                "operation",
                "key",
                "requester",
                "approved",
                "expires",
            ];
            output.rows(header, &rows);
        }
        PolicyCommand::Approve { name } => show_approval(&policy.approve(&name).await?, output),
        PolicyCommand::Reject { name } => show_approval(&policy.reject(&name).await?, output),
    }
    Ok(())
}

async fn make(args: GrantArgs, effect: Effect, services: &Services, output: Output) -> Result<(), CliError> {
    let exact = args.aad.map(|aad| Aad::AadExact(aad.into_bytes()));
    let prefix = args.aad_prefix.map(|aad| Aad::AadPrefix(aad.into_bytes()));
    let grant = Grant {
        effect: effect.into(),
        subject: args.subject,
        resource: args.resource,
        verbs: args.verbs.split(',').map(str::to_owned).collect(),
        conditions: Some(Conditions {
            not_before: args.from.map(timestamp),
            not_after: args.until.map(timestamp),
            networks: args.network,
            aad: exact.or(prefix),
        }),
        comment: args.comment,
        ..Grant::default()
    };
    let request_id = uuid::Uuid::new_v4().to_string();
    show(&services.policy.create_grant(grant, &request_id).await?, output);
    Ok(())
}

async fn explain(args: ExplainArgs, services: &Services, output: Output) -> Result<(), CliError> {
    let themselves = args.principal == "me";
    let request = ExplainAccessRequest {
        principal: if themselves { String::new() } else { args.principal },
        roles: args.role,
        verb: args.verb,
        resource: args.resource,
        network: args.network.map(|address| address.to_string()),
        time: args.at.map(timestamp),
        aad: args.aad_file.as_deref().map(read).transpose()?,
    };
    let answer = services.policy.explain(request).await?;
    let steps: Vec<_> = answer
        .steps
        .iter()
        .map(|step| {
            let weight = match step.weight() {
                Weight::Allows => "allows",
                Weight::Denies => "denies",
                Weight::Silent | Weight::Unspecified => "-",
            };
            let value = json!({ "source": step.source, "weight": weight, "text": step.text });
            ([step.source.clone(), weight.to_owned(), step.text.clone()], value)
        })
        .collect();
    if output.is_json() {
        let steps: Vec<Value> = steps.into_iter().map(|(_, value)| value).collect();
        output.value(&json!({ "allowed": answer.allowed, "steps": steps }));
    } else {
        output.say(if answer.allowed { "allowed" } else { "denied" });
        output.rows(["source", "weight", "reason"], &steps);
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |error| CliError::Other(format!("{}: {error}", path.display()));
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_AAD_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_AAD_BYTES {
        return Err(CliError::Usage(format!(
            "{} is longer than 64 KiB",
            path.display()
        )));
    }
    Ok(bytes)
}

fn timestamp(time: jiff::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

fn effect(grant: &Grant) -> &'static str {
    match grant.effect() {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
        Effect::Unspecified => "",
    }
}

/// The conditions of a grant in words.
fn when(grant: &Grant) -> String {
    let conditions = grant.conditions.clone().unwrap_or_default();
    let mut parts = Vec::new();
    if conditions.not_before.is_some() {
        parts.push(format!("from {}", time(conditions.not_before.as_ref())));
    }
    if conditions.not_after.is_some() {
        parts.push(format!("until {}", time(conditions.not_after.as_ref())));
    }
    if !conditions.networks.is_empty() {
        parts.push(format!("in {}", conditions.networks.join(" or ")));
    }
    match conditions.aad {
        Some(Aad::AadExact(bytes)) => parts.push(format!("aad {}", String::from_utf8_lossy(&bytes))),
        Some(Aad::AadPrefix(bytes)) => parts.push(format!("aad {}…", String::from_utf8_lossy(&bytes))),
        Some(Aad::AadSha256(bytes)) => parts.push(format!("aad of SHA-256 {}", hex::encode(bytes))),
        None => {}
    }
    parts.join(", ")
}

fn value(grant: &Grant) -> Value {
    json!({
        "name": grant.name, "effect": effect(grant), "subject": grant.subject, "verbs": grant.verbs,
        "resource": grant.resource, "when": when(grant), "comment": grant.comment, "creator": grant.creator,
        "create_time": time(grant.create_time.as_ref()), "revision": grant.revision, "etag": grant.etag,
    })
}

fn row(grant: &Grant) -> ([String; 6], Value) {
    let cells = [
        grant.name.clone(),
        effect(grant).to_owned(),
        grant.subject.clone(),
        grant.verbs.join(", "),
        grant.resource.clone(),
        when(grant),
    ];
    (cells, value(grant))
}

fn show(grant: &Grant, output: Output) {
    let facts = [
        ("grant", grant.name.clone()),
        ("effect", effect(grant).to_owned()),
        ("subject", grant.subject.clone()),
        ("verbs", grant.verbs.join(", ")),
        ("resource", grant.resource.clone()),
        ("when", when(grant)),
        ("comment", grant.comment.clone()),
        ("made by", grant.creator.clone()),
        ("made at", time(grant.create_time.as_ref())),
        ("revision", grant.revision.to_string()),
        ("etag", grant.etag.clone()),
    ];
    output.facts(&facts, &value(grant));
}

fn state(approval: &Approval) -> &'static str {
    match approval.state() {
        State::Pending => "pending",
        State::Approved => "approved",
        State::Rejected => "rejected",
        State::Used => "used",
        State::Expired => "expired",
        State::Unspecified => "",
    }
}

/// The key, and which version where one is meant.
fn target(approval: &Approval) -> String {
    match approval.version {
        0 => approval.key.clone(),
        version => format!("{}/versions/{version}", approval.key),
    }
}

fn approval_value(approval: &Approval) -> Value {
    json!({
        "name": approval.name, "state": state(approval), "operation": approval.operation, "key": approval.key,
        "version": approval.version, "parameters_sha256": hex::encode(&approval.parameters_sha256),
        "requester": approval.requester, "required": approval.required, "approvers": approval.approvers,
        "rejected_by": approval.rejected_by, "create_time": time(approval.create_time.as_ref()),
        "expire_time": time(approval.expire_time.as_ref()),
    })
}

fn approval_row(approval: &Approval) -> ([String; 7], Value) {
    let approvers = &approval.approvers;
    let approved = format!(
        "{} of {} {}",
        approvers.len(),
        approval.required,
        approvers.join(", ")
    );
    let cells = [
        approval.name.clone(),
        state(approval).to_owned(),
        approval.operation.clone(),
        target(approval),
        approval.requester.clone(),
        approved.trim_end().to_owned(),
        time(approval.expire_time.as_ref()),
    ];
    (cells, approval_value(approval))
}

fn show_approval(approval: &Approval, output: Output) {
    let facts = [
        ("approval", approval.name.clone()),
        ("state", state(approval).to_owned()),
        ("operation", approval.operation.clone()),
        ("key", target(approval)),
        ("requester", approval.requester.clone()),
        ("approved by", approval.approvers.join(", ")),
        ("required", approval.required.to_string()),
    ];
    output.facts(&facts, &approval_value(approval));
}
