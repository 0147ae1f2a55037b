//! The gRPC adapter: `asterism.firewall.v1.FirewallService`, on every service.

use std::sync::atomic::Ordering;

use asterism_crypto::Digest;
use asterism_proto::firewall::{
    self as pb,
    firewall_service_server::{FirewallService, FirewallServiceServer},
};
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{Firewall, rules::text_of, wire};
use crate::{call::Gate, firewall::network_of};

/// Bans that one answer holds: some 50 bytes each.
const MAX_LISTED: usize = 10_000;

/// Answers for one service's firewall.
pub struct Adapter {
    gate: Gate,
    firewall: Firewall,
}

/// The server of a service's firewall.
pub fn adapter(gate: Gate, firewall: Firewall, max_message_bytes: usize) -> FirewallServiceServer<Adapter> {
    FirewallServiceServer::new(Adapter { gate, firewall })
        .max_decoding_message_size(max_message_bytes)
        .max_encoding_message_size(max_message_bytes)
}

#[tonic::async_trait]
impl FirewallService for Adapter {
    async fn get_rules(
        &self,
        request: Request<pb::GetRulesRequest>,
    ) -> Result<Response<pb::GetRulesResponse>, Status> {
        let firewall = self.firewall.clone();
        self.gate
            .blocking("firewall.GetRules", request, move |_, _, trail| {
                trail.silent();
                let (rules, etag) = firewall.rules();
                Ok(pb::GetRulesResponse {
                    rules: Some(wire::rules(rules)),
                    etag,
                })
            })
            .await
    }

    async fn update_rules(
        &self,
        request: Request<pb::UpdateRulesRequest>,
    ) -> Result<Response<pb::UpdateRulesResponse>, Status> {
        let firewall = self.firewall.clone();
        self.gate
            .blocking("firewall.UpdateRules", request, move |caller, message, trail| {
                trail.resource("firewall/rules");
                if let Some(rules) = &message.rules {
                    trail.input_digest(Digest::of(&rules.encode_to_vec()));
                }
                let (rules, etag) = firewall.replace(wire::change(message)?, caller)?;
                let rules = wire::rules(rules);
                trail.output_digest(Digest::of(&rules.encode_to_vec()));
                Ok(pb::UpdateRulesResponse {
                    rules: Some(rules),
                    etag,
                })
            })
            .await
    }

    async fn list_bans(
        &self,
        request: Request<pb::ListBansRequest>,
    ) -> Result<Response<pb::ListBansResponse>, Status> {
        let firewall = self.firewall.clone();
        self.gate
            .blocking("firewall.ListBans", request, move |_, message, trail| {
                trail.silent();
                let bans = firewall.bans(message.include_ended);
                Ok(pb::ListBansResponse {
                    bans: bans.iter().take(MAX_LISTED).map(wire::ban).collect(),
                })
            })
            .await
    }

    async fn lift_ban(
        &self,
        request: Request<pb::LiftBanRequest>,
    ) -> Result<Response<pb::LiftBanResponse>, Status> {
        let firewall = self.firewall.clone();
        self.gate
            .blocking("firewall.LiftBan", request, move |_, message, trail| {
                let address = wire::banned(&message)?;
                trail.resource(format!("networks/{}", text_of(network_of(address))));
                firewall.lift(address)?;
                Ok(pb::LiftBanResponse {})
            })
            .await
    }

    async fn get_statistics(
        &self,
        request: Request<pb::GetStatisticsRequest>,
    ) -> Result<Response<pb::GetStatisticsResponse>, Status> {
        let firewall = self.firewall.clone();
        self.gate
            .blocking("firewall.GetStatistics", request, move |_, _, trail| {
                trail.silent();
                let engine = &firewall.shared.engine;
                let counters = &engine.counters;
                let (networks, principals) = engine.tracked();
                Ok(pb::GetStatisticsResponse {
                    connections_refused: counters.connections_refused.load(Ordering::Relaxed),
                    calls_blocked: counters.blocked.load(Ordering::Relaxed),
                    calls_rate_limited: counters.rate_limited.load(Ordering::Relaxed),
                    failures: counters.failures.load(Ordering::Relaxed),
                    bans: counters.bans.load(Ordering::Relaxed),
                    tracked_networks: networks as u64,
                    tracked_principals: principals as u64,
                })
            })
            .await
    }
}
