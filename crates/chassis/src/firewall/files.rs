//! Where rules and bans lie: `firewall.json` and `firewall-bans.json` in the service's data directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use asterism_crypto::Digest;
use asterism_store::{StoreError, files};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{FirewallError, bans::Ban, rules::Rules};

const FORMAT: u32 = 1;
/// Far above what rules of bounded number take.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Rules, and the request that they came with, so that its repetition is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredRules {
    format: u32,
    pub(super) request_id: String,
    pub(super) rules: Rules,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredBans {
    format: u32,
    bans: Vec<Ban>,
}

impl StoredRules {
    pub(super) fn new(rules: Rules, request_id: String) -> Self {
        Self {
            format: FORMAT,
            request_id,
            rules,
        }
    }
}

/// The two files.
pub(super) struct Files {
    rules: PathBuf,
    bans: PathBuf,
}

impl Files {
    pub(super) fn within(dir: &Path) -> Self {
        Self {
            rules: dir.join("firewall.json"),
            bans: dir.join("firewall-bans.json"),
        }
    }

    /// # Errors
    /// [`FirewallError::Damaged`], [`FirewallError::Store`]
    pub(super) fn read_rules(&self) -> Result<StoredRules, FirewallError> {
        let stored = read(&self.rules, |stored: &StoredRules| stored.format)?;
        let stored = stored.unwrap_or_else(|| StoredRules::new(Rules::default(), String::new()));
        stored
            .rules
            .check()
            .map_err(|error| damaged(&self.rules, error))?;
        Ok(stored)
    }

    /// # Errors
    /// [`FirewallError::Damaged`], [`FirewallError::Store`]
    pub(super) fn read_bans(&self) -> Result<Vec<Ban>, FirewallError> {
        Ok(
            read(&self.bans, |stored: &StoredBans| stored.format)?
                .map_or_else(Vec::new, |stored| stored.bans),
        )
    }

    /// Durable when it returns.
    ///
    /// # Errors
    /// [`FirewallError::Store`]
    pub(super) fn write_rules(&self, stored: &StoredRules) -> Result<(), FirewallError> {
        write(&self.rules, stored)
    }

    /// As [`Self::write_rules`].
    pub(super) fn write_bans(&self, bans: Vec<Ban>) -> Result<(), FirewallError> {
        write(&self.bans, &StoredBans { format: FORMAT, bans })
    }
}

/// Names a state of the rules: a digest over their stored form.
pub(super) fn etag(rules: &Rules) -> String {
    let text = serde_json::to_vec(rules).unwrap_or_default();
    let mut etag = Digest::of(&text).to_string();
    etag.truncate(32);
    etag
}

fn read<T: DeserializeOwned>(path: &Path, format: impl Fn(&T) -> u32) -> Result<Option<T>, FirewallError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(found) if found.len() > MAX_FILE_BYTES => return Err(damaged(path, "it is too large")),
        _ => {}
    }
    let bytes = fs::read(path).map_err(StoreError::from)?;
    let stored: T = serde_json::from_slice(&bytes).map_err(|error| damaged(path, error))?;
    if format(&stored) != FORMAT {
        return Err(damaged(path, "it is of another format"));
    }
    Ok(Some(stored))
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), FirewallError> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| damaged(path, error))?;
    Ok(files::write_atomic(path, &text, 0o600)?)
}

fn damaged(path: &Path, problem: impl ToString) -> FirewallError {
    FirewallError::Damaged {
        path: path.display().to_string(),
        problem: problem.to_string(),
    }
}
