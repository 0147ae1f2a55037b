//! `asterism audit`

mod outside;

use asterism_client::proto::audit::{EventFilter, ListEventsRequest, LogEntry, Outcome};
use serde_json::{Value, json};

use crate::{
    args::{AuditCommand, FilterArgs, OutcomeKind},
    connect::Services,
    error::CliError,
    output::{Output, time},
};

pub use outside::offline;

const HEADER: [&str; 7] = [
    "index",
    "time",
    "source",
    "principal",
    "operation",
    "resource",
    "outcome",
];

/// Runs an `audit` command.
pub async fn run(command: AuditCommand, services: &Services, output: Output) -> Result<(), CliError> {
    match command {
        AuditCommand::List { filter, limit } => {
            let mut request = ListEventsRequest {
                filter: Some(to_filter(filter)),
                page_size: 0,
                page_token: String::new(),
            };
            let mut rows = Vec::new();
            while rows.len() < limit {
                request.page_size = i32::try_from((limit - rows.len()).min(1000)).unwrap_or(1000);
                let page = services.audit.list(request.clone()).await?;
                rows.extend(page.entries.iter().map(row));
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            output.rows(HEADER, &rows);
            Ok(())
        }
        AuditCommand::Tail { filter, from } => tail(services, filter, from, output).await,
        AuditCommand::Verify(_) => verify(services, output).await,
        AuditCommand::Prove {
            entry,
            out,
            entry_out,
        } => outside::prove(services, &entry, &out, entry_out.as_deref(), output).await,
        AuditCommand::Checkpoint { out, key_out } => {
            outside::checkpoint(services, out.as_deref(), key_out.as_deref(), output).await
        }
        AuditCommand::Export { directory } => outside::export(services, &directory, output).await,
    }
}

async fn tail(
    services: &Services,
    filter: FilterArgs,
    from: Option<u64>,
    output: Output,
) -> Result<(), CliError> {
    let mut stream = services.audit.watch(to_filter(filter), from).await?;
    let ended = |status: tonic::Status| CliError::Other(format!("the watch ended: {}", status.message()));
    while let Some(message) = stream.message().await.map_err(ended)? {
        let Some(entry) = message.entry else { continue };
        let (cells, value) = row(&entry);
        if output.is_json() {
            output.value(&value);
        } else {
            output.say(&cells.join("  "));
        }
    }
    Ok(())
}

async fn verify(services: &Services, output: Output) -> Result<(), CliError> {
    let report = services.audit.verify().await?;
    let value = json!({
        "verified": report.verified, "entries": report.entries, "root_sha256": hex::encode(&report.root_sha256),
        "first_bad_index": report.first_bad_index, "problem": report.problem,
        "sequence_problems": report.sequence_problems,
    });
    let facts = [
        ("verified", if report.verified { "yes" } else { "NO" }.to_owned()),
        ("entries", report.entries.to_string()),
        ("root", hex::encode(&report.root_sha256)),
    ];
    output.facts(&facts, &value);
    for problem in &report.sequence_problems {
        output.say(problem);
    }
    if report.verified {
        return Ok(());
    }
    Err(CliError::NotVerified(match report.first_bad_index {
        Some(index) => format!("event {index} does not fit the log: {}", report.problem),
        None => report.problem,
    }))
}

fn to_filter(args: FilterArgs) -> EventFilter {
    let outcome = match args.outcome {
        None => Outcome::Unspecified,
        Some(OutcomeKind::Succeeded) => Outcome::Succeeded,
        Some(OutcomeKind::Denied) => Outcome::Denied,
        Some(OutcomeKind::Failed) => Outcome::Failed,
    };
    EventFilter {
        principal: args.principal.unwrap_or_default(),
        source: args.source.unwrap_or_default(),
        operation: args.operation.unwrap_or_default(),
        resource: args.resource.unwrap_or_default(),
        outcome: outcome.into(),
        trace_id: args.trace_id.unwrap_or_default(),
        from: None,
        until: None,
    }
}

fn row(entry: &LogEntry) -> ([String; 7], Value) {
    let event = entry.event.clone().unwrap_or_default();
    let outcome = match event.outcome() {
        Outcome::Succeeded => "succeeded".to_owned(),
        Outcome::Denied => format!("denied {}", event.reason),
        Outcome::Failed => format!("failed {}", event.reason),
        Outcome::Unspecified => String::new(),
    };
    let who = if event.on_behalf_of.is_empty() {
        event.principal.clone()
    } else {
        format!("{} for {}", event.principal, event.on_behalf_of)
    };
    let value = json!({
        "index": entry.index, "appended_at": time(entry.appended_at.as_ref()),
        "leaf_sha256": hex::encode(&entry.leaf_sha256), "event_id": event.event_id, "source": event.source,
        "source_sequence": event.source_sequence, "occurred_at": time(event.occurred_at.as_ref()),
        "principal": event.principal, "on_behalf_of": event.on_behalf_of, "operation": event.operation,
        "resource": event.resource, "key_version": event.key_version,
        "outcome": event.outcome().as_str_name().trim_start_matches("OUTCOME_").to_lowercase(),
        "reason": event.reason, "request_id": event.request_id, "trace_id": event.trace_id,
        "token_id": event.token_id, "network": event.network,
        "input_sha256": hex::encode(&event.input_sha256), "output_sha256": hex::encode(&event.output_sha256),
    });
    let cells = [
        entry.index.to_string(),
        time(event.occurred_at.as_ref()),
        event.source,
        who,
        event.operation,
        event.resource,
        outcome,
    ];
    (cells, value)
}
