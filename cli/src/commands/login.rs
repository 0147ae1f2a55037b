//! `asterism login`, `asterism logout`, `asterism whoami`

use std::path::Path;

use asterism_client::{
    Connection, Credentials, Identity, LoginOutcome,
    proto::identity::{SecondFactorDue, SecondFactorKind, Tokens},
};
use asterism_crypto::{SigningKey, login_key};
use asterism_store::files;
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    args::{Global, LoginArgs},
    connect::{endpoints, identity},
    error::CliError,
    output::{Output, time},
    session::{self, Session},
};

/// Begins a session.
pub async fn login(args: LoginArgs, global: &Global, output: Output) -> Result<(), CliError> {
    let principal = args.principal.or_else(|| session::last_principal(global));
    let principal =
        principal.ok_or_else(|| CliError::Usage("name who logs in: --principal user/alice".to_owned()))?;
    let path = session::path(global)
        .ok_or_else(|| CliError::Usage("there is no home directory: name a --session FILE".to_owned()))?;
    let kms = endpoints(global)?.kms;
    let connection = Connection::lazy(&kms, Credentials::anonymous())?;
    let client = Identity::new(match args.through {
        Some(proxy) => connection.through(proxy),
        None => connection,
    });
    let step = match &args.key_file {
        Some(file) => {
            client
                .login_with_key(&principal, &key(file)?, &args.audience)
                .await?
        }
        None => {
            let password = secret(args.password_file.as_deref(), "password: ")?;
            client
                .login_with_password(&principal, password, &args.audience)
                .await?
        }
    };
    let tokens = match step {
        LoginOutcome::Done(tokens) => tokens,
        LoginOutcome::SecondFactor(due) => second_factor(&client, due, args.totp).await?,
    };
    let token_id = tokens.token_id.clone();
    let session = Session::new(&kms, tokens);
    session.write(&path)?;
    let facts = [
        ("principal", session.principal.clone()),
        ("roles", session.roles.join(", ")),
        ("token", token_id.clone()),
        ("session", path.display().to_string()),
    ];
    let value = json!({
        "principal": session.principal, "roles": session.roles, "token_id": token_id,
        "session_file": path, "session_ends_at": session.ends_at,
    });
    output.facts(&facts, &value);
    Ok(())
}

/// Asks for a code until there is an answer that is none of refusing it.
async fn second_factor(
    client: &Identity,
    due: SecondFactorDue,
    code: Option<String>,
) -> Result<Tokens, CliError> {
    let code = match code {
        Some(code) => code,
        None => prompt("code of the second factor: ")?.to_string(),
    };
    let answered = client
        .answer_second_factor(&due.login, SecondFactorKind::Totp, code.trim())
        .await?;
    match answered {
        LoginOutcome::Done(tokens) => Ok(tokens),
        LoginOutcome::SecondFactor(_) => Err(CliError::Other("yet another factor is due".to_owned())),
    }
}

/// Ends the session here and at kms.
pub async fn logout(global: &Global, output: Output) -> Result<(), CliError> {
    let Some((path, session)) = session::of(global) else {
        return Err(CliError::Usage(
            "there is no session with these services".to_owned(),
        ));
    };
    // Whatever the service says of it, the file goes.
    let ended = identity(global)?.end_session(&session.refresh_token).await;
    files::shred(&path).map_err(|error| CliError::Other(format!("{}: {error}", path.display())))?;
    match ended {
        // It had ended already.
        Err(error) if error.reason() == Some("SESSION_ENDED") => {}
        ended => ended?,
    }
    let value = json!({ "principal": session.principal, "logged_out": true });
    output.facts(&[("logged out", session.principal.clone())], &value);
    Ok(())
}

/// Shows who the services take the caller for.
pub async fn whoami(global: &Global, output: Output) -> Result<(), CliError> {
    let me = identity(global)?.who_am_i().await?;
    let principal = me.principal.trim_start_matches("principals/").to_owned();
    let expires = time(me.expire_time.as_ref());
    let bound = if me.channel_key.is_empty() {
        "none".to_owned()
    } else {
        me.channel_key.clone()
    };
    let mut facts = vec![("principal", principal.clone()), ("roles", me.roles.join(", "))];
    if !me.token_id.is_empty() {
        facts.extend([
            ("token", me.token_id.clone()),
            ("expires", expires.clone()),
            ("channel key", bound),
            ("proved by", me.methods.join(", ")),
        ]);
    }
    let value = json!({
        "principal": principal, "roles": me.roles, "token_id": me.token_id, "expires": expires,
        "channel_key": me.channel_key, "methods": me.methods,
    });
    output.facts(&facts, &value);
    Ok(())
}

/// A secret from a private file, without the newline at its end; asked for when there is none.
pub(crate) fn secret(file: Option<&Path>, ask: &str) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let Some(file) = file else {
        return Ok(Zeroizing::new(prompt(ask)?.as_bytes().to_vec()));
    };
    let bytes = read(file)?;
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    Ok(Zeroizing::new(text.to_vec()))
}

/// A private key to log in with.
pub(crate) fn key(file: &Path) -> Result<SigningKey, CliError> {
    let bytes = read(file)?;
    let key = str::from_utf8(&bytes)
        .ok()
        .and_then(|pem| login_key::from_pem(pem).ok());
    key.ok_or_else(|| {
        let shown = file.display();
        CliError::Usage(format!(
            "{shown} is not a P-256 key in PKCS#8 PEM; `asterism identity keygen` makes one"
        ))
    })
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    files::read_private(file)
        .map(Zeroizing::new)
        .map_err(|error| CliError::Other(format!("{}: {error}", file.display())))
}

/// Asks on the terminal, without an echo.
pub(crate) fn prompt(question: &str) -> Result<Zeroizing<String>, CliError> {
    ask(question, "for instance --password-file")
}

/// As [`prompt`], and names the option that takes a file `instead` where there is no terminal.
pub(crate) fn ask(question: &str, instead: &str) -> Result<Zeroizing<String>, CliError> {
    rpassword::prompt_password(question)
        .map(Zeroizing::new)
        .map_err(|_| CliError::Usage(format!("there is no terminal to ask on: name a file, {instead}")))
}
