//! The session that `asterism login` begins: a file of mode 0600 with its tokens, used by other commands against the same services.

use std::{
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use asterism_client::{Credentials, proto::identity::Tokens};
use asterism_store::files;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{args::Global, connect, error::CliError, output};

const FORMAT: u32 = 1;
/// A token is replaced when it has less left.
const FRESH_SECONDS: u64 = 120;
/// Between looks at a session while a command runs.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// A session.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    format: u32,
    /// Of kms, as it was called.
    pub kms: String,
    /// `user/alice`
    pub principal: String,
    /// As of the last token.
    pub roles: Vec<String>,
    access_token: String,
    /// Seconds since 1970 by this machine's clock.
    expires_at: u64,
    pub(crate) refresh_token: String,
    /// Seconds since 1970 by this machine's clock.
    pub ends_at: u64,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.access_token.zeroize();
        self.refresh_token.zeroize();
    }
}

impl Session {
    /// Of tokens that kms gave just now.
    pub fn new(kms: &str, tokens: Tokens) -> Self {
        let until = |duration: Option<prost_types::Duration>| {
            let seconds = duration.map_or(0, |duration| duration.seconds);
            now().saturating_add(u64::try_from(seconds).unwrap_or(0))
        };
        Self {
            format: FORMAT,
            kms: kms.to_owned(),
            principal: tokens.principal.trim_start_matches("principals/").to_owned(),
            roles: tokens.roles,
            access_token: tokens.access_token,
            expires_at: until(tokens.expires_in),
            refresh_token: tokens.refresh_token,
            ends_at: until(tokens.refresh_expires_in),
        }
    }

    /// Writes it, for its owner only.
    pub fn write(&self, path: &Path) -> Result<(), CliError> {
        let failed = |error: &dyn std::fmt::Display| CliError::Other(format!("{}: {error}", path.display()));
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            files::create_private_dir(dir).map_err(|error| failed(&error))?;
        }
        let text = Zeroizing::new(serde_json::to_vec(self).map_err(|error| failed(&error))?);
        files::write_atomic(path, &text, 0o600).map_err(|error| failed(&error))
    }

    fn read(path: &Path) -> Result<Self, String> {
        let bytes = Zeroizing::new(files::read_private(path).map_err(|error| error.to_string())?);
        serde_json::from_slice::<Self>(&bytes)
            .ok()
            .filter(|session| session.format == FORMAT)
            .ok_or_else(|| format!("{} is not a session; log in again", path.display()))
    }
}

/// Where the session lies.
pub fn path(global: &Global) -> Option<PathBuf> {
    let of = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let config = || of("XDG_CONFIG_HOME").or_else(|| of("HOME").map(|home| home.join(".config")));
    let default = || config().map(|dir| dir.join("asterism").join("session.json"));
    global.session.clone().or_else(default)
}

/// Who logged in last, if anybody.
pub fn last_principal(global: &Global) -> Option<String> {
    let session = Session::read(&path(global)?).ok()?;
    Some(session.principal.clone())
}

/// The session with the services of the command line, unless that names a token file.
pub fn of(global: &Global) -> Option<(PathBuf, Session)> {
    if global.token_file.is_some() {
        return None;
    }
    let path = path(global)?;
    let session = Session::read(&path).ok()?;
    let kms = connect::endpoints(global).ok()?.kms;
    // One that has ended is one still: commands fail, rather than go on as somebody else.
    (session.kms == kms).then_some((path, session))
}

/// The session's token, read at every call: it is replaced from time to time.
pub fn credentials(path: PathBuf) -> Credentials {
    Credentials::source(move || Ok(Session::read(&path)?.access_token.clone()))
}

/// Replaces the session's token when it has not long left, now and while the command runs. What goes wrong is told, and the command's own call
/// will say the rest.
pub async fn keep_fresh(global: &Global) {
    if of(global).is_none() {
        return;
    }
    refresh_when_due(global).await;
    let global = global.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            refresh_when_due(&global).await;
        }
    });
}

async fn refresh_when_due(global: &Global) {
    let Some((path, session)) = of(global).filter(|(_, session)| session.expires_at < now() + FRESH_SECONDS)
    else {
        return;
    };
    let refreshed = async {
        let tokens = connect::identity(global)?.refresh(&session.refresh_token).await?;
        Session::new(&session.kms, tokens).write(&path)
    };
    if let Err(error) = refreshed.await {
        output::complain(&format!("the session could not be refreshed: {error}"));
    }
}

fn now() -> u64 {
    UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}
