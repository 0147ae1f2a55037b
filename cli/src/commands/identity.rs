//! `asterism identity`

use std::{fs::OpenOptions, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path, time::Duration};

use asterism_client::{
    NewCredential,
    proto::identity::{Principal, PrincipalState, SecondFactorKind},
};
use asterism_crypto::{SigningKey, login_key};
use asterism_store::files;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    args::{Global, IdentityCommand, TotpCommand},
    commands::login::{key, prompt, secret},
    connect::identity,
    error::CliError,
    output::{Output, time},
};

/// Runs an `identity` command.
pub async fn run(command: IdentityCommand, global: &Global, output: Output) -> Result<(), CliError> {
    let client = identity(global)?;
    match command {
        IdentityCommand::Invite {
            principal,
            role,
            hours,
            out,
        } => {
            let lifetime = Duration::from_secs(u64::from(hours) * 3600);
            let made = client.invite(&principal, &role, Some(lifetime)).await?;
            let invitation = Zeroizing::new(made.invitation);
            let expires = time(made.expire_time.as_ref());
            let shown = match &out {
                Some(file) => {
                    files::write_atomic(file, invitation.as_bytes(), 0o600)
                        .map_err(|error| CliError::Other(format!("{}: {error}", file.display())))?;
                    ("invitation file", file.display().to_string())
                }
                None => ("invitation", invitation.to_string()),
            };
            let value = json!({
                "principal": principal, "expires": expires,
                "invitation": out.is_none().then(|| invitation.as_str()), "invitation_file": out,
            });
            output.facts(&[("principal", principal), shown, ("expires", expires)], &value);
        }
        IdentityCommand::Enrol {
            invitation_file,
            password_file,
            key_file,
            bind,
        } => {
            let invitation = secret(invitation_file.as_deref(), "invitation: ")?;
            let invitation = String::from_utf8_lossy(&invitation).trim().to_owned();
            let credential = match &key_file {
                Some(file) => NewCredential::Key(key(file)?),
                None => NewCredential::Password(new_password(password_file.as_deref())?),
            };
            show(&client.enrol(&invitation, credential, bind).await?, output);
        }
        IdentityCommand::Keygen { out } => keygen(&out, output)?,
        IdentityCommand::List => {
            let (mut rows, mut token) = (Vec::new(), String::new());
            loop {
                let (page, next) = client.principals(1000, &token).await?;
                rows.extend(page.iter().map(row));
                if next.is_empty() {
                    break;
                }
                token = next;
            }
            output.rows(["principal", "roles", "state", "logs in by", "last login"], &rows);
        }
        IdentityCommand::Show { principal } => show(&client.principal(&principal).await?, output),
        IdentityCommand::Disable { principal } => {
            let to = in_state(PrincipalState::Disabled);
            show(&client.update(&principal, to, &["state"]).await?, output);
        }
        IdentityCommand::Enable { principal } => {
            let to = in_state(PrincipalState::Enabled);
            show(&client.update(&principal, to, &["state"]).await?, output);
        }
        IdentityCommand::Roles { principal, role } => {
            let to = Principal {
                roles: role,
                ..Principal::default()
            };
            show(&client.update(&principal, to, &["roles"]).await?, output);
        }
        IdentityCommand::Delete { principal } => {
            client.delete(&principal).await?;
            let value = json!({ "principal": principal, "deleted": true });
            output.facts(&[("deleted", principal)], &value);
        }
        IdentityCommand::Revoke { principal, token_id } => match (principal, token_id) {
            (Some(principal), _) => show(&client.revoke_all(&principal).await?, output),
            (None, token_id) => {
                let id = token_id.unwrap_or_default();
                client.revoke_token(&id).await?;
                output.facts(
                    &[("revoked", id.clone())],
                    &json!({ "token_id": id, "revoked": true }),
                );
            }
        },
        IdentityCommand::Totp(command) => totp(command, &client, output).await?,
    }
    Ok(())
}

