//! `asterism firewall`

use asterism_client::{
    ClientError, Firewall,
    proto::firewall::{Cause, DefaultAction, Entry, RateLimit, Rules},
};
use serde_json::{Value, json};

use crate::{
    args::{DefaultKind, EntryArgs, FirewallArgs, FirewallCommand, Global, SetArgs, Which},
    connect::firewalls,
    error::CliError,
    output::{Output, time},
};

/// Runs a `firewall` command, on one service after the other.
pub async fn run(args: FirewallArgs, global: &Global, output: Output) -> Result<(), CliError> {
    let mut chosen = firewalls(global)?;
    chosen.retain(|(service, _)| is_chosen(args.service, service));
    match args.command {
        FirewallCommand::List => {
            let mut rows = vec![];
            for (service, firewall) in &chosen {
                rows.extend(rule_rows(service, &firewall.rules().await?.0));
            }
            output.rows(["service", "rule", "subject", "what", "until", "comment"], &rows);
            Ok(())
        }
        FirewallCommand::Allow(entry) => {
            let force = entry.force;
            change(&chosen, force, output, |rules| {
                change_list(&mut rules.allow, &entry)
            })
            .await
        }
        FirewallCommand::Block(entry) => {
            let force = entry.force;
            change(&chosen, force, output, |rules| {
                change_list(&mut rules.block, &entry)
            })
            .await
        }
        FirewallCommand::Limit {
            subject,
            rate,
            burst,
            remove,
        } => {
            let rate = rate.unwrap_or_default();
            let limit = RateLimit {
                subject,
                requests_per_second: rate,
                burst: burst.unwrap_or_else(|| one_second(rate)),
            };
            let by = |rules: &mut Rules| {
                let before = rules.limits.len();
                rules.limits.retain(|other| other.subject != limit.subject);
                if remove {
                    return found(before > rules.limits.len(), &limit.subject);
                }
                rules.limits.push(limit.clone());
                Ok(())
            };
            change(&chosen, false, output, by).await
        }
        FirewallCommand::Set(settings) => {
            change(&chosen, settings.force, output, |rules| set(rules, &settings)).await
        }
        FirewallCommand::Bans { ended } => bans(&chosen, ended, output).await,
        FirewallCommand::Lift { network } => lift(&chosen, &network, output).await,
        FirewallCommand::Stats => stats(&chosen, output).await,
    }
}

