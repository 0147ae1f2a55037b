//! Settings of the audit service.

use asterism_chassis::config::{Common, Settings};
use serde::{Deserialize, Serialize};

/// Settings of the audit service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every service has.
    pub common: Common,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: Common::for_service("audit"),
        }
    }
}

impl Settings for Config {
    fn common(&self) -> &Common {
        &self.common
    }
}
