//! Settings of the inference service.

use asterism_chassis::config::{Common, ConfigError, Settings};
use serde::{Deserialize, Serialize};

/// Settings of the inference service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every service has.
    pub common: Common,
    /// Most bytes of decrypted table that one request may hold in memory.
    pub max_table_bytes: usize,
    /// Most models kept decrypted in memory between requests.
    pub cached_models: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: Common::for_service("inference"),
            max_table_bytes: 1 << 30,
            cached_models: 32,
        }
    }
}

impl Settings for Config {
    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&self) -> Result<(), ConfigError> {
        for (key, peer) in [
            ("kms_addr", &self.common.kms_addr),
            ("ingest_addr", &self.common.ingest_addr),
        ] {
            if peer.is_none() {
                return Err(ConfigError::invalid(
                    key,
                    "must be set: models need keys, and data to learn from",
                ));
            }
        }
        Ok(())
    }
}
