//! Hears from kms which tokens hold.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use asterism_channel::Pins;
use asterism_crypto::VerifyingKey;
use asterism_proto::identity::{
    self as pb, TrustUpdate, WatchTrustRequest, identity_service_client::IdentityServiceClient,
};
use tonic::{Request, Status, metadata::MetadataValue, transport::Channel};

use super::trust::{Trust, TrustView};
use crate::channel::line;

/// Nothing for so long, and the line is taken for dead: kms gives a sign of life every second.
const SILENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);
/// A revocation list is larger than other messages.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Where kms is, and who asks.
pub struct Source {
    /// `http://host:port`, or `noise://host:port` with a pin.
    pub endpoint: String,
    /// Whom to expect there, over the encrypted channel.
    pub pin: Option<Pins>,
    /// Makes a token of the role `service` for each call.
    pub token: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Tells `trust` what kms says, as long as it is there.
pub async fn follow(trust: Weak<Trust>, source: Source) {
    let Some(channel) = line::lazy(&source.endpoint, source.pin.clone()) else {
        tracing::error!(
            endpoint = source.endpoint,
            "kms cannot be asked which tokens hold: not an endpoint"
        );
        return;
    };
    let mut silent = false;
    while trust.strong_count() > 0 {
        if let Err(status) = listen(&trust, &channel, &source, &mut silent).await
            && !std::mem::replace(&mut silent, true)
        {
            tracing::warn!(problem = %status, "kms does not say which tokens hold; trying again");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Listens until the line breaks or `trust` is gone.
async fn listen(
    trust: &Weak<Trust>,
    channel: &Channel,
    source: &Source,
    silent: &mut bool,
) -> Result<(), Status> {
    let mut client = IdentityServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let mut request = Request::new(WatchTrustRequest {});
    let bearer = MetadataValue::try_from(format!("Bearer {}", (source.token)()))
        .map_err(|error| Status::internal(error.to_string()))?;
    request.metadata_mut().insert("authorization", bearer);
    let late = |_| Status::deadline_exceeded("no word in time");
    let mut updates = tokio::time::timeout(SILENCE, client.watch_trust(request))
        .await
        .map_err(late)??
        .into_inner();
    loop {
        let update = tokio::time::timeout(SILENCE, updates.message())
            .await
            .map_err(late)??;
        let update = update.ok_or_else(|| Status::unavailable("kms ended the stream"))?;
        let Some(trust) = trust.upgrade() else {
            return Ok(());
        };
        let (view, now_ms) = read(update).ok_or_else(|| Status::internal("kms said what cannot be read"))?;
        trust.hear(view, now_ms, Instant::now());
        if std::mem::take(silent) {
            tracing::info!("kms says again which tokens hold");
        }
    }
}

fn read(update: TrustUpdate) -> Option<(Option<TrustView>, u64)> {
    let now = update.now?;
    let seconds = u64::try_from(now.seconds).ok()?;
    let now_ms = seconds.checked_mul(1000)? + u64::try_from(now.nanos).ok()? / 1_000_000;
    let view = update.trust.map(|trust| view(update.revision, trust));
    match view {
        Some(None) => None,
        Some(view) => Some((view, now_ms)),
        None => Some((None, now_ms)),
    }
}

fn view(revision: u64, trust: pb::Trust) -> Option<TrustView> {
    let keys = trust.keys.into_iter().map(|key| {
        let public = VerifyingKey::from_spki_der(&key.public_key).ok()?;
        Some((key.kid, public))
    });
    Some(TrustView {
        revision,
        keys: keys.collect::<Option<HashMap<_, _>>>()?,
        revoked: trust.revoked.into_iter().collect(),
        cuts: trust
            .cuts
            .into_iter()
            .map(|cut| (cut.principal, cut.min_generation))
            .collect(),
    })
}
