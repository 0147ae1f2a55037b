//! The firewall of a service.

use asterism_proto::firewall::{self as pb, firewall_service_client::FirewallServiceClient};
use tonic::{service::interceptor::InterceptedService, transport::Channel};

use crate::{
    connection::{Carried, Connection, MAX_MESSAGE_BYTES},
    error::ClientError,
};

type Client = FirewallServiceClient<InterceptedService<Channel, Carried>>;

/// Client of `asterism.firewall.v1.FirewallService`, which every service has. For administrators.
#[derive(Clone)]
pub struct Firewall {
    connection: Connection,
}

impl Firewall {
    /// A client of the firewall of the service that `connection` reaches.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    fn client(&self) -> Client {
        Client::new(self.connection.service()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The rules in force, and their etag.
    pub async fn rules(&self) -> Result<(pb::Rules, String), ClientError> {
        let request = pb::GetRulesRequest {};
        let answer = self
            .connection
            .retrying(|| client_call!(self, get_rules, request))
            .await?;
        Ok((answer.rules.unwrap_or_default(), answer.etag))
    }

    /// Replaces the rules of that etag; `force`, even if it turns this caller away.
    pub async fn update(
        &self,
        rules: pb::Rules,
        etag: &str,
        force: bool,
    ) -> Result<pb::UpdateRulesResponse, ClientError> {
        let request = pb::UpdateRulesRequest {
            rules: Some(rules),
            etag: etag.to_owned(),
            request_id: uuid::Uuid::new_v4().to_string(),
            force,
        };
        self.connection
            .retrying(|| client_call!(self, update_rules, request))
            .await
    }

    /// Networks that are banned; with `ended`, also those whose ban is over and not forgotten.
    pub async fn bans(&self, ended: bool) -> Result<Vec<pb::Ban>, ClientError> {
        let request = pb::ListBansRequest { include_ended: ended };
        let answer = self
            .connection
            .retrying(|| client_call!(self, list_bans, request))
            .await?;
        Ok(answer.bans)
    }

    /// Ends the ban of a network before its time.
    pub async fn lift(&self, network: &str) -> Result<(), ClientError> {
        let request = pb::LiftBanRequest {
            network: network.to_owned(),
        };
        self.connection
            .once(self.client().lift_ban(request))
            .await
            .map(|_| ())
    }

    /// What happened since the service started.
    pub async fn statistics(&self) -> Result<pb::GetStatisticsResponse, ClientError> {
        let request = pb::GetStatisticsRequest {};
        self.connection
            .retrying(|| client_call!(self, get_statistics, request))
            .await
    }
}