type Chosen = [(&'static str, Firewall)];

fn is_chosen(which: Which, service: &str) -> bool {
    match which {
        Which::All => true,
        Which::Kms => service == "kms",
        Which::Ingest => service == "ingest",
        Which::Inference => service == "inference",
        Which::Audit => service == "audit",
    }
}

/// Reads, changes and writes the rules of each.
async fn change(
    chosen: &Chosen,
    force: bool,
    output: Output,
    by: impl Fn(&mut Rules) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut rows = vec![];
    for (service, firewall) in chosen {
        let (mut rules, etag) = firewall.rules().await?;
        by(&mut rules)?;
        let after = firewall.update(rules, &etag, force).await?;
        let value = json!({ "service": service, "etag": after.etag });
        rows.push(([(*service).to_owned(), after.etag], value));
    }
    output.rows(["changed", "etag"], &rows);
    Ok(())
}

fn change_list(entries: &mut Vec<Entry>, args: &EntryArgs) -> Result<(), CliError> {
    for subject in &args.subjects {
        let before = entries.len();
        entries.retain(|entry| !is_same(&entry.subject, subject));
        if args.remove {
            found(before > entries.len(), subject)?;
            continue;
        }
        entries.push(Entry {
            subject: subject.clone(),
            expire_time: args.until.map(|until| prost_types::Timestamp {
                seconds: until.as_second(),
                nanos: 0,
            }),
            comment: args.comment.clone(),
        });
    }
    Ok(())
}

/// Services write an address with its prefix.
fn is_same(stored: &str, given: &str) -> bool {
    let single = |text: &str| {
        text.strip_suffix("/32")
            .or(text.strip_suffix("/128"))
            .map(ToOwned::to_owned)
    };
    stored == given || single(stored).is_some_and(|address| address == given)
}

fn found(found: bool, subject: &str) -> Result<(), CliError> {
    let missing = || CliError::Usage(format!("{subject} is not on the list"));
    found.then_some(()).ok_or_else(missing)
}

fn set(rules: &mut Rules, args: &SetArgs) -> Result<(), CliError> {
    match args.default {
        Some(DefaultKind::Allow) => rules.set_default_action(DefaultAction::Allow),
        Some(DefaultKind::Block) => rules.set_default_action(DefaultAction::Block),
        None => {}
    }
    rules.exempt_loopback = args.exempt_loopback.unwrap_or(rules.exempt_loopback);
    let bans = rules.bans.get_or_insert_default();
    bans.failures = args.failures.unwrap_or(bans.failures);
    bans.window_seconds = args.window.unwrap_or(bans.window_seconds);
    bans.first_seconds = args.first.unwrap_or(bans.first_seconds);
    bans.longest_seconds = args.longest.unwrap_or(bans.longest_seconds);
    for network in &args.unexempt {
        let before = bans.exempt_networks.len();
        bans.exempt_networks.retain(|other| !is_same(other, network));
        found(before > bans.exempt_networks.len(), network)?;
    }
    for network in &args.exempt {
        if !bans.exempt_networks.iter().any(|other| is_same(other, network)) {
            bans.exempt_networks.push(network.clone());
        }
    }
    Ok(())
}

fn one_second(rate: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the bounds of a burst"
    )]
    let burst = rate.ceil().clamp(1.0, 1_000_000.0) as u32;
    burst
}

type Row<const N: usize> = ([String; N], Value);

fn rule_rows(service: &str, rules: &Rules) -> Vec<Row<6>> {
    let row = |rule: &str, subject: &str, what: String, until: String, comment: &str| {
        let value = json!({
            "service": service, "rule": rule, "subject": subject, "what": what, "until": until, "comment": comment,
        });
        let cells = [service, rule, subject, &what, &until, comment].map(ToOwned::to_owned);
        (cells, value)
    };
    let default = if rules.default_action() == DefaultAction::Block {
        "block"
    } else {
        "allow"
    };
    let mut rows = vec![row("default", "", default.to_owned(), String::new(), "")];
    for (rule, entries) in [("allow", &rules.allow), ("block", &rules.block)] {
        rows.extend((entries.iter()).map(|entry| {
            let until = time(entry.expire_time.as_ref());
            row(rule, &entry.subject, String::new(), until, &entry.comment)
        }));
    }
    rows.extend(rules.limits.iter().map(|limit| {
        let what = format!("{}/s, {} at once", limit.requests_per_second, limit.burst);
        row("limit", &limit.subject, what, String::new(), "")
    }));
    if let Some(bans) = &rules.bans {
        let what = match bans.failures {
            0 => "never".to_owned(),
            failures => format!(
                "{failures} failures in {} s: {} s, doubling to {} s",
                bans.window_seconds, bans.first_seconds, bans.longest_seconds
            ),
        };
        rows.push(row("ban", "", what, String::new(), ""));
        rows.extend(
            (bans.exempt_networks.iter())
                .map(|net| row("never banned", net, String::new(), String::new(), "")),
        );
    }
    if rules.exempt_loopback {
        let what = "no rules about networks, no bans".to_owned();
        rows.push(row("exempt", "loopback", what, String::new(), ""));
    }
    rows
}

