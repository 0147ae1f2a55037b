//! Settings of the ingest service.

use asterism_chassis::config::{Common, ConfigError, Settings};
use asterism_crypto::stream;
use asterism_learn::csv::CsvLimits;
use serde::{Deserialize, Serialize};

/// Settings of the ingest service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What every service shares.
    pub common: Common,
    /// Plaintext bytes of an encrypted chunk at rest: 4 KiB to 16 MiB.
    pub chunk_bytes: u32,
    /// Most bytes of one upload.
    pub max_upload_bytes: u64,
    /// Uploads in progress.
    pub uploads: UploadConfig,
    /// What a CSV may look like.
    pub csv: CsvConfig,
    /// Names of the keys in kms.
    pub keys: KeyConfig,
}

/// Uploads in progress. They live in memory and end with the process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadConfig {
    /// Most uploads open at once.
    pub max_open: usize,
    /// Most uploads that one owner may have open at once.
    pub max_open_per_owner: usize,
    /// Seconds after which an upload that nobody touches is dropped.
    pub idle_seconds: u64,
}

/// What is refused before it is held in memory.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CsvConfig {
    /// Most columns.
    pub max_columns: usize,
    /// Most bytes of a cell.
    pub max_cell_bytes: usize,
    /// Most bytes of the header.
    pub max_header_bytes: usize,
    /// Most bytes of a row. A row must fit into one message of the answer to ReadRows.
    pub max_row_bytes: usize,
}

/// Names of the keys in kms; made there when they do not exist.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Wraps the data keys: AES_256_GCM.
    pub data: String,
    /// Signs the manifests, and must have signed what is read: EC_SIGN_P256_SHA256.
    pub signer: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            common: Common::for_service("ingest"),
            chunk_bytes: 1 << 20,
            max_upload_bytes: 1 << 40,
            uploads: UploadConfig::default(),
            csv: CsvConfig::default(),
            keys: KeyConfig::default(),
        }
    }
}

impl Default for UploadConfig {
    fn default() -> Self {
        Self {
            max_open: 64,
            max_open_per_owner: 16,
            idle_seconds: 15 * 60,
        }
    }
}

impl Default for CsvConfig {
    fn default() -> Self {
        Self {
            max_columns: 16_384,
            max_cell_bytes: 1 << 20,
            max_header_bytes: 2 << 20,
            max_row_bytes: 3 << 20,
        }
    }
}

impl Default for KeyConfig {
    fn default() -> Self {
        Self {
            data: "dataset-kek".to_owned(),
            signer: "manifest-signer".to_owned(),
        }
    }
}

impl CsvConfig {
    /// As the parser takes them.
    pub(crate) fn limits(&self) -> CsvLimits {
        CsvLimits {
            max_columns: self.max_columns,
            max_cell_bytes: self.max_cell_bytes,
            max_header_bytes: self.max_header_bytes,
            max_row_bytes: self.max_row_bytes,
        }
    }
}

impl Settings for Config {
    fn common(&self) -> &Common {
        &self.common
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !(stream::MIN_CHUNK_BYTES..=stream::MAX_CHUNK_BYTES).contains(&self.chunk_bytes) {
            return Err(ConfigError::invalid(
                "chunk_bytes",
                "must be from 4 KiB to 16 MiB",
            ));
        }
        if self.uploads.max_open == 0 || self.uploads.max_open_per_owner == 0 {
            return Err(ConfigError::invalid(
                "uploads.max_open",
                "must be at least 1, of all and of one owner",
            ));
        }
        if self.csv.max_row_bytes > MAX_ROW_BYTES || self.csv.max_cell_bytes > self.csv.max_row_bytes {
            let problem = "must be at most 12 MiB, and no less than csv.max_cell_bytes";
            return Err(ConfigError::invalid("csv.max_row_bytes", problem));
        }
        if self.csv.max_header_bytes > MAX_ROW_BYTES {
            return Err(ConfigError::invalid(
                "csv.max_header_bytes",
                "must be at most 12 MiB",
            ));
        }
        if self.csv.max_columns == 0 || self.csv.max_columns > MAX_COLUMNS {
            return Err(ConfigError::invalid("csv.max_columns", "must be from 1 to 65536"));
        }
        Ok(())
    }
}

/// A row must fit into a message of 16 MiB together with the framing of its cells.
const MAX_ROW_BYTES: usize = 12 << 20;
const MAX_COLUMNS: usize = 65_536;
