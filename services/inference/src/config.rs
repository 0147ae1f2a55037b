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
    /// Threads that evaluate encrypted queries; 0 takes as many as the machine has.
    pub fhe_threads: usize,
    /// Most encrypted queries that wait for their evaluation; more are refused.
    pub fhe_queue: usize,
    /// Most compiled models kept in memory.
    pub cached_programs: usize,
    /// Most evaluation keys that one owner may have.
    pub max_evaluation_keys: usize,
    /// Largest evaluation key.
    pub max_evaluation_key_bytes: u64,
    /// Most bytes of evaluation keys kept in memory, ready for use.
    pub evaluation_key_memory: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: Common::for_service("inference"),
            max_table_bytes: 1 << 30,
            cached_models: 32,
            fhe_threads: 0,
            fhe_queue: 256,
            cached_programs: 16,
            max_evaluation_keys: 16,
            max_evaluation_key_bytes: 64 << 20,
            evaluation_key_memory: 1 << 30,
        }
    }
}

impl Settings for Config {
    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.max_evaluation_keys == 0 {
            return Err(ConfigError::invalid(
                "max_evaluation_keys",
                "must be at least 1: some plans of encrypted prediction need a key",
            ));
        }
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
