//! Settings of the key management service.

use std::path::PathBuf;

use asterism_chassis::config::{Common, Settings};
use serde::{Deserialize, Serialize};

/// Settings of the key management service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every service has.
    pub common: Common,
    /// Where the root key comes from.
    pub root_key: RootKeyConfig,
}

/// Where the root key comes from: a passphrase when its file is named, else `root.key` in the data directory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootKeyConfig {
    /// File of mode 0600 that holds the passphrase.
    pub passphrase_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: Common::for_service("kms"),
            root_key: RootKeyConfig::default(),
        }
    }
}

impl Settings for Config {
    fn common(&self) -> &Common {
        &self.common
    }
}
