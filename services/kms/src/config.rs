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

/// What opens the seal of the root key at a start, and what the seal of a new store is: a passphrase when its file is named, else a token
/// when one is named, else a key file in the data directory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootKeyConfig {
    /// File of mode 0600 that holds the passphrase.
    pub passphrase_file: Option<PathBuf>,
    /// A PKCS #11 token whose key opens the seal.
    #[serde(default)]
    pub pkcs11: Pkcs11Config,
}

/// A key in a PKCS #11 token; unless module, token and file of the PIN are named, there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pkcs11Config {
    /// The vendor's library, such as `/usr/lib/softhsm/libsofthsm2.so`.
    pub module: Option<PathBuf>,
    /// The token's label.
    pub token_label: Option<String>,
    /// The label of an AES-256 key in it, which is made there when a store is sealed with it the first time.
    pub key_label: String,
    /// File of mode 0600 that holds the user's PIN.
    pub pin_file: Option<PathBuf>,
}

impl Default for Pkcs11Config {
    fn default() -> Self {
        Self {
            module: None,
            token_label: None,
            key_label: "asterism-kms".to_owned(),
            pin_file: None,
        }
    }
}

impl Pkcs11Config {
    /// Whether a token is named.
    pub fn is_set(&self) -> bool {
        self.module.is_some() && self.token_label.is_some() && self.pin_file.is_some()
    }

    fn check(&self) -> Result<(), ConfigError> {
        let given = [
            self.module.is_some(),
            self.token_label.is_some(),
            self.pin_file.is_some(),
        ];
        if given != [given[0]; 3] {
            let key = "root_key.pkcs11";
            return Err(ConfigError::invalid(
                key,
                "must have module, token_label and pin_file, or none of them",
            ));
        }
        if self.token_label.as_deref() == Some("") {
            return Err(ConfigError::invalid(
                "root_key.pkcs11.token_label",
                "must name a token",
            ));
        }
        if self.key_label.is_empty() {
            return Err(ConfigError::invalid(
                "root_key.pkcs11.key_label",
                "must name a key",
            ));
        }
        Ok(())
    }
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
        self.root_key.pkcs11.check()
    }
}

#[cfg(test)]
mod tests {
    use asterism_chassis::config::load_text;

    use super::*;

    #[test]
    fn a_token_is_named_whole_or_not_at_all() {
        let whole = Pkcs11Config {
            module: Some("/usr/lib/softhsm/libsofthsm2.so".into()),
            token_label: Some("asterism".to_owned()),
            pin_file: Some("/etc/asterism/pin".into()),
            ..Pkcs11Config::default()
        };
        type Change = fn(&mut Pkcs11Config);
        let cases: [(Change, bool); 7] = [
            (|_| (), true),
            (|token| *token = Pkcs11Config::default(), true),
            (|token| token.module = None, false),
            (|token| token.pin_file = None, false),
            (|token| token.token_label = None, false),
            (|token| token.token_label = Some(String::new()), false),
            (|token| token.key_label = String::new(), false),
        ];
        for (at, (change, sound)) in cases.into_iter().enumerate() {
            let mut config = Config::default();
            config.root_key.pkcs11 = whole.clone();
            change(&mut config.root_key.pkcs11);
            assert_eq!(config.check().is_ok(), sound, "case {at}");
            assert_eq!(config.root_key.pkcs11.is_set(), at != 1 && !(2..5).contains(&at));
        }
    }

    /// Every setting of the token has a name in the file and in the environment.
    #[test]
    fn the_settings_of_a_token_are_known_by_name() {
        let text = "[root_key.pkcs11]\nmodule = \"/m.so\"\ntoken_label = \"t\"\nkey_label = \"k\"\npin_file = \"/pin\"\n";
        let in_environment = ("ASTERISM_KMS_ROOT_KEY__PKCS11__KEY_LABEL", "another");
        let environment = [in_environment].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let file = Some(("kms.toml", text));
        let config: Config = load_text("kms", file, environment.into_iter(), &[]).expect("settings");
        let token = config.root_key.pkcs11;
        assert!(token.is_set());
        assert_eq!(
            (token.token_label.as_deref(), token.key_label.as_str()),
            (Some("t"), "another")
        );
    }
}