async fn bans(chosen: &Chosen, ended: bool, output: Output) -> Result<(), CliError> {
    let mut rows = vec![];
    for (service, firewall) in chosen {
        for ban in firewall.bans(ended).await? {
            let cause = match ban.cause() {
                Cause::Authentication => "authentication",
                Cause::Handshake => "handshake",
                Cause::Denial => "denial",
                Cause::Unspecified => "",
            };
            let (since, until) = (time(ban.begin_time.as_ref()), time(ban.end_time.as_ref()));
            let value = json!({
                "service": service, "network": ban.network, "since": since, "until": until, "strikes": ban.strikes,
                "cause": cause,
            });
            let strikes = ban.strikes.to_string();
            rows.push((
                [
                    (*service).to_owned(),
                    ban.network,
                    since,
                    until,
                    strikes,
                    cause.to_owned(),
                ],
                value,
            ));
        }
    }
    output.rows(
        ["service", "network", "since", "until", "strikes", "cause"],
        &rows,
    );
    Ok(())
}

/// Of several services, it need not be banned by all.
async fn lift(chosen: &Chosen, network: &str, output: Output) -> Result<(), CliError> {
    let mut rows = vec![];
    let mut refused = None;
    for (service, firewall) in chosen {
        match firewall.lift(network).await {
            Ok(()) => {
                let value = json!({ "service": service, "network": network });
                rows.push(([(*service).to_owned(), network.to_owned()], value));
            }
            Err(error) if is_not_banned(&error) => refused = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    match refused {
        Some(error) if rows.is_empty() => Err(error.into()),
        _ => {
            output.rows(["lifted by", "network"], &rows);
            Ok(())
        }
    }
}

fn is_not_banned(error: &ClientError) -> bool {
    error.reason() == Some("NOT_BANNED")
}

async fn stats(chosen: &Chosen, output: Output) -> Result<(), CliError> {
    let mut rows = vec![];
    for (service, firewall) in chosen {
        let stats = firewall.statistics().await?;
        let value = json!({
            "service": service, "connections_refused": stats.connections_refused, "calls_blocked": stats.calls_blocked,
            "calls_rate_limited": stats.calls_rate_limited, "failures": stats.failures, "bans": stats.bans,
            "tracked_networks": stats.tracked_networks, "tracked_principals": stats.tracked_principals,
        });
        let counts = [
            stats.connections_refused,
            stats.calls_blocked,
            stats.calls_rate_limited,
            stats.failures,
            stats.bans,
            stats.tracked_networks,
            stats.tracked_principals,
        ];
        let [
            connections,
            blocked,
            limited,
            failures,
            bans,
            networks,
            principals,
        ] = counts.map(|count| count.to_string());
        let service = (*service).to_owned();
        rows.push((
            [
                service,
                connections,
                blocked,
                limited,
                failures,
                bans,
                networks,
                principals,
            ],
            value,
        ));
    }
    let header = [
        "service",
        "connections refused",
        "calls blocked",
        "rate limited",
        "failures",
        "bans",
        "networks known",
        "principals known",
    ];
    output.rows(header, &rows);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_changed_by_subject_and_addresses_are_known_with_and_without_prefix() {
        let args = |subject: &str, remove: bool| EntryArgs {
            subjects: vec![subject.to_owned()],
            until: None,
            comment: "c".to_owned(),
            remove,
            force: false,
        };
        let mut entries = vec![];
        change_list(&mut entries, &args("192.0.2.1", false)).expect("added");
        entries[0].subject = "192.0.2.1/32".to_owned(); // as a service answers it
        change_list(&mut entries, &args("192.0.2.1", false)).expect("replaced");
        assert_eq!(entries.len(), 1);
        change_list(&mut entries, &args("192.0.2.1", true)).expect("removed");
        assert!(matches!(
            change_list(&mut entries, &args("192.0.2.1", true)),
            Err(CliError::Usage(_))
        ));
        assert_eq!(
            (one_second(0.1), one_second(12.5), one_second(f64::NAN)),
            (1, 13, 0)
        );
    }
}
