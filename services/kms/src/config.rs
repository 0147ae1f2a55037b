//! Settings of the key management service.

use std::path::PathBuf;

use asterism_chassis::config::{Common, ConfigError, Settings};
use serde::{Deserialize, Serialize};

use crate::keys::{MAX_WINDOW_MS, MIN_WINDOW_MS};

/// Settings of the key management service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every service has.
    pub common: Common,
    /// Where the root key comes from.
    pub root_key: RootKeyConfig,
    /// How key versions end.
    pub lifecycle: LifecycleConfig,
}

/// How key versions end.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LifecycleConfig {
    /// The shortest window in which a destruction can be undone.
    pub min_destroy_window_seconds: u64,
    /// How often due destructions and rotations are looked for.
    pub sweep_seconds: u64,
}

impl Default for LifecycleConfig {
    fn default() -> Self {
        Self {
            min_destroy_window_seconds: MIN_WINDOW_MS / 1000,
            sweep_seconds: 60,
        }
    }
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
            lifecycle: LifecycleConfig::default(),
        }
    }
}

impl Settings for Config {
    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&self) -> Result<(), ConfigError> {
        let lifecycle = &self.lifecycle;
        if !(1..=MAX_WINDOW_MS / 1000).contains(&lifecycle.min_destroy_window_seconds) {
            let key = "lifecycle.min_destroy_window_seconds";
            return Err(ConfigError::invalid(key, "must be 1 second to 30 days"));
        }
        if lifecycle.sweep_seconds == 0 {
            return Err(ConfigError::invalid(
                "lifecycle.sweep_seconds",
                "must be at least 1",
            ));
        }
        Ok(())
    }
}
