//! Between the contract and the domain.

use std::net::IpAddr;

use asterism_proto::firewall as pb;
use ipnet::IpNet;

use super::{
    Ban, Cause, Change,
    rules::{BanRules, DefaultAction, Entry, MAX_ENTRIES, RateLimit, Rules, text_of},
};
use crate::error::Failure;

const MAX_REQUEST_ID: usize = 64;

pub(super) fn change(request: pb::UpdateRulesRequest) -> Result<Change, Failure> {
    if request.etag.is_empty() || request.etag.len() > MAX_REQUEST_ID {
        return Err(Failure::invalid("etag", "must be the one that GetRules answers"));
    }
    if request.request_id.len() > MAX_REQUEST_ID || !request.request_id.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(Failure::invalid(
            "request_id",
            "must be at most 64 visible ASCII characters",
        ));
    }
    let rules = request
        .rules
        .ok_or_else(|| Failure::invalid("rules", "must be set"))?;
    Ok(Change {
        rules: parse_rules(rules)?,
        etag: request.etag,
        request_id: request.request_id,
        force: request.force,
    })
}

fn parse_rules(rules: pb::Rules) -> Result<Rules, Failure> {
    if rules.allow.len() + rules.block.len() + rules.limits.len() > MAX_ENTRIES {
        return Err(Failure::invalid(
            "rules",
            format!("there are more than {MAX_ENTRIES} entries"),
        ));
    }
    let default = match rules.default_action() {
        pb::DefaultAction::Allow => DefaultAction::Allow,
        pb::DefaultAction::Block => DefaultAction::Block,
        pb::DefaultAction::Unspecified => {
            return Err(Failure::invalid("rules.default_action", "must be ALLOW or BLOCK"));
        }
    };
    let bans = rules
        .bans
        .ok_or_else(|| Failure::invalid("rules.bans", "must be set"))?;
    let limit = |limit: pb::RateLimit| {
        Ok(RateLimit {
            subject: subject("rules.limits", &limit.subject)?,
            requests_per_second: limit.requests_per_second,
            burst: limit.burst,
        })
    };
    Ok(Rules {
        default,
        allow: entries("rules.allow", rules.allow)?,
        block: entries("rules.block", rules.block)?,
        limits: rules
            .limits
            .into_iter()
            .map(limit)
            .collect::<Result<_, Failure>>()?,
        bans: BanRules {
            failures: bans.failures,
            window: bans.window_seconds,
            first: bans.first_seconds,
            longest: bans.longest_seconds,
            exempt: (bans.exempt_networks.iter())
                .map(|text| parse_network("rules.bans.exempt_networks", text))
                .collect::<Result<_, _>>()?,
        },
        exempt_loopback: rules.exempt_loopback,
    })
}

fn entries(field: &'static str, entries: Vec<pb::Entry>) -> Result<Vec<Entry>, Failure> {
    let entry = |entry: pb::Entry| {
        let expires = match entry.expire_time {
            None => None,
            Some(time) => Some(
                u64::try_from(time.seconds)
                    .map_err(|_| Failure::invalid(field, "an expire_time is before 1970"))?,
            ),
        };
        Ok(Entry {
            subject: subject(field, &entry.subject)?,
            expires,
            comment: entry.comment,
        })
    };
    entries.into_iter().map(entry).collect()
}

fn subject<T: std::str::FromStr<Err = String>>(field: &'static str, text: &str) -> Result<T, Failure> {
    text.parse()
        .map_err(|problem: String| Failure::invalid(field, problem))
}

fn parse_network(field: &'static str, text: &str) -> Result<IpNet, Failure> {
    let net = text.parse::<IpNet>().ok();
    net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
        .ok_or_else(|| Failure::invalid(field, "must be a network like 10.0.0.0/8, or an address"))
}

/// The address of a ban that is to be lifted.
pub(super) fn banned(request: &pb::LiftBanRequest) -> Result<IpAddr, Failure> {
    Ok(parse_network("network", &request.network)?.addr())
}

pub(super) fn rules(rules: Rules) -> pb::Rules {
    let entry = |entry: Entry| pb::Entry {
        subject: entry.subject.to_string(),
        expire_time: entry.expires.map(timestamp),
        comment: entry.comment,
    };
    let limit = |limit: RateLimit| pb::RateLimit {
        subject: limit.subject.to_string(),
        requests_per_second: limit.requests_per_second,
        burst: limit.burst,
    };
    pb::Rules {
        default_action: match rules.default {
            DefaultAction::Allow => pb::DefaultAction::Allow,
            DefaultAction::Block => pb::DefaultAction::Block,
        }
        .into(),
        allow: rules.allow.into_iter().map(entry).collect(),
        block: rules.block.into_iter().map(entry).collect(),
        limits: rules.limits.into_iter().map(limit).collect(),
        bans: Some(pb::BanRules {
            failures: rules.bans.failures,
            window_seconds: rules.bans.window,
            first_seconds: rules.bans.first,
            longest_seconds: rules.bans.longest,
            exempt_networks: rules.bans.exempt.iter().map(ToString::to_string).collect(),
        }),
        exempt_loopback: rules.exempt_loopback,
    }
}

pub(super) fn ban(ban: &Ban) -> pb::Ban {
    pb::Ban {
        network: text_of(ban.network),
        begin_time: Some(timestamp(ban.since)),
        end_time: Some(timestamp(ban.until)),
        strikes: ban.strikes,
        cause: match ban.cause {
            Cause::Authentication => pb::Cause::Authentication,
            Cause::Handshake => pb::Cause::Handshake,
            Cause::Denial => pb::Cause::Denial,
        }
        .into(),
    }
}

fn timestamp(seconds: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: 0,
    }
}