async fn totp(
    command: TotpCommand,
    client: &asterism_client::Identity,
    output: Output,
) -> Result<(), CliError> {
    match command {
        TotpCommand::Add => {
            let made = client.add_second_factor(SecondFactorKind::Totp).await?;
            let id = made.factor.unwrap_or_default().id;
            let value = json!({ "id": id, "uri": made.uri });
            output.facts(&[("factor", id.clone()), ("uri", made.uri)], &value);
            output.say(&format!("confirm it: asterism identity totp confirm {id} CODE"));
        }
        TotpCommand::Confirm { id, code } => show(&client.confirm_second_factor(&id, &code).await?, output),
        TotpCommand::Remove { id, code, of } => {
            let (of, code) = (of.unwrap_or_default(), code.unwrap_or_default());
            show(&client.remove_second_factor(&of, &id, &code).await?, output);
        }
    }
    Ok(())
}

fn new_password(file: Option<&Path>) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let password = secret(file, "new password: ")?;
    if file.is_none() && *prompt("again: ")?.as_bytes() != *password {
        return Err(CliError::Usage("the two are not the same".to_owned()));
    }
    Ok(password)
}

fn keygen(out: &Path, output: Output) -> Result<(), CliError> {
    let key = SigningKey::generate().map_err(|error| CliError::Other(error.to_string()))?;
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out)
        .and_then(|mut file| {
            file.write_all(login_key::to_pem(&key).as_bytes())?;
            file.sync_all()
        })
        .map_err(|error| CliError::file(out, error))?;
    let public = key.verifying_key();
    let value = json!({
        "key_file": out, "public_key": public.to_pem(), "fingerprint": public.fingerprint().to_string(),
    });
    output.facts(&[("fingerprint", public.fingerprint().to_string())], &value);
    Ok(())
}

fn in_state(state: PrincipalState) -> Principal {
    Principal {
        state: state.into(),
        ..Principal::default()
    }
}

fn bare(principal: &Principal) -> String {
    principal.name.trim_start_matches("principals/").to_owned()
}

fn state(principal: &Principal) -> &'static str {
    match principal.state() {
        PrincipalState::Enabled => "enabled",
        PrincipalState::Disabled => "disabled",
        PrincipalState::Unspecified => "unknown",
    }
}

fn ways(principal: &Principal) -> String {
    let mut ways = Vec::new();
    if principal.has_password {
        ways.push("password".to_owned());
    }
    match principal.login_keys.len() {
        0 => {}
        1 => ways.push("key".to_owned()),
        count => ways.push(format!("{count} keys")),
    }
    if principal.second_factors.iter().any(|factor| factor.confirmed) {
        ways.push("and a code".to_owned());
    }
    ways.join(", ")
}

fn value(principal: &Principal) -> Value {
    let factors = principal
        .second_factors
        .iter()
        .map(|factor| json!({ "id": factor.id, "kind": "totp", "confirmed": factor.confirmed }));
    json!({
        "principal": bare(principal), "roles": principal.roles, "state": state(principal),
        "has_password": principal.has_password, "login_keys": principal.login_keys.len(),
        "channel_keys": principal.channel_keys, "second_factors": factors.collect::<Vec<_>>(),
        "created": time(principal.create_time.as_ref()), "last_login": time(principal.last_login_time.as_ref()),
        "etag": principal.etag,
    })
}

fn row(principal: &Principal) -> ([String; 5], Value) {
    let cells = [
        bare(principal),
        principal.roles.join(", "),
        state(principal).to_owned(),
        ways(principal),
        time(principal.last_login_time.as_ref()),
    ];
    (cells, value(principal))
}

fn show(principal: &Principal, output: Output) {
    let mut facts = vec![
        ("principal", bare(principal)),
        ("roles", principal.roles.join(", ")),
        ("state", state(principal).to_owned()),
        ("logs in by", ways(principal)),
        ("created", time(principal.create_time.as_ref())),
        ("last login", time(principal.last_login_time.as_ref())),
    ];
    facts.extend(
        principal
            .channel_keys
            .iter()
            .map(|key| ("channel key", key.clone())),
    );
    facts.extend(principal.second_factors.iter().map(|factor| {
        let note = if factor.confirmed { "" } else { " (not confirmed)" };
        ("second factor", format!("{}{note}", factor.id))
    }));
    output.facts(&facts, &value(principal));
}
