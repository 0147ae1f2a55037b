//! `asterism token`

use std::{path::Path, time::Duration};

use asterism_chassis::identity::{Authority, PrincipalId, Role};
use serde_json::json;

use crate::{args::TokenCommand, error::CliError, output::Output};

/// Directory of the authority key within the data directory.
pub const CREDENTIALS: &str = "credentials";

/// Runs a `token` command.
pub fn run(command: TokenCommand, data: &Path, output: Output) -> Result<(), CliError> {
    let TokenCommand::Mint {
        principal,
        role,
        hours,
    } = command;
    let key_dir = data.join(CREDENTIALS);
    if !key_dir.is_dir() {
        let shown = data.display();
        return Err(CliError::Usage(format!(
            "{shown} holds no credentials; name the --data directory of `asterism up`"
        )));
    }
    let roles: Vec<Role> = role
        .iter()
        .map(|role| {
            role.parse()
                .map_err(|_| CliError::Usage(format!("`{role}` is not a role")))
        })
        .collect::<Result<_, _>>()?;
    let token = mint(
        &authority(data)?,
        &principal,
        &roles,
        Duration::from_secs(u64::from(hours) * 3600),
    )?;
    if output.is_json() {
        output.value(&json!({ "principal": principal, "token": token }));
    } else {
        output.say(&token);
    }
    Ok(())
}

/// The authority whose key lies in the data directory; made at first use.
pub fn authority(data: &Path) -> Result<Authority, CliError> {
    Authority::load_or_create(&data.join(CREDENTIALS)).map_err(|error| CliError::Other(error.to_string()))
}

/// A token for `principal`.
pub fn mint(
    authority: &Authority,
    principal: &str,
    roles: &[Role],
    lifetime: Duration,
) -> Result<String, CliError> {
    let id: PrincipalId = principal
        .parse()
        .map_err(|_| CliError::Usage(format!("`{principal}` is not a principal like user/alice")))?;
    Ok(authority.mint(&id, roles, lifetime, std::time::SystemTime::now()))
}
