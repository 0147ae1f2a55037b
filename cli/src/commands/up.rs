//! `asterism up`

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use asterism_chassis::{
    config::{LogConfig, LogFormat},
    identity::Role,
    telemetry::{self, TelemetryConfig},
};
use asterism_client::{Connection, Identity, Kms};
use asterism_kms::RootKeyConfig;
use asterism_store::files;
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    args::UpArgs,
    commands::token,
    connect::{ADMIN_TOKEN, DEFAULT_ADDR},
    constellation::{Constellation, Options},
    error::CliError,
    output::Output,
};

/// The administrator of an embedded constellation.
pub const ADMIN: &str = "user/admin";
/// How long the administrator's token in the data directory is good for; `up` makes a new one at every start.
const ADMIN_TOKEN_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// The first administrator's invitation within the data directory.
pub const INVITATION: &str = "admin.invitation";
const INVITATION_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Between looks whether kms is unsealed yet.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Runs all four services until interrupted.
pub async fn run(args: UpArgs, data: &Path, output: Output) -> Result<(), CliError> {
    let format = if args.log_json {
        LogFormat::Json
    } else {
        LogFormat::Text
    };
    let config = TelemetryConfig {
        log: LogConfig {
            format,
            ..LogConfig::default()
        },
        otlp_endpoint: args.otlp_endpoint.clone(),
    };
    let guard = telemetry::init("asterism", &config).map_err(|error| CliError::Other(error.to_string()))?;
    let options = Options {
        port: (args.port != 0).then_some(args.port),
        otlp_endpoint: args.otlp_endpoint,
        root_key: RootKeyConfig {
            passphrase_file: args.passphrase_file,
            pkcs11: args.token.settings(),
        },
        without_channel: false,
    };
    let constellation = Constellation::start(data, &options).await?;
    let admin = token::mint(
        constellation.authority(),
        ADMIN,
        &[Role::Admin],
        ADMIN_TOKEN_LIFETIME,
    )?;
    let token_file = data.join(ADMIN_TOKEN);
    files::write_atomic(&token_file, admin.as_bytes(), 0o600)
        .map_err(|error| CliError::Other(format!("{}: {error}", token_file.display())))?;
    let at = &constellation.endpoints().kms;
    let to_kms = Connection::lazy(at, constellation.credentials(ADMIN, &[Role::Admin])?)?;
    let (kms, identity) = (Kms::new(to_kms.clone()), Identity::new(to_kms));
    let sealed = kms.seal_status().await?.sealed;
    let invitation = if sealed {
        None
    } else {
        first_invitation(&identity, data).await?
    };
    announce(&constellation, &token_file, invitation.as_deref(), sealed, output);
    let inviting = sealed.then(|| tokio::spawn(invite_when_unsealed(kms, identity, data.to_owned())));
    asterism_chassis::entry::shutdown_signal().await;
    if let Some(inviting) = inviting {
        inviting.abort();
    }
    constellation.shutdown().await;
    guard.shutdown().await;
    Ok(())
}

/// Says where everything is, and what is to be done.
fn announce(
    constellation: &Constellation,
    token_file: &Path,
    invitation: Option<&Path>,
    sealed: bool,
    output: Output,
) {
    let (at, data) = (constellation.endpoints(), constellation.data());
    let mut facts = vec![
        ("kms", at.kms.clone()),
        ("ingest", at.ingest.clone()),
        ("inference", at.inference.clone()),
        ("audit", at.audit.clone()),
        ("data", data.display().to_string()),
        ("token", token_file.display().to_string()),
    ];
    if let Some(file) = invitation {
        facts.push(("invitation", file.display().to_string()));
    }
    let unseal = sealed.then(|| unseal_command(&at.kms));
    if let Some(command) = &unseal {
        let invitation = data.join(INVITATION).display().to_string();
        facts.push(("sealed", format!("yes: kms does nothing until you run {command}")));
        facts.push((
            "invitation",
            format!("then {invitation}, unless somebody is enrolled"),
        ));
    }
    let channels = constellation.channels();
    facts.extend(channels.iter().map(|channel| {
        (
            "channel",
            format!("{} {} {}", channel.service, channel.address, channel.key),
        )
    }));
    let channels: serde_json::Map<String, serde_json::Value> = channels
        .iter()
        .map(|channel| {
            let how = json!({ "address": channel.address, "key": channel.key.to_string() });
            (channel.service.to_owned(), how)
        })
        .collect();
    let value = json!({
        "kms": at.kms, "ingest": at.ingest, "inference": at.inference, "audit": at.audit,
        "data": data.display().to_string(), "token_file": token_file.display().to_string(),
        "invitation_file": invitation, "channels": channels, "sealed": sealed, "unseal": unseal,
    });
    output.facts(&facts, &value);
    output.say(if sealed {
        "up; ctrl-c stops"
    } else {
        "ready; ctrl-c stops"
    });
}

/// Invites the administrator while nobody is enrolled; gives the file (mode 0600) that holds the invitation. A start makes a new one in place of
/// one that was not used.
async fn first_invitation(client: &Identity, data: &Path) -> Result<Option<PathBuf>, CliError> {
    let file = data.join(INVITATION);
    if !client.principals(1, "").await?.0.is_empty() {
        files::shred(&file).map_err(|error| CliError::Other(format!("{}: {error}", file.display())))?;
        return Ok(None);
    }
    let invited = client
        .invite(ADMIN, &["admin".to_owned()], Some(INVITATION_LIFETIME))
        .await?;
    let invitation = Zeroizing::new(invited.invitation);
    files::write_atomic(&file, invitation.as_bytes(), 0o600)
        .map_err(|error| CliError::Other(format!("{}: {error}", file.display())))?;
    Ok(Some(file))
}

/// As [`first_invitation`], once kms is unsealed. Says nothing: whoever read what `up` says may have gone away.
async fn invite_when_unsealed(kms: Kms, client: Identity, data: PathBuf) {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        if !kms.seal_status().await.is_ok_and(|status| !status.sealed) {
            continue;
        }
        // Sealed again, or another passing trouble: the next look will tell.
        if first_invitation(&client, &data).await.is_ok() {
            return;
        }
    }
}

/// How whoever reads this opens the seal.
fn unseal_command(kms: &str) -> String {
    match kms.trim_start_matches("http://") {
        DEFAULT_ADDR => "asterism kms unseal".to_owned(),
        addr => format!("asterism kms unseal --addr {addr}"),
    }
}
