//! What can be done.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::GrantError;

macro_rules! verbs {
    ($($(#[$doc:meta])* $verb:ident = $text:literal for $($collection:literal)+),* $(,)?) => {
        /// What can be done to a resource.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Verb {
            $($(#[$doc])* $verb),*
        }

        impl Verb {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$verb),*];

            /// As it is written.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$verb => $text),* }
            }

            /// Whether resources of the collection know it.
            pub fn fits(self, collection: &str) -> bool {
                match self { $(Self::$verb => [$($collection),+].contains(&collection)),* }
            }
        }
    };
}

verbs! {
    /// See that it is there, and its metadata.
    Get = "get" for "keys" "datasets" "models",
    /// Encrypt with a key.
    Encrypt = "encrypt" for "keys",
    /// Decrypt with a key.
    Decrypt = "decrypt" for "keys",
    /// Make data keys.
    GenerateDataKey = "generate-data-key" for "keys",
    /// Sign with a key.
    Sign = "sign" for "keys",
    /// Check a signature, a MAC, or a stored dataset.
    Verify = "verify" for "keys" "datasets" "models",
    /// Compute a MAC.
    Mac = "mac" for "keys",
    /// Agree on secrets.
    Derive = "derive" for "keys",
    /// Wrap keys.
    Wrap = "wrap" for "keys",
    /// Unwrap keys.
    Unwrap = "unwrap" for "keys",
    /// Add a version.
    Rotate = "rotate" for "keys",
    /// Change settings and states; how a model is compiled.
    Update = "update" for "keys" "models",
    /// Have a version destroyed.
    Destroy = "destroy" for "keys",
    /// Take material out.
    Export = "export" for "keys",
    /// Bring material in.
    Import = "import" for "keys",
    /// Say yes or no to what somebody else asks for.
    Approve = "approve" for "keys",
    /// Read rows.
    Read = "read" for "datasets",
    /// Train on a dataset.
    Train = "train" for "datasets",
    /// Predict with a model, or the rows of a dataset.
    Predict = "predict" for "datasets" "models",
    /// Delete it.
    Delete = "delete" for "datasets" "models",
    /// Change the grants on it.
    Administer = "administer" for "keys" "datasets" "models",
}

impl Verb {
    /// Whether it brings something out of a key, rather than changing how it is kept.
    pub fn uses_keys(self) -> bool {
        matches!(
            self,
            Self::Encrypt
                | Self::Decrypt
                | Self::GenerateDataKey
                | Self::Sign
                | Self::Verify
                | Self::Mac
                | Self::Derive
                | Self::Wrap
                | Self::Unwrap
                | Self::Export
        )
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Verb {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let known = Self::ALL.iter().find(|verb| verb.as_str() == text);
        known.copied().ok_or_else(|| {
            GrantError::new(
                "verbs",
                "must be of get, encrypt, decrypt, generate-data-key, sign, verify, mac, derive, wrap, unwrap, rotate, update, \
                 destroy, export, import, approve, read, train, predict, delete and administer",
            )
        })
    }
}
